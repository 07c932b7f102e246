"""RUFH in short verbs for tests: each sends one request of one version and gives the reply.

What a version looks like on the wire is written down here once more, from the drafts: the server's
own table is what these tests check.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.http import Connection, ConnectionEnded, Fields, FieldValue, Reply, request

PARTIAL_UPLOAD = "application/partial-upload"
INTEROP = "Upload-Draft-Interop-Version"
TYPES = "https://iana.org/assignments/http-problem-types#"


@dataclass(frozen=True)
class Wire:
    """How one version looks on the wire. interop None: none is sent."""

    interop: str | None
    flag: str = "Upload-Complete"
    inverse: bool = False
    appended: int = 204  # of an append that completes nothing
    lifetime_key: str | None = "max-age"
    progress: bool = True
    invalidates: bool = True
    replays: bool = True
    needs_type: bool = True

    def __str__(self) -> str:
        return f"v{self.interop or 'none'}"

    def value(self, done: bool) -> str:
        """Give the value of the flag field."""
        return "?1" if done is not self.inverse else "?0"

    @property
    def informs(self) -> bool:
        """Tell whether there may be a 104 (R85)."""
        return self.interop is not None and int(self.interop) <= 10


WIRES = (
    Wire(
        "3",
        flag="Upload-Incomplete",
        inverse=True,
        appended=201,
        lifetime_key=None,
        progress=False,
        invalidates=False,
        needs_type=False,
    ),
    Wire("5", appended=201, lifetime_key=None, invalidates=False, needs_type=False),
    Wire("6", appended=201, lifetime_key="expires", invalidates=False, replays=False),
    Wire("8"),
    Wire("9"),
    Wire("10"),
    Wire(None),
)
OLD, NEW = WIRES[:3], WIRES[3:]


def parse_limits(value: str) -> dict[str, int]:
    """Parse Upload-Limit; every member is an integer (R11)."""
    members = [member.strip().partition("=") for member in value.split(",")]
    return {key: int(number) for key, _, number in members}


class Rufh:
    """A client of one server in one version. `fields` go with every request."""

    def __init__(
        self,
        port: int,
        wire: Wire,
        *,
        base: str = "/files/",
        fields: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.wire = wire
        self.base = base
        self.fields: dict[str, str] = dict(fields or {})
        if wire.interop is not None:
            self.fields[INTEROP] = wire.interop

    def request(
        self,
        method: str,
        target: str,
        fields: Fields | None = None,
        body: bytes = b"",
        *,
        chunked: bool = False,
    ) -> Reply:
        """Send any request; None in `fields` removes a field, a list repeats it."""
        path = self.path(target)
        return request(self.port, method, path, self._merged(fields), body, chunked=chunked)

    def connect(self) -> Connection:
        """Open a connection for a test that needs more than one request after another."""
        return Connection(self.port)

    def path(self, target: str) -> str:
        """Give the path of an absolute URL of this server."""
        return target.removeprefix(f"http://127.0.0.1:{self.port}")

    def flag(self, done: bool) -> dict[str, FieldValue]:
        """Give the field that says whether a body is the end of the upload."""
        return {self.wire.flag: self.wire.value(done)}

    def create(
        self,
        body: bytes = b"",
        *,
        done: bool,
        length: int | str | None = None,
        chunked: bool = False,
        fields: Fields | None = None,
    ) -> Reply:
        given = self.flag(done)
        if length is not None:
            given["Upload-Length"] = str(length)
        return self.request("POST", self.base, given | dict(fields or {}), body, chunked=chunked)

    def append_fields(self, offset: int | str, done: bool) -> dict[str, FieldValue]:
        """Give the fields of an append."""
        return {"Content-Type": PARTIAL_UPLOAD, "Upload-Offset": str(offset)} | self.flag(done)

    def append(
        self,
        url: str,
        offset: int | str,
        body: bytes = b"",
        *,
        done: bool,
        length: int | str | None = None,
        chunked: bool = False,
        fields: Fields | None = None,
    ) -> Reply:
        given = self.append_fields(offset, done)
        if length is not None:
            given["Upload-Length"] = str(length)
        return self.request("PATCH", url, given | dict(fields or {}), body, chunked=chunked)

    def head(self, url: str, fields: Fields | None = None) -> Reply:
        return self.request("HEAD", url, fields)

    def get(self, url: str, fields: Fields | None = None) -> Reply:
        return self.request("GET", url, fields)

    def delete(self, url: str, fields: Fields | None = None) -> Reply:
        return self.request("DELETE", url, fields)

    def begin(
        self, method: str, url: str, fields: Fields, sent: bytes, *, declared: int | None = None
    ) -> tuple[Connection, list[Reply]]:
        """Begin a request that stalls after `sent`; give it, and the 1xx replies so far.

        declared: Content-Length, None for a chunked body. On return the server has read that
        much, and has the lease of the upload, because it sends 100 only after all its checks.
        """
        connection = self.connect()
        framing: dict[str, FieldValue] = (
            {"Transfer-Encoding": "chunked"}
            if declared is None
            else {"Content-Length": str(declared)}
        )
        connection.send_head(
            method,
            self.path(url),
            self._merged(dict(fields) | framing | {"Expect": "100-continue"}),
        )
        interim: list[Reply] = []
        while not interim or interim[-1].status != 100:
            interim.append(connection.read_one_head())
            assert interim[-1].status < 200, interim
        if declared is None:
            connection.send_chunk(sent)
        else:
            connection.send(sent)
        connection.wait_taken()
        return connection, interim

    def hold(
        self,
        url: str,
        offset: int,
        sent: bytes = b"",
        *,
        done: bool,
        declared: int | None = None,
    ) -> Connection:
        """Begin an append that stalls after `sent`."""
        fields = self.append_fields(offset, done)
        return self.begin("PATCH", url, fields, sent, declared=declared)[0]

    def try_append(self, url: str, offset: int, body: bytes, *, done: bool) -> Reply | None:
        """Append; None if the server closed the connection without a reply."""
        try:
            return self.append(url, offset, body, done=done)
        except ConnectionEnded:
            return None

    # --- several requests, which must all succeed

    def new(self, length: int | None = None) -> str:
        """Create an empty upload and give its URL."""
        reply = self.create(done=False, length=length)
        assert reply.status == 201, reply
        return reply["location"]

    def stored(self, content: bytes, *, length: int | None = None) -> str:
        """Create an upload that has `content` so far; length None: not known."""
        reply = self.create(content, done=False, length=length)
        assert reply.status == 201, reply
        return reply["location"]

    def finished(self, content: bytes) -> str:
        """Create a finished upload."""
        reply = self.create(content, done=True)
        assert reply.status == 201, reply
        return reply["location"]

    def offset(self, url: str) -> int:
        """Give the offset as HEAD tells it."""
        reply = self.head(url)
        assert reply.status == 204, reply
        return int(reply["upload-offset"])

    def is_done(self, reply: Reply) -> bool:
        """Tell what the flag of a reply says; there must be one."""
        return reply[self.wire.flag] == self.wire.value(True)

    def content(self, url: str) -> bytes:
        """Download all of a finished upload."""
        reply = self.get(url)
        assert reply.status == 200, reply
        return reply.body

    def finish(self, url: str, content: bytes) -> bytes:
        """Append what is missing of `content`, and give what the server then has."""
        offset = self.offset(url)
        reply = self.append(url, offset, content[offset:], done=True)
        assert reply.status == 201, reply
        assert self.is_done(reply)
        return self.content(url)

    def status(self, url: str) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Give the reply to a HEAD in a form that can be compared: without what time changes."""
        reply = self.head(url)
        fields = (
            (name, value)
            for name, value in reply.fields
            if name.lower() not in ("date", "upload-limit")
        )
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

    def check_standing(self, reply: Reply, status: int, offset: int | None) -> None:
        """Check what a refusal says of an upload that can go on; offset None: no upload."""
        assert reply.status == status, reply
        assert not self.is_done(reply)
        assert reply.find("upload-offset") == (None if offset is None else str(offset))
        assert ("upload-limit" in reply) == (self.wire.lifetime_key is not None)
        assert "location" not in reply
        self.check_common(reply)

    def check_common(self, reply: Reply) -> None:
        """Check what every final reply has, and has not."""
        assert reply.find(INTEROP) == (self.wire.interop if self.wire.informs else None)
        assert "tus-resumable" not in reply
        if reply.status not in (200, 206, 304, 307):
            assert reply["cache-control"] == "no-store"

    def problem(self, reply: Reply) -> dict[str, Any]:
        """Give a problem document, and check that it has a type."""
        document = reply.problem()
        assert document["type"].startswith(TYPES)
        return document | {"type": document["type"].removeprefix(TYPES)}

    def _merged(self, fields: Fields | None) -> Fields:
        changed = fields or {}
        replaced = {name.lower() for name in changed}
        kept = {name: own for name, own in self.fields.items() if name.lower() not in replaced}
        return kept | dict(changed)
