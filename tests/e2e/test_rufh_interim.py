"""RUFH: 104 (Upload Resumption Supported), read from the socket."""

import time
from collections.abc import Iterator

import pytest

from tests.conftest import ServerFactory, check_log
from tests.support.http import Reply
from tests.support.rufh import INTEROP, WIRES, Rufh, Wire, parse_limits
from tests.support.server import ServerProcess
from tests.support.tus import pattern

KIB = 1024
MIB = 1024 * KIB
INFORMED = [wire for wire in WIRES if wire.informs]
TOLD = [wire for wire in INFORMED if wire.progress]

PROGRESS_NAMES = {INTEROP.lower(), "upload-offset"}


def names(reply: Reply) -> set[str]:
    return {name.lower() for name, _ in reply.fields}


def check_first(rufh: Rufh, first: Reply) -> None:
    """Check the 104 of a creation (R22-R24, R86, section 2.3)."""
    assert first.status == 104
    assert first.reason == "Upload Resumption Supported"
    assert first[INTEROP] == rufh.wire.interop
    assert first["location"].startswith(f"http://127.0.0.1:{rufh.port}/files/")
    key = rufh.wire.lifetime_key
    expected = {INTEROP.lower(), "location"} | ({"upload-limit"} if key else set())
    assert names(first) == expected
    if key is not None:
        assert set(parse_limits(first["upload-limit"])) == {"min-size", "max-size", key}


@pytest.mark.parametrize("done", [False, True], ids=["more", "last"])
@pytest.mark.parametrize("body", [b"", b"hello"])
@pytest.mark.parametrize("wire", INFORMED, ids=str)
def test_a_creation_is_announced(rufh: Rufh, body: bytes, done: bool) -> None:
    """R22, R23, R24, R31: also an empty one; the same Location in both replies."""
    reply = rufh.create(body, done=done)

    assert reply.status == 201
    first = reply.interim[0]
    check_first(rufh, first)
    assert first["location"] == reply["location"]


@pytest.mark.parametrize("wire", INFORMED, ids=str)
def test_the_announcement_comes_before_the_body_is_asked_for(rufh: Rufh) -> None:
    """R22, R73: 104, 100, final; the upload is there by then."""
    content = pattern(100_000)
    fields = rufh.flag(True)
    connection, interim = rufh.begin(
        "POST", rufh.base, fields, content[:50_000], declared=len(content)
    )
    with connection:
        assert [reply.status for reply in interim] == [104, 100]
        check_first(rufh, interim[0])
        connection.send(content[50_000:])
        reply = connection.read_reply()

    assert reply.status == 201
    assert reply["location"] == interim[0]["location"]
    assert rufh.content(reply["location"]) == content


@pytest.mark.parametrize("wire", WIRES[-1:], ids=str)
@pytest.mark.parametrize("number", [None, "11", "4"])
def test_who_names_no_version_of_ours_is_not_informed(rufh: Rufh, number: str | None) -> None:
    """R85."""
    reply = rufh.create(b"hello", done=True, fields={INTEROP: number})

    assert reply.interim == ()


@pytest.mark.parametrize("wire", INFORMED, ids=str)
def test_what_is_refused_is_not_announced(rufh: Rufh) -> None:
    """R22: all checks come first."""
    reply = rufh.create(b"hello", done=True, length=6)

    assert reply.status == 400
    assert reply.interim == ()


@pytest.mark.parametrize("wire", INFORMED[-1:], ids=str)
def test_http_1_0_is_not_informed(rufh: Rufh) -> None:
    """Section 5: RFC 9110, 15.2 forbids it."""
    with rufh.connect() as connection:
        fields = {**rufh.fields, **rufh.flag(True), "Content-Length": "5"}
        connection.send_head("POST", rufh.base, fields, version="HTTP/1.0")
        connection.send(b"hello")
        reply = connection.read_reply()

    assert reply.status == 201
    assert reply.interim == ()


@pytest.mark.parametrize("wire", INFORMED, ids=str)
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_an_interrupted_creation_goes_on_at_the_announced_url(rufh: Rufh, chunked: bool) -> None:
    """R29, R33, R34: as much as possible is kept, and it is not complete."""
    content = pattern(300_000)
    declared = None if chunked else len(content)
    connection, interim = rufh.begin(
        "POST", rufh.base, rufh.flag(True), content[:200_000], declared=declared
    )
    connection.close()
    url = interim[0]["location"]

    head = rufh.head(url)

    assert head["upload-offset"] == "200000"
    assert not rufh.is_done(head)
    assert head.find("upload-length") == (None if chunked else "300000")
    assert rufh.finish(url, content) == content


