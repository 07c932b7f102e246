"""RUFH: limits, told and enforced, and expiry; in every version."""

from collections.abc import Iterator

import pytest

from tests.conftest import ServerFactory, check_log
from tests.e2e.conftest import LIMITED_MAX_SIZE
from tests.support.records import Records
from tests.support.rufh import INTEROP, NEW, WIRES, Rufh, Wire, parse_limits
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

LIFE_S = 1
MAX_APPEND = 1000


@pytest.fixture
def limited_rufh(limited_server: ServerProcess, wire: Wire) -> Rufh:
    """A client of the server with small limits."""
    return Rufh(limited_server.port, wire)


@pytest.fixture
def limited_records(limited_server: ServerProcess) -> Records:
    return Records(limited_server.data_dir)


@pytest.fixture(scope="module")
def narrow_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that takes little in one request."""
    data_dir = tmp_path_factory.mktemp(f"narrow-{body_path}") / "data"
    env = {"TUS_BODY_PATH": body_path, "TUS_MAX_APPEND_SIZE": str(MAX_APPEND)}
    with ServerProcess(data_dir, **env) as server:
        yield server
        check_log(server.log)


@pytest.fixture
def narrow(narrow_server: ServerProcess, wire: Wire) -> Rufh:
    """A client of it."""
    return Rufh(narrow_server.port, wire)


@pytest.fixture
def narrow_records(narrow_server: ServerProcess) -> Records:
    return Records(narrow_server.data_dir)


@pytest.fixture(scope="module")
def hasty_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server whose uploads expire within seconds."""
    data_dir = tmp_path_factory.mktemp(f"hasty-{body_path}") / "data"
    env = {"TUS_BODY_PATH": body_path, "TUS_EXPIRES_AFTER_S": str(LIFE_S)}
    with ServerProcess(data_dir, **env) as server:
        yield server
        check_log(server.log)


@pytest.fixture
def hasty(hasty_server: ServerProcess, wire: Wire) -> Rufh:
    """A client of it."""
    return Rufh(hasty_server.port, wire)


# --- OPTIONS


@pytest.mark.parametrize("fields", [{}, {"Upload-Complete": "?1"}], ids=["plain", "flag"])
@pytest.mark.parametrize("target", ["/files/", "/files", "*", "upload"])
def test_options_tells_the_limits(rufh: Rufh, target: str, fields: dict[str, str]) -> None:
    """R11, R16, R17, R18, R87."""
    if target == "upload":
        target = rufh.new()

    reply = rufh.request("OPTIONS", target, fields)

    assert reply.status == 204
    limits = parse_limits(reply["upload-limit"])
    lifetime_key = rufh.wire.lifetime_key or "max-age"
    assert limits == {"min-size": 0, "max-size": 10**15 - 1, lifetime_key: 7 * 86_400}
    assert next(iter(limits)) == "min-size"
    patch_types = "application/offset+octet-stream, application/partial-upload"
    assert reply["accept-patch"] == patch_types
    assert reply.find(INTEROP) == rufh.wire.interop
    # One reply for both protocols.
    assert reply["tus-resumable"] == reply["tus-version"] == "1.0.0"
    assert "sha1" in reply["tus-checksum-algorithm"]


@pytest.mark.parametrize("wire", NEW[:1], ids=str)
def test_the_limits_told_before_are_those_told_later(limited_rufh: Rufh) -> None:
    """R12, R19."""
    before = parse_limits(limited_rufh.request("OPTIONS", "/files/")["upload-limit"])

    later = parse_limits(limited_rufh.create(done=False)["upload-limit"])

    assert before["max-size"] == later["max-size"] == LIMITED_MAX_SIZE
    assert later["max-age"] <= before["max-age"]


def test_an_upload_without_end_has_no_lifetime(limited_rufh: Rufh) -> None:
    """R41: once it is finished."""
    if limited_rufh.wire.lifetime_key is None:
        return
    url = limited_rufh.finished(b"hello")

    assert set(parse_limits(limited_rufh.head(url)["upload-limit"])) == {"min-size", "max-size"}


# --- the maximum


