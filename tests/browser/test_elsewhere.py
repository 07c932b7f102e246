"""The page where it is not at the root of the server, and Uppy on pages of other origins."""

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ServerFactory
from tests.support.browser import UploadPage
from tests.support.fault_proxy import FaultProxy
from tests.support.server import ServerProcess
from tests.support.stock import StockServer

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.needs_apt


@pytest.fixture
def foreign_url(proxy: FaultProxy, tmp_path: Path) -> Iterator[str]:
    """Somebody else's site with the same Uppy, which uploads to the server from another origin."""
    site = tmp_path / "site"
    with as_file(files("tus_server.http") / "page") as bundle:
        shutil.copytree(bundle, site)
    html = (site / "index.html").read_text("utf-8")
    values = {
        "endpoint": f"http://127.0.0.1:{proxy.port}/files/",
        "max_size": "",
        "downloads": "yes",
        "open": "yes",
        "js": "page.js",
        "css": "page.css",
        "licenses": "LICENSES.txt",
    }
    html = re.sub(r"\$(\w+)", lambda name: values[name[1]], html)
    (site / "index.html").write_text(html, "utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as foreign:
        thread = threading.Thread(target=foreign.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{foreign.server_port}/"
        foreign.shutdown()
        thread.join()


@pytest.fixture
def foreign(context: "BrowserContext", foreign_url: str) -> UploadPage:
    return UploadPage(context, foreign_url).open()


def test_uppy_uploads_from_another_origin(foreign: UploadPage, film: Path) -> None:
    """T129: preflights, exposed headers."""
    foreign.upload(film)
    foreign.wait_for("film.bin", "done")

    assert foreign.content("film.bin") == film.read_bytes()
    assert foreign.methods() == ["POST", "PATCH"]
    assert foreign.complaints == []


@pytest.mark.full
def test_uppy_goes_on_from_another_origin(
    foreign: UploadPage, proxy: FaultProxy, server: ServerProcess, film: Path
) -> None:
    """T129: a reset, then a server that is killed, then a page that is loaded again."""
    proxy.up.bytes_per_second = 3_000_000
    proxy.up.cut_after(1_500_000)
    foreign.upload(film)
    foreign.wait_until(lambda: proxy.up.passed > 2_500_000, "the reset is overcome")
    server.kill()
    foreign.wait_for("film.bin", "waiting")
    server.start()
    foreign.wait_until(lambda: proxy.up.passed > 3_500_000, "bytes pass again")
    foreign.reload()
    foreign.wait_for("film.bin", "interrupted")
    foreign.asked.clear()
    foreign.upload(film)

    foreign.wait_for("film.bin", "done")
    assert foreign.content("film.bin") == film.read_bytes()
    assert foreign.methods()[0] == "HEAD"
    assert "POST" not in foreign.methods()


def test_errors_reach_a_page_of_another_origin(foreign: UploadPage, tmp_path: Path) -> None:
    """T129: without the headers on errors too it would look like a broken network."""
    path = tmp_path / f"{'n' * 200}.txt"
    path.write_bytes(b"x")
    foreign.page.route(
        "**/files/",
        lambda route: route.continue_(headers=route.request.headers | {"upload-length": "x"}),
    )

    foreign.upload(path)

    text = foreign.wait_for("nnn", "failed").inner_text()
    assert "The server did not understand this page." in text


def test_the_page_finds_another_base_path(
    context: "BrowserContext", fresh_server: ServerFactory, film: Path
) -> None:
    server = fresh_server(TUS_BASE_PATH="/deep/down/up-loads/")
    page = UploadPage(context, f"http://127.0.0.1:{server.port}/").open()

    page.upload(film)
    page.wait_for("film.bin", "done")

    assert "/deep/down/up-loads/" in page.link("film.bin")
    assert page.content("film.bin") == film.read_bytes()


def test_the_page_works_inside_another_application(
    context: "BrowserContext", tmp_path_factory: pytest.TempPathFactory, film: Path
) -> None:
    with StockServer("mounted", "httptools", tmp_path_factory.mktemp("inside") / "data") as server:
        prefix = server.base.removesuffix("files/")
        page = UploadPage(context, f"http://127.0.0.1:{server.port}{prefix}").open()

        page.upload(film)
        page.wait_for("film.bin", "done")

        assert server.base in page.link("film.bin")
        assert page.content("film.bin") == film.read_bytes()
        assert page.complaints == []


@pytest.mark.full
def test_the_page_uploads_to_the_public_url(
    context: "BrowserContext", fresh_server: ServerFactory, film: Path
) -> None:
    """Which is another origin than the one it was loaded from."""
    server = fresh_server()
    server.stop()
    server.env["TUS_PUBLIC_URL"] = f"http://127.0.0.1:{server.port}"
    server.start()
    page = UploadPage(context, f"http://localhost:{server.port}/").open()

    page.upload(film)
    page.wait_for("film.bin", "done")

    assert page.link("film.bin").startswith("http://127.0.0.1:")
    assert page.content("film.bin") == film.read_bytes()
    assert page.forbidden() == []
