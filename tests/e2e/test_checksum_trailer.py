"""Checksum behind the body (T89-T91): it counts only if it was announced, and then it must come."""

from collections.abc import Iterator

import pytest

from tests.conftest import check_log
from tests.e2e.conftest import LIMITED_PART_SIZE
from tests.e2e.values import shown
from tests.support.checksums import ALGORITHMS, checksum
from tests.support.http import Fields, FieldValue, Reply, render_chunks, render_head
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.stock import StockServer
from tests.support.tus import BODY_TYPE, Tus, pattern

PART = LIMITED_PART_SIZE
ANNOUNCED: dict[str, FieldValue] = {"Trailer": "Upload-Checksum"}


def send(
    tus: Tus,
    method: str,
    url: str,
    body: bytes,
    trailers: Fields,
    *,
    offset: int = 0,
    fields: Fields = ANNOUNCED,
    waits: bool = False,
) -> Reply:
    """Send a chunked body in small and large chunks, with trailers; waits: for 100 before it."""
    head: dict[str, FieldValue] = {
        **tus.fields,
        "Content-Type": BODY_TYPE,
        "Upload-Offset": str(offset),
        "Transfer-Encoding": "chunked",
        **fields,
    }
    if method == "POST":
        del head["Upload-Offset"]
    pieces = [body[:1], body[1:100], body[100:]]
    with tus.connect() as connection:
        connection.send_head(method, url, head | ({"Expect": "100-continue"} if waits else {}))
        if waits:
            assert connection.read_one_head().status == 100
        connection.send(render_chunks(pieces, trailers=trailers))
        return connection.read_reply()


def late(content: bytes, algorithm: str = "sha1") -> Fields:
    return {"Upload-Checksum": checksum(algorithm, content)}


def test_checksum_trailer_is_advertised(tus: Tus) -> None:
    """T90: both body paths run under our protocol class."""
    assert "checksum-trailer" in tus.options().names("tus-extension")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_body_is_compared_with_what_comes_behind_it(tus: Tus, algorithm: str) -> None:
    """T89: right and wrong, of every algorithm."""
    content = pattern(5000)
    url = tus.stored(content[:10], length=len(content))
    rest = content[10:]

    with tus.unchanged(url):
        reply = send(tus, "PATCH", url, rest, late(b"other", algorithm), offset=10)
        assert reply.status == 460
        assert reply.problem()["code"] == "checksum_mismatch"
    reply = send(tus, "PATCH", url, rest, late(rest, algorithm), offset=10)
    assert (reply.status, reply["upload-offset"]) == (204, "5000")
    assert tus.content(url) == content


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART + 7])
@pytest.mark.parametrize("rest", [0, 5], ids=["completing", "more to come"])
def test_nothing_counts_before_the_checksum_has_come(
    limited: Tus, limited_server: ServerProcess, size: int, rest: int
) -> None:
    """T86, T87, T89: whatever parts were full by then."""
    content = pattern(size + rest)
    url = limited.new(size + rest)
    records = Records(limited_server.data_dir)
    is_empty = size + rest == 0

    with limited.unchanged(url):
        for trailers, status in (
            (late(content[:size] + b"x"), 460),
            ({}, 400),
            ({"Upload-Checksum": "sha1"}, 400),
            ({"X-Other": "1"}, 400),
        ):
            assert send(limited, "PATCH", url, content[:size], trailers).status == status
            assert records.events(url) == (["verified"] if is_empty else [])
    reply = send(limited, "PATCH", url, content[:size], late(content[:size], "sha256"))
    assert (reply.status, reply["upload-offset"]) == (204, str(size))
    assert limited.finish(url, content) == content
    assert records.events(url) == ["verified"]


BAD_TRAILERS: list[FieldValue] = [
    None,
    "",
    "sha1",
    "SHA1 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "sha3 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "sha1 ###",
    "md5 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    ["sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00="] * 2,
]


