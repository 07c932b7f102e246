"""RUFH: Content-Digest, Repr-Digest and Want-Repr-Digest (RFC 9530), in every version."""

import hashlib
from base64 import b64encode

import pytest

from tests.support.records import Records
from tests.support.rufh import WIRES, Rufh
from tests.support.tus import pattern

ALGORITHMS = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
SAMPLE = [WIRES[0], WIRES[2], WIRES[-2]]


def digest(content: bytes, *names: str) -> str:
    """Give the value of a digest field."""
    members = []
    for name in names or ("sha-256",):
        encoded = b64encode(ALGORITHMS[name](content).digest()).decode()
        members.append(f"{name}=:{encoded}:")
    return ", ".join(members)


# --- Content-Digest: of one body


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("names", [("sha-256",), ("sha-512",), ("sha-256", "sha-512")], ids=str)
@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_bodies_with_right_digests_are_taken(
    rufh: Rufh, names: tuple[str, ...], chunked: bool
) -> None:
    """R80."""
    content = pattern(100_000)
    first, rest = content[:60_000], content[60_000:]
    checked = {"Content-Digest": digest(first, *names)}
    url = rufh.create(first, done=False, fields=checked, chunked=chunked)["location"]

    checked = {"Content-Digest": digest(rest, *names)}
    reply = rufh.append(url, 60_000, rest, done=True, fields=checked, chunked=chunked)

    assert reply.status == 201
    assert rufh.content(url) == content


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("done", [False, True], ids=["more", "last"])
@pytest.mark.parametrize("names", [("sha-256",), ("sha-512",), ("sha-256", "sha-512")], ids=str)
@pytest.mark.parametrize("body", [b"", b"llo", pattern(100_000)], ids=len)
def test_a_body_with_a_wrong_digest_changes_nothing(
    rufh: Rufh, names: tuple[str, ...], body: bytes, done: bool, chunked: bool
) -> None:
    """R80: 400 and ?0."""
    url = rufh.stored(b"he")

    with rufh.unchanged(url, b"hello"):
        wrong = {"Content-Digest": digest(body + b"!", *names)}
        reply = rufh.append(url, 2, body, done=done, fields=wrong, chunked=chunked)

        rufh.check_standing(reply, 400, 2)
        assert reply.problem()["code"] == "checksum_mismatch"


@pytest.mark.parametrize("wire", WIRES[-1:], ids=str)
def test_an_unannounced_creation_with_a_wrong_digest_leaves_nothing(
    rufh: Rufh, records: Records
) -> None:
    """R80."""
    with records.nothing_created():
        reply = rufh.create(b"hello", done=True, fields={"Content-Digest": digest(b"hellO")})

    rufh.check_standing(reply, 400, None)


@pytest.mark.parametrize("wire", WIRES[2:3], ids=str)
def test_an_announced_creation_with_a_wrong_digest_can_go_on(rufh: Rufh) -> None:
    """R80: the client knows its URL."""
    reply = rufh.create(b"hello", done=True, fields={"Content-Digest": digest(b"hellO")})

    rufh.check_standing(reply, 400, None)
    url = reply.interim[0]["location"]
    assert rufh.offset(url) == 0
    assert rufh.finish(url, b"hello") == b"hello"


@pytest.mark.parametrize(
    "value", ["md5=:AAAA:", "sha=:AAAA:", "unixsum=:AAAA:, crc32c=:AAAA:", "", "not a dictionary!"]
)
@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest", "Want-Repr-Digest"])
@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_algorithms_nobody_knows_are_ignored(rufh: Rufh, field: str, value: str) -> None:
    """R80."""
    reply = rufh.create(b"hello", done=True, fields={field: value})

    assert reply.status == 201
    assert "repr-digest" not in reply


@pytest.mark.parametrize("value", ["sha-256=:AAAA:", "sha-256=1", "sha-512", "sha-256=abc"])
@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_a_digest_that_cannot_be_one_is_400(
    rufh: Rufh, records: Records, field: str, value: str
) -> None:
    """R80: storing an unchecked body would be worse."""
    with records.nothing_created():
        reply = rufh.create(b"hello", done=True, fields={field: value})

    rufh.check_standing(reply, 400, None)


