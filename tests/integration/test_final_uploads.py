"""What a final upload, or its partials, can lose."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.conftest import World, soon
from tests.integration.test_concatenate import join, partial
from tests.support.fakes import FakeBody, settle
from tus_server.core.errors import StoreUnavailable
from tus_server.core.expiry import Expiry
from tus_server.core.states import FINISHED, UploadState
from tus_server.core.upload import Protocol
from tus_server.engine.concatenate import Concatenate, concatenate
from tus_server.engine.create import Create, create
from tus_server.engine.join import join_ready
from tus_server.engine.reap import Limits, reap
from tus_server.engine.terms import Terms
from tus_server.ports import ANONYMOUS

S = UploadState
DAY_S = 86400.0
EXPIRY = Expiry(7 * DAY_S)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(expiry=EXPIRY) as world:
        yield world


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path, expiry=EXPIRY) as world:
        yield world


async def test_a_used_partial_serves_a_second_final_upload_that_waits_longer(world: World) -> None:
    shared, slow = await partial(world, b"abc"), await partial(world, b"", length=3)
    waiting = await join(world, shared, slow)
    done = await join(world, shared)
    assert done.state is S.VERIFIED

    world.clock.advance(2 * 3600)  # used partials expire within an hour
    await reap(world.engine, Limits(expiry=EXPIRY), by="test")
    assert (await world.row(shared)).state is S.VERIFIED  # the reaper keeps it for `waiting`
    told = (await world.status(waiting)).state
    await world.append(slow, b"def")
    await settle()
    await join_ready(world.engine)

    row = await world.row(waiting)
    assert (told, row.state, row.error_message) == (S.INITIATED, S.VERIFIED, None)


async def test_a_join_that_is_put_off_beyond_the_life_of_a_partial_is_done(world: World) -> None:
    one = await partial(world, b"abc")
    world.clock.advance(7 * DAY_S - 10)
    world.objects.fail("join", StoreUnavailable("away"))
    final = await join(world, one)
    assert final.state is S.INITIATED

    world.clock.advance(20)
    await join_ready(world.engine)

    row = await world.row(final)
    assert (row.state, row.error_message) == (S.VERIFIED, None)


async def test_partials_outlive_what_is_not_verified(world: World) -> None:
    one = await partial(world, b"abc")
    world.objects.fail("complete", StoreUnavailable("away"), times=100)
    final = await join(world, one)
    assert final.state is S.COMPLETED

    world.clock.advance(2 * 3600)
    await reap(world.engine, Limits(expiry=EXPIRY), by="test")
    world.objects.heal()

    assert (await world.row(one)).state is S.VERIFIED


async def test_the_bytes_that_complete_a_partial_extend_its_life(world: World) -> None:
    one = await partial(world, b"", length=3)
    world.clock.advance(7 * DAY_S - 10)
    await world.append(one, b"abc")

    world.clock.advance(60)
    final = await join(world, one)

    assert final.state is S.VERIFIED


async def test_a_lost_partial_settles_its_final_upload_at_once(world: World) -> None:
    lost, slow = await partial(world, b"abc"), await partial(world, b"", length=3)
    final = await join(world, lost, slow)

    await world.terminate(lost)
    await join_ready(world.engine)

    assert (await world.row(final)).state is S.ERROR


async def test_final_uploads_that_cannot_be_settled_do_not_keep_others_waiting(
    world: World,
) -> None:
    lost, slow = await partial(world, b"abc"), await partial(world, b"", length=3)
    for _ in range(100):
        await join(world, lost, slow)
    await world.terminate(lost)
    world.objects.fail("join", StoreUnavailable("away"))
    good = await join(world, await partial(world, b"abc"))
    assert good.state is S.INITIATED

    for _ in range(3):
        await join_ready(world.engine)

    assert (await world.row(good)).state is S.VERIFIED


async def test_deferred_lengths_do_not_get_around_the_largest_size() -> None:
    async with World(max_size=5) as world:
        command = Create(None, Protocol.TUS, Terms(), is_partial=True)
        parts = [
            (await soon(create(world.engine, command, ANONYMOUS, FakeBody()))).upload
            for _ in range(2)
        ]
        final = await join(world, *parts)
        for one in parts:
            await world.append(one, b"abcd", length=4)
        assert await world.engine.drain(5)
        await join_ready(world.engine)

        row = await world.row(final)
        assert row.state not in FINISHED, row.length


async def test_the_reaper_leaves_what_a_final_upload_needs_since_it_looked(world: World) -> None:
    one = await partial(world, b"abc")
    world.clock.advance(3 * DAY_S)
    seen = world.state.hold("claim_upload")
    reaping = asyncio.create_task(
        reap(world.engine, Limits(expiry=EXPIRY, idle_s=2 * DAY_S), by="test")
    )
    await soon(seen.reached.wait())
    world.objects.fail("join", StoreUnavailable("away"))
    final = await join(world, one)
    assert final.state is S.INITIATED
    seen.let_go()
    await soon(reaping)
    await join_ready(world.engine)

    assert (await world.row(final)).state is S.VERIFIED


async def test_a_removal_does_not_overtake_a_commit_it_has_interrupted(disk: World) -> None:
    world = disk
    one = await partial(world, b"abc")
    held = world.objects.hold("complete", after=True)
    ids = [one.id]
    command = Concatenate(f"final;/files/{one.id}", ids, None)
    joining = asyncio.create_task(concatenate(world.engine, command, ANONYMOUS))
    await soon(held.reached.wait())
    (final,) = [u for u in await world.real_state.list_uploads(None, 10) if u.is_final]

    commits = world.state.hold("commit", nth=1)  # VERIFIED
    held.let_go()
    await soon(commits.reached.wait())
    # The commit is given to the store, and the removal asked for, in the same turn.
    commits.let_go()
    await soon(asyncio.gather(world.terminate(final), return_exceptions=True))
    await soon(joining)

    assert await world.steps(final) in (
        [S.INITIATED, S.COMPLETED, S.CANCELED],
        [S.INITIATED, S.COMPLETED, S.VERIFIED, S.DELETED],
        [S.INITIATED, S.COMPLETED, S.VERIFIED],
    )
