"""The upload page in a headless Chromium, driven as a person would, with every request noted."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.request import urlopen

import pytest

from tests.support.server import REPOSITORY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request

CHROMIUM_FLAGS = [
    "--no-sandbox",  # needed as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SCREENSHOTS = REPOSITORY / "artifacts" / "screenshots"
WAIT_MS = 30_000  # generous: it only bounds how long a failing test takes
POLL_MS = 10

# Collects what the Content-Security-Policy forbade; it is there before the page's own script.
WATCH_POLICY = """
window.forbidden = []
document.addEventListener('securitypolicyviolation', (event) => {
  window.forbidden.push(`${event.effectiveDirective} ${event.blockedURI}`)
})
"""


@contextmanager
def open_chromium() -> Iterator["Browser"]:
    """Start Chromium, or skip and say what is missing.

    While it is open, asyncio.run() fails in this thread: not for longer than a module.
    """
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed (apt: chromium; or name it in CHROMIUM)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the page sent below its creation URL."""

    method: str
    url: str
    offset: int | None  # Upload-Offset of the request


class UploadPage:
    """One tab with the upload page at `url`; tabs of one context share the local storage."""

    def __init__(self, context: "BrowserContext", url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.complaints: list[str] = []  # of the console
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.add_init_script(WATCH_POLICY)
        self.page.on("request", self._remember)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._listen)

    def open(self) -> "UploadPage":
        """Load the page, as far as its script goes."""
        self.page.goto(self.url)
        self.page.locator(".uppy-Dashboard-inner").wait_for()
        self.page.locator("#uploads-title").wait_for()
        return self

    def reload(self) -> None:
        self.asked.clear()
        self.page.reload()
        self.page.locator("#uploads-title").wait_for()

    # --- what a person does

    def add(self, *files: Path) -> None:
        """Choose files in the Dashboard."""
        self.page.locator("input.uppy-Dashboard-input").first.set_input_files(list(files))

    def start(self) -> None:
        self.page.locator("button.uppy-StatusBar-actionBtn--upload").click()

    def upload(self, *files: Path) -> None:
        self.add(*files)
        self.start()

    # --- what a person sees

    def row(self, name: str) -> "Locator":
        """Give the line of a file in the list."""
        return self.page.locator("#uploads li").filter(has_text=name)

    def wait_for(self, name: str, status: str) -> "Locator":
        """Wait until the list shows a file in that state; give its line."""
        row = self.page.locator(f"#uploads li[data-status={status}]").filter(has_text=name)
        row.first.wait_for()
        return row.first

    def link(self, name: str) -> str:
        """Give the address of a finished upload."""
        href = self.row(name).locator("a.name").get_attribute("href")
        assert href is not None
        return href

    def content(self, name: str) -> bytes:
        """Fetch what the link in the list leads to."""
        with urlopen(self.link(name)) as reply:
            content: bytes = reply.read()
        return content

    # --- what happened

    def methods(self) -> list[str]:
        return [request.method for request in self.asked]

    def wait_until(self, probe: Any, what: str) -> None:
        """Wait for something outside the page, and let the page's events arrive meanwhile."""
        for _ in range(WAIT_MS // POLL_MS):
            if probe():
                return
            self.page.wait_for_timeout(POLL_MS)
        raise AssertionError(f"it is still not so that {what}")

    def forbidden(self) -> list[str]:
        """Give what the Content-Security-Policy forbade since the page was loaded."""
        found: list[str] = self.page.evaluate("window.forbidden")
        return found

    def screenshot(self, name: str, *, size: tuple[int, int] | None = None) -> None:
        """Keep a picture of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        if size is not None:
            self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.screenshot(
            path=SCREENSHOTS / f"{name}.png", full_page=True, animations="disabled"
        )

    def _remember(self, request: "Request") -> None:
        if "tus-resumable" in request.headers:
            offset = request.headers.get("upload-offset")
            self.asked.append(
                Asked(request.method, request.url, None if offset is None else int(offset))
            )

    def _listen(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


def new_context(browser: "Browser", scheme: Literal["light", "dark"] = "light") -> "BrowserContext":
    """Open a browser profile with nothing in it."""
    return browser.new_context(color_scheme=scheme, viewport={"width": 1000, "height": 900})
