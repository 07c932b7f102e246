"""Uploads by the page in Chromium: on good lines, on bad ones, and when the server dies."""

from pathlib import Path

import pytest

from tests.support.browser import UploadPage
from tests.support.fault_proxy import FaultProxy
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern

pytestmark = pytest.mark.needs_apt

MIB = 1024 * 1024
SLOW = 4_000_000  # bytes a second
HEADS = 64 * 1024  # more than all heads of requests together


def test_an_upload_arrives_as_it_was(page: UploadPage, server: ServerProcess, film: Path) -> None:
    page.upload(film)
    page.wait_for("film.bin", "done")

    assert page.content("film.bin") == film.read_bytes()
    assert page.methods() == ["POST", "PATCH"]
    assert Records(server.data_dir).events(page.link("film.bin")) == ["verified"]
    assert page.complaints == []
    assert page.forbidden() == []


def test_several_files_arrive_each_as_it_was(page: UploadPage, tmp_path: Path) -> None:
    """An empty one among them, and names that are not ASCII or look like HTML."""
    sizes = {"a.txt": 3 * MIB, "b <b>bold & 'quoted'.txt": 5, "ü 映画.txt": 70_000, "leer": 0}
    for seed, (name, size) in enumerate(sizes.items()):
        (tmp_path / name).write_bytes(pattern(size, seed))

    page.upload(*(tmp_path / name for name in sizes))

    for name in sizes:
        page.wait_for(name, "done")
        assert page.content(name) == (tmp_path / name).read_bytes()
    assert page.complaints == []


def test_a_reset_inside_a_patch_is_overcome(
    page: UploadPage, proxy: FaultProxy, film: Path
) -> None:
    proxy.up.cut_after(2_500_000)

    page.upload(film)
    row = page.wait_for("film.bin", "done")

    assert page.content("film.bin") == film.read_bytes()
    assert page.methods() == ["POST", "PATCH", "HEAD", "PATCH"]
    assert "resumed from" in row.inner_text()


def test_a_server_killed_inside_a_patch_is_waited_for(
    page: UploadPage, proxy: FaultProxy, server: ServerProcess, film: Path
) -> None:
    proxy.up.bytes_per_second = SLOW
    page.upload(film)
    page.wait_until(lambda: proxy.up.passed > 2_500_000, "some bytes have passed")
    server.kill()

    row = page.wait_for("film.bin", "waiting")
    assert "goes on by itself when the server can be reached again" in row.inner_text()
    server.start()

    page.wait_for("film.bin", "done")
    assert page.content("film.bin") == film.read_bytes()
    assert page.methods().count("POST") == 1


@pytest.mark.full
def test_a_network_that_is_gone_is_waited_for(
    page: UploadPage, proxy: FaultProxy, film: Path
) -> None:
    proxy.up.bytes_per_second = SLOW
    page.upload(film)
    page.wait_until(lambda: proxy.up.passed > 2_500_000, "some bytes have passed")
    proxy.refusing = True
    proxy.reset_all()
    page.wait_for("film.bin", "waiting")
    before = proxy.accepted
    page.wait_until(lambda: proxy.accepted > before + 2, "it was tried again and again")
    proxy.refusing = False

    row = page.wait_for("film.bin", "done")
    assert "resumed from" in row.inner_text()
    assert page.content("film.bin") == film.read_bytes()


def interrupt_by_reload(page: UploadPage, proxy: FaultProxy, film: Path) -> None:
    proxy.up.bytes_per_second = SLOW
    page.upload(film)
    page.wait_until(lambda: proxy.up.passed > 3_000_000, "some bytes have passed")
    page.reload()
    page.wait_for("film.bin", "interrupted")


