"""Cuts at every await: of a caller that goes away, of a loop that is torn down, of a process.

A Saw counts each suspension of the tasks of the engine and of the caller; the tests cut at the
first, the second, ... until the verb runs through uncut. Over SQLite and local disk.
"""

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import World
from tests.support.fakes import PAUSE, settle
from tests.support.saw import Saw
from tus_server.core.errors import StoreUnavailable, TusServerError, UploadNotFound
from tus_server.core.states import FINISHED, TERMINAL, UNFINISHED, UploadState
from tus_server.core.upload import Upload

S = UploadState
WHOLE = bytes(range(40, 70))
MOST_CUTS = 500  # more suspensions than any verb has: a guard against a loop without end


@pytest.fixture
def saw() -> Saw:
    return Saw()


@pytest.fixture
async def world(tmp_path: Path, saw: Saw) -> AsyncIterator[World]:
    world = World(tmp_path / "data")
    (tmp_path / "data").mkdir()
    await world.open()
    asyncio.get_running_loop().set_task_factory(saw.make_task)
    yield world
    asyncio.get_running_loop().set_task_factory(None)
    await world.close()


# --- what is cut


@dataclass
class Verb:
    """A verb on its way: how to begin it, and what was acknowledged before."""

    run: Callable[[], Coroutine[Any, Any, Any]]
    upload: Upload | None = None
    acknowledged: int = 0
    terminates: bool = False
    known: set[str] = field(default_factory=set)  # uploads of earlier rounds


async def an_append(world: World) -> Verb:
    upload = (await world.create(WHOLE[:6], length=30)).upload
    script = (WHOLE[6:11], PAUSE, WHOLE[11:20], PAUSE, WHOLE[20:25])
    return Verb(lambda: world.append(upload, *script), upload, 6)


async def an_append_that_finishes(world: World) -> Verb:
    upload = (await world.create(WHOLE[:6], length=30)).upload
    return Verb(lambda: world.append(upload, WHOLE[6:15], PAUSE, WHOLE[15:]), upload, 6)


async def an_append_that_settles_the_length(world: World) -> Verb:
    upload = (await world.create(WHOLE[:6], chunked=True)).upload
    script = (WHOLE[6:20], PAUSE, WHOLE[20:])
    return Verb(lambda: world.append(upload, *script, length=30, chunked=True), upload, 6)


async def an_append_in_one_part(world: World) -> Verb:
    upload = (await world.create(WHOLE[:27], length=30)).upload
    return Verb(lambda: world.append(upload, WHOLE[27:]), upload, 27)


async def a_creation(world: World) -> Verb:
    return Verb(lambda: world.create(WHOLE[:9], PAUSE, WHOLE[9:20], length=30))


async def a_creation_of_the_whole(world: World) -> Verb:
    return Verb(lambda: world.create(WHOLE[:15], PAUSE, WHOLE[15:], length=30))


async def a_status_that_finishes(world: World) -> Verb:
    upload = (await world.create(WHOLE[:6], length=30)).upload
    world.objects.fail("complete", StoreUnavailable())
    with pytest.raises(StoreUnavailable):
        await world.append(upload, WHOLE[6:])
    return Verb(lambda: world.status(upload), upload, 30)


async def a_termination(world: World) -> Verb:
    upload = (await world.create(WHOLE[:6], length=30)).upload
    return Verb(lambda: world.terminate(upload), upload, terminates=True)


VERBS = [
    an_append,
    an_append_that_finishes,
    an_append_that_settles_the_length,
    an_append_in_one_part,
    a_creation,
    a_creation_of_the_whole,
    a_status_that_finishes,
    a_termination,
]
Make = Callable[[World], Awaitable[Verb]]


async def prepare(world: World, make: Make) -> Verb:
    verb = await make(world)
    rows = await world.real_state.list_uploads(None, 10_000)
    verb.known = {row.id for row in rows if verb.upload is None or row.id != verb.upload.id}
    return verb


async def rows_of(world: World, verb: Verb) -> list[Upload]:
    """Give the upload of the verb; a creation may have made one or none."""
    rows = await world.real_state.list_uploads(None, 10_000)
    return [row for row in rows if row.id not in verb.known]


async def check_usable(world: World, verb: Verb) -> None:
    """Check that acknowledged bytes are there, and that the upload can be completed."""
    rows = await rows_of(world, verb)
    assert len(rows) == 1 or (verb.upload is None and not rows)
    for row in rows:
        if row.state in TERMINAL:
            # A creation without an answer is taken back: nobody knows the id.
            assert verb.terminates or verb.upload is None
            assert not world.has_bytes(row)
            with pytest.raises(UploadNotFound):
                await world.status(row)
            continue
        row = await world.status(row)
        assert row.offset >= verb.acknowledged
        if row.state in UNFINISHED:
            assert stored(world, row) == WHOLE[: row.offset]
            row = (await world.append(row, WHOLE[row.offset :], length=30)).upload
        assert row.state is S.VERIFIED
        assert await world.content(row) == WHOLE
        assert await world.events(row) == [S.VERIFIED]


def stored(world: World, upload: Upload) -> bytes:
    """Give all that is in the file of an unfinished upload."""
    path = Path(world.real_objects.paths.partial(upload.id))
    return path.read_bytes() if path.exists() else b""


# --- the cuts


