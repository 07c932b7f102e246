"""tus 1.0.0 in short verbs for tests: each sends one request and gives the reply."""

import random
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.support.http import Connection, ConnectionEnded, Fields, FieldValue, Reply, request

VERSION = "1.0.0"
BODY_TYPE = "application/offset+octet-stream"


def encode_metadata(metadata: Mapping[str, str | bytes]) -> str:
    """Give an Upload-Metadata value."""
    pairs = []
    for key, value in metadata.items():
        raw = value.encode() if isinstance(value, str) else value
        pairs.append(f"{key} {b64encode(raw).decode()}")
    return ",".join(pairs)


def pattern(size: int, seed: int = 0) -> bytes:
    """Give bytes in which no piece can be taken for another one at a different place."""
    return random.Random(seed).randbytes(size)


class Tus:
    """A client of one server. `fields` go with every request; those of a call win over them."""

    def __init__(
        self, port: int, *, base: str = "/files/", fields: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self.base = base
        self.fields = {"Tus-Resumable": VERSION} | dict(fields or {})

    def request(
        self,
        method: str,
        target: str | bytes,
        fields: Fields | None = None,
        body: bytes = b"",
        *,
        chunked: bool = False,
    ) -> Reply:
        """Send any request; None in `fields` removes a field, a list repeats it."""
        return request(self.port, method, target, self._merged(fields), body, chunked=chunked)

    def connect(self) -> Connection:
        """Open a connection for a test that needs more than one request after another."""
        return Connection(self.port)

    def options(self, target: str | None = None, fields: Fields | None = None) -> Reply:
        return self.request("OPTIONS", target or self.base, fields)

    def create(
        self,
        length: int | str | None = None,
        *,
        metadata: str | None = None,
        body: bytes = b"",
        chunked: bool = False,
        fields: Fields | None = None,
    ) -> Reply:
        """POST; without a length it is deferred."""
        given: dict[str, FieldValue] = (
            {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        )
        if metadata is not None:
            given["Upload-Metadata"] = metadata
        if body or chunked:
            given["Content-Type"] = BODY_TYPE
        return self.request("POST", self.base, given | dict(fields or {}), body, chunked=chunked)

    def patch(
        self,
        url: str,
        offset: int | str,
        body: bytes = b"",
        *,
        length: int | str | None = None,
        chunked: bool = False,
        fields: Fields | None = None,
    ) -> Reply:
        given: dict[str, FieldValue] = {"Content-Type": BODY_TYPE, "Upload-Offset": str(offset)}
        if length is not None:
            given["Upload-Length"] = str(length)
        return self.request("PATCH", url, given | dict(fields or {}), body, chunked=chunked)

    def head(self, url: str, fields: Fields | None = None) -> Reply:
        return self.request("HEAD", url, fields)

    def delete(self, url: str, fields: Fields | None = None) -> Reply:
        return self.request("DELETE", url, fields)

    def get(self, url: str, fields: Fields | None = None) -> Reply:
        """Download, as a browser would: without the version."""
        return self.request("GET", url, {"Tus-Resumable": None} | dict(fields or {}))

    def hold(
        self, url: str, offset: int, sent: bytes = b"", *, declared: int | None = None
    ) -> Connection:
        """Begin a PATCH that stalls after `sent`; on return the server has read that much.

        declared: Content-Length, None for a chunked body. The server has the lease of the upload
        by then, because it sends 100 Continue only after all its checks.
        """
        connection = self.connect()
        framing = (
            {"Transfer-Encoding": "chunked"}
            if declared is None
            else {"Content-Length": str(declared)}
        )
        fields = {
            "Content-Type": BODY_TYPE,
            "Upload-Offset": str(offset),
            "Expect": "100-continue",
        }
        connection.send_head("PATCH", url, self._merged(fields | framing))
        interim = connection.read_one_head()
        assert interim.status == 100, interim
        if declared is None:
            connection.send_chunk(sent)
        else:
            connection.send(sent)
        connection.wait_taken()
        return connection

    def try_patch(self, url: str, offset: int, body: bytes) -> Reply | None:
        """PATCH; None if the server closed the connection without a reply."""
        try:
            return self.patch(url, offset, body)
        except ConnectionEnded:
            return None

    # --- several requests, which must all succeed

    def new(self, length: int | None = None, *, metadata: str | None = None) -> str:
        """Create an upload and give its URL."""
        reply = self.create(length, metadata=metadata)
        assert reply.status == 201, reply
        return reply["location"]

    def stored(
        self, content: bytes, *, length: int | None = None, metadata: str | None = None
    ) -> str:
        """Create an upload that has `content` so far; length None: that is all of it."""
        url = self.new(len(content) if length is None else length, metadata=metadata)
        if content:
            self.append(url, 0, content)
        return url

    def append(self, url: str, offset: int, body: bytes) -> int:
        """PATCH and give the new offset."""
        reply = self.patch(url, offset, body)
        assert reply.status == 204, reply
        return int(reply["upload-offset"])

    def offset(self, url: str) -> int:
        """Give the offset as HEAD tells it."""
        reply = self.head(url)
        assert reply.status == 200, reply
        return int(reply["upload-offset"])

    def content(self, url: str) -> bytes:
        """Download all of a finished upload."""
        reply = self.get(url)
        assert reply.status == 200, reply
        return reply.body

    def finish(self, url: str, content: bytes) -> bytes:
        """Append what is missing of `content` and give what the server then has."""
        offset = self.offset(url)
        if offset < len(content):
            assert self.append(url, offset, content[offset:]) == len(content)
        return self.content(url)

    def status(self, url: str) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Give the reply to a HEAD in a form that can be compared."""
        reply = self.head(url)
        fields = ((name, value) for name, value in reply.fields if name.lower() != "date")
        return reply.status, tuple(fields)

    @contextmanager
    def unchanged(self, url: str, content: bytes | None = None) -> Iterator[None]:
        """Check that HEAD tells the same before and after, and then that the bytes are right.

        `content`: of the whole upload, which is finished with it; None: the upload stays as it is.
        """
        before = self.status(url)
        yield
        assert self.status(url) == before
        if content is not None:
            assert self.finish(url, content) == content

    def _merged(self, fields: Fields | None) -> Fields:
        changed = fields or {}
        replaced = {name.lower() for name in changed}
        kept = {name: own for name, own in self.fields.items() if name.lower() not in replaced}
        return kept | dict(changed)
