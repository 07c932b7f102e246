"""RUFH: passing trouble is 503, for a 4xx ends an upload (D9, R72)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ServerFactory, check_log
from tests.support.http import Reply
from tests.support.records import Records, upload_id
from tests.support.rufh import WIRES, Rufh, Wire
from tests.support.server import ServerProcess
from tests.support.tus import pattern

SAMPLE = [WIRES[0], WIRES[2], WIRES[-1]]


@pytest.fixture(scope="module")
def impatient_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that does not wait for a lease, so that holding one is seen."""
    data_dir = tmp_path_factory.mktemp("impatient-rufh") / "data"
    with ServerProcess(data_dir, TUS_BODY_PATH=body_path, TUS_LEASE_WAIT_S="0") as server:
        yield server
        check_log(server.log)


@contextmanager
def broken_store(data_dir: Path) -> Iterator[None]:
    """Let every file operation of the store fail: its folder is a file."""
    objects, aside = data_dir / "objects", data_dir / "objects-aside"
    objects.mkdir(exist_ok=True)
    objects.rename(aside)
    objects.write_bytes(b"")
    yield
    objects.unlink()
    aside.rename(objects)


def check_comes_back_later(rufh: Rufh, reply: Reply) -> None:
    assert reply.status == 503
    assert int(reply["retry-after"]) >= 1
    for name in ("upload-offset", rufh.wire.flag, "upload-limit", "location"):
        assert name not in reply
    rufh.check_common(reply)


@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_a_lease_that_is_not_obtained_is_503(impatient_server: ServerProcess, wire: Wire) -> None:
    """R72, D9: on every method."""
    rufh = Rufh(impatient_server.port, wire)
    url = rufh.new(100)

    with rufh.hold(url, 0, b"x" * 10, done=True, declared=100) as holder:
        for reply in (
            rufh.head(url),
            rufh.get(url),
            rufh.append(url, 10, b"x", done=False),
            rufh.delete(url),
        ):
            check_comes_back_later(rufh, reply)
        holder.send(b"x" * 90)

        assert holder.read_reply().status == 201
    assert rufh.delete(url).status == 204


def test_what_a_holder_cannot_change_is_answered_at_once(
    impatient_server: ServerProcess, wire: Wire
) -> None:
    """P8: what is wrong in itself needs no lease."""
    rufh = Rufh(impatient_server.port, wire)
    url = rufh.new(100)

    with rufh.hold(url, 0, b"x" * 10, done=True, declared=100) as holder:
        assert rufh.append(url, 101, b"x", done=False).status == 409
        assert rufh.append(url, "ten", b"x", done=False).status == 400
        assert rufh.head(url, {"Upload-Length": "5"}).status == 400
        assert rufh.request("OPTIONS", url).status == 204
        holder.send(b"x" * 90)

        assert holder.read_reply().status == 201


@pytest.mark.parametrize("wire", WIRES[-1:], ids=str)
def test_a_broken_store_is_503_and_loses_no_byte(fresh_server: ServerFactory, wire: Wire) -> None:
    """D9: HEAD tells the true offset."""
    server = fresh_server()
    rufh = Rufh(server.port, wire)
    content = pattern(10_000)
    url, finished = rufh.stored(content[:4000], length=10_000), rufh.finished(b"hello")

    with broken_store(server.data_dir), rufh.unchanged(url):
        for reply in (
            rufh.append(url, 4000, content[4000:], done=True),
            rufh.append(url, 4000, content[4000:5000], done=False, chunked=True),
            rufh.create(b"hello", done=True),
            rufh.create(done=True),
            rufh.get(finished),
        ):
            check_comes_back_later(rufh, reply)
            assert reply.problem()["code"] == "store_unavailable"

    assert rufh.finish(url, content) == content


@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_nothing_is_complete_before_the_object_is_there(rufh: Rufh, records: Records) -> None:
    """R7, D7, D10: the server goes on by itself, or with whoever asks next."""
    content = pattern(1000)
    url = rufh.stored(content[:500], length=1000)
    path = rufh.path(url)
    # A folder, and not an empty one, where the finished object should get its name.
    (partial,) = records.files(path)
    obstacle = partial.parent / upload_id(path)
    (obstacle / "in the way").mkdir(parents=True)

    check_comes_back_later(rufh, rufh.append(url, 500, content[500:], done=True))
    for method in ("HEAD", "GET"):
        reply = rufh.request(method, url)
        assert reply.status in (204, 503)
        if reply.status == 204:
            assert not rufh.is_done(reply)
            assert reply["upload-offset"] != "1000"
    assert records.events(path) == []
    shutil.rmtree(obstacle)

    head = rufh.head(url)
    assert rufh.is_done(head)
    assert head["upload-offset"] == "1000"
    assert rufh.content(url) == content
    assert records.events(path) == ["verified"]
