"""The engine in several processes and nodes over one state and one store, all in memory."""

import asyncio
from collections.abc import Callable

import pytest

from tests.integration.conftest import World, Worlds
from tests.support.fakes import Stall, toy_limits
from tus_server.core.errors import (
    LeaseLost,
    NothingToRewind,
    OffsetMismatch,
    StoreUnavailable,
    TailMissing,
)
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.engine.leases import TRUST_S
from tus_server.engine.rewind import rewind
from tus_server.engine.tails import TailPolicy
from tus_server.ports import NodeSeen

S = UploadState
LIMITS = toy_limits(8, min_part_size=5, parallel_parts=3)
WHOLE = bytes(range(20))


@pytest.fixture
async def a(open_world: Worlds) -> World:
    """A node."""
    return await open_world(limits=LIMITS, label="a")


@pytest.fixture
def join(open_world: Worlds, a: World) -> Callable[..., "asyncio.Future[World]"]:
    """Start another process of the cluster that node `a` is in."""

    def join(label: str, **options: object) -> "asyncio.Future[World]":
        return asyncio.ensure_future(open_world(beside=a, label=label, **options))

    return join


Join = Callable[..., "asyncio.Future[World]"]


async def finish(world: World, upload: Upload) -> None:
    """Send what is missing, and compare what is stored."""
    row = await world.status(upload)
    await world.append(row, WHOLE[row.offset :])
    assert await world.content(upload) == WHOLE
    assert not any(world.stores.tails[label].get(upload.id) for label in world.stores.tails)
    assert not world.stores.disk[upload.id].tails
    assert not world.stores.disk[upload.id].multiparts


# --- tails


async def test_a_tail_is_missed_on_another_node_and_nothing_is_changed(
    a: World, join: Join
) -> None:
    b = await join("b")
    upload = (await a.append(await a.new(20), WHOLE[:11])).upload
    assert upload.tail is not None
    assert (upload.committed_bytes, upload.tail.length) == (8, 3)

    with pytest.raises(TailMissing) as caught:
        await b.append(upload, WHOLE[11:])

    # Node b knows the other one by its id alone: it never said a word here.
    assert caught.value.members["this_node"] == "b"
    assert caught.value.members["offset"] == 11
    assert caught.value.members["committed_bytes"] == 8
    assert (await b.status(upload)).offset == 11
    assert await a.row(upload) == upload
    await finish(a, upload)


async def test_no_byte_is_asked_for_where_the_tail_is_missing(a: World, join: Join) -> None:
    b = await join("b")
    upload = (await a.append(await a.new(20), WHOLE[:3])).upload
    stall = Stall()

    with pytest.raises(TailMissing):
        await b.append(upload, stall)

    assert not stall.reached.is_set()


async def test_an_append_that_neither_moves_nor_completes_needs_no_tail(
    a: World, join: Join
) -> None:
    b = await join("b")
    upload = (await a.append(await a.new(20), WHOLE[:3])).upload

    assert (await b.append(upload)).upload.offset == 3


async def test_a_length_that_turns_out_to_be_the_offset_completes_from_the_tail(
    a: World, join: Join
) -> None:
    b = await join("b")
    upload = (await a.append(await a.new(None), WHOLE[:3])).upload

    with pytest.raises(TailMissing):
        await b.append(upload, length=3)

    assert (await a.append(upload, length=3)).upload.state is S.VERIFIED
    assert await a.content(upload) == WHOLE[:3]


async def test_where_there_is_no_tail_every_node_goes_on_and_parks_what_is_left(
    a: World, join: Join
) -> None:
    b = await join("b")
    upload = (await a.append(await a.new(20), WHOLE[:8])).upload
    assert upload.tail is None

    upload = (await b.append(upload, WHOLE[8:11])).upload

    assert upload.tail is not None
    assert upload.tail.node is None
    assert not b.stores.tails["b"].get(upload.id)
    upload = (await a.append(upload, WHOLE[11:12])).upload
    assert upload.tail is not None
    assert upload.tail.node == a.node.id
    await finish(a, upload)


