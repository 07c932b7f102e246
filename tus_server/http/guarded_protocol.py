"""uvicorn's protocol with bounded heads, trailers apart from headers, and interim replies."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tus_server.core.errors import HeadersTooLarge, MalformedRequest, TusServerError
from tus_server.http.connection import EXTENSION, LINGER_BYTES, LINGER_S, Connection
from tus_server.http.errors import render_error
from tus_server.wire.tus import TUS_RESUMABLE


class GuardedProtocol(HttpToolsProtocol):
    """Offers the application the connection of each request, as a scope extension.

    `max_header_bytes` bounds a header block that is still arriving, and whatever comes between
    or behind the bytes of a body; the application looks at the size of a complete header block.
    """

    max_header_bytes = 64 * 1024
    # Of every reply to what is no request.
    refusal_headers: Sequence[tuple[bytes, bytes]] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.reading_head = True
        self.framing_bytes = 0  # since the last header block, piece of a body, or end of one
        self._connection = Connection()
        self._refused = False

    def lend_connection(self) -> Connection:
        """Give what the application gets of this connection for the request that begins."""
        return Connection()

    def data_received(self, data: bytes) -> None:
        self.framing_bytes += len(data)
        if self._refused:
            # A reset would overtake the reply (C6).
            if self.framing_bytes > self.max_header_bytes + LINGER_BYTES:
                self.transport.close()
            return
        super().data_received(data)
        if self.framing_bytes > self.max_header_bytes and not self.transport.is_closing():
            if self.reading_head:
                self._refuse(HeadersTooLarge())
            else:
                # Trailers, or chunk extensions: the application is reading, and sees the end.
                self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(MalformedRequest("This cannot be read as a request."))

    def _refuse(self, error: TusServerError) -> None:
        """Answer what is no request that the application could answer, or none any more."""
        status, headers, content = render_error(error, method="GET")
        headers += [
            *self.refusal_headers,
            TUS_RESUMABLE,
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(content)),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%s: %s\r\n" % field for field in headers)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + content)
        if not self.reading_head:
            # The application is reading the body, and keeps what has arrived.
            self.transport.close()
            return
        self._refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.reading_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        # httptools calls this for trailers too; in the scope they would pose as headers.
        if self.reading_head:
            super().on_header(name, value)
        else:
            self._connection.keep_trailer(name, value)

    def on_headers_complete(self) -> None:
        self.reading_head = False
        self.framing_bytes = 0
        self._connection = self.lend_connection()
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # RFC 9110, 10.1.1
        cast(Any, self.scope)["extensions"] = {EXTENSION: self._connection}
        super().on_headers_complete()
        # The application runs in a later turn of the loop.
        self._connection.cycle = self.cycle

    def on_body(self, body: bytes) -> None:
        self.framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.framing_bytes = 0
        super().on_message_complete()
