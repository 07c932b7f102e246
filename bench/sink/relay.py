"""A relay before Postgres that counts the round trips of its clients."""

from __future__ import annotations

import contextlib
import socket
import threading

_CHUNK_BYTES = 65536
# PostgreSQL protocol 3.0: a message is a type byte and a length that counts itself. Everything a
# client asks for ends with exactly one ReadyForQuery, so that is what a round trip is.
_HEADER_BYTES = 5
_READY_FOR_QUERY = ord("Z")


class Relay:
    """Relays 127.0.0.1:port to another port, two threads for each connection; no TLS."""

    def __init__(self, port: int, upstream_port: int) -> None:
        self.round_trips = 0
        self._upstream = ("127.0.0.1", upstream_port)
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(self._upstream)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target, counter in (
                (client, server, None),
                (server, client, _ReadyCounter()),
            ):
                pump = threading.Thread(target=self._pump, args=(source, target, counter))
                pump.daemon = True
                pump.start()

    def _pump(
        self, source: socket.socket, target: socket.socket, counter: _ReadyCounter | None
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                if counter is not None:
                    self.round_trips += counter.feed(chunk)
                target.sendall(chunk)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _ReadyCounter:
    """Finds the ReadyForQuery messages in what a server sends, however it is cut."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._body_left = 0

    def feed(self, chunk: bytes) -> int:
        """The number of them whose header ends in this chunk."""
        found = 0
        position = 0
        while position < len(chunk):
            if self._body_left:
                step = min(self._body_left, len(chunk) - position)
                self._body_left -= step
                position += step
                continue
            wanted = _HEADER_BYTES - len(self._header)
            self._header += chunk[position : position + wanted]
            position += wanted
            if len(self._header) == _HEADER_BYTES:
                found += self._header[0] == _READY_FOR_QUERY
                self._body_left = int.from_bytes(self._header[1:]) - 4
                self._header.clear()
        return found
