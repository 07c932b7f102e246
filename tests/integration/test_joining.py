"""What a join that does not reach its end leaves, and whom it keeps waiting."""

import asyncio
from contextlib import suppress

import pytest

from tests.integration.conftest import World, soon
from tests.integration.test_concatenate import join, partial
from tests.support.fakes import toy_limits
from tus_server.core.errors import StateUnavailable, StoreUnavailable
from tus_server.core.states import FINISHED, UploadState
from tus_server.core.upload import Upload
from tus_server.disk.threads import FileThreads, ended
from tus_server.engine.join import join_loop, join_ready
from tus_server.engine.recover import recover, recovery_loop

S = UploadState
SMALL = toy_limits(8, min_part_size=5, parallel_parts=3)


async def test_a_join_whose_commit_fails_leaves_no_parts_behind() -> None:
    async with World(limits=SMALL, label="a") as world:
        parts = [await partial(world, b"0123456789") for _ in range(2)]
        world.state.fail("commit", StateUnavailable())
        final = await join(world, *parts)
        assert final.state is S.INITIATED

        for _ in range(2):  # what the loop does, beside objects that are in S3
            await recover(world.engine, receiving=False)
            await join_ready(world.engine)

        assert (await world.row(final)).state in FINISHED
        assert not world.stores.disk[final.id].multiparts


async def test_a_long_join_does_not_keep_recovery_from_its_work(
    fakes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tus_server.engine.recover.INTERVAL_S", 0.01)
    monkeypatch.setattr("tus_server.engine.join.INTERVAL_S", 0.01)
    fakes.objects.fail("join", StoreUnavailable("away"))
    final = await join(fakes, await partial(fakes, b"abc"))
    hold = fakes.objects.hold("join")
    loops = [
        asyncio.create_task(loop) for loop in (recovery_loop(fakes.engine), join_loop(fakes.engine))
    ]
    await soon(hold.reached.wait())
    other = await fakes.new(length=6)
    fakes.objects.fail("complete", StoreUnavailable("away"))
    with suppress(StoreUnavailable):
        await fakes.append(other, b"abcdef")
    assert (await fakes.row(other)).state is S.COMPLETED

    await wait_for_state(fakes, other, S.VERIFIED)
    hold.let_go()
    await wait_for_state(fakes, final, S.VERIFIED)

    for task in loops:
        task.cancel()
    await asyncio.wait(loops)


async def wait_for_state(world: World, upload: Upload, state: UploadState) -> None:
    async def look() -> None:
        while (await world.row(upload)).state is not state:
            await asyncio.sleep(0.001)

    await soon(look())


async def test_a_join_that_begins_at_shutdown_lets_go() -> None:
    async with World() as world:
        one, other = await partial(world, b"abc"), await partial(world, b"abc")
        world.objects.fail("join", StoreUnavailable("away"))
        await join(world, one, other)

        world.engine.let_go()
        hold = world.objects.hold("join")
        world.engine.behind(join_ready(world.engine, of=one.id))
        drained = await world.engine.drain(1)
        hold.let_go()
        await world.engine.drain(5)

        assert drained


async def test_a_step_for_threads_that_have_ended_holds_nobody_up() -> None:
    with FileThreads(1) as threads:
        pass

    waiting = asyncio.ensure_future(ended(threads.run(lambda: None)))
    await soon(asyncio.wait({waiting}))

    assert waiting.cancelled()
