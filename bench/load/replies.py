"""HTTP/1.1 replies, parsed as little as the rows need."""

from __future__ import annotations

from typing import NamedTuple


class RowFailed(Exception):
    """The server answered something the row cannot go on from. The message says what."""


class Reply(NamedTuple):
    """A whole reply: head is everything up to the blank line, with its last CRLF."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The value of header name (given in lower case), or None."""
        return _header(self.head, name)

    def __str__(self) -> str:
        first_line = self.head.partition(b"\r\n")[0].decode("latin-1")
        body = self.body[:500].decode("utf-8", "replace").strip()
        return f"{first_line}: {body}" if body else first_line


def parse_reply(received: bytes, *, bodyless: bool) -> Reply | None:
    """The reply that received holds, or None while it is incomplete.

    bodyless: it answers a HEAD. Interim (1xx) replies are dropped.
    Raises: RowFailed, when more than one reply arrived.
    """
    while True:
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = received[: end + 2]
        status = int(head[9:12])
        if status >= 200:
            break
        received = received[end + 4 :]
    body = received[end + 4 :]
    if bodyless or status == 204:
        length = 0
    elif (stated := _header(head, b"content-length")) is not None:
        length = int(stated)
    elif _header(head, b"transfer-encoding") is not None:
        if not body.endswith(b"0\r\n\r\n"):
            return None
        length = len(body)
    else:
        length = 0
    if len(body) < length:
        return None
    if len(body) > length:
        raise RowFailed(f"bytes after the end of a reply: {Reply(status, head, body)}")
    return Reply(status, head, body)


def expect(reply: Reply, status: int, *, offset: int | None = None) -> Reply:
    """The same reply, if it has this status and, when given, this Upload-Offset in bytes.

    Raises: RowFailed, with the reply's first line and body.
    """
    if reply.status != status:
        raise RowFailed(f"expected {status}, got {reply}")
    if offset is not None and (found := upload_offset(reply)) != offset:
        raise RowFailed(f"expected Upload-Offset {offset}, got {found} with {reply}")
    return reply


def upload_offset(reply: Reply) -> int | None:
    """The reply's Upload-Offset in bytes, or None."""
    value = reply.header(b"upload-offset")
    return None if value is None else int(value)


def created_path(reply: Reply) -> bytes:
    """The path of the upload that a 201 created; its Location may be absolute or a path.

    Raises: RowFailed, for another status or without a usable Location.
    """
    location = expect(reply, 201).header(b"location")
    if location is None:
        raise RowFailed(f"no Location in {reply}")
    if location.startswith(b"/") and not location.startswith(b"//"):
        return location
    slash = location.find(b"/", location.find(b"//") + 2)
    if b"//" not in location or slash < 0:
        raise RowFailed(f"Location is neither a URL nor an absolute path: {location!r}")
    return location[slash:]


def _header(head: bytes, name: bytes) -> bytes | None:
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()
