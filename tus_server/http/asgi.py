"""The ASGI application behind the composition root: routing, CORS, and errors become replies.

The way to an upload is a prefix and a lookup, not a router: it is walked for every small request.
"""

from dataclasses import dataclass

import structlog
from starlette.types import ASGIApp

from tus_server.core.errors import TusServerError
from tus_server.http.body import Receive
from tus_server.http.errors import Defect, render_error
from tus_server.http.exchange import Exchange, Header, Scope, Send
from tus_server.http.tus import NO_STORE, TusHandler
from tus_server.wire.cors import Origins, render_cors
from tus_server.wire.tus import TUS_RESUMABLE

log = structlog.get_logger(__name__)

OPERATORS_PATHS = ("/healthz", "/readyz")


@dataclass(frozen=True, slots=True)
class AsgiOptions:
    """What of the settings shapes routing and replies."""

    base_path: str
    origins: Origins
    credentials: bool
    body_idle_timeout_s: float
    fast_bodies: bool


class UploadsAsgi:
    """Sends uploads to the tus handler and everything else to `others`."""

    def __init__(self, tus: TusHandler, others: ASGIApp, options: AsgiOptions) -> None:
        self._tus = tus
        self._others = others
        self._options = options
        self._base = options.base_path
        self._collection = options.base_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :]  # mounted in another application
        if path in OPERATORS_PATHS:
            await self._others(scope, receive, send)  # no ids, also with uploads at the root
            return
        if path.startswith(self._base):
            rest = path[len(self._base) :]
        elif path == self._collection or path == "*":
            rest = ""
        else:
            await self._others(scope, receive, send)
            return
        exchange = Exchange(
            scope,
            receive,
            send,
            idle_timeout_s=self._options.body_idle_timeout_s,
            fast=self._options.fast_bodies,
        )
        await self._answer(exchange, root + self._base, rest)

    async def _answer(self, exchange: Exchange, base: str, rest: str) -> None:
        exchange.common = [*self._cors(exchange), TUS_RESUMABLE]
        try:
            # tus 1.0.0, X-HTTP-Method-Override: the actual method MUST be ignored (T14).
            override = exchange.fields.find(b"x-http-method-override")
            if override is not None:
                exchange.method = override.decode("latin-1").upper()
                exchange.common = [*self._cors(exchange), TUS_RESUMABLE]
            await self._tus.handle(exchange, base, rest)
        except TusServerError as exc:
            if exchange.answered:
                raise
            await self._refuse(exchange, exc)
        except Exception as exc:
            log.exception("request.defect", method=exchange.method, path=exchange.scope["path"])
            if exchange.answered:
                raise
            await self._refuse(exchange, Defect(type(exc).__name__))

    async def _refuse(self, exchange: Exchange, error: TusServerError) -> None:
        status, headers, body = render_error(error, method=exchange.method)
        if status >= 500:
            log.warning("request.refused", status=status, code=error.code, detail=error.detail)
        await exchange.reply(status, [*headers, NO_STORE], body)

    def _cors(self, exchange: Exchange) -> list[Header]:
        origin = exchange.fields.find_joined(b"origin")
        if origin is None and self._options.origins.is_any and exchange.method != "OPTIONS":
            return []  # no page asks, and every page would get the same answer
        return render_cors(
            origin,
            self._options.origins,
            credentials=self._options.credentials,
            preflight=exchange.method == "OPTIONS",
        )
