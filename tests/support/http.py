"""A blocking HTTP/1.1 client over one socket: it sends exactly what a test says, keeps all replies.

Nothing is decided for the test: no redirect is followed, no connection reopened, no header added
but Host and what describes the body.
"""

import contextlib
import fcntl
import json
import socket
import struct
import termios
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import wait_until

TIMEOUT_S = 30.0  # of one wait for the server; generous, nothing measures it
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close() sends RST

# A value of None leaves the field out, a sequence repeats it.
FieldValue = str | bytes | Sequence[str] | None
Fields = Mapping[str, FieldValue]


class ConnectionEnded(Exception):
    """The server closed or reset the connection where a reply was expected."""

    def __init__(self, received: bytes, *, reset: bool) -> None:
        super().__init__(f"{'reset' if reset else 'closed'} after {received!r}")
        self.received = received
        self.reset = reset


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it came: fields in order with their spelling, and the 1xx replies before it."""

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    body: bytes = b""
    interim: tuple["Reply", ...] = ()

    def find_all(self, name: str) -> list[str]:
        """Give every value of a field, in order."""
        return [value for found, value in self.fields if found.lower() == name.lower()]

    def find(self, name: str) -> str | None:
        """Give the value of a field that appears once, None if it does not appear."""
        values = self.find_all(name)
        assert len(values) <= 1, f"{name} appears {len(values)} times: {values}"
        return values[0] if values else None

    def __getitem__(self, name: str) -> str:
        value = self.find(name)
        assert value is not None, f"no {name} in {self}"
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.find_all(name))

    def names(self, name: str) -> set[str]:
        """Give the members of a comma list, in lower case."""
        return {member.strip().lower() for member in self[name].split(",")}

    @property
    def closes(self) -> bool:
        """Tell whether the server says that it closes the connection."""
        return (self.find("connection") or "").lower() == "close"

    def problem(self) -> dict[str, Any]:
        """Give the problem document of an error reply."""
        assert self["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        assert document["title"]
        return document


def render_head(
    method: str, target: str | bytes, fields: Fields, *, version: str = "HTTP/1.1"
) -> bytes:
    """Give request line and fields as bytes; text becomes latin-1."""
    path = target if isinstance(target, bytes) else target.encode("latin-1")
    lines = [b"%s %s %s" % (method.encode(), path, version.encode())]
    lines += [b"%s: %s" % (name.encode("latin-1"), value) for name, value in _each(fields)]
    return b"\r\n".join([*lines, b"", b""])


def render_chunks(pieces: Iterable[bytes], *, trailers: Fields | None = None) -> bytes:
    """Give a whole chunked body, one chunk for each piece that is not empty."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    return chunks + render_last_chunk(trailers or {})


def render_last_chunk(trailers: Fields) -> bytes:
    """Give the end of a chunked body."""
    lines = [b"%s: %s\r\n" % (name.encode("latin-1"), value) for name, value in _each(trailers)]
    return b"0\r\n" + b"".join(lines) + b"\r\n"


def _each(fields: Fields) -> Iterable[tuple[str, bytes]]:
    for name, value in fields.items():
        if value is None:
            continue
        for one in [value] if isinstance(value, str | bytes) else value:
            yield name, one if isinstance(one, bytes) else one.encode("latin-1")


