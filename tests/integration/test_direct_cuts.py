"""Parts of direct uploads, cut at every await: as test_cancellation.py does it with other verbs."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import soon
from tests.integration.direct import WHOLE, DirectWorld
from tests.support.fakes import PAUSE
from tests.support.saw import Saw
from tus_server.core.errors import TusServerError
from tus_server.core.states import UNFINISHED, UploadState
from tus_server.core.upload import Part, Upload
from tus_server.engine.direct.waiting import auto_complete

S = UploadState
OTHER = bytes(range(100, 110))
MOST_CUTS = 500  # more suspensions than any verb has: a guard against a loop without end


@pytest.fixture
def saw() -> Saw:
    return Saw()


@pytest.fixture
async def world(tmp_path: Path, saw: Saw) -> AsyncIterator[DirectWorld]:
    (tmp_path / "data").mkdir()
    world = DirectWorld(tmp_path / "data")
    await world.open()
    asyncio.get_running_loop().set_task_factory(saw.make_task)
    yield world
    asyncio.get_running_loop().set_task_factory(None)
    await world.close()


@dataclass
class Verb:
    """A verb on its way. stored: the numbers of the parts that were stored before.

    touched: of the part that the verb sends.
    """

    run: Callable[[], Coroutine[Any, Any, Any]]
    upload: Upload
    stored: set[int]
    touched: int


def piece(number: int) -> bytes:
    return WHOLE[(number - 1) * 10 : number * 10]


async def the_first_part(world: DirectWorld) -> Verb:
    upload = await world.begin()
    script = (WHOLE[10:13], PAUSE, WHOLE[13:20])
    return Verb(lambda: world.put(upload, 2, *script), upload, set(), 2)


async def a_part_without_a_size(world: DirectWorld) -> Verb:
    upload = await world.begin()
    await world.put(upload, 1)
    sending = lambda: world.put(upload, 2, chunked=True)  # noqa: E731
    return Verb(sending, upload, {1}, 2)


async def a_part_that_is_sent_again(world: DirectWorld) -> Verb:
    upload = await world.begin()
    for number in (1, 2, 4):
        await world.put(upload, number)
    script = (OTHER[:4], PAUSE, OTHER[4:])
    return Verb(lambda: world.put(upload, 2, *script), upload, {1, 2, 4}, 2)


async def the_last_part(world: DirectWorld) -> Verb:
    upload = await world.begin(auto_complete=True)
    for number in (1, 2, 4):
        await world.put(upload, number)
    return Verb(lambda: world.put(upload, 3), upload, {1, 2, 4}, 3)


async def a_part_that_takes_over(world: DirectWorld) -> Verb:
    upload = await world.begin()

    async def send_twice() -> None:
        first = asyncio.ensure_future(world.put(upload, 1, OTHER[:4], PAUSE, PAUSE, OTHER[4:]))
        try:
            await world.put(upload, 1)
        finally:
            await asyncio.wait({first})
            first.cancelled() or first.exception()

    return Verb(send_twice, upload, set(), 1)


async def a_cancellation_while_a_part_arrives(world: DirectWorld) -> Verb:
    upload = await world.begin()
    await world.put(upload, 1)

    async def send_and_cancel() -> None:
        sending = asyncio.ensure_future(world.put(upload, 2, WHOLE[10:14], PAUSE, WHOLE[14:20]))
        try:
            await world.terminate(upload)
        finally:
            await asyncio.wait({sending})
            sending.cancelled() or sending.exception()

    return Verb(send_and_cancel, upload, {1}, 2)


VERBS = [
    the_first_part,
    a_part_without_a_size,
    a_part_that_is_sent_again,
    the_last_part,
    a_part_that_takes_over,
    a_cancellation_while_a_part_arrives,
]
Make = Callable[[DirectWorld], Awaitable[Verb]]
each_verb = pytest.mark.parametrize("make", VERBS, ids=[verb.__name__ for verb in VERBS])


async def check_usable(world: DirectWorld, verb: Verb, *, told: bool) -> None:
    """Check that stored parts are there, and that the upload can be completed.

    told: whoever sent the part was told that it is stored.
    """
    row = await world.row(verb.upload)
    if row.state is S.CANCELED:
        assert not world.has_bytes(row)
        return
    if row.state in UNFINISHED:
        stored = await world.stored(row)  # and their bytes are those of their CRCs
        assert stored >= verb.stored - {verb.touched}
        assert not told or verb.touched in stored
        for number in (1, 2, 3, 4):
            if number not in stored or world.bytes_of(row, number) != piece(number):
                await world.put(row, number)
        if row.auto_complete:
            await soon(auto_complete(world.engine))
        else:
            await world.complete(row)
        await soon(world.engine.drain(20))
    row = await world.row(verb.upload)
    assert row.state is S.VERIFIED
    assert await world.content(row) == WHOLE
    assert await world.events(row) == [S.VERIFIED]


def was_told(caller: "asyncio.Task[Any]") -> bool:
    if caller.cancelled() or isinstance(caller.exception(), TusServerError):
        return False
    return isinstance(caller.result(), Part)


@each_verb
async def test_wherever_its_caller_goes_away_a_verb_leaves_nothing_half_done(
    world: DirectWorld, saw: Saw, make: Make
) -> None:
    for at in range(MOST_CUTS):
        verb = await make(world)
        caller = asyncio.Task(saw.watch(verb.run()))
        saw.set(at, caller.cancel)
        await asyncio.wait({caller})
        cut = saw.disarm()

        await world.check_at_rest()
        await check_usable(world, verb, told=was_told(caller))
        if not cut:
            break
    else:
        raise AssertionError("a verb that never ends")


@each_verb
@pytest.mark.parametrize("everything", [True, False], ids=["all-tasks", "one-task"])
async def test_wherever_its_loop_is_torn_down_a_verb_loses_no_part(
    world: DirectWorld, saw: Saw, make: Make, everything: bool
) -> None:
    def tear_down() -> None:
        for task in list(saw.tasks) if everything else [asyncio.current_task()]:
            assert task is not None
            task.cancel()

    for at in range(MOST_CUTS):
        verb = await make(world)

        caller = asyncio.Task(saw.watch(verb.run()))
        saw.set(at, tear_down)
        await asyncio.wait({caller})
        cut = saw.disarm()
        while saw.tasks:
            await asyncio.wait(saw.tasks)

        await world.restart()
        await check_usable(world, verb, told=was_told(caller))
        if not cut:
            break
    else:
        raise AssertionError("a verb that never ends")


@each_verb
async def test_wherever_the_process_ends_a_verb_loses_no_part(
    world: DirectWorld, saw: Saw, make: Make, tmp_path: Path
) -> None:
    for at in range(MOST_CUTS):
        verb = await make(world)
        left = tmp_path / f"left-{at}"

        def end(left: Path = left) -> None:
            # The loop stands still meanwhile, so at most the step under way in a thread goes on.
            shutil.copytree(tmp_path / "data", left, ignore=shutil.ignore_patterns("*-shm"))

        caller = asyncio.Task(saw.watch(verb.run()))
        saw.set(at, end)
        await asyncio.wait({caller})
        await soon(world.engine.drain(20))
        if not saw.disarm():
            break

        after = DirectWorld(left)
        await after.open()
        await after.recover()
        # The copy is of a moment before the answer.
        await check_usable(after, verb, told=False)
        await after.close()
        shutil.rmtree(left)
    else:
        raise AssertionError("a verb that never ends")
