"""Checksum: what a client says its body is (T78-T88, T92)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import ServerFactory
from tests.e2e.conftest import LIMITED_MAX_SIZE, LIMITED_PART_SIZE
from tests.e2e.values import shown
from tests.support.checksums import ALGORITHMS, checksum
from tests.support.http import Connection, Fields, FieldValue, Reply
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import BODY_TYPE, Tus, pattern
from tests.support.waiting import wait_until

MIB = 1024 * 1024
PART = LIMITED_PART_SIZE
OTHER = b"something else"


def checked(content: bytes, algorithm: str = "sha1") -> Fields:
    """Give the field that says a body is `content`."""
    return {"Upload-Checksum": checksum(algorithm, content)}


def flipped(content: bytes, position: int) -> bytes:
    """Give `content` with one bit changed."""
    changed = bytearray(content)
    changed[position] ^= 1
    return bytes(changed)


def check_mismatch(reply: Reply) -> None:
    assert reply.status == 460
    assert reply["tus-resumable"] == "1.0.0"
    assert reply["cache-control"] == "no-store"
    assert reply.problem()["code"] == "checksum_mismatch"
    assert "upload-offset" not in reply
    assert "location" not in reply


# --- what is offered


def test_checksum_is_advertised(tus: Tus) -> None:
    """T78, T79, T80."""
    for target in (tus.base, "*", tus.new(5)):
        reply = tus.options(target)

        assert "checksum" in reply.names("tus-extension")
        assert reply["tus-checksum-algorithm"] == "sha1,sha256,sha512,md5,crc32,crc32c,crc64nvme"


# The check values that the catalogues of CRCs give for these nine bytes.
KNOWN = {
    "crc32": "crc32 y/Q5Jg==",
    "crc32c": "crc32c 4waSgw==",
    "crc64nvme": "crc64nvme rosUhgp5mIg=",
}


@pytest.mark.parametrize("algorithm", KNOWN)
def test_crcs_are_what_everybody_computes(tus: Tus, algorithm: str) -> None:
    """T79: CRCs as their big-endian bytes."""
    reply = tus.patch(tus.new(9), 0, b"123456789", fields={"Upload-Checksum": KNOWN[algorithm]})

    assert checksum(algorithm, b"123456789") == KNOWN[algorithm]
    assert reply.status == 204


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_body_that_is_what_it_should_be_is_appended(
    tus: Tus, algorithm: str, chunked: bool
) -> None:
    """T82, T85."""
    content = pattern(20_000)
    url = tus.stored(content[:100], length=len(content))

    reply = tus.patch(
        url, 100, content[100:], fields=checked(content[100:], algorithm), chunked=chunked
    )

    assert reply.status == 204
    assert reply["upload-offset"] == "20000"
    assert tus.content(url) == content


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_body_that_is_not_is_460_and_discarded(tus: Tus, algorithm: str, chunked: bool) -> None:
    """T84, T86, T87."""
    content = pattern(20_000)
    url = tus.stored(content[:100], length=len(content))

    with tus.unchanged(url, content):
        check_mismatch(
            tus.patch(
                url,
                100,
                flipped(content[100:], -1),
                fields=checked(content[100:], algorithm),
                chunked=chunked,
            )
        )


# --- every boundary

SIZES = [1, 2, PART - 1, PART, PART + 1, 2 * PART, LIMITED_MAX_SIZE - 3]


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rest", [0, 3], ids=["completing", "more to come"])
def test_one_wrong_bit_anywhere_is_460(
    limited: Tus, limited_server: ServerProcess, size: int, rest: int, chunked: bool
) -> None:
    """T86, T87: also where parts were full, or the upload would have been complete."""
    where = -1 if rest else 0  # the first byte, or the last
    content = pattern(size + rest)
    url = limited.new(size + rest)
    records = Records(limited_server.data_dir)

    with limited.unchanged(url):
        check_mismatch(
            limited.patch(
                url,
                0,
                flipped(content[:size], where),
                fields=checked(content[:size], "sha256"),
                chunked=chunked,
            )
        )
        assert records.events(url) == []
        assert limited.get(url).status == 404
    reply = limited.patch(
        url, 0, content[:size], fields=checked(content[:size], "sha256"), chunked=chunked
    )
    assert reply["upload-offset"] == str(size)
    assert limited.finish(url, content) == content
    assert records.events(url) == ["verified"]


@pytest.mark.parametrize("start", [1, PART - 1, PART, PART + 1])
@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1])
def test_a_wrong_body_behind_others_is_discarded_alone(limited: Tus, start: int, size: int) -> None:
    """T86, T87: what was there before stays, byte for byte."""
    content = pattern(start + size + 5)
    piece = content[start : start + size]
    url = limited.stored(content[:start], length=len(content))

    for _ in range(2):
        with limited.unchanged(url):
            wrong = flipped(piece, size // 2)
            check_mismatch(limited.patch(url, start, wrong, fields=checked(piece, "md5")))
    reply = limited.patch(url, start, piece, fields=checked(piece, "sha512"))
    assert reply.status == 204
    assert limited.finish(url, content) == content


def test_checked_and_unchecked_bodies_follow_each_other(limited: Tus) -> None:
    """T86."""
    content = pattern(2 * PART + 100)
    url, offset = limited.new(len(content)), 0

    for number, size in enumerate((10, PART, 1, 5000, PART - 100, 10**9)):
        piece = content[offset : offset + size]
        check_mismatch(limited.patch(url, offset, piece, fields=checked(OTHER)))
        fields = checked(piece) if number % 2 else None
        offset = int(limited.patch(url, offset, piece, fields=fields)["upload-offset"])

    assert limited.content(url) == content


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_an_empty_body_is_compared_too(tus: Tus, chunked: bool) -> None:
    """T82: at the start, in the middle, and at the end of an upload (T122)."""
    for url, offset in ((tus.new(5), 0), (tus.stored(b"he", length=5), 2)):
        with tus.unchanged(url, b"hello"):
            reply = tus.patch(url, offset, fields=checked(b""), chunked=chunked)
            assert (reply.status, reply["upload-offset"]) == (204, str(offset))
            check_mismatch(tus.patch(url, offset, fields=checked(OTHER), chunked=chunked))
    url = tus.stored(b"hello")
    with tus.unchanged(url, b"hello"):
        assert tus.patch(url, 5, fields=checked(b""), chunked=chunked).status == 204
        check_mismatch(tus.patch(url, 5, fields=checked(OTHER), chunked=chunked))


def test_a_wrong_body_settles_no_length(tus: Tus) -> None:
    """T57, T87: nothing of the request counts, and Upload-Length is part of it."""
    url = tus.new()

    with tus.unchanged(url):
        check_mismatch(tus.patch(url, 0, b"hello", length=5, fields=checked(OTHER)))
        check_mismatch(tus.patch(url, 0, b"hello", length=50, fields=checked(OTHER)))
        check_mismatch(tus.patch(url, 0, length=0, fields=checked(OTHER)))
    assert tus.patch(url, 0, b"hello", length=5, fields=checked(b"hello")).status == 204
    assert tus.content(url) == b"hello"


def test_a_checked_body_beyond_the_length_is_413(tus: Tus) -> None:
    """T119, T120: the whole of it is what the checksum is of."""
    url = tus.stored(b"he", length=5)

    for chunked in (False, True):
        with tus.unchanged(url):
            reply = tus.patch(url, 2, b"llo!", fields=checked(b"llo!"), chunked=chunked)
            assert reply.status == 413
            reply = tus.patch(url, 2, b"llo!", fields=checked(b"llo"), chunked=chunked)
            assert reply.status == 413
    assert tus.finish(url, b"hello") == b"hello"


# --- refused before the body

MALFORMED: list[FieldValue] = [
    "",
    "sha1",
    "sha1 ",
    "qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "SHA1 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "sha3 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "sha1  qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "sha1\tqvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00",
    "sha1 ###",
    "sha1 aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d",
    "sha256 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=, md5 XUFAKrxLKna5cZ2REBfFkg==",
    ["sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00="] * 2,
]


@pytest.mark.parametrize("value", MALFORMED, ids=shown)
def test_a_malformed_checksum_is_400(tus: Tus, records: Records, value: FieldValue) -> None:
    """T81, T83, T88, T92."""
    url = tus.new(5)

    with records.nothing_created(), tus.unchanged(url):
        for reply in (
            tus.patch(url, 0, b"hello", fields={"Upload-Checksum": value}),
            tus.patch(url, 0, fields={"Upload-Checksum": value}),
            tus.create(5, body=b"hello", fields={"Upload-Checksum": value}),
            tus.create(5, fields={"Upload-Checksum": value}),
        ):
            assert reply.status == 400
            assert reply.problem()["code"] == "malformed_header"


def test_an_unknown_algorithm_is_refused_before_the_body_is_read(tus: Tus) -> None:
    """T68, T83."""
    fields = tus.fields | {
        "Content-Type": BODY_TYPE,
        "Upload-Offset": "0",
        "Content-Length": "5",
        "Expect": "100-continue",
        "Upload-Checksum": "sha3 AAAA",
    }
    with tus.connect() as connection:
        connection.send_head("PATCH", tus.new(5), fields)

        assert connection.read_one_head().status == 400


def test_other_refusals_come_before_a_mismatch(tus: Tus) -> None:
    """Checks 4 to 10 before check 11."""
    url = tus.stored(b"he", length=5)
    wrong = checked(OTHER)

    with tus.unchanged(url, b"hello"):
        for offset, fields, status in (
            (2, {"Content-Type": "text/plain"}, 415),
            (1, {}, 409),
            (9, {}, 409),
            (2, {"Upload-Length": "6"}, 400),
            (2, {"Tus-Resumable": "0.2.2"}, 412),
        ):
            assert tus.patch(url, offset, b"llo", fields=dict(wrong) | fields).status == status
        assert tus.patch("/files/" + "0" * 32, 0, b"llo", fields=wrong).status == 404


# --- creation


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("length", ["exact", "more", "deferred"])
@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1, 2 * PART + 5])
def test_the_body_of_a_creation_is_compared(
    limited: Tus, limited_server: ServerProcess, size: int, length: str, chunked: bool
) -> None:
    """T92: no upload is left behind by a wrong one."""
    content = pattern(size)
    declared = {"exact": size, "more": size + 10, "deferred": None}[length]

    with Records(limited_server.data_dir).nothing_created():
        check_mismatch(
            limited.create(
                declared, body=flipped(content, -1), chunked=chunked, fields=checked(content)
            )
        )
    reply = limited.create(declared, body=content, chunked=chunked, fields=checked(content))
    assert reply.status == 201
    assert reply["upload-offset"] == str(size)
    if length == "exact":
        assert limited.content(reply["location"]) == content


@pytest.mark.parametrize("length", [0, 5, None])
@pytest.mark.parametrize("chunked", [False, True], ids=["none", "chunked"])
def test_the_body_of_a_creation_may_be_empty(
    tus: Tus, records: Records, length: int | None, chunked: bool
) -> None:
    """T92."""
    with records.nothing_created():
        check_mismatch(tus.create(length, chunked=chunked, fields=checked(OTHER)))
    reply = tus.create(length, chunked=chunked, fields=checked(b""))
    assert (reply.status, reply["upload-offset"]) == (201, "0")
    if length == 0:
        assert records.events(reply["location"]) == ["verified"]


# --- interrupted


@contextmanager
def begun(
    tus: Tus, url: str, offset: int, content: bytes, sent: int, *, chunked: bool
) -> Iterator[Connection]:
    """Begin a checked PATCH with `content` that stalls after `sent` bytes."""
    fields: dict[str, FieldValue] = {
        "Content-Type": BODY_TYPE,
        "Upload-Offset": str(offset),
        "Expect": "100-continue",
        **checked(content, "sha256"),
    }
    framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(content))}
    with tus.connect() as connection:
        connection.send_head("PATCH", url, tus.fields | fields | framing)
        assert connection.read_one_head().status == 100
        if chunked:
            connection.send_chunk(content[:sent])
        else:
            connection.send(content[:sent])
        connection.wait_taken()
        yield connection


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("how", ["reset", "half-close"])
@pytest.mark.parametrize("sent", [1, PART, 2 * PART + 10])
def test_of_an_interrupted_checked_body_nothing_counts(
    limited: Tus, how: str, sent: int, chunked: bool
) -> None:
    """T87: it goes before T32. For a chunked one also when only its end is missing."""
    content = pattern(2 * PART + 10 + (0 if chunked else 1))
    url = limited.stored(b"ab", length=2 + len(content))

    with begun(limited, url, 2, content, sent, chunked=chunked) as connection:
        if how == "reset":
            connection.reset()
        else:
            connection.half_close()
            assert connection.read_until_closed() == b""
    assert limited.offset(url) == 2
    assert limited.finish(url, b"ab" + content) == b"ab" + content


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_a_checked_body_that_is_overtaken_counts_for_nothing(limited: Tus, method: str) -> None:
    """T87, T125."""
    content = pattern(2 * PART)
    url = limited.stored(b"ab", length=2 + len(content))

    with begun(limited, url, 2, content, PART + 5, chunked=False) as connection:
        if method == "HEAD":
            assert limited.offset(url) == 2
        elif method == "PATCH":
            assert limited.append(url, 2, content) == 2 + len(content)
        else:
            assert limited.delete(url).status == 204
        connection.read_until_closed()
    if method != "DELETE":
        assert limited.finish(url, b"ab" + content) == b"ab" + content


def test_a_checked_body_that_stalls_counts_for_nothing(limited: Tus) -> None:
    """T30, T87."""
    content = pattern(PART + 100)
    url = limited.new(len(content))

    with begun(limited, url, 0, content, PART + 50, chunked=False) as connection:
        connection.read_until_closed()
    assert limited.offset(url) == 0
    assert limited.finish(url, content) == content


def test_an_interrupted_checked_creation_leaves_nothing(tus: Tus, records: Records) -> None:
    """T92."""
    before = records.count_uploads(), records.count_files()
    fields = {"Upload-Length": "1000", "Content-Type": BODY_TYPE, "Content-Length": "1000"}

    with tus.connect() as connection:
        connection.send_head(
            "POST", tus.base, tus.fields | fields | dict(checked(b"x")) | {"Expect": "100-continue"}
        )
        assert connection.read_one_head().status == 100
        connection.send(b"x" * 500)
        connection.wait_taken()
        connection.reset()
    wait_until(
        lambda: (records.count_uploads(), records.count_files()) == before, "it is taken back"
    )


@pytest.mark.parametrize("length", ["known", "deferred"])
def test_a_killed_server_has_nothing_of_a_checked_body(
    fresh_server: ServerFactory, length: str
) -> None:
    """T87: parts that were full at the kill are as if they had never come."""
    content = pattern(3 * PART)
    server = fresh_server(TUS_PART_SIZE_BYTES=str(PART))
    tus = Tus(server.port)
    url = tus.new(10 + len(content) if length == "known" else None)
    tus.append(url, 0, b"0123456789")
    with begun(tus, url, 10, content, 2 * PART + 7, chunked=False):
        server.kill()
    server.start()

    assert tus.offset(url) == 10
    reply = tus.patch(url, 10, content, length=10 + len(content), fields=checked(content, "sha512"))
    assert reply.status == 204
    assert tus.content(url) == b"0123456789" + content


# --- size


@pytest.mark.parametrize(
    "size", [20 * MIB + 1, pytest.param(300 * MIB, marks=pytest.mark.full)], ids=["20M", "300M"]
)
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_large_bodies_are_compared_while_they_arrive(tus: Tus, size: int, chunked: bool) -> None:
    """T82: with the parts that the server has by default."""
    content = pattern(20 * MIB + 1) * (size // (20 * MIB))
    url = tus.new(len(content))

    with tus.unchanged(url):
        check_mismatch(
            tus.patch(url, 0, flipped(content, 11 * MIB), fields=checked(content), chunked=chunked)
        )
    reply = tus.patch(url, 0, content, fields=checked(content, "sha512"), chunked=chunked)
    assert reply["upload-offset"] == str(len(content))
    assert tus.content(url) == content
