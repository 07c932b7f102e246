"""Checksums, concatenation and expiration over S3, Postgres and two nodes (T70-T92, T98-T118)."""

import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import pytest

from tests.support.checksums import checksum
from tests.support.http import Fields, FieldValue, Reply, render_chunks
from tests.support.nodes import MIB, Cluster
from tests.support.tus import BODY_TYPE, Tus, pattern
from tests.support.waiting import wait_until

PART = 5 * MIB
NODES = ["a", "b"]  # they differ in how bodies get into the engine


def checked(content: bytes, algorithm: str = "sha256") -> Fields:
    return {"Upload-Checksum": checksum(algorithm, content)}


def partial(tus: Tus, content: bytes, *, length: int | None = None) -> str:
    """Create a partial upload; length None: that of `content`."""
    declared = len(content) if length is None else length
    reply = tus.create(declared, body=content, fields={"Upload-Concat": "partial"})
    assert reply.status == 201, reply
    return reply["location"]


def final(tus: Tus, urls: Sequence[str]) -> Reply:
    return tus.request("POST", tus.base, {"Upload-Concat": "final;" + " ".join(urls)})


def wait_done(tus: Tus, url: str) -> None:
    wait_until(lambda: "upload-offset" in tus.head(url), "the final upload is done")


# --- checksums


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("start", [0, 3, PART - 1], ids=["start", "tail", "long tail"])
@pytest.mark.parametrize(
    "size", [0, 1, PART - 1, PART, PART + 1, 2 * PART + 5], ids=lambda size: str(size)
)
def test_of_a_wrong_body_nothing_is_left(pair: Cluster, node: str, start: int, size: int) -> None:
    """T86, T87: offset, parts and tail are as before, in the store and on the disk."""
    tus = pair.tus(node)
    content = pattern(start + size + 9)
    url = tus.stored(content[:start], length=len(content))
    piece = content[start : start + size]
    before = pair.part_sizes(url), len(pair.tail_files(node))

    for chunked in (False, True):
        with tus.unchanged(url):
            reply = tus.patch(url, start, piece, fields=checked(piece + b"x"), chunked=chunked)
            assert reply.status == 460
        assert (pair.part_sizes(url), len(pair.tail_files(node))) == before
    reply = tus.patch(url, start, piece, fields=checked(piece, "crc32"))
    assert (reply.status, reply["upload-offset"]) == (204, str(start + size))
    assert tus.finish(url, content) == content
    assert pair.content(url) == content
    assert pair.events(url) == ["verified"]


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("size", [0, 1, PART, 2 * PART + 5], ids=lambda size: str(size))
def test_a_wrong_body_completes_nothing(pair: Cluster, node: str, size: int) -> None:
    """T86, T92: nor is an object left of it, nor an upload of a creation."""
    tus = pair.tus(node)
    content = pattern(size)
    url = tus.new(size or 1)
    uploads = pair.query("SELECT count(*) FROM uploads WHERE state <> 'canceled'")
    keys = set(pair.bucket.find_keys())

    for chunked in (False, True):
        with tus.unchanged(url):
            reply = tus.patch(url, 0, content, fields=checked(content + b"x"), chunked=chunked)
            assert reply.status == 460
        reply = tus.create(size, body=content, fields=checked(content + b"x"), chunked=chunked)
        assert reply.status == 460
        assert "location" not in reply
    assert pair.query("SELECT count(*) FROM uploads WHERE state <> 'canceled'") == uploads
    wait_until(lambda: set(pair.bucket.find_keys()) == keys, "no object is left")
    content = content or b"x"
    assert tus.patch(url, 0, content, fields=checked(content, "sha1")).status == 204
    assert tus.content(url) == pair.content(url) == content
    reply = tus.create(len(content), body=content, fields=checked(content))
    assert reply.status == 201
    assert pair.content(reply["location"]) == content


@pytest.mark.parametrize("node", NODES)
def test_a_checksum_may_come_behind_the_body(pair: Cluster, node: str) -> None:
    """T89: missing, wrong, right."""
    tus = pair.tus(node)
    content = pattern(PART + 7)
    url = tus.new(len(content))
    fields: dict[str, FieldValue] = {
        **tus.fields,
        "Content-Type": BODY_TYPE,
        "Upload-Offset": "0",
        "Transfer-Encoding": "chunked",
        "Trailer": "Upload-Checksum",
    }

    for trailers, status in (({}, 400), (checked(b"x"), 460), (checked(content), 204)):
        assert tus.offset(url) == 0
        with tus.connect() as connection:
            connection.send_head("PATCH", url, fields)
            connection.send(render_chunks([content], trailers=trailers))
            assert connection.read_reply().status == status
    assert tus.content(url) == content


@pytest.mark.parametrize("node", NODES)
def test_of_an_interrupted_checked_body_nothing_counts(pair: Cluster, node: str) -> None:
    """T87: also where it is the other node that asks."""
    tus, other = pair.tus(node), pair.tus("b" if node == "a" else "a")
    content = pattern(3 * PART)
    url = tus.stored(b"abc", length=3 + len(content))
    fields: dict[str, FieldValue] = {
        **tus.fields,
        "Content-Type": BODY_TYPE,
        "Upload-Offset": "3",
        "Content-Length": str(len(content)),
        "Expect": "100-continue",
        **checked(content),
    }

    with tus.connect() as connection:
        connection.send_head("PATCH", url, fields)
        assert connection.read_one_head().status == 100
        connection.send(content[: 2 * PART + 10])
        connection.wait_taken()
        assert other.offset(url) == 3
        connection.read_until_closed()
    assert tus.offset(url) == 3
    assert tus.finish(url, b"abc" + content) == b"abc" + content