@pytest.mark.parametrize("value", BAD_TRAILERS, ids=shown)
def test_an_announced_checksum_that_is_missing_or_malformed_is_400(
    tus: Tus, records: Records, value: FieldValue
) -> None:
    """T89: and the body is discarded; no upload is left of a creation."""
    url = tus.new(5)

    with records.nothing_created(), tus.unchanged(url):
        for method, target in (("PATCH", url), ("POST", tus.base)):
            fields = ANNOUNCED | ({"Upload-Length": "5"} if method == "POST" else {})
            reply = send(tus, method, target, b"hello", {"Upload-Checksum": value}, fields=fields)

            assert reply.status == 400
            assert reply.problem()["code"] == "malformed_header"
            assert "location" not in reply
    assert tus.finish(url, b"hello") == b"hello"


@pytest.mark.parametrize(
    "value",
    ["upload-checksum", "ETag, Upload-Checksum", ["ETag", "UPLOAD-CHECKSUM"], " Upload-Checksum ,"],
    ids=shown,
)
def test_announcements_take_many_forms(tus: Tus, value: FieldValue) -> None:
    """T89, RFC 9110, 6.6.2: a list of field names, whatever their case."""
    url = tus.new(5)

    with tus.unchanged(url):
        reply = send(tus, "PATCH", url, b"hello", late(b"other"), fields={"Trailer": value})
        assert reply.status == 460
    reply = send(tus, "PATCH", url, b"hello", late(b"hello"), fields={"Trailer": value})
    assert reply.status == 204


@pytest.mark.parametrize("value", [None, "", "ETag", "Upload-Checksums"], ids=shown)
def test_a_checksum_that_was_not_announced_is_ignored(tus: Tus, value: FieldValue) -> None:
    """T89: the body counts as it arrives then, so there is no verdict to wait for."""
    for trailers in (late(b"other"), late(b"hello"), {"Upload-Checksum": "nonsense"}):
        url = tus.new(5)

        assert send(tus, "PATCH", url, b"hello", trailers, fields={"Trailer": value}).status == 204
        assert tus.content(url) == b"hello"


def test_what_cannot_follow_is_not_waited_for(tus: Tus) -> None:
    """T89: a body with Content-Length has no trailers; a checksum before it still counts."""
    url = tus.new(10)

    assert tus.patch(url, 0, b"hello", fields=ANNOUNCED).status == 204
    wrong = tus.patch(url, 5, b"world", fields=ANNOUNCED | dict(late(b"other")))
    right = tus.patch(url, 5, b"world", fields=ANNOUNCED | dict(late(b"world")))
    assert (wrong.status, right.status) == (460, 204)


def test_a_checksum_before_and_behind_the_body_is_400(tus: Tus, records: Records) -> None:
    """T91: refused before the body is asked for, however right both are."""
    url = tus.new(5)
    both = ANNOUNCED | dict(late(b"hello"))

    with records.nothing_created(), tus.unchanged(url):
        assert send(tus, "PATCH", url, b"hello", late(b"hello"), fields=both).status == 400
        creation = both | {"Upload-Length": "5"}
        reply = send(tus, "POST", tus.base, b"hello", late(b"hello"), fields=creation)
        assert reply.status == 400
        with tus.connect() as connection:
            fields = {"Content-Type": BODY_TYPE, "Upload-Offset": "0", "Expect": "100-continue"}
            connection.send_head(
                "PATCH", url, tus.fields | fields | both | {"Transfer-Encoding": "chunked"}
            )
            assert connection.read_one_head().status == 400


def test_a_header_alone_is_compared_and_a_trailer_without_announcement_does_not_matter(
    tus: Tus,
) -> None:
    """T89, T91."""
    url = tus.new(5)

    reply = send(tus, "PATCH", url, b"hello", late(b"other"), fields=late(b"hello"))

    assert reply.status == 204