@pytest.mark.parametrize("wire", INFORMED[-1:], ids=str)
def test_a_chunked_body_without_its_end_is_not_complete(rufh: Rufh) -> None:
    """R34: although all bytes have arrived."""
    content = pattern(1000)
    fields = rufh.flag(True) | {"Upload-Length": "1000"}
    connection, interim = rufh.begin("POST", rufh.base, fields, content)
    connection.close()

    head = rufh.head(interim[0]["location"])

    assert not rufh.is_done(head)
    assert rufh.finish(interim[0]["location"], content) == content


# --- progress


@pytest.fixture(scope="module")
def parts_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with parts of 1 MiB, so that there is progress to tell."""
    data_dir = tmp_path_factory.mktemp(f"parts-{body_path}") / "data"
    env = {"TUS_BODY_PATH": body_path, "TUS_PART_SIZE_BYTES": str(MIB)}
    with ServerProcess(data_dir, **env) as server:
        yield server
        check_log(server.log)


@pytest.fixture
def parts(parts_server: ServerProcess, wire: Wire) -> Rufh:
    """A client of it."""
    return Rufh(parts_server.port, wire)


@pytest.mark.parametrize("verb", ["creation", "append"])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("wire", [TOLD[0], TOLD[-1]], ids=str)
def test_progress_is_told_while_the_body_comes(parts: Rufh, verb: str, chunked: bool) -> None:
    """R30, R62, R63: what is told is durable, so a HEAD that interrupts knows it too."""
    content = pattern(5 * MIB)
    declared = None if chunked else len(content)
    if verb == "creation":
        target, fields = parts.base, parts.flag(True)
    else:
        target, fields = parts.new(), parts.append_fields(0, True)
    method = "POST" if verb == "creation" else "PATCH"
    connection, interim = parts.begin(
        method, target, fields, content[: 2 * MIB + 10], declared=declared
    )
    url = interim[0]["location"] if verb == "creation" else target

    with connection:
        told = connection.read_one_head()
        assert told.status == 104
        assert names(told) == PROGRESS_NAMES
        assert told[INTEROP] == parts.wire.interop
        offset = int(told["upload-offset"])
        assert 0 < offset <= 2 * MIB
        # An acknowledgement: no request ever sees less.
        assert parts.offset(url) >= offset
    assert parts.finish(url, content) == content


@pytest.mark.parametrize("verb", ["creation", "append"])
@pytest.mark.parametrize("wire", [TOLD[-1]], ids=str)
def test_an_offset_that_was_told_survives_a_crash(
    fresh_server: ServerFactory, wire: Wire, verb: str
) -> None:
    """R2, R30, P1: the client may have freed those bytes, so kill -9 at that moment loses none."""
    server = fresh_server(TUS_PART_SIZE_BYTES=str(MIB))
    rufh = Rufh(server.port, wire)
    content = pattern(5 * MIB)
    creates = verb == "creation"
    target = rufh.base if creates else rufh.new()
    fields = rufh.flag(True) if creates else rufh.append_fields(0, True)
    connection, interim = rufh.begin(
        "POST" if creates else "PATCH",
        target,
        fields,
        content[: 3 * MIB + 10],
        declared=len(content),
    )
    url = interim[0]["location"] if creates else target

    with connection:
        told = int(connection.read_one_head()["upload-offset"])
        server.kill()
    server.start()

    head = rufh.head(url)
    assert int(head["upload-offset"]) >= told > 0
    assert not rufh.is_done(head)
    assert rufh.finish(url, content) == content


@pytest.mark.parametrize("wire", [TOLD[-1]], ids=str)
def test_progress_only_grows_and_not_in_every_part(parts: Rufh) -> None:
    """R2, section 5: at most one reply a second."""
    content = pattern(20 * MIB)
    url = parts.new()

    began_s = time.monotonic()
    reply = parts.append(url, 0, content, done=True)
    took_s = time.monotonic() - began_s

    told = [int(interim["upload-offset"]) for interim in reply.interim]
    assert told == sorted(set(told))
    assert len(told) <= 1 + took_s
    assert int(reply["upload-offset"]) == len(content)


@pytest.mark.parametrize("wire", [WIRES[0], WIRES[-1]], ids=str)
def test_where_progress_is_not_defined_none_is_told(parts: Rufh) -> None:
    """R30, R85: version 3, and no version."""
    url = parts.new()

    reply = parts.append(url, 0, pattern(8 * MIB), done=True)

    assert reply.status == 201
    assert reply.interim == ()


@pytest.mark.parametrize("wire", [TOLD[-1]], ids=str)
def test_a_connection_that_was_informed_takes_the_next_request(
    server: ServerProcess, wire: Wire
) -> None:
    """Section 5: keep-alive."""
    rufh = Rufh(server.port, wire)
    with rufh.connect() as connection:
        for _ in range(3):
            fields = {**rufh.fields, **rufh.flag(True), "Content-Length": "5"}
            connection.send_head("POST", rufh.base, fields)
            connection.send(b"hello")
            reply = connection.read_reply()
            assert reply.status == 201
            assert [interim.status for interim in reply.interim] == [104]
