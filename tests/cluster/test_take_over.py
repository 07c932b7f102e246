"""Requests on several nodes that want one upload: the latest wins, what was told stays true."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, repeat
from random import Random

import pytest

from tests.support.http import Connection
from tests.support.nodes import FULL, MIB, Cluster
from tests.support.tus import Tus, pattern

WHOLE = pattern(12 * MIB)
OTHER = {"a": "b", "b": "a"}
WRITERS = 8
ROUNDS = 40 if FULL else 6


def check_cut_off(cluster: Cluster, name: str, holder: Connection) -> None:
    """Without a reply where that can be done; else the status that makes clients look again."""
    if cluster.nodes[name].env["TUS_BODY_PATH"] == "plain":
        reply = holder.read_reply()
        assert (reply.status, reply.problem()["code"]) == (409, "body_interrupted")
    assert holder.read_until_closed() == b""


@pytest.mark.parametrize(
    "declared",
    [len(WHOLE), pytest.param(None, marks=pytest.mark.full)],
    ids=["sized", "chunked"],
)
@pytest.mark.parametrize("name", ["a", "b"], ids=["fast", "plain"])
@pytest.mark.parametrize("sent", [1000, 6 * MIB], ids=["little", "a-part"])
def test_head_on_another_node_takes_over_and_tells_the_final_offset(
    pair: Cluster, name: str, sent: int, declared: int | None
) -> None:
    holding, asking = pair.tus(name), pair.tus(OTHER[name])
    url = holding.new(len(WHOLE))

    with holding.hold(url, 0, WHOLE[:sent], declared=declared) as holder:
        assert asking.offset(url) == sent

        check_cut_off(pair, name, holder)
    assert holding.offset(url) == sent
    assert holding.finish(url, WHOLE) == WHOLE
    assert pair.content(url) == WHOLE


@pytest.mark.parametrize("name", ["a", "b"], ids=["fast", "plain"])
def test_patch_on_another_node_takes_over_and_goes_on_behind_the_last_part(
    pair: Cluster, name: str
) -> None:
    holding, asking = pair.tus(name), pair.tus(OTHER[name])
    url = holding.new(len(WHOLE))

    with holding.hold(url, 0, WHOLE[: 5 * MIB], declared=len(WHOLE)) as holder:
        reply = asking.patch(url, 5 * MIB, WHOLE[5 * MIB :])

        assert (reply.status, reply["upload-offset"]) == (204, str(len(WHOLE)))
        check_cut_off(pair, name, holder)
    assert pair.content(url) == WHOLE


def test_patch_on_another_node_takes_over_but_has_no_tail(pair: Cluster) -> None:
    holding, asking = pair.tus("a"), pair.tus("b")
    url = holding.new(len(WHOLE))

    with holding.hold(url, 0, WHOLE[: 3 * MIB], declared=len(WHOLE)) as holder:
        refused = asking.patch(url, 3 * MIB, WHOLE[3 * MIB :])

        assert (refused.status, refused.find("tus-error")) == (503, "tus_tail_missing")
        check_cut_off(pair, "a", holder)
    assert holding.offset(url) == 3 * MIB
    assert holding.finish(url, WHOLE) == WHOLE


def test_patch_at_an_old_offset_takes_over_and_tells_the_new_one(pair: Cluster) -> None:
    holding, asking = pair.tus("a"), pair.tus("b")
    url = holding.new(len(WHOLE))

    with holding.hold(url, 0, WHOLE[:1000], declared=len(WHOLE)) as holder:
        # The row is at 0 while the holder has not let go.
        reply = asking.patch(url, 0, WHOLE)

        assert reply.status in (204, 409)
        check_cut_off(pair, "a", holder)
    assert reply["upload-offset"] == "1000"
    assert holding.finish(url, WHOLE) == WHOLE


def test_delete_on_another_node_takes_over(pair: Cluster) -> None:
    holding, asking = pair.tus("a"), pair.tus("b")
    url = holding.new(len(WHOLE))

    with holding.hold(url, 0, WHOLE[: 6 * MIB], declared=len(WHOLE)) as holder:
        assert asking.delete(url).status == 204

        check_cut_off(pair, "a", holder)
    assert holding.head(url).status == 404
    assert pair.events(url) == ["canceled"]
    # The tail that the holder left behind is its node's to sweep.
    pair.nodes["a"].kill()
    pair.nodes["a"].start()


@pytest.fixture(params=["strict", "shared"])
def racing(request: pytest.FixtureRequest) -> Cluster:
    """Nodes a and b by how they keep tails."""
    if request.param == "strict":
        shared: Cluster = request.getfixturevalue("pair")
        return shared
    made: Cluster = request.getfixturevalue("cluster")
    made.start_pair(TUS_TAIL_POLICY="shared")
    return made


def test_of_writers_at_one_offset_one_wins(racing: Cluster) -> None:
    """Each sends other bytes, so that every byte of the object tells whose it is."""
    here, there = racing.tus("a"), racing.tus("b")
    rng = Random(1)
    bodies = [pattern(200_000, seed=seed) for seed in range(WRITERS)]
    url = here.new()
    together = threading.Barrier(WRITERS)
    # Where each round got to, and what of its writers may be there.
    rounds: list[tuple[int, int, list[bytes]]] = []
    offset = 0

    def write(client: Tus, start: int, piece: bytes) -> int | None:
        together.wait(30)
        reply = client.try_patch(url, start, piece)
        return reply.status if reply else None

    with ThreadPoolExecutor(WRITERS) as threads:
        for _ in range(ROUNDS):
            pieces = [body[: rng.randrange(1, len(body))] for body in bodies]
            statuses = list(threads.map(write, cycle((here, there)), repeat(offset), pieces))

            assert set(statuses) <= {204, 409, 423, 503, None}, statuses
            reached = there.offset(url)
            won = [piece for piece, status in zip(pieces, statuses, strict=True) if status == 204]
            assert len(won) <= 1, statuses
            assert all(len(piece) == reached - offset for piece in won)
            rounds.append((offset, reached, won or pieces))
            offset = reached
    # Node a takes it in any case: the tail, if there is one, is its own or parked.
    assert here.append(url, offset, b"!") == offset + 1
    assert here.patch(url, offset + 1, length=offset + 1).status == 204
    content = racing.content(url)
    assert len(content) == offset + 1
    for start, end, candidates in rounds:
        assert any(piece[: end - start] == content[start:end] for piece in candidates)


def test_who_only_looks_takes_nothing_from_a_request_that_was_answered(pair: Cluster) -> None:
    """What any HEAD on any node told stays true, and so does every 204."""
    content = WHOLE[: 4 * MIB]
    url = pair.tus("a").new(len(content))
    done = threading.Event()

    def look(client: Tus) -> int:
        seen = [0]
        while not done.is_set():
            reply = client.head(url)
            assert reply.status in (200, 423), reply
            if reply.status == 200:
                seen.append(int(reply["upload-offset"]))
        assert seen == sorted(seen)
        return len(seen)

    with ThreadPoolExecutor(4) as threads:
        lookers = [threads.submit(look, pair.tus(name)) for name in "abab"]
        try:
            offset, rng = 0, Random(2)
            while offset < len(content):
                step = rng.choice((1, 1000, 100_000, 500_000))
                reply = pair.tus("a").try_patch(url, offset, content[offset : offset + step])
                now = pair.tus("b").offset(url)
                if reply is not None and reply.status == 204:
                    assert now == int(reply["upload-offset"]) == min(offset + step, len(content))
                assert offset <= now <= offset + step
                offset = now
        finally:
            done.set()
        assert all(looker.result() > 1 for looker in lookers)
    assert pair.state(url) == "verified"
    assert pair.events(url) == ["verified"]
    assert pair.content(url) == content
