"""Uploads of every size around a boundary, in requests of every size, to objects in S3."""

from collections.abc import Iterator
from itertools import cycle

import pytest

from tests.support.nodes import MIB, Cluster
from tests.support.records import upload_id
from tests.support.tus import Tus, pattern

PART = 5 * MIB  # of nodes a and b
DEFAULT_PART = 8 * MIB  # of node c, as the server has it by default
KIB = 1024
POOL = pattern(160 * MIB)


def around(*sizes: int) -> list[int]:
    return sorted({max(size + by, 0) for size in sizes for by in (-1, 0, 1)})


SAMPLE = {0, 1, PART - 1, PART, PART + 1, 2 * PART + 1}
LENGTHS = [
    pytest.param(length, marks=() if length in SAMPLE else pytest.mark.full)
    for length in around(0, PART, 2 * PART, 3 * PART)
]
DEFAULT_LENGTHS = [
    pytest.param(length, marks=() if length == DEFAULT_PART + 1 else pytest.mark.full)
    for length in around(DEFAULT_PART, 2 * DEFAULT_PART)
]


@pytest.fixture(scope="module")
def _third(shared_cluster: Cluster) -> Iterator[None]:
    shared_cluster.node("c", TUS_PART_SIZE_BYTES=str(DEFAULT_PART))
    yield
    shared_cluster.drop_node("c")


@pytest.fixture
def trio(_third: None, pair: Cluster) -> Cluster:
    """The pair, and node c with parts of the default size."""
    return pair


