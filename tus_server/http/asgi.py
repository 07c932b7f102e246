"""The ASGI application behind the composition root: routing, CORS, and errors become replies.

The way to an upload is a prefix and a lookup, not a router: it is walked for every small request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog
from starlette.types import ASGIApp

from tus_server.core.errors import HeadersTooLarge, TusServerError
from tus_server.core.ids import UploadId
from tus_server.http.body import Receive
from tus_server.http.direct import METHODS as DIRECT_METHODS
from tus_server.http.direct import DirectHandler
from tus_server.http.dispatch import Dispatch
from tus_server.http.errors import Defect, Rendered, render_error
from tus_server.http.exchange import Exchange, Header, Scope, Send
from tus_server.http.form import FormHandler
from tus_server.http.options import render_options
from tus_server.http.uploads import NO_STORE, Request, Uploads
from tus_server.wire.cors import (
    ALLOW_HEADERS,
    ALLOW_METHODS,
    EXPOSE_HEADERS,
    Origins,
    render_cors,
)
from tus_server.wire.direct import PREFIX, find_part

log = structlog.get_logger(__name__)

RenderError = Callable[..., Rendered]  # (error, method=...)
OPERATORS_PATHS = ("/healthz", "/readyz")


@dataclass(frozen=True, slots=True)
class AsgiOptions:
    """What of the settings shapes routing and replies.

    other_places: what paths begin with that are no uploads, also with uploads at the root.
    """

    base_path: str
    other_places: Sequence[str]
    origins: Origins
    credentials: bool
    allow_headers: Sequence[str]  # beside those of the protocols
    expose_headers: Sequence[str]
    body_idle_timeout_s: float
    fast_bodies: bool


class UploadsAsgi:
    """Sends requests for uploads to the handler of their protocol, everything else to `others`.

    direct: answers signed URLs, where this server does so; None: the object store does.
    """

    def __init__(
        self,
        uploads: Uploads,
        others: ASGIApp,
        options: AsgiOptions,
        direct: DirectHandler | None = None,
    ) -> None:
        self._uploads = uploads
        self._dispatch = Dispatch(uploads)
        self._form = FormHandler(uploads)
        self._direct = direct
        self._others = others
        self._options = options
        self._base = options.base_path
        # Only there can one path be meant for both.
        self._not_uploads = tuple(options.other_places) if options.base_path == "/" else ()
        self._collection = options.base_path.rstrip("/")
        self._allow_headers = ", ".join([ALLOW_HEADERS, *options.allow_headers])
        self._expose_headers = ", ".join([EXPOSE_HEADERS, *options.expose_headers])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :]  # mounted in another application
        if path in OPERATORS_PATHS or path.startswith(self._not_uploads):
            await self._others(scope, receive, send)  # no ids, also with uploads at the root
            return
        if path.startswith(PREFIX) and self._direct is not None and (part := find_part(path)):
            await self._answer_signed(self._direct, self._open(scope, receive, send), *part)
            return
        if path.startswith(self._base):
            rest = path[len(self._base) :]
        elif path == self._collection or path == "*":
            rest = ""
        else:
            await self._others(scope, receive, send)
            return
        exchange, rest = self._open(scope, receive, send), rest.removesuffix("/")
        if self._dispatch.is_form(exchange, rest):
            await self._answer_form(exchange, root + self._base)
        else:
            await self._answer(exchange, root + self._base, rest)

    def _open(self, scope: Scope, receive: Receive, send: Send) -> Exchange:
        return Exchange(
            scope,
            receive,
            send,
            idle_timeout_s=self._options.body_idle_timeout_s,
            fast=self._options.fast_bodies,
        )

    async def _answer(self, exchange: Exchange, base: str, rest: str) -> None:
        fields = exchange.fields
        handler = self._dispatch.by_fields(fields, rest)
        exchange.common = [*self._cors(exchange), *handler.common]
        try:
            # tus 1.0.0, X-HTTP-Method-Override: the actual method MUST be ignored (T14).
            override = fields.find(b"x-http-method-override")
            if override is not None:
                exchange.method = override.decode("latin-1").upper()
                exchange.common = [*self._cors(exchange), *handler.common]
            self._check_head(exchange)
            if exchange.method == "OPTIONS":
                exchange.common = self._cors(exchange)
                await exchange.reply(204, render_options(self._uploads.engine, exchange))
                return
            needs_upload = self._dispatch.needs_upload(exchange, rest)
            if not needs_upload:
                handler.check_version(exchange)
            principal = await self._uploads.authenticate(exchange)
            request = Request(exchange, principal, base, rest)
            if needs_upload:
                handler, found = await self._dispatch.by_upload(request)
                exchange.common = [*self._cors(exchange), *handler.common]
                handler.check_version(exchange)
                request = replace(request, found=found)
            await handler.answer(request)
        except Exception as exc:
            await self._refuse(exchange, handler.render_error, exc)

    async def _answer_signed(
        self, direct: DirectHandler, exchange: Exchange, upload_id: UploadId, number: int
    ) -> None:
        exchange.common = self._cors(exchange, DIRECT_METHODS)
        try:
            self._check_head(exchange)
            await direct.answer(exchange, upload_id, number)
        except Exception as exc:
            await self._refuse(exchange, render_error, exc)

    async def _answer_form(self, exchange: Exchange, base: str) -> None:
        exchange.common = self._cors(exchange)
        try:
            self._check_head(exchange)
            await self._form.answer(exchange, base)
        except Exception as exc:
            await self._refuse(exchange, render_error, exc)

    def _check_head(self, exchange: Exchange) -> None:
        most = self._uploads.options.max_header_bytes
        if exchange.fields.size_bytes > most:
            raise HeadersTooLarge(f"At most {most} bytes are taken.")
        exchange.check_framing()

    async def _refuse(self, exchange: Exchange, render: RenderError, error: Exception) -> None:
        """Answer with what went wrong. Raises it where the reply has begun."""
        if not isinstance(error, TusServerError):
            path = exchange.scope["path"]
            log.error("request.defect", method=exchange.method, path=path, exc_info=error)
        if exchange.answered:
            raise error
        if not isinstance(error, TusServerError):
            error = Defect(type(error).__name__)
        status, headers, body = render(error, method=exchange.method)
        if status >= 500:
            log.warning("request.refused", status=status, code=error.code, detail=error.detail)
        await exchange.reply(status, [*headers, NO_STORE], body)

    def _cors(self, exchange: Exchange, methods: str = ALLOW_METHODS) -> list[Header]:
        origin = exchange.fields.find_joined(b"origin")
        if origin is None and self._options.origins.is_any and exchange.method != "OPTIONS":
            return []  # no page asks, and every page would get the same answer
        return render_cors(
            origin,
            self._options.origins,
            credentials=self._options.credentials,
            preflight=exchange.method == "OPTIONS",
            allow_methods=methods,
            allow_headers=self._allow_headers,
            expose_headers=self._expose_headers,
        )
