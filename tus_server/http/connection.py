"""The connection of a request, as far as our protocol classes lend it to the application."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

log = structlog.get_logger(__name__)

EXTENSION = "tus_server.connection"
# The trailers anybody asks for. All others are dropped, as RFC 9110, 6.5.1 allows.
TRAILERS = frozenset({b"upload-checksum"})
# How long an interim reply waits for a client that does not read. Replies can do without it.
WRITABLE_WITHIN_S = 1.0
# Rule C6: how much, and for how long, of what nobody wants is read before its connection is closed.
# A bare close makes TCP reset the connection, and the client may lose the reply.
LINGER_BYTES = 256 * 1024
LINGER_S = 1.0

_REASONS = {104: b"Upload Resumption Supported"}
# uvicorn checks the fields of final replies only.
_UNSAFE_NAME = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]|\A\Z")
_UNSAFE_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Connection:
    """What the application may do with the connection of a request, beyond ASGI.

    trailers: those of TRAILERS that came behind the body, complete once it has ended.
    cycle: uvicorn's state of the request; set before the application runs.
    """

    __slots__ = ("cycle", "trailers")

    def __init__(self) -> None:
        self.cycle: RequestResponseCycle | None = None
        self.trailers: list[tuple[bytes, bytes]] = []

    def keep_trailer(self, name: bytes, value: bytes) -> None:
        """Take note of a trailer field, if it is one that somebody asks for."""
        name = name.lower()
        # A second one tells that it is repeated; more would only take memory.
        if name in TRAILERS and len(self.trailers) < 2:
            self.trailers.append((name, value))

    async def inform(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send an interim reply (RFC 9110, 15.2) if the final one has not begun; never raises."""
        cycle = self.cycle
        assert cycle is not None
        if any(_UNSAFE_NAME.search(n) or _UNSAFE_VALUE.search(v) for n, v in headers):
            log.error("inform.unsafe_field", status=status)
            return
        if cycle.flow.write_paused:
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITABLE_WITHIN_S):
                    await cycle.flow.drain()
        # No await between these looks and the write.
        if cycle.flow.write_paused or cycle.response_started or cycle.disconnected:
            return
        if not cycle.transport.is_closing():
            line = b"HTTP/1.1 %d %s\r\n" % (status, _REASONS.get(status, b""))
            fields = b"".join(b"%s: %s\r\n" % field for field in headers)
            cycle.transport.write(line + fields + b"\r\n")


def scope_connection(scope: Any) -> Connection | None:
    """Give the connection of a request if one of our protocol classes serves it."""
    extensions = scope.get("extensions")
    connection: Connection | None = extensions.get(EXTENSION) if extensions else None
    return connection
