"""RUFH over S3, Postgres and two nodes."""

import hashlib
from base64 import b64encode

import pytest

from tests.support.nodes import MIB, Cluster
from tests.support.rufh import WIRES, Rufh, Wire
from tests.support.tus import pattern
from tests.support.waiting import wait_until

PART = 5 * MIB
NODES = ["a", "b"]  # they differ in how bodies get into the engine
SIZES = [0, 1, PART - 1, PART, PART + 1, 2 * PART + 5]
SAMPLE = [WIRES[2], WIRES[-2]]  # 6 and 10


def client(pair: Cluster, node: str, wire: Wire) -> Rufh:
    return Rufh(pair.nodes[node].port, wire)


def digest(content: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(content).digest()).decode()}:"


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("node", NODES)
def test_a_creation_is_an_object(pair: Cluster, node: str, size: int, chunked: bool) -> None:
    """R25, R35, R54, R79."""
    rufh = client(pair, node, WIRES[-2])
    content = pattern(size)

    reply = rufh.create(
        content, done=True, chunked=chunked, fields={"Want-Repr-Digest": "sha-256=1"}
    )

    assert reply.status == 201
    assert rufh.is_done(reply)
    assert reply["repr-digest"] == digest(content)
    url = rufh.path(reply["location"])
    assert pair.content(url) == content
    assert pair.events(url) == ["verified"]


@pytest.mark.parametrize("length", ["known", "unknown"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("node", NODES)
def test_an_empty_last_append_completes_whatever_is_there(
    pair: Cluster, node: str, size: int, length: str
) -> None:
    """R7, R57: all bytes without the flag are a tail or parts, and no object yet."""
    rufh = client(pair, node, WIRES[-2])
    content = pattern(size)
    url = rufh.new(size if length == "known" else None)
    if content:
        first = rufh.append(url, 0, content, done=False)
        assert first["upload-offset"] == str(size)
    assert not rufh.is_done(rufh.head(url))

    last = rufh.append(url, size, done=True, fields={"Repr-Digest": digest(content)})

    assert last.status == 201
    assert rufh.is_done(last)
    assert pair.content(rufh.path(url)) == content
    assert pair.events(rufh.path(url)) == ["verified"]
    assert pair.tail_files(node) == []


@pytest.mark.parametrize("wire", SAMPLE, ids=str)
@pytest.mark.parametrize("node", NODES)
def test_an_upload_in_pieces_is_whole(pair: Cluster, node: str, wire: Wire) -> None:
    """R48, R53, R56."""
    rufh = client(pair, node, wire)
    content = pattern(2 * PART + 77)
    url = rufh.new()

    offset = 0
    for end in (1, 3, PART, PART + 9, 2 * PART + 70):
        reply = rufh.append(url, offset, content[offset:end], done=False)
        assert (reply.status, reply["upload-offset"]) == (wire.appended, str(end))
        offset = end

    assert rufh.finish(url, content) == content
    assert pair.content(rufh.path(url)) == content


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_whole_of_a_wrong_digest_leaves_no_object(pair: Cluster, pieces: int) -> None:
    """R78: where it came in several requests, the stored bytes are read."""
    rufh = client(pair, "a", WIRES[-2])
    content = pattern(PART + 9)
    wrong = {"Repr-Digest": digest(content + b"x")}
    url = rufh.create(done=False, fields=wrong)["location"]
    offset = 0
    if pieces == 2:
        rufh.append(url, 0, content[:PART], done=False)
        offset = PART

    reply = rufh.append(url, offset, content[offset:], done=True)

    assert reply.status == 400
    assert rufh.is_done(reply)
    assert rufh.head(url).status == 404
    assert pair.events(rufh.path(url)) == ["error"]
    key = pair.key(rufh.path(url))
    wait_until(lambda: key not in pair.bucket.find_keys(), "the object is removed")


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("wire", SAMPLE, ids=str)
@pytest.mark.parametrize("node", NODES)
def test_what_goes_beyond_the_length_is_no_object(
    pair: Cluster, node: str, wire: Wire, chunked: bool
) -> None:
    """R60, R61."""
    rufh = client(pair, node, wire)
    content = pattern(PART + 9)
    url = rufh.new(len(content))

    reply = rufh.append(url, 0, content + b"and more", done=False, chunked=chunked)

    assert reply.status == 400
    assert not rufh.is_done(reply)
    if wire.invalidates:
        assert rufh.head(url).status == 404
        pair.wait_clean()
    else:
        assert rufh.offset(url) == len(content)
        assert rufh.finish(url, content) == content


@pytest.mark.parametrize("wire", SAMPLE, ids=str)
def test_a_retrieval_on_another_node_ends_the_running_append(pair: Cluster, wire: Wire) -> None:
    """R70, R71: the offset told there is accepted next, where the bytes are."""
    content = pattern(PART)
    here, there = client(pair, "a", wire), client(pair, "b", wire)
    url = here.path(here.new())

    with here.hold(url, 0, content[: 2 * MIB], done=True, declared=len(content)) as holder:
        offset = there.offset(url)
        assert offset == 2 * MIB
        assert b"HTTP/1.1 2" not in holder.read_until_closed()
    reply = here.append(url, offset, content[offset:], done=True)

    assert reply.status == 201
    assert pair.content(url) == content


def test_an_announced_creation_that_was_cut_can_go_on(pair: Cluster) -> None:
    """R33, R34."""
    rufh = client(pair, "a", WIRES[-2])
    content = pattern(PART + 5)
    connection, interim = rufh.begin(
        "POST", rufh.base, rufh.flag(True), content[: 3 * MIB], declared=len(content)
    )
    connection.close()
    url = interim[0]["location"]

    assert rufh.offset(url) == 3 * MIB
    assert rufh.finish(url, content) == content
