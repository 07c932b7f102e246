"""What the behaviour of real clients demands (section 5.2, C1-C7)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ServerFactory, check_log
from tests.e2e.replies import REPLIES
from tests.support.http import Reply
from tests.support.records import Records, upload_id
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern


@pytest.fixture(scope="module")
def impatient_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that does not wait for a lease, so that holding one is seen."""
    data_dir = tmp_path_factory.mktemp("impatient") / "data"
    with ServerProcess(data_dir, TUS_BODY_PATH=body_path, TUS_LEASE_WAIT_S="0") as server:
        yield server
        check_log(server.log)


def check_comes_back_later(reply: Reply, status: int) -> None:
    assert reply.status == status
    assert int(reply["retry-after"]) >= 1
    assert reply["tus-resumable"] == "1.0.0"
    assert reply["cache-control"] == "no-store"
    assert "upload-offset" not in reply
    assert "location" not in reply


# --- a lease that is not obtained


def test_head_of_a_held_upload_is_423(impatient_server: ServerProcess) -> None:
    """C1, C3, T4, T19, T125."""
    tus = Tus(impatient_server.port)
    url = tus.new(100)

    with tus.hold(url, 0, b"x" * 10, declared=100) as holder:
        check_comes_back_later(tus.head(url), 423)
        holder.send(b"x" * 90)

        assert holder.read_reply().status == 204
    assert tus.offset(url) == 100


def test_patch_and_delete_of_a_held_upload_are_423(impatient_server: ServerProcess) -> None:
    """C2, T97, T125."""
    tus = Tus(impatient_server.port)
    url = tus.new(100)

    with tus.hold(url, 0, b"x" * 10, declared=100) as holder:
        for reply in (tus.patch(url, 0, b"x"), tus.patch(url, 10, b"x"), tus.delete(url)):
            check_comes_back_later(reply, 423)
            assert reply.problem()["code"] == "upload_locked"
        holder.send(b"x" * 90)

        assert holder.read_reply().status == 204
    assert tus.delete(url).status == 204


def test_what_a_holder_cannot_change_is_answered_at_once(impatient_server: ServerProcess) -> None:
    """C2: a wrong type, a bad number, an offset beyond the length need no lease."""
    tus = Tus(impatient_server.port)
    url = tus.new(100)

    with tus.hold(url, 0, b"x" * 10, declared=100) as holder:
        assert tus.patch(url, 101, b"x").status == 409
        assert tus.patch(url, "ten", b"x").status == 400
        assert tus.patch(url, 10, b"x", fields={"Content-Type": "text/plain"}).status == 415
        assert tus.get(url).status == 404
        assert tus.options(url).status == 204
        holder.send(b"x" * 90)

        assert holder.read_reply().status == 204


# --- a store that does not work for a while


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


def test_a_broken_store_fails_no_head_and_loses_no_byte(fresh_server: ServerFactory) -> None:
    """C1, C2, C3, T4: HEAD tells the true offset, the others are 503 and may be repeated."""
    server = fresh_server()
    tus = Tus(server.port, fields={"Origin": "https://app.example.com"})
    content = pattern(10_000)
    url = tus.stored(content[:4000], length=10_000)
    finished = tus.stored(b"hello")

    with broken_store(server.data_dir):
        with tus.unchanged(url):
            for reply in (
                tus.patch(url, 4000, content[4000:]),
                tus.patch(url, 4000, content[4000:5000], chunked=True),
                tus.create(5, body=b"hello"),
                tus.create(0),
                tus.get(finished),
            ):
                check_comes_back_later(reply, 503)
                assert reply.problem()["code"] == "store_unavailable"
        assert tus.patch(url, 4000, b"x")["access-control-allow-origin"] == "*"
        assert tus.patch(url, 4000, b"x")["tus-resumable"] == "1.0.0"
        assert tus.request("GET", "/healthz").status == 200
        ready = tus.request("GET", "/readyz")
        assert ready.status == 503
        assert ready.problem()["code"] == "store_unavailable"

    assert tus.finish(url, content) == content
    assert tus.content(finished) == b"hello"
    assert tus.request("GET", "/readyz").status == 200


def test_head_is_423_until_the_object_is_there(tus: Tus, records: Records) -> None:
    """C1, T16: offset = length is not told before the finished object is confirmed."""
    content = pattern(1000)
    url = tus.stored(content[:500], length=1000)
    # A folder, and not an empty one, where the finished object should get its name.
    (partial,) = records.files(url)
    obstacle = partial.parent / upload_id(url)
    (obstacle / "in the way").mkdir(parents=True)

    last = tus.patch(url, 500, content[500:])

    check_comes_back_later(last, 503)
    check_comes_back_later(tus.head(url), 423)
    check_comes_back_later(tus.patch(url, 1000), 503)
    assert tus.get(url).status == 404
    assert records.events(url) == []
    shutil.rmtree(obstacle)
    assert tus.offset(url) == 1000
    assert tus.content(url) == content
    assert records.events(url) == ["verified"]


# --- the rest


@pytest.mark.parametrize("name", REPLIES)
def test_no_reply_is_a_timeout_or_a_redirect(tus: Tus, name: str) -> None:
    """C5."""
    status = REPLIES[name](tus).status

    assert status != 408
    assert not 300 <= status < 400


@pytest.mark.parametrize("name", [name for name in REPLIES if name[0] == "4"])
def test_an_error_explains_itself(tus: Tus, name: str) -> None:
    """C5: problem documents with a stable code; none on HEAD."""
    reply = REPLIES[name](tus)

    if "head" in name:
        assert reply.body == b""
    else:
        assert set(reply.problem()) >= {"title", "status", "code"}
