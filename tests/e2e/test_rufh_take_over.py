"""RUFH: two requests on one upload, interrupted bodies, passing trouble."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ServerFactory
from tests.support.http import Connection, Reply
from tests.support.records import Records
from tests.support.rufh import NEW, WIRES, Rufh, Wire
from tests.support.server import ServerProcess
from tests.support.tus import pattern

KIB = 1024
MIB = 1024 * KIB
SIZE = 200 * KIB
SAMPLE = [WIRES[0], WIRES[2], WIRES[-1]]


def check_cut_off(rufh: Rufh, holder: Connection, body_path: str) -> None:
    """R67, R72: without a reply where that can be done; else the status to look again by."""
    if body_path == "fast":
        rest = holder.read_until_closed()
        assert b"HTTP/1.1 2" not in rest
        assert b"HTTP/1.1 4" not in rest
        return
    reply = holder.read_reply()
    assert reply.status == 409
    assert not rufh.is_done(reply)
    assert reply.closes
    assert reply.problem()["code"] == "body_interrupted"
    rufh.check_common(reply)
    assert holder.read_until_closed() == b""


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("wire", SAMPLE, ids=str)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_retrieval_ends_the_running_append(
    rufh: Rufh, body_path: str, framing: str, method: str
) -> None:
    """R70, R71, R72: the offset told is accepted next."""
    content = pattern(SIZE)
    url = rufh.new()
    declared = SIZE if framing == "sized" else None

    with rufh.hold(url, 0, content[: SIZE // 2], done=True, declared=declared) as holder:
        head = rufh.request(method, url)
        assert head["upload-offset"] == str(SIZE // 2)
        reply = rufh.append(url, SIZE // 2, content[SIZE // 2 :], done=True)
        assert reply.status == 201
        check_cut_off(rufh, holder, body_path)
    assert rufh.content(url) == content


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_an_append_takes_over_where_the_running_one_is(
    rufh: Rufh, body_path: str, framing: str
) -> None:
    """R71."""
    content = pattern(SIZE)
    url = rufh.new()
    declared = SIZE if framing == "sized" else None

    with rufh.hold(url, 0, content[: SIZE // 2], done=True, declared=declared) as holder:
        reply = rufh.append(url, SIZE // 2, content[SIZE // 2 :], done=True)
        assert reply.status == 201
        check_cut_off(rufh, holder, body_path)
    assert rufh.content(url) == content


@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_delete_ends_the_running_append(rufh: Rufh, records: Records, body_path: str) -> None:
    """R67."""
    url = rufh.new()

    with rufh.hold(url, 0, b"hello", done=True, declared=10) as holder:
        assert rufh.delete(url).status == 204
        if body_path == "fast":
            check_cut_off(rufh, holder, body_path)
        else:
            assert holder.read_reply().status == 409
    assert rufh.head(url).status == 404
    assert records.events(rufh.path(url)) == ["canceled"]


@pytest.mark.parametrize("wire", [WIRES[2], WIRES[-2]], ids=str)
def test_a_retrieval_ends_the_running_creation(rufh: Rufh, body_path: str) -> None:
    """R71: at the URL that the 104 gave."""
    content = pattern(SIZE)
    connection, interim = rufh.begin(
        "POST", rufh.base, rufh.flag(True), content[: SIZE // 2], declared=SIZE
    )
    url = interim[0]["location"]

    with connection:
        assert rufh.offset(url) == SIZE // 2
        check_cut_off(rufh, connection, body_path)
    assert rufh.finish(url, content) == content


@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_of_many_appends_at_one_offset_one_succeeds(rufh: Rufh) -> None:
    """R69: whichever it is, the content is that of one of them."""
    url = rufh.new()
    bodies = [pattern(64 * KIB, seed) for seed in range(8)]

    def send(body: bytes) -> Reply | None:
        return rufh.try_append(url, 0, body, done=True)

    with ThreadPoolExecutor(len(bodies)) as pool:
        replies = list(pool.map(send, bodies))

    statuses = Counter(reply.status for reply in replies if reply is not None)
    assert statuses[201] <= 1
    assert set(statuses) <= {201, 400, 409}
    if statuses[201]:
        assert rufh.content(url) in bodies
    else:
        # Each was cut off by another one: what has arrived is the beginning of one of them.
        offset = rufh.offset(url)
        assert offset < 64 * KIB


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_an_interrupted_append_is_kept_and_not_complete(rufh: Rufh, framing: str, end: str) -> None:
    """R48, R49."""
    content = pattern(SIZE)
    url = rufh.new()
    declared = SIZE if framing == "sized" else None
    holder = rufh.hold(url, 0, content[: SIZE // 2], done=True, declared=declared)
    holder.reset() if end == "reset" else holder.close()

    head = rufh.head(url)

    assert head["upload-offset"] == str(SIZE // 2)
    assert not rufh.is_done(head)
    assert rufh.finish(url, content) == content


@pytest.mark.parametrize("wire", NEW[:1], ids=str)
def test_offsets_survive_a_crash(fresh_server: ServerFactory, wire: Wire) -> None:
    """R2, R70."""
    server = fresh_server()
    rufh = Rufh(server.port, wire)
    url = rufh.stored(b"he")
    server.kill()
    server.start()

    assert rufh.offset(url) == 2
    assert rufh.finish(url, b"hello") == b"hello"


@pytest.fixture
def stalling(limited_server: ServerProcess, wire: Wire) -> Rufh:
    """A client of a server that gives a sender half a second."""
    return Rufh(limited_server.port, wire)


@pytest.mark.parametrize("wire", SAMPLE[:1], ids=str)
def test_a_stalled_sender_is_cut_off(stalling: Rufh, body_path: str) -> None:
    """D9: its connection is closed; where that cannot be done it is 503."""
    url = stalling.new()
    with stalling.hold(url, 0, b"hello", done=True, declared=10) as holder:
        if body_path == "fast":
            assert b"HTTP/1.1 " not in holder.read_until_closed()
        else:
            reply = holder.read_reply()
            assert reply.status == 503
            assert reply["retry-after"]
            stalling.check_common(reply)

    assert stalling.offset(url) == 5