async def test_shared_tails_are_parked_and_any_node_goes_on(open_world: Worlds) -> None:
    a = await open_world(limits=LIMITS, label="a", policy=TailPolicy.SHARED)
    b = await open_world(beside=a, label="b", policy=TailPolicy.SHARED)
    upload = await a.new(20)

    for start, world in zip(range(20), [a, b, b, a] * 5, strict=True):
        upload = (await world.append(upload, WHOLE[start : start + 1])).upload
        stored = world.stores.disk.get(upload.id)
        assert stored is not None
        assert len(stored.tails) == (upload.tail is not None)

    assert await a.content(upload) == WHOLE
    assert not any(world.stores.tails[label] for label in ("a", "b"))


async def test_a_tail_file_that_lost_bytes_is_missed_and_one_that_got_more_is_cut(
    a: World,
) -> None:
    upload = (await a.append(await a.new(20), WHOLE[:3])).upload
    tails = a.stores.tails["a"][upload.id].tails
    for broken in (b"", WHOLE[:2], b"\xff" + WHOLE[1:3]):
        tails[0] = broken
        with pytest.raises(TailMissing):
            await a.append(upload, WHOLE[3:])
        assert await a.row(upload) == upload

    tails[0] = WHOLE[:3] + b"never acknowledged"
    await finish(a, upload)


async def test_a_tail_is_continued_in_place_and_goes_with_the_part_that_has_it(a: World) -> None:
    upload = await a.new(20)
    for start in (0, 1, 2):
        upload = (await a.append(upload, WHOLE[start : start + 1])).upload
        assert a.stores.tails["a"][upload.id].tails == {0: WHOLE[: start + 1]}

    upload = (await a.append(upload, WHOLE[3:8])).upload

    assert upload.tail is None
    assert upload.id not in a.stores.tails["a"]
    await finish(a, upload)


async def test_what_the_store_refuses_is_kept_as_tail(a: World) -> None:
    upload = (await a.append(await a.new(20), WHOLE[:3])).upload
    a.objects.fail("finish", StoreUnavailable())

    upload = (await a.append(upload, WHOLE[3:7])).upload

    assert upload.offset == 7
    assert upload.tail is not None
    assert upload.tail.length == 7
    await finish(a, upload)


async def test_bytes_that_complete_an_upload_do_not_count_before_the_store_has_them(
    a: World,
) -> None:
    upload = (await a.append(await a.new(20), WHOLE[:11])).upload
    a.objects.fail("finish", StoreUnavailable())

    with pytest.raises(StoreUnavailable):
        await a.append(upload, WHOLE[11:])

    # The tail is as it was.
    assert (await a.status(upload)).offset == 11
    await finish(a, upload)


# --- giving a tail up


async def test_an_operator_gives_up_a_lost_tail(a: World) -> None:
    upload = (await a.append(await a.new(20), WHOLE[:11])).upload
    a.stores.tails["a"].clear()

    before, after = await rewind(a.engine, upload.id)

    assert (before.offset, after.offset) == (11, 8)
    assert (await a.real_state.history(upload.id))[0].note == (
        "rewound from 11 to 8: 3 bytes given up, which were on a"
    )
    await finish(a, upload)
    with pytest.raises(NothingToRewind):
        await rewind(a.engine, upload.id)


async def test_by_policy_the_tail_of_a_node_that_is_gone_is_given_up(a: World, join: Join) -> None:
    b = await join("b", policy=TailPolicy.REWIND)
    upload = (await a.append(await a.new(20), WHOLE[:11])).upload
    a.stores.tables.nodes[a.node.id] = NodeSeen(a.node, 299.0)
    with pytest.raises(TailMissing) as caught:
        await b.append(upload, WHOLE[11:])
    assert caught.value.members["tail_node"] == "a"

    # Who has not been heard for as long itself must not call others dead.
    a.stores.tables.nodes[a.node.id] = NodeSeen(a.node, 301.0)
    with pytest.raises(TailMissing):
        await b.append(upload, WHOLE[11:])
    b.clock.advance(301)
    with pytest.raises(OffsetMismatch) as mismatch:
        await b.append(upload, WHOLE[11:])

    assert mismatch.value.current == 8
    a.stores.tails["a"].clear()
    await finish(b, upload)


