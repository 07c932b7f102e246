"""Requests that nobody sends by accident: ids that climb, fields that lie, heads without end."""

import contextlib

import pytest

from tests.e2e.values import UNKNOWN, UNKNOWN_ID, shown
from tests.support.http import ConnectionEnded, Reply, render_chunks, render_head
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import BODY_TYPE, Tus

IDS: list[str | bytes] = [
    "..",
    ".",
    "...",
    "../",
    "../state.db",
    "../../etc/passwd",
    "%2e%2e",
    "%2e%2e/",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%2fserver.lock",
    "..%5c..%5cboot.ini",
    "%252e%252e%252f",
    "%00",
    f"{UNKNOWN_ID}%00",
    f"{UNKNOWN_ID}%00.partial",
    f"{UNKNOWN_ID}.partial",
    f"{UNKNOWN_ID}%0a",
    f"{UNKNOWN_ID}%20",
    f"%20{UNKNOWN_ID}",
    f"{UNKNOWN_ID}/../{UNKNOWN_ID}",
    UNKNOWN_ID.upper(),
    UNKNOWN_ID[:-1],
    f"{UNKNOWN_ID}0",
    "0" * 20_000,
    "a/" * 5_000,
    "%c3%a9" * 16,
    "%ff%fe",
    "%ef%bc%90" * 32,  # FULLWIDTH DIGIT ZERO
    "%d9%a0" * 32,  # ARABIC-INDIC DIGIT ZERO
    "%",
    "%zz",
    "~root",
    "-rf",
    "*",
    "?",
    ";",
    "id'--",
    "CON",
    "\u00e9".encode(),
    b"\xff\xfe",
]


def ask(tus: Tus, method: str, target: str | bytes) -> Reply | None:
    """Send a request that the parser may refuse by closing the connection."""
    fields = {"Upload-Offset": "0", "Content-Type": BODY_TYPE}
    with contextlib.suppress(ConnectionEnded):
        return tus.request(method, target, fields, b"hello" if method == "PATCH" else b"")
    return None


@pytest.mark.parametrize("upload_id", IDS, ids=shown)
def test_an_id_that_is_none_names_nothing(
    tus: Tus, records: Records, upload_id: str | bytes
) -> None:
    """T18, T29, T94, T127: and leads to no file."""
    raw = upload_id if isinstance(upload_id, bytes) else upload_id.encode()
    before = sorted(records.data_dir.iterdir())

    with records.nothing_created():
        for method in ("HEAD", "GET", "PATCH", "DELETE"):
            reply = ask(tus, method, b"/files/" + raw)

            assert reply is None or reply.status in (400, 404, 405)
            assert reply is None or "upload-offset" not in reply

    assert sorted(records.data_dir.iterdir()) == before


def test_an_encoded_id_is_the_id(tus: Tus) -> None:
    """T130: a client may percent-encode what needs no encoding."""
    url = tus.stored(b"he", length=5)
    encoded = "/files/" + "".join(f"%{ord(letter):02x}" for letter in url.rpartition("/")[2])

    assert tus.head(encoded)["upload-offset"] == "2"


def test_the_absolute_form_of_a_target_is_understood(tus: Tus) -> None:
    """T130: RFC 9112, 3.2.2."""
    url = tus.stored(b"he", length=5)

    assert tus.head(f"http://example.com{url}")["upload-offset"] == "2"


# --- heads


def test_a_head_larger_than_the_limit_is_431(tus: Tus) -> None:
    """T128: with a problem document, and the connection is fine."""
    url = tus.new(5)

    with tus.connect() as connection:
        connection.send_head("DELETE", url, tus.fields | {"X-Padding": "x" * 40_000})
        reply = connection.read_reply()
        connection.send_head("HEAD", url, tus.fields)
        following = connection.read_reply()

    assert reply.status == 431
    assert reply.problem()["code"] == "headers_too_large"
    assert following.status == 200


def test_many_small_fields_are_431_too(tus: Tus) -> None:
    """T128."""
    fields = {f"X-{number}": "y" for number in range(10_000)}

    with contextlib.suppress(ConnectionEnded):
        assert tus.head(UNKNOWN, fields).status == 431


def test_a_head_without_end_is_cut_off(tus: Tus) -> None:
    """T128: memory is not filled with it."""
    received = b""
    with tus.connect() as connection:
        connection.send(b"HEAD /files/ HTTP/1.1\r\nHost: a\r\nX-Endless: ")
        with contextlib.suppress(OSError):
            for _ in range(1000):
                connection.send(b"x" * 65536)
            pytest.fail("64 MiB of one field were taken")
        with contextlib.suppress(OSError):
            received = connection.read_until_closed()

    assert received == b"" or received.startswith(b"HTTP/1.1 431 ")


