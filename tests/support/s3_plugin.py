"""A page with Uppy's S3 plugin, built from tests/browser/s3_plugin, in a headless Chromium."""

import functools
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.browser import POLL_MS, WAIT_MS
from tests.support.once import one_at_a_time

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Request, Route

SOURCES = Path(__file__).parents[1] / "browser" / "s3_plugin"
CACHE = SOURCES.parent / ".cache" / "s3_plugin"
BUILD_TIMEOUT_S = 110.0
PAGE, SCRIPT = "index.html", "page.js"


def build_page() -> Path:
    """Give the folder of the page, built from its lock, or skip and say why not."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    with one_at_a_time(CACHE):
        return _build_page()


def _build_page() -> Path:
    wanted = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()) if path.is_file())
    marker, built = CACHE / "built-from", CACHE / "built"
    if not marker.exists() or marker.read_bytes() != wanted:
        shutil.rmtree(CACHE, ignore_errors=True)
        shutil.copytree(SOURCES, CACHE, ignore=shutil.ignore_patterns("node_modules", "built"))
        for command in (["npm", "ci", "--silent"], ["npm", "run", "--silent", "build"]):
            try:
                subprocess.run(
                    command, cwd=CACHE, capture_output=True, check=True, timeout=BUILD_TIMEOUT_S
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
                pytest.skip(f"{' '.join(command)} does not succeed: {exc}")
        shutil.copy(CACHE / "index.html", built)
        marker.write_bytes(wanted)
    return built


@contextmanager
def serve_page(built: Path) -> Iterator[str]:
    """Serve the page as somebody else's site; give its origin.

    Of a page that no server has sent Chromium does not know that it is one of this machine, and
    lets it ask nobody here.
    """

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(built))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join()


@dataclass(frozen=True)
class Asked:
    """A request of the page: to the companion, or with bytes to wherever that led it."""

    method: str
    path: str


@dataclass
class PluginPage:
    """A tab with the page at `origin`.

    built: its folder, where it is to be there without anybody to serve it.
    """

    context: "BrowserContext"
    origin: str
    built: Path | None = None
    asked: list[Asked] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, **query: str) -> "PluginPage":
        """Load the page; query: see page.js."""
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        if self.built is not None:
            self.page.route(f"{self.origin}/{PAGE}*", self._serve(self.built / PAGE))
            self.page.route(f"{self.origin}/{SCRIPT}", self._serve(self.built / SCRIPT))
        self.page.on("request", self._remember)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{self.origin}/{PAGE}?{urlencode(query)}")
        self.page.wait_for_function("window.uppy !== undefined")
        return self

    def upload(self, *files: Path) -> None:
        """Choose files, which are sent at once."""
        self.page.locator("#file").set_input_files(list(files))

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)

    def finished(self) -> list[dict[str, str]]:
        """Wait until nothing is being sent any more; give url and key of what was."""
        self.page.wait_for_function("window.finished.length + window.problems.length > 0")
        assert self.run("window.problems") == []
        found: list[dict[str, str]] = self.run("window.finished")
        return found

    def problem(self) -> str:
        """Wait until an upload has failed, and give what the plugin says."""
        self.page.wait_for_function("window.problems.length > 0")
        found: str = self.run("window.problems[0]")
        return found

    def wait_until(self, probe: Any, what: str) -> None:
        """Wait for something outside the page, and let the page's events arrive meanwhile."""
        for _ in range(WAIT_MS // POLL_MS):
            if probe():
                return
            self.page.wait_for_timeout(POLL_MS)
        raise AssertionError(f"it is still not so that {what}")

    def methods(self) -> list[str]:
        return [one.method for one in self.asked]

    def _serve(self, path: Path) -> Any:
        def answer(route: "Route") -> None:
            route.fulfill(path=path)

        return answer

    def _remember(self, request: "Request") -> None:
        path = urlsplit(request.url).path
        if path not in (f"/{PAGE}", f"/{SCRIPT}", "/favicon.ico"):
            self.asked.append(Asked(request.method, path))
