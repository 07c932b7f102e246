"""The sink's HTTP: one epoll loop; bodies are thrown away inside the kernel."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from bench.sink.requests import Request, parse_head

_HEAD_BYTES = 65536
_DISCARD_BYTES = 1 << 20
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Gives the whole reply to a request whose body has been read.
Answer = Callable[[Request], bytes]


class _Client:
    """A connection: first a head, then `left` bytes of a body, then the reply; again and again."""

    __slots__ = ("head", "left", "request", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = bytearray()
        self.request: Request | None = None
        self.left = 0


class Server:
    """Answers requests on 127.0.0.1 until the process ends."""

    def __init__(self, port: int, answer: Answer) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._listener.setblocking(False)
        self._answer = answer
        self._clients: dict[int, _Client] = {}
        self._epoll = select.epoll()
        self._waste = memoryview(bytearray(_DISCARD_BYTES))

    def run(self) -> None:
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        while True:
            for fd, _ in self._epoll.poll():
                client = self._clients.get(fd)
                if client is None:
                    self._accept()
                    continue
                try:
                    open_still = self._read(client)
                except (BlockingIOError, ConnectionError):
                    # A reply is far smaller than a socket's buffer: a full one is a dead client.
                    open_still = False
                if not open_still:
                    del self._clients[fd]
                    client.sock.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[sock.fileno()] = _Client(sock)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, client: _Client) -> bool:
        """Take what has arrived; False when the client has gone."""
        request = client.request
        if request is not None and request.method == "PUT":
            # tcp(7): with MSG_TRUNC the kernel drops the bytes instead of copying them.
            size = min(client.left, _DISCARD_BYTES)
            got = client.sock.recv_into(self._waste, size, socket.MSG_TRUNC)
            if got:
                self._advance(client, request, got)
            return got > 0
        chunk = client.sock.recv(_HEAD_BYTES)
        if request is not None:
            request.body += chunk
            self._advance(client, request, len(chunk))
        else:
            client.head += chunk
            self._parse(client)
        return len(chunk) > 0

    def _parse(self, client: _Client) -> None:
        """Begin a request if its head is here. Clients do not send the next one before a reply."""
        end = client.head.find(b"\r\n\r\n")
        if end < 0:
            return
        request = client.request = parse_head(bytes(client.head[:end]))
        begun = client.head[end + 4 :]
        client.head.clear()
        client.left = request.length
        if not begun and client.left and "expect" in request.headers:
            client.sock.sendall(_CONTINUE)
        if request.method != "PUT":
            request.body += begun
        self._advance(client, request, len(begun))

    def _advance(self, client: _Client, request: Request, got: int) -> None:
        client.left -= got
        if client.left <= 0:
            client.request = None
            client.sock.sendall(self._answer(request))