def test_the_refusal_of_a_head_without_end_is_a_problem_document(tus: Tus) -> None:
    """T4, T128."""
    with tus.connect() as connection:
        connection.send(b"HEAD /files/ HTTP/1.1\r\nHost: a\r\nX-Endless: " + b"x" * 66_000)
        reply = connection.read_reply()

        assert reply.status == 431
        assert reply.closes
        assert reply["tus-resumable"] == "1.0.0"
        assert reply.problem()["code"] == "headers_too_large"
        assert connection.read_until_closed() == b""


def test_a_page_can_read_the_refusal_of_what_is_no_request(tus: Tus) -> None:
    """T4, T129."""
    for head in (
        b"HEAD /files/ HTTP/1.1\r\nHost: a\r\nX-Endless: " + b"x" * 66_000,
        b"no request\r\n\r\n",
    ):
        with tus.connect() as connection:
            connection.send(head)
            reply = connection.read_reply()

        assert reply.status in (400, 431)
        assert reply["access-control-allow-origin"] == "*"
        assert reply["tus-resumable"] == "1.0.0"
        assert reply["cache-control"] == "no-store"
        assert reply.problem()["status"] == reply.status


@pytest.mark.parametrize("hosts", [[], [b"Host: a", b"Host: a"]], ids=["none", "two"])
def test_a_request_to_no_host_or_two_is_refused(tus: Tus, hosts: list[bytes]) -> None:
    """RFC 9112, 3.2."""
    lines = [b"HEAD /files/a HTTP/1.1", *hosts, b"Tus-Resumable: 1.0.0", b"", b""]
    with tus.connect() as connection:
        connection.expect_reply_to("HEAD")
        connection.send(b"\r\n".join(lines))

        assert connection.read_reply().status == 400


def test_a_client_of_http_1_0_gets_no_interim_reply(tus: Tus) -> None:
    """RFC 9110, 10.1.1 and 15.2."""
    url = tus.new(5)
    fields = {"Upload-Offset": "0", "Content-Type": BODY_TYPE, "Content-Length": "5"}
    head = render_head(
        "PATCH",
        url,
        tus.fields | fields | {"Host": "a", "Expect": "100-continue"},
        version="HTTP/1.0",
    )
    with tus.connect() as connection:
        connection.send(head)
        connection.send(b"hello")

        assert connection.read_one_head().status == 204


def test_long_heads_one_after_another_are_each_measured_alone(tus: Tus) -> None:
    """T128: on one connection."""
    with tus.connect() as connection:
        for _ in range(8):
            connection.send_head("HEAD", UNKNOWN, tus.fields | {"X-Padding": "x" * 25_000})

            assert connection.read_reply().status == 404


@pytest.mark.parametrize("coding", ["gzip, chunked", "foo,chunked", "Deflate, Chunked"])
def test_a_body_in_a_coding_nobody_knows_is_refused(tus: Tus, coding: str) -> None:
    """R77: what is stored is the content, not a coding of it."""
    url = tus.new(6)
    fields = {"Upload-Offset": "0", "Content-Type": BODY_TYPE, "Transfer-Encoding": coding}
    with tus.unchanged(url), tus.connect() as connection:
        connection.send_head("PATCH", url, tus.fields | fields)
        connection.send(render_chunks([b"coded!"]))

        assert connection.read_reply().status == 400


# --- request smuggling: two framings, or one that can be read in two ways