# --- leases


async def test_a_holder_in_another_process_is_asked_to_let_go(a: World, join: Join) -> None:
    b = await join("b")
    upload = await a.new(20)
    stall = Stall()
    running = asyncio.ensure_future(a.append(upload, WHOLE[:8], stall))
    await stall.reached.wait()

    assert (await b.status(upload)).offset == 8

    assert (await running).upload.offset == 8
    await finish(b, upload)


@pytest.mark.parametrize("size", [3, 8, 11])
async def test_a_holder_that_wakes_up_after_its_lease_was_taken_changes_nothing(
    a: World, join: Join, size: int
) -> None:
    other = await join("a", process="a2")
    upload = (await a.append(await a.new(20), WHOLE[:2])).upload
    stall = Stall()
    running = asyncio.ensure_future(a.append(upload, WHOLE[2 : 2 + size], stall, bytes(3)))
    await stall.reached.wait()
    a.stores.tables.expire(upload.id)

    upload = await other.status(upload)
    upload = (await other.append(upload, WHOLE[upload.offset : upload.offset + 2])).upload
    assert upload.tail is not None
    assert upload.tail.generation == upload.generation > 0
    stall.resume()
    with pytest.raises(LeaseLost):
        await running

    assert await other.row(upload) == upload
    await finish(other, upload)


async def test_a_late_write_to_a_tail_meets_a_file_nobody_reads(a: World, join: Join) -> None:
    other = await join("a", process="a2")
    upload = (await a.append(await a.new(20), WHOLE[:2])).upload
    hold = a.tails.hold("save")
    running = asyncio.ensure_future(a.append(upload, b"!"))
    await hold.reached.wait()
    a.stores.tables.expire(upload.id)
    upload = (await other.append(upload, WHOLE[2:4])).upload

    hold.let_go()
    with pytest.raises((LeaseLost, StoreUnavailable)):
        await running

    await finish(other, await other.row(upload))


async def test_a_holder_that_slept_asks_before_it_writes(a: World, join: Join) -> None:
    other = await join("a", process="a2")
    upload = await a.new(20)
    stall = Stall()
    running = asyncio.ensure_future(a.append(upload, WHOLE[:6], stall, WHOLE[6:8], Stall()))
    await stall.reached.wait()
    a.stores.tables.expire(upload.id)
    await other.append(upload, b"x")
    a.clock.advance(TRUST_S + 1)
    stored = a.objects.hold("finish")

    stall.resume()
    for _ in range(100):
        await asyncio.sleep(0)

    assert not stored.reached.is_set()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_part_numbers_of_a_holder_that_died_are_never_used_again(
    a: World, join: Join
) -> None:
    other = await join("a", process="a2")
    upload = (await a.append(await a.new(30), bytes(range(8)))).upload
    hold = a.objects.hold("finish")
    running = asyncio.ensure_future(a.append(upload, bytes(8), Stall()))
    await hold.reached.wait()
    a.stores.tables.expire(upload.id)

    upload = (await other.append(upload, WHOLE[8:17])).upload
    _, part = await other.real_state.find_parts(upload.id)
    assert part.number > LIMITS.reserved_numbers
    hold.let_go()
    running.cancel()
    await asyncio.wait({running})
    row = await other.status(upload)
    await other.append(row, bytes(range(row.offset, 30)))
    assert await other.content(upload) == bytes(range(30))


async def test_recovery_sweeps_what_a_dead_holder_left_in_the_store(a: World, join: Join) -> None:
    b = await join("b")
    upload = await a.new(20)
    hold = a.state.hold("commit")
    running = asyncio.ensure_future(a.append(upload, WHOLE[:8], Stall()))
    await hold.reached.wait()
    assert a.stores.disk[upload.id].multiparts
    a.stores.tables.expire(upload.id)

    await b.recover()

    assert upload.id not in a.stores.disk
    assert not (await b.row(upload)).unclean
    hold.let_go(LeaseLost())
    running.cancel()
    await asyncio.wait({running})
    await finish(b, upload)
