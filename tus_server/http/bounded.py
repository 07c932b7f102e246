"""Bodies that an application takes whole, read within bounds before it runs."""

from starlette.types import ASGIApp

from tus_server.core.errors import BodyStopped, ClientGone, RequestTooLarge, TusServerError
from tus_server.http.body import Message, Receive
from tus_server.http.errors import render_error
from tus_server.http.exchange import Exchange, Scope, Send
from tus_server.http.uploads import NO_STORE

# 10,000 parts are reported in 1 MiB.
MAX_BODY_BYTES = 2 * 1024 * 1024


class Bounded:
    """Reads the body of a POST before the application runs: no more of it, and no longer, than any
    that is meant would need.
    """

    def __init__(self, app: ASGIApp, *, idle_timeout_s: float) -> None:
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
                await exchange.reply(status, [*headers, NO_STORE], body)
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
