"""The upload page at the root: files that `make page` built, and what the server tells them."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tus_server.core.upload import MAX_ANNOUNCED_INTEGER
from tus_server.wire.conditional import Outcome, Validators, evaluate

# Beside the uploads: a base path always has a slash behind it.
_JS, _CSS, _LICENSES = "page.js", "page.css", "page-licenses.txt"
_FOREVER = "public, max-age=31536000, immutable"
_ASK_FIRST = "no-cache"


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What the page has to know.

    creation_path: from the root of this application. public_url: where uploads are told to be.
    is_open: whoever knows the address of an upload may use it.
    """

    creation_path: str
    max_size: int
    downloads: bool
    is_open: bool
    public_url: str | None


class Page:
    """The page and its assets, read once."""

    def __init__(self, options: PageOptions) -> None:
        folder = files("tus_server.http") / "page"
        self._read_at = datetime.now(UTC)
        assets = {
            _JS: ("text/javascript; charset=utf-8", (folder / "page.js").read_bytes()),
            _CSS: ("text/css; charset=utf-8", (folder / "page.css").read_bytes()),
            _LICENSES: ("text/plain; charset=utf-8", (folder / "LICENSES.txt").read_bytes()),
        }
        self._assets = {name: _Asset(*asset) for name, asset in assets.items()}
        template = Template((folder / "index.html").read_text("utf-8"))
        self._html = _Asset("text/html; charset=utf-8", self._render(template, options))
        self._policy = _policy(options.public_url)

    def routes(self) -> list[Route]:
        """Give the routes of the page; they take GET and HEAD."""
        return [Route("/", self._get_page)] + [
            Route(f"/{name}", self._get_asset, name=name) for name in self._assets
        ]

    def _render(self, template: Template, options: PageOptions) -> bytes:
        limit = options.max_size if options.max_size < MAX_ANNOUNCED_INTEGER else None
        # Addresses are relative to the page: whatever it is mounted below, or a proxy puts before
        # it, the browser knows. A colon in the first segment would make a scheme of it.
        values = {
            "endpoint": "./" + options.creation_path.lstrip("/"),
            "max_size": "" if limit is None else str(limit),
            "downloads": "yes" if options.downloads else "no",
            "open": "yes" if options.is_open else "no",
            "js": self._link(_JS),
            "css": self._link(_CSS),
            "licenses": self._link(_LICENSES),
        }
        return template.substitute({name: escape(value) for name, value in values.items()}).encode()

    def _link(self, name: str) -> str:
        return f"{name}?v={self._assets[name].digest}"

    async def _get_page(self, request: Request) -> Response:
        headers = {
            "content-security-policy": self._policy,
            "referrer-policy": "same-origin",
            "cache-control": _ASK_FIRST,
        }
        return self._answer(request, self._html, headers)

    async def _get_asset(self, request: Request) -> Response:
        asset = self._assets[request.url.path.rpartition("/")[2]]
        # Another node may run another version: what it asks for by the wrong digest is not kept.
        known = request.query_params.get("v") == asset.digest
        return self._answer(request, asset, {"cache-control": _FOREVER if known else _ASK_FIRST})

    def _answer(self, request: Request, asset: "_Asset", headers: Mapping[str, str]) -> Response:
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        # RFC 9110, 8.8.3: two codings of the same content are two representations.
        etag = f'"{asset.digest}-gzip"' if zipped else f'"{asset.digest}"'
        fields = {
            **headers,
            "etag": etag,
            "vary": "Accept-Encoding",
            "x-content-type-options": "nosniff",
        }
        outcome = evaluate(request.headers, Validators(etag, self._read_at))
        if outcome is Outcome.NOT_MODIFIED:
            return Response(status_code=304, headers=fields)
        if zipped:
            fields["content-encoding"] = "gzip"
        content = asset.zipped() if zipped else asset.content
        return Response(content, headers=fields, media_type=asset.media_type)


class _Asset:
    """Bytes with their type and digest; compressed when somebody first takes them so."""

    __slots__ = ("_zipped", "content", "digest", "media_type")

    def __init__(self, media_type: str, content: bytes) -> None:
        self.media_type = media_type
        self.content = content
        self.digest = hashlib.sha256(content).hexdigest()[:16]
        self._zipped: bytes | None = None

    def zipped(self) -> bytes:
        if self._zipped is None:
            self._zipped = gzip.compress(self.content, mtime=0)
        return self._zipped


def _policy(public_url: str | None) -> str:
    """Give the Content-Security-Policy: nothing from elsewhere, no script or style in the page."""
    connect = "'self'"
    if public_url is not None:
        # Location then begins with it, and may not be where the page was loaded from.
        parts = urlsplit(public_url)
        connect += f" {parts.scheme}://{parts.netloc}"
    return "; ".join(
        (
            "default-src 'self'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",  # icons in the style sheet; previews of chosen pictures
            f"connect-src {connect}",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
        )
    )
