"""A stand-in for a node: it says who it is and keeps what it was asked."""

import contextlib
import socket
import socketserver
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self

from tests.support.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the node saw it; names of fields in lower case."""

    method: str
    path: str
    fields: dict[str, str]


class EchoNode:
    """A node named `label` on a port of its own, which it keeps when it is stopped and started.

    ready: what /readyz says. breaks: it reads the head of a request, and then closes without a
    reply. silent: it does not answer at all. received: bytes of bodies so far, as they arrive.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.ready = True
        self.breaks = False
        self.silent = threading.Event()
        self.asked: list[Asked] = []
        self.received = 0
        self.port = 0
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuse connections from now on, and end those that are there."""
        self.silent.clear()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.end_connections()
            self._server = None


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, node: EchoNode) -> None:
        self.node = node
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", node.port), _Handler)

    def end_connections(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.server.connections.add(self.request)
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.server.connections.discard(self.request)

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def answer(self) -> None:
        node = self.server.node
        if node.silent.is_set():
            wait_until(lambda: not node.silent.is_set(), "it speaks again", timeout_s=120)
            self.close_connection = True
            return
        if self.path in ("/healthz", "/readyz"):
            self._reply(200 if node.ready or self.path == "/healthz" else 503)
            return
        fields = {name.lower(): value for name, value in self.headers.items()}
        node.asked.append(Asked(self.command, self.path, fields))
        if node.breaks:
            self.close_connection = True
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left and (piece := self.rfile.read1(min(left, 65536))):
            left -= len(piece)
            node.received += len(piece)
        self._reply(200)

    def _reply(self, status: int) -> None:
        self.send_response(status)
        self.send_header("X-Node", self.server.node.label)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_HEAD = do_PATCH = do_GET = do_DELETE = do_OPTIONS = answer

    def log_message(self, *args: object) -> None:
        """Say nothing: the test asserts on `asked`."""
