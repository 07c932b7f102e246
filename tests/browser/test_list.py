"""What the page shows: its list of uploads, errors in words, and itself in all its states."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import pytest

from tests.conftest import ServerFactory
from tests.support.browser import UploadPage, new_context
from tests.support.fault_proxy import FaultProxy
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Route

pytestmark = pytest.mark.needs_apt


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """A small file."""
    path = tmp_path / "note.txt"
    path.write_bytes(pattern(5000))
    return path


def test_the_list_stays_when_the_page_is_loaded_again(page: UploadPage, note: Path) -> None:
    page.upload(note)
    page.wait_for("note.txt", "done")
    link = page.link("note.txt")

    page.reload()
    page.wait_for("note.txt", "done")

    assert page.link("note.txt") == link
    assert page.content("note.txt") == note.read_bytes()


def test_a_click_on_the_link_downloads_the_file(page: UploadPage, tmp_path: Path) -> None:
    """As the server says: what a browser could not show safely is an attachment."""
    path = tmp_path / "page.html"
    path.write_bytes(b"<h1>not shown</h1>")
    page.upload(path)
    page.wait_for("page.html", "done")

    with page.page.expect_download() as download:
        page.row("page.html").locator("a.name").click()

    assert download.value.suggested_filename == "page.html"
    assert download.value.path().read_bytes() == path.read_bytes()


def test_an_entry_can_be_removed_from_the_list_alone(
    page: UploadPage, server: ServerProcess, note: Path
) -> None:
    page.upload(note)
    page.wait_for("note.txt", "done")
    path = urlsplit(page.link("note.txt")).path

    page.row("note.txt").get_by_role("button", name="Remove").click()

    page.row("note.txt").wait_for(state="detached")
    page.reload()
    page.page.get_by_text("Nothing yet").wait_for()
    assert Tus(server.port).content(path) == note.read_bytes()


def test_another_browser_has_a_list_of_its_own(
    page: UploadPage, browser: "Browser", note: Path
) -> None:
    page.upload(note)
    page.wait_for("note.txt", "done")

    context = new_context(browser)
    other = UploadPage(context, page.url).open()

    other.page.get_by_text("Nothing yet").wait_for()
    context.close()


def test_what_was_deleted_on_the_server_is_marked(
    page: UploadPage, server: ServerProcess, note: Path
) -> None:
    page.upload(note)
    page.wait_for("note.txt", "done")
    assert Tus(server.port).delete(urlsplit(page.link("note.txt")).path).status == 204

    page.reload()

    assert "No longer on the server" in page.wait_for("note.txt", "gone").inner_text()


def test_the_same_file_again_is_another_upload(page: UploadPage, note: Path) -> None:
    for count in (1, 2):
        page.upload(note)
        page.page.locator(".uppy-StatusBar-actionBtn--done").click()
        assert page.row("note.txt").count() == count

    links = page.page.locator("#uploads a.name").evaluate_all("all => all.map(one => one.href)")
    assert len(set(links)) == 2


def test_a_file_over_the_limit_is_refused_before_it_is_sent(
    context: "BrowserContext", fresh_server: ServerFactory, note: Path
) -> None:
    """413, told beforehand."""
    server = fresh_server(TUS_MAX_SIZE="4000")
    page = UploadPage(context, f"http://127.0.0.1:{server.port}/").open()
    assert "Files of up to 3.9 KB" in page.page.locator("#dashboard").inner_text()

    page.add(note)

    page.page.get_by_text("exceeds maximum allowed size of 3.9 KB").first.wait_for()
    assert page.asked == []


def test_a_limit_that_is_new_to_the_page_is_told_in_words(
    context: "BrowserContext", fresh_server: ServerFactory, note: Path
) -> None:
    """413, from the server itself: it was started again with a smaller limit."""
    server = fresh_server()
    page = UploadPage(context, f"http://127.0.0.1:{server.port}/").open()
    server.stop()
    server.env["TUS_MAX_SIZE"] = "4000"
    server.start()

    page.upload(note)

    text = page.wait_for("note.txt", "failed").inner_text()
    assert "The file is too large for this server." in text
    assert page.methods() == ["POST"]


WORDS = [
    (401, "unauthenticated", "Log in, then try again."),
    (403, "forbidden", "You are not allowed to do this here."),
    (410, "upload_gone", "The upload has expired on the server."),
    (413, None, "probably a proxy"),
    (460, "checksum_mismatch", "A piece was damaged on its way"),
    (418, None, "The server answered 418"),
]
PASSING_WORDS = [
    (409, "offset_mismatch", "Another request has sent to the same upload."),
    (423, "upload_locked", "perhaps another tab"),
    (500, "internal_error", "The server has a defect."),
    (502, None, "The server does not answer the proxy before it."),
    (503, "tus_tail_missing", "on another machine of this server"),
    (503, "store_unavailable", "The storage of the server does not answer."),
    (507, "storage_full", "The server has no space left."),
]


def refuse_patches(page: UploadPage, status: int, code: str | None) -> None:
    body = "<h1>no</h1>" if code is None else json.dumps({"status": status, "code": code})

    def answer(route: "Route") -> None:
        if route.request.method == "PATCH":
            route.fulfill(status=status, body=body)
        else:
            route.continue_()

    page.page.route("**/files/**", answer)


def test_errors_are_told_in_words_and_can_be_tried_again(page: UploadPage, note: Path) -> None:
    for status, code, words in WORDS:
        path = note.with_name(f"answer {status}")
        path.write_bytes(note.read_bytes())
        refuse_patches(page, status, code)

        page.upload(path)
        assert words in page.wait_for(path.name, "failed").inner_text()
        page.page.unroute_all()
        page.row(path.name).get_by_role("button", name="Try again").click()

        page.wait_for(path.name, "done")
        assert page.content(path.name) == path.read_bytes()
        page.page.locator(".uppy-StatusBar-actionBtn--done").click()


def test_trouble_that_passes_is_told_in_words_and_waited_for(page: UploadPage, note: Path) -> None:
    for status, code, words in PASSING_WORDS:
        path = note.with_name(f"answer {status} {code}")
        path.write_bytes(note.read_bytes())
        refuse_patches(page, status, code)

        page.upload(path)
        page.row(path.name).locator(".problem").filter(has_text=words).wait_for()
        page.page.unroute_all()

        page.wait_for(path.name, "done")
        assert page.content(path.name) == path.read_bytes()
        page.page.locator(".uppy-StatusBar-actionBtn--done").click()


@pytest.mark.full
def test_an_upload_that_is_gone_begins_again_and_says_so(
    page: UploadPage, proxy: FaultProxy, server: ServerProcess, film: Path
) -> None:
    """tus-js-client does so without a word."""
    proxy.up.bytes_per_second = 4_000_000
    page.upload(film)
    page.wait_until(lambda: proxy.up.passed > 2_000_000, "some bytes have passed")
    page.page.locator("[data-cy=togglePauseResume]").click()
    page.wait_for("film.bin", "paused")
    assert Tus(server.port).delete(urlsplit(page.asked[1].url).path).status == 204
    page.page.locator("[data-cy=togglePauseResume]").click()

    page.row("film.bin").get_by_text("It starts again from the beginning.").wait_for()
    page.wait_for("film.bin", "done")

    assert page.methods() == ["POST", "PATCH", "HEAD", "POST", "PATCH"]
    assert page.content("film.bin") == film.read_bytes()


@pytest.mark.full
def test_an_upload_deleted_meanwhile_can_be_tried_again(
    page: UploadPage, proxy: FaultProxy, server: ServerProcess, film: Path
) -> None:
    proxy.up.bytes_per_second = 4_000_000
    page.upload(film)
    page.wait_until(lambda: proxy.up.passed > 2_000_000, "some bytes have passed")
    assert Tus(server.port).delete(urlsplit(page.asked[1].url).path).status == 204

    row = page.wait_for("film.bin", "failed")
    assert "The server no longer has this upload." in row.inner_text()
    row.get_by_role("button", name="Try again").click()

    page.wait_for("film.bin", "done")
    assert page.content("film.bin") == film.read_bytes()


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_all_its_states(
    browser: "Browser",
    proxy: FaultProxy,
    note: Path,
    film: Path,
    scheme: Literal["light", "dark"],
) -> None:
    """Pictures for people: artifacts/screenshots."""
    context = new_context(browser, scheme)
    page = UploadPage(context, f"http://127.0.0.1:{proxy.port}/").open()
    page.screenshot(f"{scheme}-1-empty")

    page.upload(note)
    done = page.page.locator(".uppy-StatusBar-actionBtn--done")
    done.wait_for()
    page.screenshot(f"{scheme}-2-done")
    done.click()

    proxy.up.bytes_per_second = 2_000_000
    page.upload(film)
    page.wait_until(lambda: proxy.up.passed > 2_000_000, "some bytes have passed")
    page.screenshot(f"{scheme}-3-uploading")
    proxy.refusing = True
    proxy.reset_all()
    page.wait_for("film.bin", "waiting")
    page.screenshot(f"{scheme}-4-waiting")
    proxy.refusing = False
    page.row("film.bin").locator(".resumed").wait_for()
    page.screenshot(f"{scheme}-5-resumed")
    page.page.locator("[data-cy=togglePauseResume]").click()
    page.wait_for("film.bin", "paused")
    page.screenshot(f"{scheme}-6-paused")
    page.reload()
    page.wait_for("film.bin", "interrupted")
    page.screenshot(f"{scheme}-7-interrupted")
    page.screenshot(f"{scheme}-8-narrow", size=(390, 844))
    page.page.set_viewport_size({"width": 1000, "height": 900})
    refuse_patches(page, 410, "upload_gone")
    page.upload(film)
    page.wait_for("film.bin", "failed")
    page.screenshot(f"{scheme}-9-failed")

    assert page.forbidden() == []
    context.close()
