"""Our uvicorn protocol class: bodies straight from the socket into the engine's blocks.

uvicorn's protocol classes are internal API: `find_protocol()` offers ours only for versions they
were tested with. Over GuardedProtocol it adds: recv into our buffers for bodies with
Content-Length, bytes received before a disconnect, closing without a reply.
"""

import asyncio

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tus_server.http.body import WaitingBody
from tus_server.http.connection import Connection
from tus_server.http.guarded_protocol import GuardedProtocol

TESTED = ((0, 51), (0, 55))  # uvicorn versions [from, before)


def find_protocol(*, fast: bool) -> "type[GuardedProtocol] | None":
    """Give the protocol class to use, None where this uvicorn is not one it was tested with."""
    try:
        version = tuple(int(number) for number in uvicorn.__version__.split(".")[:2])
    except ValueError:
        return None
    if not TESTED[0] <= version < TESTED[1]:
        return None
    return TusProtocol if fast else GuardedProtocol


class TusProtocol(GuardedProtocol):
    """Offers the application also to read bodies from the socket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.body: UvicornBody | None = None
        self.parsed_body_bytes = 0  # bytes of the current body that went through the parser

    def lend_connection(self) -> "FastConnection":
        return FastConnection(self)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.parsed_body_bytes = 0

    def on_body(self, body: bytes) -> None:
        self.parsed_body_bytes += len(body)
        super().on_body(body)
        if self.body is not None:
            self.body.look()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.body is not None:
            self.body.look()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.body is not None:
            self.body.look()

    def on_response_complete(self) -> None:
        self.body = None
        super().on_response_complete()

    def restart_parser(self) -> None:
        """Expect a new request: the parser has not seen the rest of the last one's body."""
        self.parser = httptools.HttpRequestParser(self)
        self.reading_head = True
        self.framing_bytes = 0


class FastConnection(Connection):
    """A connection whose body can be read from the socket, and which can be cut."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: TusProtocol) -> None:
        super().__init__()
        self._protocol = protocol

    def open_body(self, size: int | None, idle_timeout_s: float) -> "UvicornBody":
        """Give the body of the request; receive() must not be called beside it."""
        assert self.cycle is not None
        body = UvicornBody(self._protocol, self.cycle, size, idle_timeout_s)
        self._protocol.body = body
        return body

    def abort(self) -> None:
        """Close without a reply; what arrives from now on is dropped."""
        assert self.cycle is not None
        # Tells uvicorn that there is nobody to answer.
        self.cycle.disconnected = True
        self._protocol.transport.abort()


class UvicornBody(WaitingBody):
    """A body from the parser's buffer and, where its size is known, from the socket itself."""

    def __init__(
        self,
        protocol: TusProtocol,
        cycle: RequestResponseCycle,
        size: int | None,
        idle_timeout_s: float,
    ) -> None:
        super().__init__(size, idle_timeout_s)
        self._protocol = protocol
        self._cycle = cycle
        self._receiver: _Receiver | None = None
        # Behind TLS the transport is not a socket's.
        self._may_switch = size is not None and protocol.scheme == "http"

    @property
    def pending(self) -> bool:
        """Tell whether some of the body has not arrived."""
        return self._cycle.more_body and not self._cycle.disconnected

    def look(self) -> None:
        """Something changed on the connection."""
        self._arrived()

    def close(self) -> None:
        """Nothing to stop: bytes arrive only while somebody reads."""

    def _pull(self) -> None:
        ready = self._cycle.body
        if ready:
            count = min(len(ready), len(self._view) - self._fill)
            with memoryview(ready) as source:
                self._view[self._fill : self._fill + count] = source[:count]
            self._fill += count
            del ready[:count]

    def _resume(self) -> None:
        cycle, protocol = self._cycle, self._protocol
        if cycle.waiting_for_100_continue and not protocol.transport.is_closing():
            protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        if self._receiver is None and self._may_switch and not cycle.disconnected:
            assert self.size is not None
            protocol.flow.pause_reading()
            self._receiver = _Receiver(self, self.size - protocol.parsed_body_bytes)
            protocol.transport.set_protocol(self._receiver)
        if self._receiver is None:
            protocol.flow.resume_reading()
        elif not protocol.transport.is_closing():
            protocol.transport.resume_reading()

    def _pause(self) -> None:
        # The receiver has no view to offer until the next read.
        if self._receiver is not None and not self._protocol.transport.is_closing():
            self._protocol.transport.pause_reading()

    def _more(self) -> bool:
        return bool(self._cycle.body) or self.pending

    def _gone(self) -> bool:
        return self._cycle.disconnected and self._cycle.more_body and not self._cycle.body

    # --- called by the receiver

    def free_space(self, limit: int) -> memoryview:
        """Give the rest of the view the engine waits for, at most `limit` bytes."""
        return self._view[self._fill : self._fill + limit]

    def filled(self, count: int, *, last: bool) -> None:
        """Take note of `count` bytes put into the free space; last: the body has ended."""
        self._fill += count
        if last:
            # Back to the parser. Reading stays paused: uvicorn resumes it after the reply.
            self._protocol.transport.pause_reading()
            self._protocol.transport.set_protocol(self._protocol)
            self._protocol.restart_parser()
            self._receiver = None
            self._may_switch = False
            self._cycle.more_body = False
            self._arrived()
        elif self._fill == len(self._view):
            self._pause()
            self._arrived()

    def lost(self, exc: Exception | None) -> None:
        """Pass the loss of the connection on to uvicorn, which then calls look()."""
        self._receiver = None
        self._may_switch = False
        self._protocol.connection_lost(exc)


class _Receiver(asyncio.BufferedProtocol):
    """The transport's protocol while a body is read from the socket: never beyond its end."""

    def __init__(self, body: UvicornBody, left: int) -> None:
        self._body = body
        self._left = left

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._body.free_space(self._left)

    def buffer_updated(self, nbytes: int) -> None:
        self._left -= nbytes
        self._body.filled(nbytes, last=self._left == 0)

    def eof_received(self) -> bool:
        return False  # a half-close is a disconnect: the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._body.lost(exc)

    def pause_writing(self) -> None:
        self._body._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._body._protocol.resume_writing()