# --- concatenation


CASES: dict[str, list[int]] = {
    "one": [PART + 3],
    "empty": [0, 0],
    "tiny": [1, 2, 3],
    "large": [2 * PART, PART + 1, 12 * MIB],
    "large, tiny and empty": [PART + 1, 3, 0, 1, 2 * PART, 2],
    "tiny first": [1, 2 * PART + 1, 5],
}


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("case", CASES)
def test_partials_are_joined_in_the_store(pair: Cluster, node: str, case: str) -> None:
    """T101-T103, T110."""
    tus = pair.tus(node)
    pieces = [pattern(size, seed=number) for number, size in enumerate(CASES[case])]

    reply = final(tus, [partial(tus, piece) for piece in pieces])

    url = reply["location"]
    assert reply.status == 201
    wait_done(tus, url)
    head = tus.head(url)
    assert head["upload-offset"] == head["upload-length"] == str(sum(CASES[case]))
    assert tus.content(url) == pair.content(url) == b"".join(pieces)
    assert pair.events(url) == ["verified"]


def test_a_hundred_partials_of_two_nodes_are_joined(pair: Cluster) -> None:
    """T101-T103, T107: some used twice."""
    pieces = [pattern(number * 37 % 5000, seed=number) for number in range(97)]
    urls = [partial(pair.tus(NODES[n % 2]), piece) for n, piece in enumerate(pieces)]
    urls += urls[5:8]
    pieces += pieces[5:8]

    url = final(pair.tus("a"), urls)["location"]

    wait_done(pair.tus("b"), url)
    assert pair.tus("b").content(url) == pair.content(url) == b"".join(pieces)


@pytest.mark.parametrize("last", NODES)
def test_a_final_upload_waits_for_the_partials_of_both_nodes(pair: Cluster, last: str) -> None:
    """T105, T109: whichever node has the last of them."""
    a, b = pair.tus("a"), pair.tus("b")
    first, second = partial(a, b"", length=PART + 1), partial(b, b"he", length=5)
    content = pattern(PART + 1)
    url = final(a, [first, second])["location"]

    for tus in (a, b):
        head = tus.head(url)
        assert head["upload-length"] == str(PART + 6)
        assert "upload-offset" not in head
        assert tus.patch(url, 0, b"x").status == 403
    for name in ("b", "a") if last == "a" else ("a", "b"):
        assert "upload-offset" not in a.head(url)
        if name == "a":
            a.append(first, 0, content)
        else:
            b.append(second, 2, b"llo")

    wait_done(b, url)
    assert a.content(url) == pair.content(url) == content + b"hello"
    assert pair.events(url) == ["verified"]


def test_only_partial_uploads_can_be_joined(pair: Cluster) -> None:
    """T115: unknown, ordinary, final and deleted ones; T117 is for a lower maximum."""
    tus = pair.tus("a")
    good = partial(tus, b"hello")
    deleted = partial(tus, b"hello")
    assert tus.delete(deleted).status == 204
    joined = final(tus, [good])["location"]

    for url in (f"/files/{'0' * 32}", tus.stored(b"hello"), joined, deleted):
        reply = final(tus, [good, url])
        assert reply.status == 400
        assert reply.problem()["code"] == "unusable_partial"


def test_a_final_upload_whose_partial_is_lost_is_404(pair: Cluster) -> None:
    """T105."""
    tus, other = pair.tus("a"), pair.tus("b")
    a, b = partial(tus, b"he", length=5), partial(tus, b"world")
    url = final(tus, [a, b])["location"]

    assert tus.delete(a).status == 204

    wait_until(lambda: other.head(url).status == 404, "it is gone")
    assert other.get(url).status == 404


# --- expiration


def wait_gone(tus: Tus, url: str) -> None:
    wait_until(lambda: tus.head(url).status == 410, "the upload has expired")


def test_unfinished_uploads_expire_on_every_node(cluster: Cluster) -> None:
    """T71-T77: by the database's clock; finished ones stay."""
    cluster.start_pair(TUS_EXPIRES_AFTER_S="3")
    a, b = cluster.tus("a"), cluster.tus("b")
    created = a.create(10)
    url, told = created["location"], parsedate_to_datetime(created["upload-expires"])
    reply = a.patch(finished := a.new(10), 0, b"hello")
    assert parsedate_to_datetime(reply["upload-expires"]) >= told
    a.append(finished, 5, b"world")

    for tus in (a, b):
        wait_gone(tus, url)
        assert time.time() >= told.timestamp()
        for method in ("GET", "DELETE"):
            assert tus.request(method, url).status == 410
        assert tus.patch(url, 0, b"x").status == 410
        assert tus.content(finished) == b"helloworld"
        assert "upload-expires" not in tus.head(finished)