FRAMINGS = {
    "both": [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    "both, other order": [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "list of lengths": [b"Content-Length: 5, 6"],
    "signed length": [b"Content-Length: +5"],
    "negative length": [b"Content-Length: -5"],
    "hex length": [b"Content-Length: 0x5"],
    "empty length": [b"Content-Length: "],
    "length in words": [b"Content-Length: five"],
    "length with a blank": [b"Content-Length: 5 0"],
    "huge length": [b"Content-Length: " + b"9" * 30],
    "blank before the colon": [b"Content-Length : 5"],
    "chunked before the colon": [b"Transfer-Encoding : chunked"],
    "not chunked": [b"Transfer-Encoding: xchunked"],
    "chunked not last": [b"Transfer-Encoding: chunked, identity"],
    "identity": [b"Transfer-Encoding: identity"],
    "gzip": [b"Transfer-Encoding: gzip"],
    "chunked twice": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
    "folded": [b"Transfer-Encoding:\r\n chunked"],
    "nul": [b"Transfer-Encoding: chunked\0"],
    "vertical tab": [b"Transfer-Encoding: \x0bchunked"],
    "bare lf": [b"X: y\nTransfer-Encoding: chunked"],
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_body_whose_end_can_be_disputed_is_refused(tus: Tus, framing: str) -> None:
    """T119, T121: and what follows is not executed."""
    victim, target = tus.stored(b"he", length=5), tus.new(100)
    inner = render_head("DELETE", victim, tus.fields | {"Host": "a"})
    lines = [
        f"PATCH {target} HTTP/1.1".encode(),
        b"Host: a",
        b"Tus-Resumable: 1.0.0",
        b"Upload-Offset: 0",
        b"Content-Type: " + BODY_TYPE.encode(),
        *FRAMINGS[framing],
        b"",
        b"0\r\n\r\n" + inner,
    ]

    with tus.connect() as connection, contextlib.suppress(OSError):
        connection.send(b"\r\n".join(lines))
        connection.half_close()
        received = connection.read_until_closed()

        assert received.count(b"HTTP/1.1 ") <= 1
        assert not received or received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert tus.offset(victim) == 2
    assert tus.offset(target) == 0


@pytest.mark.parametrize(
    "chunk",
    [
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"5 \nhello\r\n",
        b"5\nhello\n",
        b"\r\nhello\r\n",
        b"5\r\nhelloXX",
        b"f" * 17 + b"\r\nhello\r\n",
        b"g\r\nhello\r\n",
    ],
    ids=shown,
)
def test_a_chunk_size_that_can_be_disputed_ends_the_body(
    server: ServerProcess, tus: Tus, chunk: bytes
) -> None:
    """T121: it is no byte of the upload, and what follows is not executed."""
    victim, target = tus.stored(b"he", length=5), tus.new(100)
    inner = render_head("DELETE", victim, tus.fields | {"Host": "a"})
    fields = {"Upload-Offset": "0", "Content-Type": BODY_TYPE, "Transfer-Encoding": "chunked"}

    with tus.connect() as connection, contextlib.suppress(OSError):
        connection.send_head("PATCH", target, tus.fields | fields)
        connection.send(chunk + b"0\r\n\r\n" + inner)
        connection.half_close()
        received = connection.read_until_closed()

        assert not received or received.startswith(b"HTTP/1.1 400 ")
    assert tus.offset(victim) == 2
    assert tus.offset(target) in (0, 5)
    assert tus.request("GET", "/healthz").status == 200


# --- trailers

TRAILERS = {
    "Upload-Offset": "0",
    "Upload-Length": "3",
    "Tus-Resumable": "0.2.2",
    "X-HTTP-Method-Override": "DELETE",
    "Content-Type": "text/plain",
    "Authorization": "Bearer somebody",
    "Upload-Checksum": "sha1 AAAA",
}


@pytest.mark.parametrize("name", TRAILERS)
@pytest.mark.parametrize("moment", ["with the head", "later"])
def test_a_trailer_is_no_header(tus: Tus, name: str, moment: str) -> None:
    """T90, T121: it comes behind the body that it would have decided about."""
    url = tus.new(5)
    fields = {"Upload-Offset": "0", "Content-Type": BODY_TYPE, "Transfer-Encoding": "chunked"}
    body = render_chunks([b"hello"], trailers={name: TRAILERS[name]})

    with tus.connect() as connection:
        connection.expect_reply_to("PATCH")
        if moment == "later":
            head = render_head("PATCH", url, tus.fields | fields | {"Expect": "100-continue"})
            connection.send(head.replace(b"\r\n", b"\r\nHost: a\r\n", 1))
            assert connection.read_one_head().status == 100
            connection.send(body)
        else:
            head = render_head("PATCH", url, tus.fields | fields | {"Host": "a"})
            connection.send(head + body)
        reply = connection.read_reply()

        assert reply.status == 204
        assert reply["upload-offset"] == "5"
        # The connection is at the right place for the next request.
        connection.send_head("HEAD", url, tus.fields)
        assert connection.read_reply()["upload-offset"] == "5"


def test_a_creation_takes_no_field_from_its_trailers(tus: Tus) -> None:
    """T39, T121."""
    fields = {"Host": "a", "Content-Type": BODY_TYPE, "Transfer-Encoding": "chunked"}
    body = render_chunks([b"hello"], trailers={"Upload-Length": "5"})

    with tus.connect() as connection:
        connection.expect_reply_to("POST")
        connection.send(render_head("POST", tus.base, tus.fields | fields) + body)

        assert connection.read_reply().status == 400


# --- odd but legal


@pytest.mark.parametrize("length", ["05", "0005", "00"])
def test_leading_zeros_of_content_length_do_no_harm(tus: Tus, length: str) -> None:
    """T119: Content-Length = 1*DIGIT (RFC 9110, 8.6); either understood or refused with 400."""
    url = tus.new(5)
    body = b"hello"[: int(length)]

    replies = [
        tus.patch(url, 0, body, fields={"Content-Length": length}),
        tus.options(fields={"Content-Length": "00"}),
        tus.delete(url, {"Content-Length": "00"}),
    ]

    assert all(reply.status in (204, 400) for reply in replies), replies


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("size", [5, 100_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_body_where_none_belongs_is_dropped(
    tus: Tus, method: str, size: int, chunked: bool
) -> None:
    """T20, T34, T94, T127."""
    url = tus.stored(b"hello")
    inner = render_head("DELETE", url, tus.fields | {"Host": "a"})

    reply = tus.request(method, url, {}, inner.ljust(size, b" "), chunked=chunked)

    assert reply.status in (200, 204)
    assert tus.head(url).status == (404 if method == "DELETE" else 200)
