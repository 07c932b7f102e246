"""One request and its reply: header fields in, body on demand, one way to answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from tus_server.core.errors import BodyStopped, MalformedRequest
from tus_server.http.body import AsgiBody, Message, Receive
from tus_server.http.connection import LINGER_BYTES, LINGER_S, scope_connection
from tus_server.http.uvicorn_protocol import FastConnection, UvicornBody
from tus_server.wire.headers import Fields

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

# What is read and dropped behind an early reply: a reset would overtake the reply, and a proxy
# that is still sending never sees it.
DROPPED_BYTES = 64 * 1024 * 1024
# How other servers name what they take for a 1xx reply; they say so in the scope.
INFORMATIONAL = "http.response.informational"


class Exchange:
    """A request and the means to answer it.

    method: the effective one (X-HTTP-Method-Override, T13, T14). fields: read before the body,
    never after it. body_size: Content-Length in bytes, None for a chunked body. common: headers
    of every reply to this request. gave_up_body: its rest is not waited for, however short.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_fast",
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
        connection = scope_connection(scope)
        self._connection = connection
        self._fast = connection if fast and isinstance(connection, FastConnection) else None
        self._body: AsgiBody | UvicornBody | None = None

    @property
    def peer(self) -> str | None:
        """The address at the other end of the connection; None if it has none."""
        client = self.scope.get("client")
        return client[0] if client else None

    def check_framing(self) -> None:
        """Raise MalformedRequest for what the parser lets through (RFC 9112, 3.2 and 6.1)."""
        if self.fields.find(b"host") is None and self.scope["http_version"] == "1.1":
            raise MalformedRequest("Host is missing.")
        coding = self.fields.find_joined(b"transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            # Stored as it comes it would not be the content (R77).
            raise MalformedRequest("The only transfer coding this server understands is chunked.")

    @property
    def has_body(self) -> bool:
        """Tell whether the request has a body: Content-Length above 0, or chunked."""
        return self.body_size != 0

    def body(self) -> AsgiBody | UvicornBody:
        """Open the body. Nothing is read, and no 100 Continue sent, before the first read."""
        if self._body is None:
            if self._fast is not None:
                self._body = self._fast.open_body(self.body_size, self._idle_timeout_s)
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
        return self._fast is not None

    def abort(self) -> None:
        """Close the connection without a reply."""
        assert self._fast is not None
        self.answered = True
        self._fast.abort()

    @property
    def has_trailers(self) -> bool:
        """Tell whether this server delivers what comes behind a chunked body (T90)."""
        return self._connection is not None

    def trailers(self) -> Fields:
        """Give the trailers that anybody asks for, once the body has been read to its end."""
        return Fields(self._connection.trailers if self._connection is not None else ())

    @property
    def can_inform(self) -> bool:
        """Tell whether a 1xx reply can be sent: not every server can, nor every client hear it."""
        # RFC 9110, 15.2: a server MUST NOT send a 1xx response to an HTTP/1.0 client.
        if self.scope.get("http_version") in ("0.9", "1.0"):
            return False
        return self._connection is not None or INFORMATIONAL in (self.scope.get("extensions") or ())

    async def inform(self, status: int, headers: Sequence[Header]) -> None:
        """Send a 1xx reply if that is possible before the final one; never raises.

        Without the fields of every reply. It takes no part in Expect: the 100 comes when the body
        is read.
        """
        if self.answered or not self.can_inform:
            return
        if self._connection is not None:
            # Not by send(): whatever wraps the application may take nothing but a start from it.
            await self._connection.inform(status, headers)
        else:
            message = {"type": INFORMATIONAL, "status": status, "headers": list(headers)}
            with suppress(OSError):  # the client is gone (ASGI 2.4)
                await self._send(message)

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