@pytest.mark.parametrize("how", ["dashboard", pytest.param("list", marks=pytest.mark.full)])
def test_a_page_loaded_again_goes_on_at_the_servers_offset(
    page: UploadPage, proxy: FaultProxy, server: ServerProcess, film: Path, how: str
) -> None:
    """No byte below the server's offset is sent a second time."""
    interrupt_by_reload(page, proxy, film)
    url = page.asked[0].url
    stored = Tus(server.port).offset(url.replace(f":{proxy.port}", f":{server.port}"))
    before = proxy.up.passed
    page.asked.clear()

    if how == "dashboard":
        page.add(film)
        page.wait_for("film.bin", "ready")
        page.start()
    else:
        page.row("film.bin").locator("input[type=file]").set_input_files(film)
    row = page.wait_for("film.bin", "done")

    assert stored > 2_000_000
    assert [(asked.method, asked.url) for asked in page.asked] == [("HEAD", url), ("PATCH", url)]
    assert page.asked[1].offset == stored
    assert proxy.up.passed - before < film.stat().st_size - stored + HEADS
    assert "resumed from" in row.inner_text()
    assert page.content("film.bin") == film.read_bytes()


def test_another_file_is_not_taken_for_the_interrupted_one(
    page: UploadPage, proxy: FaultProxy, film: Path, tmp_path: Path
) -> None:
    interrupt_by_reload(page, proxy, film)
    other = tmp_path / "other.bin"
    other.write_bytes(b"something else")

    page.row("film.bin").locator("input[type=file]").set_input_files(other)

    page.row("film.bin").get_by_text("That is another file").wait_for()
    assert "PATCH" not in page.methods()


def test_an_interrupted_upload_can_be_discarded(
    page: UploadPage, proxy: FaultProxy, server: ServerProcess, film: Path
) -> None:
    interrupt_by_reload(page, proxy, film)

    page.row("film.bin").get_by_role("button", name="Discard").click()

    page.row("film.bin").wait_for(state="detached")
    deleted = Records(server.data_dir)
    page.wait_until(lambda: deleted.state(page.asked[0].url) == "canceled", "it is deleted")
    # The browser has forgotten it too: the same file begins at its first byte.
    page.asked.clear()
    proxy.up.bytes_per_second = None
    page.upload(film)
    page.wait_for("film.bin", "done")
    assert page.methods() == ["POST", "PATCH"]


@pytest.mark.full
def test_pausing_keeps_what_arrived(page: UploadPage, proxy: FaultProxy, film: Path) -> None:
    proxy.up.bytes_per_second = SLOW
    page.upload(film)
    page.wait_until(lambda: proxy.up.passed > 2_500_000, "some bytes have passed")

    page.page.locator("[data-cy=togglePauseResume]").click()
    page.wait_for("film.bin", "paused")
    page.page.locator("[data-cy=togglePauseResume]").click()

    page.wait_for("film.bin", "done")
    assert page.methods() == ["POST", "PATCH", "HEAD", "PATCH"]
    assert page.content("film.bin") == film.read_bytes()


@pytest.mark.full
def test_canceling_deletes_the_upload(
    page: UploadPage, proxy: FaultProxy, server: ServerProcess, film: Path
) -> None:
    proxy.up.bytes_per_second = SLOW
    page.upload(film)
    page.wait_until(lambda: proxy.up.passed > 2_500_000, "some bytes have passed")
    url = page.asked[1].url

    page.page.locator("[data-cy=cancel]").click()

    page.row("film.bin").wait_for(state="detached")
    page.wait_until(lambda: Records(server.data_dir).state(url) == "canceled", "it is deleted")


@pytest.mark.full
def test_another_tab_does_not_disturb_an_upload(
    page: UploadPage, proxy: FaultProxy, film: Path
) -> None:
    """A HEAD would take the upload over."""
    proxy.up.bytes_per_second = SLOW
    page.upload(film)
    page.wait_until(lambda: proxy.up.passed > 1_000_000, "some bytes have passed")

    other = UploadPage(page.page.context, page.url).open()

    other.wait_for("film.bin", "elsewhere")
    page.wait_for("film.bin", "done")
    other.wait_for("film.bin", "done")
    assert other.methods() == []
    assert page.methods() == ["POST", "PATCH"]
