"""Connections: many requests on one, refusals before the body, replies that can be read (C6)."""

import contextlib
import threading

import pytest

from tests.e2e.values import UNKNOWN
from tests.support.http import Connection, ConnectionEnded, Fields, FieldValue, render_chunks
from tests.support.http import render_head as head
from tests.support.records import Records
from tests.support.tus import BODY_TYPE, Tus, pattern

KIB = 1024
MIB = 1024 * KIB


def patch_fields(tus: Tus, offset: int = 0, **more: FieldValue) -> dict[str, FieldValue]:
    fields = {name.replace("_", "-"): value for name, value in more.items()}
    return tus.fields | {"Content-Type": BODY_TYPE, "Upload-Offset": str(offset)} | fields


# --- keep-alive


def test_a_whole_upload_fits_on_one_connection(tus: Tus) -> None:
    """T22: creation, large and small bodies of both kinds, HEAD, download, DELETE."""
    content = pattern(2 * MIB + 3)

    with tus.connect() as connection:
        connection.send_head("POST", tus.base, tus.fields | {"Upload-Length": str(len(content))})
        url = connection.read_reply()["location"]
        offset = 0
        for size, chunked in ((1, False), (100_000, True), (MIB, False), (5, True), (10**9, False)):
            piece = content[offset : offset + size]
            fields = patch_fields(tus, offset)
            if chunked:
                connection.send_head("PATCH", url, fields | {"Transfer-Encoding": "chunked"})
                connection.send(render_chunks([piece]))
            else:
                connection.send_head("PATCH", url, fields | {"Content-Length": str(len(piece))})
                connection.send(piece)
            offset += len(piece)
            assert connection.read_reply()["upload-offset"] == str(offset)
            connection.send_head("HEAD", url, tus.fields)
            assert connection.read_reply()["upload-offset"] == str(offset)
        connection.send_head("GET", url)
        assert connection.read_reply().body == content
        connection.send_head("DELETE", url, tus.fields)
        assert connection.read_reply().status == 204


ERRORS: list[tuple[Fields, int]] = [
    ({"Upload-Offset": "3"}, 409),
    ({"Upload-Offset": "x"}, 400),
    ({"Tus-Resumable": "0.2.2"}, 412),
    ({"Content-Type": "text/plain"}, 415),
    ({"Upload-Length": "99"}, 400),
]


@pytest.mark.parametrize(("fields", "status"), ERRORS, ids=str)
def test_after_an_error_with_its_whole_body_here_the_connection_goes_on(
    tus: Tus, fields: Fields, status: int
) -> None:
    """C6: what had been sent of a refused body is never taken for a request."""
    url = tus.new(100)
    body = b"DELETE /files/ HTTP/1.1\r\n\r\n".ljust(100, b"x")

    with tus.connect() as connection:
        for _ in range(3):
            request = patch_fields(tus) | dict(fields) | {"Content-Length": "100", "Host": "a"}
            connection.expect_reply_to("PATCH")
            connection.send(head("PATCH", url, request) + body)
            reply = connection.read_reply()

            assert reply.status == status
            assert not reply.closes
        connection.send_head("HEAD", url, tus.fields)
        assert connection.read_reply()["upload-offset"] == "0"


def test_errors_without_a_body_leave_the_connection_open(tus: Tus) -> None:
    """C6."""
    with tus.connect() as connection:
        for method, target in (
            ("HEAD", UNKNOWN),
            ("GET", UNKNOWN),
            ("DELETE", UNKNOWN),
            ("PUT", tus.base),
            ("POST", tus.base),
            ("GET", "/nothing"),
        ):
            connection.send_head(method, target, tus.fields)
            reply = connection.read_reply()

            assert 400 <= reply.status < 500
            assert not reply.closes
        connection.send_head("OPTIONS", tus.base)
        assert connection.read_reply().status == 204


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_a_connection_ends_when_the_client_asks_for_it(tus: Tus, version: str) -> None:
    """C6."""
    url = tus.new(5)
    fields = patch_fields(tus, Content_Length="5", Connection="close")

    with tus.connect() as connection:
        connection.send_head("PATCH", url, fields, version=version)
        connection.send(b"hello")

        reply = connection.read_reply()
        assert reply.status == 204
        assert reply.closes
        assert connection.read_until_closed() == b""
    assert tus.content(url) == b"hello"


# --- pipelining


