"""A browser for these tests, and a server behind a proxy that breaks connections."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import UploadPage, new_context, open_chromium
from tests.support.fault_proxy import FaultProxy
from tests.support.server import ServerProcess
from tests.support.tus import pattern

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

MIB = 1024 * 1024
SIZE = 6 * MIB + 17


@pytest.fixture(scope="session")
def body_path() -> str:
    """One body path is enough: browsers are no different from other clients there."""
    return "fast"


# Not of the session: while it is open, asyncio.run() fails in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: "Browser") -> Iterator["BrowserContext"]:
    """A browser profile with nothing in it."""
    context = new_context(browser)
    yield context
    context.close()


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[FaultProxy]:
    """What the page is loaded and uploads through."""
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def page(context: "BrowserContext", proxy: FaultProxy) -> UploadPage:
    """The upload page."""
    return UploadPage(context, f"http://127.0.0.1:{proxy.port}/").open()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A file that takes a while where the line is slow."""
    path = tmp_path / "film.bin"
    path.write_bytes(pattern(SIZE))
    return path
