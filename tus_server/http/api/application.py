"""The JSON API as an ASGI application: bodies are read within bounds, then FastAPI answers."""

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from tus_server.core.errors import BodyStopped, ClientGone, RequestTooLarge, TusServerError
from tus_server.engine.engine import Engine
from tus_server.http.api import events, jobs, judging, parts, uploads
from tus_server.http.api.documents import describe, make_document
from tus_server.http.api.replies import NO_STORE, refuse_request
from tus_server.http.api.routes import StrictRoute
from tus_server.http.api.streams import Streams
from tus_server.http.body import Message, Receive
from tus_server.http.brokers import Brokers
from tus_server.http.errors import render_error
from tus_server.http.exchange import Exchange, Scope, Send
from tus_server.http.uploads import NO_STORE as NO_STORE_FIELD

# 10,000 parts are reported in 1 MiB.
MAX_BODY_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """What shapes the API. version: of the server; has_token: whoever uses it needs one."""

    version: str
    body_idle_timeout_s: float
    has_token: bool


def api_app(engine: Engine, brokers: Brokers, options: ApiOptions) -> ASGIApp:
    """Give the application; only within a http.guard.Guard."""
    app = FastAPI(
        title="tus_server",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Not by include_router: that keeps them in an object of its own, whose paths and methods
        # nobody can list (FastAPI 0.165).
        routes=[
            route
            for part in (uploads, parts, judging, events, jobs)
            for route in part.router.routes
        ],
        exception_handlers={
            TusServerError: refuse_request,
            RequestValidationError: refuse_request,
            HTTPException: refuse_request,
        },
    )
    app.state.brokers = brokers
    app.state.engine = engine
    app.state.streams = Streams(engine)
    app.router.redirect_slashes = False
    app.router.route_class = StrictRoute
    _add_document(app, options)
    return _Bounded(app, options.body_idle_timeout_s)


class _Bounded:
    """Reads the body of a POST before the application runs: no more of it, and no longer, than any
    that is meant would need.
    """

    def __init__(self, app: ASGIApp, idle_timeout_s: float) -> None:
        self._app = app
        self._idle_timeout_s = idle_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, idle_timeout_s=self._idle_timeout_s, fast=False)
        if exchange.method == "POST":
            try:
                exchange.fields.find(b"idempotency-key")  # once at most
                content = await _read(exchange) if exchange.has_body else b""
            except ClientGone:
                return
            except TusServerError as exc:
                exchange.gave_up_body = isinstance(exc, BodyStopped)
                status, headers, body = render_error(exc, method="GET")
                await exchange.reply(status, [*headers, NO_STORE_FIELD], body)
                return
            receive = _replay(content, receive)
        await self._app(scope, receive, send)


async def _read(exchange: Exchange) -> bytes:
    """Raises: RequestTooLarge, what reading a body raises."""
    too_large = RequestTooLarge(f"At most {MAX_BODY_BYTES} bytes are taken.")
    size = exchange.body_size
    if size is not None and size > MAX_BODY_BYTES:
        raise too_large
    body = exchange.body()
    content = bytearray()
    block = memoryview(bytearray(min(MAX_BODY_BYTES if size is None else size, 64 * 1024)))
    while count := await body.read_into(block):
        content += block[:count]
        if len(content) > MAX_BODY_BYTES:
            raise too_large
    return bytes(content)


def _replay(content: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


def _add_document(app: FastAPI, options: ApiOptions) -> None:
    document: dict[str, Any] = {}

    @app.get(
        "/api/openapi.json",
        operation_id="getOpenapi",
        summary="This document",
        tags=["document"],
        response_model=dict[str, Any],
        responses=describe(),
    )
    async def get_openapi(request: Request) -> Response:
        """OpenAPI 3.1."""
        if not document:
            made = make_document(app, version=options.version, has_token=options.has_token)
            document.update(made)
        servers = [{"url": request.scope.get("root_path", "") or "/"}]
        return JSONResponse(document | {"servers": servers}, headers=NO_STORE)
