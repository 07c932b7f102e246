"""One keep-alive connection: a raw non-blocking socket that sends requests and reads replies."""

from __future__ import annotations

import os
import select
import socket

from bench.load.replies import Reply, RowFailed, parse_reply

CONNECT_TIMEOUT_S = 5.0
IDLE_TIMEOUT_S = 30.0
_RECEIVE_BYTES = 65536
# One reused block, not sendfile: the pages sendfile lends to the kernel arrive in smaller reads,
# which slowed some servers down, and no real client sends that way.
BLOCK = memoryview(os.urandom(1 << 20))


class Connection:
    """A connection with at most one request in flight; the caller closes it."""

    __slots__ = ("_bodyless", "_received", "sock")

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=CONNECT_TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self._received = b""
        self._bodyless = False

    def close(self) -> None:
        self.sock.close()

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, request: bytes) -> None:
        """Send the whole request, waiting when the socket is full."""
        self._bodyless = request.startswith(b"HEAD ")
        sent = self.sock.send(request)
        while sent < len(request):
            self._wait_writable()
            sent += self.sock.send(request[sent:])

    def send_body(self, size: int) -> None:
        """Send size random bytes, the same block over and over.

        Raises: RowFailed, when the server answers before it has everything.
        """
        sent = 0
        while sent < size:
            start = sent % len(BLOCK)
            try:
                sent += self.sock.send(BLOCK[start : start + size - sent])
            except BlockingIOError:
                self._wait_writable()
            except (BrokenPipeError, ConnectionResetError) as exc:
                raise RowFailed(f"the server closed the connection {sent} bytes in") from exc

    def receive_nowait(self) -> Reply | None:
        """The reply, if all of it has arrived; call when the socket is readable.

        Raises: RowFailed, when the server closed the connection instead.
        """
        try:
            chunk = self.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionResetError as exc:
            raise RowFailed("the server reset the connection") from exc
        if not chunk:
            raise RowFailed(f"the server closed the connection after {self._received!r}")
        received = self._received + chunk if self._received else chunk
        reply = parse_reply(received, bodyless=self._bodyless)
        self._received = received if reply is None else b""
        return reply

    def wait_reply(self, timeout_s: float = IDLE_TIMEOUT_S) -> Reply:
        """The reply to the request in flight.

        Raises: TimeoutError, when nothing arrives for timeout_s.
        """
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        while True:
            if not poll.poll(timeout_s * 1000):
                raise TimeoutError(f"no reply within {timeout_s:g} s")
            reply = self.receive_nowait()
            if reply is not None:
                return reply

    def wait_continue(self, timeout_s: float = IDLE_TIMEOUT_S) -> None:
        """Wait until the server wants the body of the request in flight.

        Raises: RowFailed, when it answers instead; TimeoutError.
        """
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            if not poll.poll(timeout_s * 1000):
                raise TimeoutError(f"no 100 Continue within {timeout_s:g} s")
            chunk = self.sock.recv(_RECEIVE_BYTES)
            received += chunk
            if not chunk or not received.startswith(b"HTTP/1.1 1"[: len(received)]):
                raise RowFailed(f"expected 100 Continue, got {received!r}")

    def exchange(self, request: bytes) -> Reply:
        """Send one request and wait for its reply."""
        self.send(request)
        return self.wait_reply()

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | select.POLLOUT)
        while True:
            events = poll.poll(IDLE_TIMEOUT_S * 1000)
            if not events:
                raise TimeoutError(f"the server read nothing for {IDLE_TIMEOUT_S:g} s")
            if not events[0][1] & select.POLLIN:
                return
            # An interim reply tells how far the server is; parse_reply drops it.
            reply = self.receive_nowait()
            if reply is not None:
                raise RowFailed(f"answered before the whole request was sent: {reply}")
