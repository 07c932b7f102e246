"""Uppy's S3 plugin in a browser, with `companionEndpoint`: one request, many parts, bad lines."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.browser.conftest import MIB
from tests.conftest import ServerFactory
from tests.support.fault_proxy import FaultProxy
from tests.support.records import Records
from tests.support.s3_plugin import PluginPage, build_page, serve_page
from tests.support.server import ServerProcess
from tests.support.tus import pattern

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = [pytest.mark.needs_apt, pytest.mark.needs_node]

SIZE = 11 * MIB + 17  # three parts
TOKEN = "a-token-of-32-characters-or-more"
ONE = ["GET", "POST"]
PARTS = ["POST", *["GET", "PUT"] * 3, "POST"]

OpenPage = Callable[..., PluginPage]


@pytest.fixture(scope="session")
def built() -> Path:
    return build_page()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(pattern(SIZE))
    return path


@pytest.fixture(scope="module")
def site(built: Path) -> Iterator[str]:
    with serve_page(built) as origin:
        yield origin


@pytest.fixture
def guarded(fresh_server: ServerFactory, site: str) -> ServerProcess:
    """A server with a token, for the pages of that site."""
    return fresh_server(TUS_API_TOKEN=TOKEN, TUS_CORS_ORIGINS=site)


@pytest.fixture
def line(guarded: ServerProcess) -> Iterator[FaultProxy]:
    """What the page reaches that server through."""
    with FaultProxy(guarded.port) as proxy:
        yield proxy


@pytest.fixture
def page(context: "BrowserContext", server: ServerProcess, built: Path) -> OpenPage:
    """Open the page as one of the server itself."""

    def open_(**query: str) -> PluginPage:
        origin = f"http://127.0.0.1:{server.port}"
        return PluginPage(context, origin, built).open(endpoint=f"{origin}/companion", **query)

    return open_


@pytest.fixture
def foreign(context: "BrowserContext", line: FaultProxy, site: str) -> OpenPage:
    """Open the page as one of another site, with the token, behind the line."""

    def open_(**query: str) -> PluginPage:
        endpoint = f"http://127.0.0.1:{line.port}/companion"
        return PluginPage(context, site).open(endpoint=endpoint, token=TOKEN, **query)

    return open_


def check(page: PluginPage, *files: Path) -> None:
    """Check that files have become uploads of the same bytes."""
    finished = page.finished()
    contents = []
    for one in finished:
        with urlopen(one["url"]) as reply:
            contents.append(reply.read())
        assert one["url"].endswith(f"/files/{one['key']}")
    assert sorted(contents) == sorted(path.read_bytes() for path in files)
    assert page.complaints == []


def sent_parts(page: PluginPage) -> list[int]:
    found: list[int] = page.run("window.parts")
    return found


# --- as it goes


def test_a_file_in_one_request(page: OpenPage, film: Path) -> None:
    opened = page(multipart="no")
    opened.upload(film)

    check(opened, film)
    assert opened.methods() == ONE
    assert [one.path for one in opened.asked] == ["/companion/s3/params", "/files/"]


def test_a_file_in_parts(page: OpenPage, film: Path) -> None:
    opened = page(multipart="yes")
    opened.upload(film)

    check(opened, film)
    assert opened.methods() == PARTS
    assert sent_parts(opened) == [1, 2, 3]


@pytest.mark.parametrize("multipart", ["no", "yes"])
def test_files_of_any_size_at_once(page: OpenPage, tmp_path: Path, multipart: str) -> None:
    paths = [tmp_path / f"ü {size}.txt" for size in (0, 1, 5 * MIB, 5 * MIB + 1)]
    for path in paths:
        path.write_bytes(pattern(int(path.stem[2:])))
    opened = page(multipart=multipart)
    opened.upload(*paths)
    opened.wait_until(
        lambda: opened.run("window.finished.length + window.problems.length") == len(paths),
        "all files are done",
    )

    check(opened, *paths)


def test_from_another_origin_with_a_token(foreign: OpenPage, film: Path) -> None:
    """Preflights, the ETag of parts, answers of the companion."""
    for multipart in ("no", "yes"):
        opened = foreign(multipart=multipart)
        opened.upload(film)

        check(opened, film)


def test_without_the_token_the_plugin_says_what_it_was_answered(
    context: "BrowserContext", guarded: ServerProcess, built: Path, film: Path
) -> None:
    origin = f"http://127.0.0.1:{guarded.port}"
    opened = PluginPage(context, origin, built).open(
        endpoint=f"{origin}/companion", multipart="yes"
    )
    opened.upload(film)

    assert opened.problem() == "Companion request failed: Unauthorized"


# --- broken lines


def test_a_reset_inside_a_part(foreign: OpenPage, line: FaultProxy, film: Path) -> None:
    line.up.cut_after(7 * MIB)
    opened = foreign(multipart="yes")
    opened.upload(film)

    check(opened, film)
    # Sent again by the plugin, or by Chromium itself where it had used the connection before.
    assert line.up.cuts_left == 0
    assert line.up.passed > SIZE + MIB


def test_a_reset_inside_a_form(foreign: OpenPage, line: FaultProxy, film: Path) -> None:
    line.up.cut_after(7 * MIB)
    opened = foreign(multipart="no")
    opened.upload(film)

    check(opened, film)
    assert line.up.cuts_left == 0
    assert line.up.passed > SIZE + 6 * MIB


def test_a_server_killed_inside_a_part(
    foreign: OpenPage, line: FaultProxy, guarded: ServerProcess, film: Path
) -> None:
    line.up.bytes_per_second = 6_000_000
    opened = foreign(multipart="yes")
    opened.upload(film)
    opened.wait_until(lambda: line.up.passed > 7 * MIB, "the second part is on its way")
    guarded.kill()
    assert opened.problem()  # its four tries take a second
    guarded.start()
    assert sent_parts(opened) == [1]
    opened.asked.clear()
    opened.run("window.problems = []; void window.uppy.retryAll()")

    check(opened, film)
    assert sent_parts(opened) == [1, 2, 3]
    # It asks what has arrived, and sends what has not.
    assert opened.methods() == ["GET", *["GET", "PUT"] * 2, "POST"]


def test_pause_and_resume(foreign: OpenPage, line: FaultProxy, film: Path) -> None:
    line.up.bytes_per_second = 2_000_000
    opened = foreign(multipart="yes")
    opened.upload(film)
    opened.wait_until(lambda: line.up.passed > 7 * MIB, "the second part is on its way")
    opened.run("window.uppy.pauseAll()")
    opened.asked.clear()
    opened.run("window.uppy.resumeAll()")

    check(opened, film)
    assert opened.methods() == ["GET", *["GET", "PUT"] * 2, "POST"]


def test_a_page_loaded_again_goes_on_where_it_was(
    foreign: OpenPage, line: FaultProxy, film: Path
) -> None:
    """With Golden Retriever, which keeps the file in the browser."""
    line.up.bytes_per_second = 2_000_000
    opened = foreign(multipart="yes", restores="yes")
    opened.upload(film)
    opened.wait_until(lambda: line.up.passed > 7 * MIB, "the second part is on its way")
    opened.page.reload()
    opened.page.wait_for_function("window.restored")
    opened.asked.clear()
    opened.run("window.uppy.emit('restore-confirmed')")

    check(opened, film)
    sent = sent_parts(opened)
    assert sent in ([2, 3], [3])  # what was on the line when the page went may have arrived yet
    assert opened.methods() == ["GET", *["GET", "PUT"] * len(sent), "POST"]


def test_a_file_that_is_removed_is_given_up(
    foreign: OpenPage, line: FaultProxy, guarded: ServerProcess, film: Path
) -> None:
    line.up.bytes_per_second = 2_000_000
    opened = foreign(multipart="yes")
    opened.upload(film)
    opened.wait_until(lambda: line.up.passed > 7 * MIB, "the second part is on its way")
    opened.run("window.uppy.getFiles().forEach(({ id }) => window.uppy.removeFile(id))")
    opened.wait_until(lambda: "DELETE" in opened.methods(), "it is aborted")

    upload_id = next(one.path.split("/")[4] for one in opened.asked if one.method == "GET")
    records = Records(guarded.data_dir)
    opened.wait_until(lambda: records.state(upload_id) == "canceled", "the server has heard of it")
    opened.wait_until(lambda: records.files(upload_id) == [], "nothing of it is left")
    assert opened.run("window.finished") == []
