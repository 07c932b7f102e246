"""The bytes of tus requests to one creation endpoint, built once and reused."""

from __future__ import annotations

from urllib.parse import urlsplit

# tuspyserver answers HEAD with 400 unless the upload has these two; everybody gets them.
_METADATA = b"Upload-Metadata: filename YmVuY2guYmlu,filetype YXBwbGljYXRpb24vb2N0ZXQtc3RyZWFt\r\n"
_BODY_TYPE = b"Content-Type: application/offset+octet-stream\r\n"


class Requests:
    """Renders requests to the server of a creation URL (http only)."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"not an http URL: {url}")
        self.address = (parts.hostname, parts.port or 80)
        self._creation_path = (parts.path or "/").encode("ascii")
        self._common = (
            b" HTTP/1.1\r\nHost: " + parts.netloc.encode("ascii") + b"\r\nTus-Resumable: 1.0.0\r\n"
        )
        self._bare = self._common + b"\r\n"

    def post(self, *, length: int, body: bytes = b"", more: bytes = b"") -> bytes:
        """Create an upload of length bytes; with a body this is creation-with-upload.

        more: header lines.
        """
        head = b"POST " + self._creation_path + self._common + _METADATA
        head += b"Upload-Length: %d\r\nContent-Length: %d\r\n" % (length, len(body))
        return head + (_BODY_TYPE if body else b"") + more + b"\r\n" + body

    def join(self, paths: list[bytes]) -> bytes:
        """Create a final upload of partial ones."""
        concat = b"Upload-Concat: final;" + b" ".join(paths) + b"\r\n"
        start = b"POST " + self._creation_path + self._common
        return start + concat + b"Content-Length: 0\r\n\r\n"

    def patch(
        self, path: bytes, *, offset: int, size: int, wait: bool = False, more: bytes = b""
    ) -> bytes:
        """The head of a PATCH whose body of size bytes follows.

        wait: it follows when the server has asked for it with 100 Continue. more: header lines.
        """
        head = b"PATCH " + path + self.patch_tail(offset=offset, size=size)
        if not (wait or more):
            return head
        return head[:-2] + more + (b"Expect: 100-continue\r\n" if wait else b"") + b"\r\n"

    def patch_tail(self, *, offset: int, size: int) -> bytes:
        """What follows the path in the head of a PATCH: the same for many uploads."""
        return (
            self._common
            + _BODY_TYPE
            + b"Upload-Offset: %d\r\nContent-Length: %d\r\n\r\n" % (offset, size)
        )

    def head(self, path: bytes) -> bytes:
        return b"HEAD " + path + self._bare

    def delete(self, path: bytes) -> bytes:
        return b"DELETE " + path + self._bare