@pytest.mark.parametrize("make", VERBS, ids=[verb.__name__ for verb in VERBS])
async def test_wherever_its_caller_goes_away_a_verb_leaves_nothing_half_done(
    world: World, saw: Saw, make: Make
) -> None:
    for at in range(MOST_CUTS):
        verb = await prepare(world, make)
        caller = asyncio.Task(saw.watch(verb.run()))
        saw.set(at, caller.cancel)
        await asyncio.wait({caller})
        cut = saw.disarm()

        await world.check_at_rest()
        for row in await rows_of(world, verb):
            if row.state in UNFINISHED:
                assert stored(world, row) == WHOLE[: row.offset]
        await check_usable(world, verb)
        if not cut:
            break
    else:
        raise AssertionError("a verb that never ends")


@pytest.mark.parametrize("make", VERBS, ids=[verb.__name__ for verb in VERBS])
@pytest.mark.parametrize("everything", [True, False], ids=["all-tasks", "one-task"])
async def test_wherever_its_loop_is_torn_down_a_verb_loses_nothing_acknowledged(
    world: World, saw: Saw, make: Make, everything: bool
) -> None:
    def tear_down() -> None:
        for task in list(saw.tasks) if everything else [asyncio.current_task()]:
            assert task is not None
            task.cancel()

    for at in range(MOST_CUTS):
        verb = await prepare(world, make)

        caller = asyncio.Task(saw.watch(verb.run()))
        saw.set(at, tear_down)
        await asyncio.wait({caller})
        cut = saw.disarm()
        while saw.tasks:
            await asyncio.wait(saw.tasks)
        acknowledge(verb, caller)

        await world.restart()
        await check_usable(world, verb)
        if not cut:
            break
    else:
        raise AssertionError("a verb that never ends")


@pytest.mark.parametrize("make", VERBS, ids=[verb.__name__ for verb in VERBS])
async def test_wherever_the_process_ends_a_verb_loses_nothing_acknowledged(
    world: World, saw: Saw, make: Make, tmp_path: Path
) -> None:
    for at in range(MOST_CUTS):
        verb = await prepare(world, make)
        left = tmp_path / f"left-{at}"

        def end(left: Path = left) -> None:
            # The loop stands still meanwhile, so at most the step under way in a thread goes on.
            shutil.copytree(tmp_path / "data", left, ignore=shutil.ignore_patterns("*-shm"))

        caller = asyncio.Task(saw.watch(verb.run()))
        saw.set(at, end)
        await asyncio.wait({caller})
        if not saw.disarm():
            break

        after = World(left)
        await after.open()
        await after.recover()
        await check_usable(after, verb)
        await after.close()
        shutil.rmtree(left)
    else:
        raise AssertionError("a verb that never ends")


def acknowledge(verb: Verb, caller: "asyncio.Task[Any]") -> None:
    """Raise what must be there by what the caller was told."""
    if caller.cancelled() or isinstance(caller.exception(), TusServerError):
        return
    told = caller.result()
    upload = getattr(told, "upload", told)
    if isinstance(upload, Upload):
        verb.acknowledged = max(verb.acknowledged, upload.offset)


async def test_a_creation_torn_down_while_a_thread_writes_leaves_no_bytes_behind(
    world: World, saw: Saw, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate, real = threading.Event(), threading.Event(), os.open

    def slow(path: str, *args: Any, **named: Any) -> int:
        if str(path).endswith(".partial"):
            entered.set()
            gate.wait(20)
        return real(path, *args, **named)

    monkeypatch.setattr(os, "open", slow)
    verb = await prepare(world, a_creation_of_the_whole)
    caller = asyncio.Task(verb.run())
    await asyncio.to_thread(entered.wait, 20)
    for task in list(saw.tasks):
        task.cancel()
    await asyncio.wait({caller}, timeout=0.2)  # it may as well wait for the thread
    gate.set()
    await asyncio.wait({caller})
    while saw.tasks:
        await asyncio.wait(saw.tasks)

    await world.restart()
    await check_usable(world, verb)


async def test_a_caller_that_is_cancelled_twice_does_not_wait_for_the_verb(world: World) -> None:
    upload = await world.new(length=30)
    stuck = world.objects.hold("finish")
    caller = asyncio.ensure_future(world.append(upload, WHOLE))
    await stuck.reached.wait()

    caller.cancel()
    await settle()
    assert not caller.done()
    caller.cancel()
    await settle()
    assert caller.cancelled()

    stuck.let_go()
    assert await world.engine.drain(20)
    await world.check_at_rest()
    row = await world.status(upload)
    if row.state in UNFINISHED:
        assert stored(world, row) == WHOLE[: row.offset]


async def test_a_cancelled_caller_is_told_so_even_if_the_verb_fails(world: World) -> None:
    upload = await world.new(length=30)
    stuck = world.objects.hold("finish")
    caller = asyncio.ensure_future(world.append(upload, WHOLE))
    await stuck.reached.wait()
    caller.cancel()
    await settle()

    stuck.let_go(StoreUnavailable())
    await asyncio.wait({caller})

    assert caller.cancelled()
    assert (await world.status(upload)).offset == 0
    await world.check_at_rest()


async def test_a_caller_cancelled_while_it_waits_for_a_lease_leaves_the_holder_alone(
    world: World,
) -> None:
    upload = await world.new(length=30)
    stuck = world.objects.hold("finish")
    holder = asyncio.ensure_future(world.append(upload, WHOLE))
    await stuck.reached.wait()
    waiting = asyncio.ensure_future(world.status(upload))
    await settle()

    waiting.cancel()
    await asyncio.wait({waiting})
    stuck.let_go()
    await holder

    await world.check_at_rest()
    assert (await rows_of(world, Verb(lambda: world.status(upload))))[0].state in (
        FINISHED | UNFINISHED
    )
