"""One request and its reply: header fields in, body on demand, one way to answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tus_server.core.errors import BodyStopped
from tus_server.http.body import AsgiBody, Message, Receive
from tus_server.http.uvicorn_protocol import Connection, UvicornBody, scope_connection
from tus_server.wire.headers import Fields

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

# Rule C6: how much of a body that nobody wants is read before its connection is closed. A bare
# close makes TCP reset the connection, and the client may lose the reply.
LINGER_BYTES = 256 * 1024
# What is read and dropped behind an early reply: a reset would overtake the reply, and a proxy
# that is still sending never sees it.
DROPPED_BYTES = 64 * 1024 * 1024
LINGER_S = 1.0


class Exchange:
    """A request and the means to answer it.

    method: the effective one (X-HTTP-Method-Override, T13, T14). fields: read before the body,
    never after it. body_size: Content-Length in bytes, None for a chunked body. common: headers
    of every reply to this request. gave_up_body: its rest is not waited for, however short.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_idle_timeout_s",
        "_receive",
        "_send",
        "answered",
        "body_size",
        "common",
        "fields",
        "gave_up_body",
        "method",
        "scope",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, idle_timeout_s: float, fast: bool
    ) -> None:
        self.scope = scope
        self.fields = Fields(scope["headers"])
        self.body_size = _body_size(self.fields)
        self.method: str = scope["method"]
        self.common: Sequence[Header] = ()
        self.answered = False
        self.gave_up_body = False
        self._receive = receive
        self._send = send
        self._idle_timeout_s = idle_timeout_s
        self._connection: Connection | None = scope_connection(scope) if fast else None
        self._body: AsgiBody | UvicornBody | None = None

    @property
    def peer(self) -> str | None:
        """The address at the other end of the connection; None if it has none."""
        client = self.scope.get("client")
        return client[0] if client else None

    @property
    def has_body(self) -> bool:
        """Tell whether the request has a body: Content-Length above 0, or chunked."""
        return self.body_size != 0

    def body(self) -> AsgiBody | UvicornBody:
        """Open the body. Nothing is read, and no 100 Continue sent, before the first read."""
        if self._body is None:
            if self._connection is not None:
                self._body = self._connection.open_body(self.body_size, self._idle_timeout_s)
            else:
                self._body = AsgiBody(self._receive, self.body_size, self._idle_timeout_s)
        return self._body

    async def reply(self, status: int, headers: Sequence[Header], content: bytes = b"") -> None:
        """Answer, with what every reply has; an unread body ends the connection (C6)."""
        self.answered = True
        full = [*headers, *self.common]
        if content or status not in (204, 304):
            if self.method != "HEAD":
                full.append((b"content-length", b"%d" % len(content)))
            elif self.scope["method"] != "HEAD":
                # A POST turned into HEAD (T13); a real one has none (T20).
                full.append((b"content-length", b"0"))
        unread = self.has_body and self._has_unread_body()
        if unread:
            full.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": full})
        if unread:
            await self._send({"type": "http.response.body", "body": content, "more_body": True})
            await self._linger()
            content = b""
        await self._send({"type": "http.response.body", "body": content})
        if self._body is not None:
            self._body.close()

    async def start(self, status: int, headers: Sequence[Header]) -> None:
        """Begin a reply whose content follows by send_content."""
        self.answered = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, *self.common],
            }
        )

    async def send_content(self, content: bytes, *, more: bool) -> None:
        """Send a piece of the content of a reply begun by start()."""
        await self._send({"type": "http.response.body", "body": content, "more_body": more})

    @property
    def can_abort(self) -> bool:
        """Tell whether the connection can be closed without a reply."""
        return self._connection is not None

    def abort(self) -> None:
        """Close the connection without a reply."""
        assert self._connection is not None
        self.answered = True
        self._connection.abort()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Give a task that ends when the client goes away; only where the body is not read."""
        task = asyncio.create_task(self._wait_for_disconnect())
        try:
            yield task
        finally:
            task.cancel()

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _has_unread_body(self) -> bool:
        body = self.body()
        if isinstance(body, AsgiBody) and not (self.gave_up_body or b"expect" in self.fields):
            # A short rest is read and dropped by the server, without hurting the connection.
            size = body.size
            return body.pending and (size is None or size > LINGER_BYTES)
        return body.pending

    async def _linger(self) -> None:
        body, scratch = self.body(), memoryview(bytearray(64 * 1024))
        dropped = 0
        try:
            async with asyncio.timeout(LINGER_S):
                while dropped < DROPPED_BYTES and (count := await body.read_into(scratch)):
                    dropped += count
        except (TimeoutError, BodyStopped):
            pass


def _body_size(fields: Fields) -> int | None:
    """Read what frames the body; the server's parser has decided already whether it holds."""
    if b"transfer-encoding" in fields:
        return None
    length = fields.find_joined(b"content-length")
    if length is None:
        return 0
    return int(length) if length.isascii() and length.isdecimal() else None