# --- Repr-Digest: of the whole


@pytest.mark.parametrize("names", [("sha-256",), ("sha-512",), ("sha-256", "sha-512")], ids=str)
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("told", ["creation", "end"])
@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_a_whole_of_the_right_digest_is_complete(
    rufh: Rufh, names: tuple[str, ...], pieces: int, told: str
) -> None:
    """R78: while receiving if it came in one request, else by reading what is stored."""
    content = pattern(90_000)
    whole = {"Repr-Digest": digest(content, *names)}
    first = whole if told == "creation" else {}
    if pieces == 1:
        url = rufh.create(done=False, fields=first)["location"]
        reply = rufh.append(url, 0, content, done=True, fields=whole)
    else:
        url = rufh.create(content[:30_000], done=False, fields=first)["location"]
        rufh.append(url, 30_000, content[30_000:60_000], done=False)
        last = whole if told == "end" else {}
        reply = rufh.append(url, 60_000, content[60_000:], done=True, fields=last)

    assert reply.status == 201
    assert rufh.is_done(reply)
    assert rufh.content(url) == content


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("name", ["sha-256", "sha-512"])
def test_a_whole_of_a_wrong_digest_has_failed(
    rufh: Rufh, records: Records, name: str, pieces: int
) -> None:
    """R78: 400 and ?1, and then it is gone."""
    whole = {"Repr-Digest": digest(b"hellO", name)}
    if pieces == 1:
        url = rufh.create(done=False)["location"]
        reply = rufh.append(url, 0, b"hello", done=True, fields=whole)
    else:
        url = rufh.create(b"he", done=False, fields=whole)["location"]
        reply = rufh.append(url, 2, b"llo", done=True)

    assert reply.status == 400
    assert rufh.is_done(reply)
    assert reply.problem()["code"] == "digest_mismatch"
    assert "upload-offset" not in reply
    assert "location" not in reply
    rufh.check_common(reply)
    assert rufh.head(url).status == 404
    assert records.events(rufh.path(url)) == ["error"]


def test_a_creation_of_a_wrong_whole_has_failed(rufh: Rufh) -> None:
    """R78."""
    reply = rufh.create(b"hello", done=True, fields={"Repr-Digest": digest(b"hellO")})

    assert reply.status == 400
    assert rufh.is_done(reply)
    for interim in reply.interim:
        assert rufh.head(interim["location"]).status == 404


# --- Want-Repr-Digest


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("sha-256=10", "sha-256"),
        ("sha-512=3", "sha-512"),
        ("sha-256=1, sha-512=10", "sha-512"),
        ("sha-256=10, sha-512=1, md5=10", "sha-256"),
        ("sha-256=0, sha-512=1", "sha-512"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_the_digest_that_was_wanted_comes_with_the_completing_reply(
    rufh: Rufh, wanted: str, given: str, pieces: int
) -> None:
    """R79: the preferred one."""
    fields = {"Want-Repr-Digest": wanted}
    if pieces == 1:
        reply = rufh.create(b"hello", done=True, fields=fields)
    else:
        first = rufh.create(b"he", done=False, fields=fields)
        assert "repr-digest" not in first
        reply = rufh.append(first["location"], 2, b"llo", done=True)

    assert reply.status == 201
    assert reply["repr-digest"] == digest(b"hello", given)


@pytest.mark.parametrize("wanted", ["sha-256=0", "md5=1", "sha-256", "sha-256=11", "sha-256=-1"])
@pytest.mark.parametrize("wire", SAMPLE[:1], ids=str)
def test_what_was_not_wanted_does_not_come(rufh: Rufh, wanted: str) -> None:
    """R79: 0 is `not acceptable` (RFC 9530, 4)."""
    reply = rufh.create(b"hello", done=True, fields={"Want-Repr-Digest": wanted})

    assert reply.status == 201
    assert "repr-digest" not in reply