@pytest.mark.parametrize("excess", [0, 1])
def test_the_largest_upload_is_the_one_told(
    limited_rufh: Rufh, limited_records: Records, excess: int
) -> None:
    """R12, R20, D8: known before a byte is asked for; nothing is created."""
    if not excess:
        assert limited_rufh.create(done=False, length=LIMITED_MAX_SIZE).status == 201
        return
    with limited_records.nothing_created():
        reply = limited_rufh.create(done=False, length=LIMITED_MAX_SIZE + 1)

    limited_rufh.check_standing(reply, 413, None)
    assert reply.interim == ()


def test_content_beyond_the_maximum_creates_nothing(
    limited_rufh: Rufh, limited_records: Records
) -> None:
    """D8, R20."""
    with limited_records.nothing_created():
        reply = limited_rufh.create(pattern(LIMITED_MAX_SIZE + 1), done=True)

    limited_rufh.check_standing(reply, 413, None)


def test_the_maximum_is_checked_before_the_lengths_are_compared(limited_rufh: Rufh) -> None:
    """D8, R9."""
    reply = limited_rufh.create(b"hello", done=True, length=LIMITED_MAX_SIZE + 1)

    limited_rufh.check_standing(reply, 413, None)


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_an_append_beyond_the_maximum_ends_the_upload(limited_rufh: Rufh, chunked: bool) -> None:
    """D8: 413 and ?0, then 404."""
    url = limited_rufh.stored(b"he")

    reply = limited_rufh.append(url, 2, pattern(LIMITED_MAX_SIZE), done=False, chunked=chunked)

    assert reply.status == 413
    assert not limited_rufh.is_done(reply)
    assert limited_rufh.head(url).status == 404


@pytest.mark.parametrize("now", ["1000", "1 MiB"], ids=["lowered", "raised"])
@pytest.mark.parametrize("wire", [WIRES[2], *NEW[-1:]], ids=str)
def test_the_maximum_told_to_a_creation_holds(
    fresh_server: ServerFactory, wire: Wire, now: str
) -> None:
    """R15, T62: whatever the server is told when it is started again."""
    server = fresh_server(TUS_MAX_SIZE="5000")
    rufh, tus = Rufh(server.port, wire), Tus(server.port)
    content = pattern(5000)
    url, named = rufh.stored(content[:300]), rufh.new(5000)
    deferred, other = tus.new(), tus.new()

    server.stop()
    server.env["TUS_MAX_SIZE"] = now
    server.start()

    for upload in (url, named):
        assert parse_limits(rufh.head(upload)["upload-limit"])["max-size"] == 5000
        reply = rufh.append(upload, rufh.offset(upload), content[rufh.offset(upload) :], done=False)
        assert parse_limits(reply["upload-limit"])["max-size"] == 5000
        assert rufh.finish(upload, content) == content
    assert tus.patch(deferred, 0, content).status == 204
    assert tus.patch(deferred, 5000, length=5001).status == 413
    assert tus.patch(deferred, 5000, b"!").status == 413
    assert tus.patch(deferred, 5000, length=5000).status == 204
    assert tus.patch(other, 0, content + b"!").status == 413
    new = parse_limits(rufh.create(done=False)["upload-limit"])["max-size"]
    assert new == {"1000": 1000, "1 MiB": 1 << 20}[now]


# --- what one request may bring


def test_the_largest_body_is_told_wherever_limits_are(narrow: Rufh) -> None:
    """R12, R19, section 6.2: from version 6 on."""
    url = narrow.stored(b"he")
    replies = {
        "options": narrow.request("OPTIONS", "/files/"),
        "upload": narrow.request("OPTIONS", url),
        "creation": narrow.create(b"he", done=False),
        "append": narrow.append(url, 2, b"l", done=False),
        "head": narrow.head(url),
        "get": narrow.get(url),
        "refusal": narrow.append(url, 7, b"l", done=False),
        "end": narrow.append(url, 3, b"lo", done=True),
    }

    for name, reply in replies.items():
        if narrow.wire.lifetime_key is None and name not in ("options", "upload"):
            assert "upload-limit" not in reply
            continue
        assert parse_limits(reply["upload-limit"])["max-append-size"] == MAX_APPEND, name
    if narrow.wire.informs and narrow.wire.lifetime_key is not None:
        connection, interim = narrow.begin("POST", "/files/", narrow.flag(True), b"x", declared=2)
        connection.close()
        assert parse_limits(interim[0]["upload-limit"])["max-append-size"] == MAX_APPEND