def test_a_creation_may_have_its_checksum_behind_its_body(tus: Tus, records: Records) -> None:
    """T92."""
    for length in ("5", "7", None):
        fields = ANNOUNCED | (
            {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": length}
        )
        with records.nothing_created():
            reply = send(tus, "POST", tus.base, b"hello", late(b"other"), fields=fields)
            assert reply.status == 460
            assert "location" not in reply
        reply = send(tus, "POST", tus.base, b"hello", late(b"hello", "crc32c"), fields=fields)
        assert (reply.status, reply["upload-offset"]) == (201, "5")


@pytest.mark.parametrize("how", ["reset", "half-close"])
@pytest.mark.parametrize("where", ["before the last chunk", "in the trailers"])
def test_a_body_whose_trailers_do_not_come_counts_for_nothing(
    limited: Tus, how: str, where: str
) -> None:
    """T87: every byte of the body has arrived, and parts of it are full."""
    content = pattern(2 * PART + 5)
    url = limited.stored(b"ab", length=2 + len(content))
    fields = {"Content-Type": BODY_TYPE, "Upload-Offset": "2", "Expect": "100-continue"}

    with limited.connect() as connection:
        connection.send_head(
            "PATCH", url, limited.fields | fields | ANNOUNCED | {"Transfer-Encoding": "chunked"}
        )
        assert connection.read_one_head().status == 100
        connection.send_chunk(content)
        if where == "in the trailers":
            value = checksum("sha1", content).encode()
            connection.send(b"0\r\nUpload-Checksum: " + value + b"\r\n")
        connection.wait_taken()
        if how == "reset":
            connection.reset()
        else:
            connection.half_close()
            assert connection.read_until_closed() == b""
    assert limited.offset(url) == 2
    assert limited.finish(url, b"ab" + content) == b"ab" + content


def test_pipelined_requests_have_their_own_trailers(tus: Tus) -> None:
    """T89: one segment, a right one, a missing one, a right one."""
    urls = [tus.new(5) for _ in range(3)]
    bodies = [b"hello", b"world", b"again"]
    trailers: list[Fields] = [late(b"hello"), {}, late(b"again")]
    fields = tus.fields | {"Host": "a", "Content-Type": BODY_TYPE, "Upload-Offset": "0"}
    fields = fields | {"Transfer-Encoding": "chunked", "Trailer": "Upload-Checksum"}

    with tus.connect() as connection:
        for _ in urls:
            connection.expect_reply_to("PATCH")
        connection.send(
            b"".join(
                render_head("PATCH", url, fields) + render_chunks([body], trailers=ends)
                for url, body, ends in zip(urls, bodies, trailers, strict=True)
            )
        )
        statuses = [connection.read_reply().status for _ in urls]

    assert statuses == [204, 400, 204]
    assert [tus.offset(url) for url in urls] == [5, 0, 5]


# --- other servers


@pytest.fixture(scope="module", params=["httptools", "h11"])
def stock(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tus]:
    """A client of the application under uvicorn as it comes."""
    data_dir = tmp_path_factory.mktemp("stock-trailers") / "data"
    with StockServer("bare", request.param, data_dir) as server:
        yield Tus(server.port)
        check_log(server.log)


def test_a_server_that_drops_trailers_neither_offers_nor_wants_them(stock: Tus) -> None:
    """T90. What came in one segment with its head would pose as a header there."""
    url = stock.new(10)
    wrong, right = ANNOUNCED | dict(late(b"wrong")), ANNOUNCED | dict(late(b"world"))

    assert stock.options().names("tus-extension") >= {"checksum", "expiration"}
    assert "checksum-trailer" not in stock.options().names("tus-extension")
    assert send(stock, "PATCH", url, b"hello", late(b"other"), waits=True).status == 204
    reply = send(stock, "PATCH", url, b"world", {}, offset=5, fields=wrong, waits=True)
    assert reply.status == 460
    reply = send(stock, "PATCH", url, b"world", {}, offset=5, fields=right, waits=True)
    assert reply.status == 204
    assert stock.content(url) == b"helloworld"