def parts_of(length: int, part_size: int) -> int:
    """How many parts an object is made of that arrived in one request; 0: it is put at once."""
    return -(-length // part_size) if length > part_size else 0


def check(cluster: Cluster, url: str, length: int, *, parts: int | None = None) -> None:
    """Check an object in the store, and what each node tells of it."""
    assert cluster.content(url) == POOL[:length]
    for name in cluster.nodes:
        reply = cluster.tus(name).head(url)
        assert (reply["upload-offset"], reply["upload-length"]) == (str(length), str(length))
    assert cluster.events(url) == ["verified"]
    if parts is not None:
        assert cluster.count_parts(url) == parts


def has_tail(cluster: Cluster, url: str) -> bool:
    sql = "SELECT tail_node IS NOT NULL FROM uploads WHERE id = $1"
    return bool(cluster.query(sql, upload_id(url))[0][0])


def send(
    cluster: Cluster, url: str, length: int, step: int, *, both: bool, chunked: bool = False
) -> None:
    """Send an upload of node a in steps; by both nodes in turn, but where only a has the tail."""
    nodes = cycle("ba") if both else cycle("a")
    for start in range(0, length, step):
        name = next(nodes)
        if name == "b" and has_tail(cluster, url):
            name = "a"
        end = min(start + step, length)
        reply = cluster.tus(name).patch(url, start, POOL[start:end], chunked=chunked)
        assert (reply.status, reply.find("upload-offset")) == (204, str(end))


@pytest.mark.parametrize("length", LENGTHS)
def test_an_upload_in_one_request_to_another_node(pair: Cluster, length: int) -> None:
    url = pair.tus("a").new(length)

    assert pair.tus("b").patch(url, 0, POOL[:length]).status == 204

    check(pair, url, length, parts=parts_of(length, PART))


@pytest.mark.parametrize("length", DEFAULT_LENGTHS)
def test_an_upload_in_parts_of_the_default_size(trio: Cluster, length: int) -> None:
    url = trio.tus("a").new(length)

    assert trio.tus("c").append(url, 0, POOL[:length]) == length

    check(trio, url, length, parts=parts_of(length, DEFAULT_PART))


@pytest.mark.parametrize(
    "chunked",
    [False, pytest.param(True, marks=pytest.mark.full)],
    ids=["sized", "chunked"],
)
@pytest.mark.parametrize("length", LENGTHS)
def test_an_upload_in_the_request_that_creates_it(
    pair: Cluster, length: int, chunked: bool
) -> None:
    for name in "ab":
        reply = pair.tus(name).create(length, body=POOL[:length], chunked=chunked)

        assert (reply.status, reply["upload-offset"]) == (201, str(length))
        check(pair, reply["location"], length, parts=parts_of(length, PART))


@pytest.mark.parametrize("length", LENGTHS)
def test_an_upload_that_is_begun_in_the_request_that_creates_it(pair: Cluster, length: int) -> None:
    first = length * 2 // 3
    reply = pair.tus("a").create(length, body=POOL[:first])

    assert (reply.status, reply["upload-offset"]) == (201, str(first))
    if first < length:
        pair.tus("a").append(reply["location"], first, POOL[first:length])
    check(pair, reply["location"], length)


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize(
    "length",
    [pytest.param(length.values[0], marks=pytest.mark.full) for length in LENGTHS]
    + [2 * PART + 100],
)
def test_an_upload_whose_length_is_told_with_its_last_bytes(
    pair: Cluster, length: int, chunked: bool
) -> None:
    url = pair.tus("a").new()
    first = length // 2
    if first:
        reply = pair.tus("a").patch(url, 0, POOL[:first], chunked=chunked)
        assert (reply.status, reply["upload-offset"]) == (204, str(first))

    reply = pair.tus("a").patch(url, first, POOL[first:length], length=length, chunked=chunked)

    assert (reply.status, reply["upload-offset"]) == (204, str(length))
    check(pair, url, length)


@pytest.mark.parametrize("length", [0, 1, PART, PART + 1])
def test_a_length_told_when_all_bytes_are_there(pair: Cluster, length: int) -> None:
    """Behind a part of full size, too: it is the last one then."""
    url = pair.tus("a").new()
    if length:
        pair.tus("a").append(url, 0, POOL[:length])
    finishing = "a" if has_tail(pair, url) else "b"

    reply = pair.tus(finishing).patch(url, length, length=length)

    assert (reply.status, reply["upload-offset"]) == (204, str(length))
    check(pair, url, length)


STEPS = [
    pytest.param(1, 40, id="1-byte"),
    pytest.param(64 * KIB, 640 * KIB + 1, id="64-KiB"),
    pytest.param(MIB, 12 * MIB + 1, id="1-MiB"),
    pytest.param(PART, 3 * PART + 1, id="5-MiB"),
    pytest.param(8 * MIB + 1, 20 * MIB, id="8-MiB-and-1"),
    pytest.param(64 * KIB, 11 * MIB, id="64-KiB-long", marks=pytest.mark.full),
    pytest.param(MIB, 40 * MIB - 1, id="1-MiB-long", marks=pytest.mark.full),
    pytest.param(PART, 12 * PART, id="5-MiB-long", marks=pytest.mark.full),
    pytest.param(64 * MIB, 128 * MIB + 7, id="64-MiB", marks=pytest.mark.full),
]


@pytest.mark.parametrize(
    "both",
    [pytest.param(False, marks=pytest.mark.full), True],
    ids=["one-node", "both-nodes"],
)
@pytest.mark.parametrize(("step", "length"), STEPS)
def test_an_upload_in_steps(pair: Cluster, step: int, length: int, both: bool) -> None:
    url = pair.tus("a").new(length)

    send(pair, url, length, step, both=both)

    check(pair, url, length)


@pytest.mark.full
@pytest.mark.parametrize(("step", "length"), STEPS)
def test_an_upload_in_chunked_steps(pair: Cluster, step: int, length: int) -> None:
    url = pair.tus("a").new(length)

    send(pair, url, length, step, both=True, chunked=True)

    check(pair, url, length)


def test_the_largest_upload_can_be_begun(pair: Cluster) -> None:
    tus, largest = pair.tus("a"), 5 * 1024**4
    assert tus.options()["tus-max-size"] == str(largest)
    assert tus.create(largest + 1).status == 413

    for length in (largest, None):
        url = tus.new(length)
        offset = tus.append(url, 0, POOL[: 6 * MIB])
        offset = tus.append(url, offset, POOL[offset : 16 * MIB])
        assert [pair.tus(name).offset(url) for name in "ab"] == [offset, offset]
        assert tus.delete(url).status == 204


@pytest.mark.parametrize("length", [PART + 1, 2 * PART + 100])
def test_nodes_with_parts_of_different_sizes_share_an_upload(trio: Cluster, length: int) -> None:
    url = trio.tus("a").stored(POOL[:PART], length=length)

    assert trio.tus("c").append(url, PART, POOL[PART:length]) == length

    check(trio, url, length)


# --- stores that want all parts but the last of one size


@pytest.fixture(scope="module")
def equal(shared_cluster: Cluster) -> Iterator[Tus]:
    node = shared_cluster.node("e", TUS_S3_EQUAL_PARTS="true")
    yield Tus(node.port)
    shared_cluster.drop_node("e")


@pytest.mark.parametrize(
    ("step", "length"),
    [
        pytest.param(7 * MIB, 3 * PART, id="more-than-a-part"),
        pytest.param(3 * MIB, 2 * PART + 1, id="less-than-a-part"),
        pytest.param(MIB - 1, 4 * PART - 1, id="many-for-a-part", marks=pytest.mark.full),
        pytest.param(64 * MIB, 7 * PART + 5, id="several-parts", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("deferred", [False, True], ids=["known", "deferred"])
def test_all_parts_but_the_last_have_one_size(
    pair: Cluster, equal: Tus, step: int, length: int, deferred: bool
) -> None:
    """A length that is not known needs parts of a size that would do for the largest object."""
    rest = length - 1
    url = equal.new(None if deferred else length)
    for start in range(0, rest, step):
        end = min(start + step, rest)
        assert equal.append(url, start, POOL[start:end]) == end
    sizes = pair.part_sizes(url)

    assert equal.patch(url, rest, POOL[rest:length], length=length if deferred else None).status

    assert len(set(sizes)) <= 1
    if not deferred:
        assert sizes == [PART] * (rest // PART)
        assert pair.count_parts(url) == -(-length // PART)
    check(pair, url, length)