@pytest.mark.parametrize("done", [False, True], ids=["more", "last"])
@pytest.mark.parametrize("length", [None, 3000])
def test_a_larger_body_is_413_and_the_upload_stays(
    narrow: Rufh, done: bool, length: int | None
) -> None:
    """R13, R20: known before a byte is asked for, or found out while receiving."""
    content = pattern(3000)
    url = narrow.stored(content[:2], length=length)
    with narrow.unchanged(url):
        reply = narrow.append(url, 2, content[2:], done=done, fields={"Expect": "100-continue"})
        narrow.check_standing(reply, 413, 2)
        assert reply.interim == ()
        assert reply.problem()["code"] == "append_too_large"

    reply = narrow.append(url, 2, content[2:], done=done, chunked=True)
    narrow.check_standing(reply, 413, 2 + MAX_APPEND)

    for chunked in (False, True):
        offset = narrow.offset(url)
        body = content[offset : offset + MAX_APPEND - chunked]
        assert narrow.append(url, offset, body, done=False, chunked=chunked).status < 300
    assert narrow.finish(url, content) == content


@pytest.mark.parametrize("done", [False, True], ids=["more", "last"])
def test_the_content_of_a_creation_is_limited_too(
    narrow: Rufh, narrow_records: Records, done: bool
) -> None:
    """R13: who was told the URL in a 104 may go on, for others nothing is left."""
    content = pattern(2 * MAX_APPEND)
    with narrow_records.nothing_created():
        reply = narrow.create(content, done=done)
        narrow.check_standing(reply, 413, None)
        assert reply.interim == ()

    reply = narrow.create(content, done=done, chunked=True)

    narrow.check_standing(reply, 413, None)
    for early in reply.interim:
        if "location" in early:
            assert narrow.offset(early["location"]) == MAX_APPEND
            assert narrow.finish(early["location"], content) == content
    assert narrow.create(content[:MAX_APPEND], done=True).status == 201


@pytest.mark.parametrize("wire", WIRES[-1:], ids=str)
def test_tus_has_no_such_limit(narrow_server: ServerProcess, wire: Wire) -> None:
    """T22."""
    tus = Tus(narrow_server.port)
    content = pattern(3 * MAX_APPEND)

    assert tus.patch(tus.new(len(content)), 0, content).status == 204


# --- expiry


@pytest.mark.parametrize("wire", [WIRES[0], WIRES[2]], ids=str)
def test_an_upload_that_expires_is_410(hasty: Rufh) -> None:
    """Section 2.1, R41: what is told to be left of its life is not longer than that."""
    url = hasty.new()
    head = hasty.head(url)
    if hasty.wire.lifetime_key is not None:
        assert 0 <= parse_limits(head["upload-limit"])[hasty.wire.lifetime_key] <= LIFE_S

    wait_until(lambda: hasty.head(url).status == 410, "it expires")

    for method in ("GET", "PATCH", "DELETE"):
        fields = hasty.append_fields(0, True) if method == "PATCH" else {}
        reply = hasty.request(method, url, fields)
        assert reply.status == 410
        for name in ("upload-offset", hasty.wire.flag, "upload-limit"):
            assert name not in reply
        hasty.check_common(reply)


@pytest.mark.parametrize("wire", WIRES[-1:], ids=str)
def test_bytes_let_an_upload_live(hasty: Rufh) -> None:
    """R15: while one that gets none expires."""
    idle, busy = hasty.new(), hasty.new()
    offset = 0

    def outlived() -> bool:
        nonlocal offset
        reply = hasty.append(busy, offset, b"x", done=False)
        assert reply.status == hasty.wire.appended
        offset += 1
        return hasty.head(idle).status == 410

    wait_until(outlived, "the idle one expires")

    assert hasty.offset(busy) == offset


@pytest.mark.parametrize("wire", WIRES[-1:], ids=str)
def test_empty_appends_extend_no_life(hasty: Rufh) -> None:
    """R84."""
    url = hasty.stored(b"x")

    wait_until(lambda: hasty.append(url, 1, done=False).status == 410, "it expires all the same")