class Connection:
    """One TCP connection to a server on this machine."""

    def __init__(self, port: int, *, timeout_s: float = TIMEOUT_S) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._methods: deque[str] = deque()  # of the requests that have no reply yet

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    # --- sending

    def send(self, content: bytes) -> None:
        """Send bytes as they are. Raises OSError when the server has closed."""
        self.socket.sendall(content)

    def send_head(
        self,
        method: str,
        target: str | bytes,
        fields: Fields | None = None,
        *,
        version: str = "HTTP/1.1",
    ) -> None:
        """Send a request without its body; Host is added unless `fields` has it."""
        given = {"Host": f"127.0.0.1:{self.port}"} | dict(fields or {})
        self._methods.append(method)
        self.send(render_head(method, target, given, version=version))

    def send_chunk(self, piece: bytes) -> None:
        """Send one chunk of a chunked body; an empty piece would end it and sends nothing."""
        if piece:
            self.send(b"%x\r\n%s\r\n" % (len(piece), piece))

    def end_chunks(self, trailers: Fields | None = None) -> None:
        """End a chunked body."""
        self.send(render_last_chunk(trailers or {}))

    def expect_reply_to(self, method: str) -> None:
        """Take note of a request that was sent with send()."""
        self._methods.append(method)

    def wait_sent(self) -> None:
        """Return when the server's kernel has every byte that was sent."""
        wait_until(lambda: self._queued() == 0, "the bytes sent were taken")

    def wait_taken(self) -> None:
        """Return when the server process has read every byte that was sent."""
        self.wait_sent()
        wait_until(lambda: self._unread() == 0, "the server read the bytes sent")

    def _queued(self) -> int:
        answer = fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        return int(struct.unpack("i", answer)[0])

    def _unread(self) -> int:
        """Give the bytes in the server's receive queue, from the kernel's table of sockets."""
        own_port = self.socket.getsockname()[1]
        wanted = f"0100007F:{self.port:04X}", f"0100007F:{own_port:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            local, remote, _, queues = line.split()[1:5]
            if (local, remote) == wanted:
                return int(queues.rpartition(":")[2], 16)
        return 0  # closed by the server

    # --- receiving

    def read_reply(self) -> Reply:
        """Read the reply to the oldest request without one. Raises ConnectionEnded."""
        method = self._methods.popleft() if self._methods else "GET"
        interim = []
        while True:
            reply = self.read_one_head()
            if reply.status >= 200:
                break
            interim.append(reply)
        body = self._read_body(method, reply)
        return Reply(reply.status, reply.reason, reply.fields, body, tuple(interim))

    def read_one_head(self) -> Reply:
        """Read status line and fields of the next reply, interim or final."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            self._receive()
        lines = bytes(self._received[:end]).decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        version, status, *reason = lines[0].split(" ", 2)
        assert version == "HTTP/1.1", lines[0]
        fields = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            assert colon, f"no header field: {line!r}"
            assert name == name.strip(), f"a blank in a field name: {line!r}"
            fields.append((name, value.strip(" \t")))
        return Reply(int(status), reason[0] if reason else "", tuple(fields))

    def read_until_closed(self) -> bytes:
        """Give what still comes until the server closes, in order or with a reset."""
        with contextlib.suppress(ConnectionEnded):
            while True:
                self._receive()
        received = bytes(self._received)
        self._received.clear()
        return received

    def _read_body(self, method: str, reply: Reply) -> bytes:
        if method == "HEAD" or reply.status in (204, 304):
            return b""
        if (reply.find("transfer-encoding") or "").lower() == "chunked":
            return self._read_chunks()
        if (length := reply.find("content-length")) is not None:
            return self.read_exactly(int(length))
        return self.read_until_closed()

    def _read_chunks(self) -> bytes:
        pieces: list[bytes] = []
        while True:
            while (end := self._received.find(b"\r\n")) < 0:
                self._receive()
            size = int(bytes(self._received[:end]), 16)
            del self._received[: end + 2]
            piece = self.read_exactly(size + 2)
            assert piece.endswith(b"\r\n")
            if size == 0:
                return b"".join(pieces)
            pieces.append(piece[:-2])

    def read_exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        piece = bytes(self._received[:count])
        del self._received[:count]
        return piece

    def _receive(self) -> None:
        try:
            piece = self.socket.recv(256 * 1024)
        except (ConnectionResetError, BrokenPipeError) as exc:
            raise ConnectionEnded(bytes(self._received), reset=True) from exc
        if not piece:
            raise ConnectionEnded(bytes(self._received), reset=False)
        self._received += piece

    # --- ending

    def half_close(self) -> None:
        """Say that nothing more will be sent (FIN); replies can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()

    def close(self) -> None:
        """End the connection in order; again does nothing."""
        self.socket.close()


def request(
    port: int,
    method: str,
    target: str | bytes,
    fields: Fields | None = None,
    body: bytes = b"",
    *,
    chunked: bool = False,
) -> Reply:
    """Send one request on a connection of its own and give the reply.

    The connection stays keep-alive, as it is for real clients. A server that answers and closes
    while the body is still being sent is no error here.
    """
    given = dict(fields or {})
    lower = {name.lower() for name in given}
    if chunked:
        given["Transfer-Encoding"] = "chunked"
        content = render_chunks([body])
    else:
        content = body
        if (body or method in ("POST", "PATCH", "PUT")) and "content-length" not in lower:
            given["Content-Length"] = str(len(body))
    with Connection(port) as connection:
        connection.send_head(method, target, given)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.send(content)
        return connection.read_reply()
