"""Tails over real nodes: right node, wrong node, no node, and files that are not what they were."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.nodes import MIB, Cluster, log_lines
from tests.support.records import upload_id
from tests.support.tus import pattern
from tests.support.waiting import wait_until

WHOLE = pattern(12 * MIB)

# How many bytes were acknowledged when an upload is resumed: length, sent, of which in parts.
IN_ONE_PART = (4 * MIB, 1 * MIB, 0)
BEFORE_THE_FIRST_PART = (12 * MIB, 3 * MIB, 0)
BEHIND_PARTS = (12 * MIB, 7 * MIB, 5 * MIB)
PLACES = {
    "in-one-part": IN_ONE_PART,
    "before-the-first-part": BEFORE_THE_FIRST_PART,
    "behind-parts": BEHIND_PARTS,
}
everywhere = pytest.mark.parametrize(
    ("length", "sent", "committed"), [pytest.param(*place, id=id) for id, place in PLACES.items()]
)
sampled = pytest.mark.parametrize(
    ("length", "sent", "committed"),
    [
        pytest.param(*place, id=id, marks=() if place is BEHIND_PARTS else pytest.mark.full)
        for id, place in PLACES.items()
    ],
)
A_BYTE = b"\xff"


def with_tail(pair: Cluster, length: int = 12 * MIB, sent: int = 3 * MIB) -> str:
    """Create an upload on node a, whose last bytes only node a has; give its URL."""
    url = pair.tus("a").stored(WHOLE[:sent], length=length)
    assert len(pair.tail_files("a")) == 1
    assert pair.tail_files("b") == []
    return url


def check_finished(pair: Cluster, url: str, content: bytes) -> None:
    """Check the object in the store, what both nodes tell of it, and its event."""
    assert sha256(pair.content(url)).digest() == sha256(content).digest()
    for name in "ab":
        assert pair.tus(name).offset(url) == len(content)
    assert pair.state(url) == "verified"
    assert pair.events(url) == ["verified"]
    assert pair.leftovers() == []


@everywhere
def test_a_resume_on_the_same_node_goes_on(
    pair: Cluster, length: int, sent: int, committed: int
) -> None:
    url = with_tail(pair, length, sent)

    assert pair.tus("a").append(url, sent, WHOLE[sent:length]) == length

    check_finished(pair, url, WHOLE[:length])


@everywhere
def test_a_resume_on_the_wrong_node_is_refused_loudly_and_damages_nothing(
    pair: Cluster, length: int, sent: int, committed: int
) -> None:
    url = with_tail(pair, length, sent)
    tail = pair.tail_file("a").read_bytes()
    logged = len(log_lines(pair.nodes["b"], "upload.tail_missing"))

    refused = pair.tus("b").patch(url, sent, WHOLE[sent:length])

    assert refused.status == 503
    assert int(refused["retry-after"]) > 0
    assert refused["tus-error"] == "tus_tail_missing"
    problem = refused.problem()
    hint = problem.pop("hint")
    assert upload_id(url) in hint
    assert "tus-server uploads rewind" in hint
    expected = {
        "code": "tus_tail_missing",
        "upload": upload_id(url),
        "tail_node": "a",
        "this_node": "b",
        "offset": sent,
        "committed_bytes": committed,
    }
    assert problem.items() >= expected.items()
    (line,) = log_lines(pair.nodes["b"], "upload.tail_missing")[logged:]
    assert line["level"] == "error"
    assert line.items() >= {name: expected[name] for name in ("upload", "tail_node")}.items()
    assert pair.tail_file("a").read_bytes() == tail
    assert [pair.tus(name).offset(url) for name in "ab"] == [sent, sent]

    assert pair.tus("a").append(url, sent, WHOLE[sent:length]) == length
    check_finished(pair, url, WHOLE[:length])


def test_a_wrong_node_refuses_before_it_asks_for_the_body(pair: Cluster) -> None:
    url = with_tail(pair)
    with pair.tus("b").connect() as connection:
        fields = {
            "Tus-Resumable": "1.0.0",
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(3 * MIB),
            "Content-Length": str(MIB),
            "Expect": "100-continue",
        }
        connection.send_head("PATCH", url, fields)

        refused = connection.read_reply()

    assert (refused.status, refused.interim) == (503, ())
    assert pair.tus("a").finish(url, WHOLE) == WHOLE


def test_a_resume_on_the_other_node_goes_on_where_there_is_no_tail(pair: Cluster) -> None:
    here, there = pair.tus("a"), pair.tus("b")
    url = here.stored(WHOLE[: 5 * MIB], length=len(WHOLE))
    assert pair.tail_files() == []

    assert there.append(url, 5 * MIB, WHOLE[5 * MIB :]) == len(WHOLE)

    check_finished(pair, url, WHOLE)


def test_a_first_patch_is_taken_by_any_node(pair: Cluster) -> None:
    url = pair.tus("a").new(len(WHOLE))

    assert pair.tus("b").append(url, 0, WHOLE) == len(WHOLE)

    check_finished(pair, url, WHOLE)


@pytest.mark.parametrize("start", [0, 5 * MIB], ids=["at-the-start", "behind-parts"])
def test_a_node_parks_what_is_left_of_an_upload_of_another_node(pair: Cluster, start: int) -> None:
    here, there = pair.tus("a"), pair.tus("b")
    url = here.stored(WHOLE[:start], length=len(WHOLE))

    offset = there.append(url, start, WHOLE[start : start + 2 * MIB])

    assert pair.tail_files() == []
    assert len(pair.parked()) == 1
    offset = there.append(url, offset, WHOLE[offset : offset + 1000])
    assert pair.tail_files() == []
    assert len(pair.parked()) == 1
    # Home again: from the parked tail to one on its own disk.
    offset = here.append(url, offset, WHOLE[offset : offset + 1000])
    assert len(pair.tail_files("a")) == 1
    assert pair.parked() == []
    assert there.patch(url, offset, WHOLE[offset:]).status == 503
    assert here.append(url, offset, WHOLE[offset:]) == len(WHOLE)
    check_finished(pair, url, WHOLE)


def test_a_node_that_took_an_upload_over_may_end_it(pair: Cluster) -> None:
    url = pair.tus("a").new(len(WHOLE))
    there = pair.tus("b")
    offset = 0
    for step in (3 * MIB, 1, 4 * MIB, 65_536, len(WHOLE)):
        offset = there.append(url, offset, WHOLE[offset : offset + step])
        assert len(pair.parked()) <= 1

    check_finished(pair, url, WHOLE)


@sampled
def test_a_node_that_was_restarted_goes_on(
    pair: Cluster, length: int, sent: int, committed: int
) -> None:
    url = with_tail(pair, length, sent)

    pair.nodes["a"].kill()
    pair.nodes["a"].start()

    assert pair.tus("a").offset(url) == sent
    assert pair.tus("a").append(url, sent, WHOLE[sent:length]) == length
    check_finished(pair, url, WHOLE[:length])


def kill_in_the_middle(pair: Cluster, url: str, sent: int, more: int) -> None:
    """Kill node a while it receives; what it had in memory or in S3 was not acknowledged."""
    content = WHOLE[sent : sent + more]
    with pair.tus("a").hold(url, sent, content, declared=len(WHOLE) - sent):
        pair.nodes["a"].kill()


def test_a_tail_whose_writer_did_not_let_go_is_continued_in_another_file(pair: Cluster) -> None:
    """Should that writer still be there, it writes to a file that nobody reads."""
    url = with_tail(pair)
    before = pair.tail_file("a")
    kill_in_the_middle(pair, url, 3 * MIB, 1000)
    pair.nodes["a"].start()

    tus = pair.tus("a")
    assert tus.offset(url) == 3 * MIB
    assert tus.append(url, 3 * MIB, WHOLE[3 * MIB : 4 * MIB]) == 4 * MIB

    after = pair.tail_file("a")
    assert after.name != before.name
    assert after.read_bytes() == WHOLE[: 4 * MIB]
    assert tus.finish(url, WHOLE) == WHOLE
    check_finished(pair, url, WHOLE)


def test_a_node_that_took_over_from_a_dead_one_does_no_harm_to_its_tail(pair: Cluster) -> None:
    url = with_tail(pair)
    kill_in_the_middle(pair, url, 3 * MIB, 7 * MIB)
    here, there = pair.tus("a"), pair.tus("b")
    pair.query("UPDATE uploads SET lease_until = now() WHERE lease_until IS NOT NULL")

    offset = there.offset(url)
    assert offset in (3 * MIB, 5 * MIB, 10 * MIB)
    reply = there.patch(url, offset, WHOLE[offset : offset + 1000])
    # Parts that were committed before the kill had taken the tail in.
    assert reply.status == (503 if offset == 3 * MIB else 204)
    sql = "SELECT unclean FROM uploads WHERE id = $1"
    wait_until(lambda: pair.query(sql, upload_id(url)) == [(False,)], "the store was swept")
    pair.nodes["a"].start()

    assert here.finish(url, WHOLE) == WHOLE
    pair.wait_clean()
    check_finished(pair, url, WHOLE)


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace(path: Path) -> None:
    path.write_bytes(pattern(path.stat().st_size, seed=1))


@pytest.mark.parametrize("damage", [delete, empty, truncate, flip_a_bit, replace])
@sampled
def test_a_damaged_tail_is_refused_loudly_and_nothing_changes(
    pair: Cluster,
    length: int,
    sent: int,
    committed: int,
    damage: Callable[[Path], None],
) -> None:
    tus = pair.tus("a")
    url = with_tail(pair, length, sent)
    path = pair.tail_file("a")
    saved = path.read_bytes()
    damage(path)
    damaged = path.read_bytes() if path.exists() else None

    for size in (1, length - sent):
        refused = tus.patch(url, sent, WHOLE[sent : sent + size])
        assert refused.status == 503
        assert refused["tus-error"] == "tus_tail_missing"
        assert refused.problem()["tail_node"] == refused.problem()["this_node"] == "a"

    assert [pair.tus(name).offset(url) for name in "ab"] == [sent, sent]
    assert (path.read_bytes() if path.exists() else None) == damaged
    path.write_bytes(saved)
    assert tus.append(url, sent, WHOLE[sent:length]) == length
    check_finished(pair, url, WHOLE[:length])


@pytest.mark.parametrize("size", [1, 5 * MIB], ids=["a-byte", "a-part"])
@sampled
def test_what_is_too_much_in_a_tail_was_never_acknowledged(
    pair: Cluster, length: int, sent: int, committed: int, size: int
) -> None:
    tus = pair.tus("a")
    url = with_tail(pair, length, sent)
    with pair.tail_file("a").open("ab") as file:
        file.write(A_BYTE * size)

    assert tus.offset(url) == sent
    sent = tus.append(url, sent, WHOLE[sent : sent + 1000])
    with pair.tail_file("a").open("rb") as file:
        assert file.read() == WHOLE[committed:sent]
    assert tus.append(url, sent, WHOLE[sent:length]) == length

    check_finished(pair, url, WHOLE[:length])


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_patch_that_neither_moves_nor_completes_needs_no_tail(pair: Cluster, name: str) -> None:
    url = with_tail(pair)
    path = pair.tail_file("a")
    saved = path.read_bytes()
    path.unlink()

    reply = pair.tus(name).patch(url, 3 * MIB)

    assert (reply.status, reply["upload-offset"]) == (204, str(3 * MIB))
    path.write_bytes(saved)
    assert pair.tus("a").finish(url, WHOLE) == WHOLE


def deferred_with_tail(pair: Cluster) -> str:
    tus = pair.tus("a")
    url = tus.new()
    tus.append(url, 0, WHOLE[: 3 * MIB])
    assert len(pair.tail_files("a")) == 1
    return url


def test_a_length_settled_at_the_offset_completes_with_the_tail(pair: Cluster) -> None:
    url = deferred_with_tail(pair)

    refused = pair.tus("b").patch(url, 3 * MIB, length=3 * MIB)
    assert (refused.status, refused["tus-error"]) == (503, "tus_tail_missing")
    assert "upload-length" not in pair.tus("b").head(url)
    assert pair.tus("a").patch(url, 3 * MIB, length=3 * MIB).status == 204

    check_finished(pair, url, WHOLE[: 3 * MIB])


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_length_beyond_the_offset_is_settled_without_the_tail(pair: Cluster, name: str) -> None:
    url = deferred_with_tail(pair)

    assert pair.tus(name).patch(url, 3 * MIB, length=len(WHOLE)).status == 204

    assert [pair.tus(node).head(url)["upload-length"] for node in "ab"] == [str(len(WHOLE))] * 2
    assert pair.tus("a").finish(url, WHOLE) == WHOLE
    check_finished(pair, url, WHOLE)