def test_pipelined_requests_are_answered_in_order(tus: Tus) -> None:
    """T22: all in one segment, bodies between heads."""
    url = tus.new(10)
    host = {"Host": "a"}

    def patch(offset: int, body: bytes) -> bytes:
        fields = patch_fields(tus, offset, Content_Length=str(len(body)))
        return head("PATCH", url, fields | host) + body

    chunked = head("PATCH", url, patch_fields(tus, 2, Transfer_Encoding="chunked") | host)
    with tus.connect() as connection:
        for method in ("HEAD", "PATCH", "HEAD", "PATCH", "PATCH", "HEAD", "GET"):
            connection.expect_reply_to(method)
        look = head("HEAD", url, tus.fields | host)
        connection.send(
            look
            + patch(0, b"he")
            + look
            + chunked
            + render_chunks([b"l", b"lo"])
            + patch(5, b"world")
            + look
            + head("GET", url, host)
        )
        replies = [connection.read_reply() for _ in range(7)]

    assert [reply.status for reply in replies] == [200, 204, 200, 204, 204, 200, 200]
    offsets = [reply["upload-offset"] for reply in replies[:6]]
    assert offsets == ["0", "2", "2", "5", "10", "10"]
    assert replies[6].body == b"helloworld"


@pytest.mark.parametrize("size", [1, 70_000, 300_000, 2 * MIB])
@pytest.mark.parametrize("first", ["sized", "chunked"])
def test_a_pipelined_request_behind_a_large_body_is_answered(
    tus: Tus, size: int, first: str
) -> None:
    """T22: the body is read from the socket only as far as it goes."""
    content = pattern(size)
    url, other = tus.new(size), tus.new(size)
    host = {"Host": "a"}
    body = (
        content if first == "sized" else render_chunks([content[: size // 2], content[size // 2 :]])
    )
    framing = (
        {"Content-Length": str(size)} if first == "sized" else {"Transfer-Encoding": "chunked"}
    )

    with tus.connect() as connection:
        for method in ("PATCH", "HEAD", "PATCH"):
            connection.expect_reply_to(method)
        sender = threading.Thread(
            target=lambda: connection.send(
                head("PATCH", url, patch_fields(tus) | host | framing)
                + body
                + head("HEAD", url, tus.fields | host)
                + head("PATCH", other, patch_fields(tus) | host | {"Content-Length": str(size)})
                + content
            )
        )
        sender.start()
        replies = [connection.read_reply() for _ in range(3)]
        sender.join()

    assert [reply.status for reply in replies] == [204, 200, 204]
    assert [reply["upload-offset"] for reply in replies] == [str(size)] * 3
    assert tus.content(url) == tus.content(other) == content


def test_requests_in_single_bytes_are_understood(tus: Tus) -> None:
    """T22."""
    url = tus.new(5)
    request = head("PATCH", url, patch_fields(tus, Content_Length="5") | {"Host": "a"}) + b"hello"

    with tus.connect() as connection:
        for _ in range(2):
            connection.expect_reply_to("PATCH")
            for index in range(len(request)):
                connection.send(request[index : index + 1])
            reply = connection.read_reply()
            request = request.replace(b"Upload-Offset: 0", b"Upload-Offset: 5")
            request = request.replace(b"Content-Length: 5", b"Content-Length: 0")[:-5]

            assert reply.status == 204
    assert tus.content(url) == b"hello"


# --- Expect: 100-continue


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_the_body_is_asked_for_after_all_checks(tus: Tus, method: str, chunked: bool) -> None:
    """T68: exactly one 100, then the reply."""
    url = tus.base if method == "POST" else tus.new(5)
    fields: Fields = patch_fields(tus) | {
        "Upload-Length": "5",
        "Expect": "100-continue",
        **({"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": "5"}),
    }

    with tus.connect() as connection:
        connection.send_head(method, url, fields)
        interim = connection.read_one_head()
        connection.send(render_chunks([b"hello"]) if chunked else b"hello")
        reply = connection.read_reply()

    assert interim.status == 100
    assert reply.interim == ()
    assert reply.status == (201 if method == "POST" else 204)
    assert reply["upload-offset"] == "5"


REFUSED: dict[str, tuple[str, Fields, int]] = {
    "version": ("PATCH", {"Tus-Resumable": "0.2.2"}, 412),
    "type": ("PATCH", {"Content-Type": "text/plain"}, 415),
    "number": ("PATCH", {"Upload-Offset": "x"}, 400),
    "offset": ("PATCH", {"Upload-Offset": "1"}, 409),
    "length change": ("PATCH", {"Upload-Length": "6"}, 400),
    "size": ("PATCH", {"Content-Length": "6"}, 413),
    "checksum": ("PATCH", {"Upload-Checksum": "sha3 AAAA"}, 400),
    "creation type": ("POST", {"Content-Type": "text/plain"}, 415),
    "creation checksum": ("POST", {"Upload-Checksum": "sha1 AAAA"}, 400),
    "creation concatenation": ("POST", {"Upload-Concat": "parts"}, 400),
    "final upload": ("POST", {"Upload-Concat": "final;/x", "Upload-Length": None}, 403),
    "creation metadata": ("POST", {"Upload-Metadata": "a ###"}, 400),
    "creation size": ("POST", {"Content-Length": "6"}, 413),
    "creation maximum": ("POST", {"Upload-Length": str(2**53)}, 413),
    "method": ("PUT", {}, 405),
    "large head": ("PATCH", {"X-Padding": "x" * 40_000}, 431),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_request_gets_no_100(tus: Tus, records: Records, case: str) -> None:
    """T68, T119: the refusal is the first thing that comes, though no byte of the body was sent."""
    method, changed, status = REFUSED[case]
    upload = tus.new(5)
    base: Fields = {"Upload-Length": "5", "Expect": "100-continue", "Content-Length": "5"}
    fields = patch_fields(tus) | dict(base) | dict(changed)

    with records.nothing_created(), tus.unchanged(upload), tus.connect() as connection:
        connection.send_head(method, tus.base if method == "POST" else upload, fields)
        reply = connection.read_one_head()

    assert reply.status == status
    assert reply.closes  # whether the body still comes is not known


def test_an_unknown_upload_gets_no_100(tus: Tus) -> None:
    """T29, T68."""
    with tus.connect() as connection:
        fields = patch_fields(tus, Content_Length="5", Expect="100-continue")
        connection.send_head("PATCH", UNKNOWN, fields)

        assert connection.read_one_head().status == 404


def test_a_client_that_does_not_wait_for_100_is_served(tus: Tus) -> None:
    """T68."""
    url = tus.new(5)

    reply = tus.patch(url, 0, b"hello", fields={"Expect": "100-continue"})

    assert reply.status == 204
    assert [interim.status for interim in reply.interim] in ([], [100])


# --- early errors while the body is still coming


def send_all(connection: Connection, body: bytes, failures: list[OSError]) -> None:
    try:
        for start in range(0, len(body), 64 * KIB):
            connection.send(body[start : start + 64 * KIB])
    except OSError as exc:
        failures.append(exc)


REFUSED_EARLY: dict[str, tuple[str, dict[str, FieldValue], int]] = {
    "offset": ("PATCH", {"Upload-Offset": "499"}, 409),
    "type": ("PATCH", {"Content-Type": "text/plain"}, 415),
    "length": ("PATCH", {}, 413),
    "unknown": ("PATCH", {}, 404),
    "creation type": ("POST", {"Upload-Length": "5", "Content-Type": "text/plain"}, 415),
    "creation length": ("POST", {"Upload-Length": "500"}, 413),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize(
    ("case", "size"),
    [
        *((case, size) for case in REFUSED_EARLY for size in (1000, 100 * KIB)),
        ("type", 20 * MIB),
        ("creation type", 20 * MIB),
    ],
)
def test_an_early_error_can_be_read_while_the_body_is_sent(
    tus: Tus, case: str, size: int, chunked: bool
) -> None:
    """C6: the reply arrives whole, and nothing of the body is taken for a request."""
    method, changed, status = REFUSED_EARLY[case]
    target = {"POST": tus.base, "PATCH": tus.new(500)}[method] if case != "unknown" else UNKNOWN
    framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)}
    body = pattern(size)
    if chunked:
        body = (
            b"".join(
                b"%x\r\n%s\r\n" % (len(piece), piece)
                for piece in (body[at : at + 50_000] for at in range(0, size, 50_000))
            )
            + b"0\r\n\r\n"
        )

    failures: list[OSError] = []
    with tus.connect() as connection:
        connection.send_head(method, target, patch_fields(tus) | changed | framing)
        sender = threading.Thread(target=send_all, args=(connection, body, failures))
        sender.start()
        reply = connection.read_reply()
        rest = b""
        if reply.closes:
            rest = connection.read_until_closed()
        sender.join()

    assert reply.status == status
    assert reply.problem()["status"] == status
    assert rest == b""
    assert reply.closes or not failures


@pytest.mark.parametrize("size", [1000, 100 * KIB])
def test_a_client_that_reads_only_after_it_has_sent_everything_gets_the_reply(
    tus: Tus, size: int
) -> None:
    """C6: up to what is read and dropped, there is no reset."""
    url = tus.new(size)

    reply = tus.patch(url, 0, bytes(size), fields={"Content-Type": "text/plain"})

    assert reply.status == 415


def test_a_refused_body_is_waited_for_only_shortly_and_is_no_request(tus: Tus) -> None:
    """C6: one that never comes does not keep the connection, and one that does is dropped."""
    victim = tus.stored(b"he", length=5)
    request = head("DELETE", victim, tus.fields | {"Host": "a"})
    fields = patch_fields(tus, Content_Length=str(10 * MIB))

    with tus.connect() as silent, tus.connect() as talking:
        for connection in (silent, talking):
            connection.send_head("PATCH", UNKNOWN, fields)
        for connection in (silent, talking):
            reply = connection.read_reply()

            assert reply.status == 404
            assert reply.closes
        with contextlib.suppress(OSError, ConnectionEnded):
            talking.send(request * 20)
            assert talking.read_until_closed() == b""
        assert silent.read_until_closed() == b""

    assert tus.offset(victim) == 2
