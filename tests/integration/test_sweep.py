"""The sweeper over a real disk: what it removes of this node's files, and what is not its own."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.conftest import World, Worlds, soon
from tests.support.fakes import toy_limits
from tests.support.state import claim
from tus_server.core.errors import StateUnavailable, StoreUnavailable
from tus_server.core.ids import UploadId, new_upload_id
from tus_server.core.upload import Tail, Upload
from tus_server.engine.sweep import OwnFile, OwnPartials, OwnTails, sweep
from tus_server.objects.local import LocalObjects
from tus_server.ports import FoundTail

HOUR_S = 3600.0


class Disk:
    """A world over SQLite and local disk, and its sweeper."""

    def __init__(self, world: World) -> None:
        assert isinstance(world.real_objects, LocalObjects)
        self.world = world
        self.kind = OwnPartials(world.real_objects)
        self.root = world.real_objects.paths.root

    def partial(self, upload: Upload) -> Path:
        return self.root / "objects" / upload.id[0] / upload.id[1] / f"{upload.id}.partial"

    def leave(self, path: Path, *, age_s: float = 0.0) -> Path:
        """Leave a file, as a process that died."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
        moment = path.stat().st_mtime - age_s
        os.utime(path, (moment, moment))
        return path

    async def sweep(self) -> list[OwnFile]:
        return await soon(sweep(self.world.engine, await self.kind.find_all()))


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    async with World(tmp_path) as world:
        yield Disk(world)


async def test_a_partial_file_beside_what_is_finished_or_has_ended_goes(disk: Disk) -> None:
    w = disk.world
    finished = (await w.create(b"abcd", length=4)).upload
    ended = (await w.create(b"ab", length=4)).upload
    await w.terminate(ended)
    left = [disk.leave(disk.partial(upload)) for upload in (finished, ended)]

    assert await disk.sweep() == []

    assert not any(path.exists() for path in left)
    assert await w.content(finished) == b"abcd"


async def test_what_has_arrived_of_an_unfinished_upload_stays(disk: Disk) -> None:
    w = disk.world
    upload = await w.new(4)
    await w.append(upload, b"ab")

    assert await disk.sweep() == []

    await w.append(upload, b"cd", offset=2)
    assert await w.content(upload) == b"abcd"


@pytest.mark.parametrize(("age_s", "stays"), [(0.9 * HOUR_S, True), (1.1 * HOUR_S, False)])
async def test_without_a_row_it_goes_when_it_is_old(
    disk: Disk, age_s: float, *, stays: bool
) -> None:
    upload_id = new_upload_id()
    folder = disk.root / "objects" / upload_id[0] / upload_id[1]
    left = disk.leave(folder / f"{upload_id}.partial", age_s=age_s)

    await disk.sweep()

    assert left.exists() == stays


async def test_files_of_others_stay_whatever_their_age(disk: Disk) -> None:
    upload_id = new_upload_id()
    folder = disk.root / "objects" / upload_id[0] / upload_id[1]
    foreign = [
        disk.leave(path, age_s=100 * HOUR_S)
        for path in (
            folder / upload_id,  # an object, of a database that was lost
            folder / "film.partial",
            folder / f"{upload_id}.partial.bak",
            disk.root / "objects" / f"{upload_id}.partial",
            disk.root / f"{upload_id}.partial",
        )
    ]

    await disk.sweep()

    assert all(path.exists() for path in foreign)


async def test_while_somebody_holds_the_upload_the_file_waits(disk: Disk) -> None:
    w = disk.world
    upload = (await w.create(b"abcd", length=4)).upload
    left = disk.leave(disk.partial(upload))
    lease = await claim(w.real_state, upload)

    held = await disk.sweep()

    assert [file.upload_id for file in held] == [upload.id]
    assert left.exists()
    await w.real_state.release(lease)
    assert await soon(sweep(w.engine, held)) == []
    assert not left.exists()


async def test_a_file_that_cannot_be_removed_stops_no_other(disk: Disk) -> None:
    w = disk.world
    uploads = [(await w.create(b"abcd", length=4)).upload for _ in range(2)]
    left = [disk.leave(disk.partial(upload)) for upload in uploads]

    async def refuse() -> None:
        raise StoreUnavailable("it is busy")

    found = {file.upload_id: file for file in await disk.kind.find_all()}
    first, second = (found[upload.id] for upload in uploads)
    assert await soon(sweep(w.engine, [replace(first, remove=refuse), second])) == []

    assert [path.exists() for path in left] == [True, False]


async def test_what_is_due_is_due_still_when_the_state_does_not_answer(disk: Disk) -> None:
    w = disk.world
    upload = (await w.create(b"abcd", length=4)).upload
    left = disk.leave(disk.partial(upload))
    for method in ("find_uploads", "claim_upload"):
        w.state.fail(method, StateUnavailable())
        with pytest.raises(StateUnavailable):
            await disk.sweep()

        assert left.exists()
    await disk.sweep()
    assert not left.exists()


class Tails:
    """See ports.TailFiles, in memory."""

    def __init__(self, *found: FoundTail) -> None:
        self.found = list(found)

    async def find_all(self) -> list[FoundTail]:
        return list(self.found)

    async def remove_found(self, upload_id: UploadId, generation: int) -> None:
        self.found = [
            each
            for each in self.found
            if (each.upload_id, each.generation) != (upload_id, generation)
        ]


async def test_of_tails_the_row_s_generation_alone_stays(open_world: Worlds) -> None:
    world = await open_world(limits=toy_limits(4, min_part_size=4))
    upload = await world.new(12)
    upload = (await world.append(upload, b"abc")).upload
    assert isinstance(upload.tail, Tail)
    generation = upload.tail.generation
    own, stray = (FoundTail(upload.id, each, 0.0) for each in (generation, generation + 1))
    rowless = FoundTail(new_upload_id(), 0, 2 * HOUR_S)
    tails = Tails(own, stray, rowless)
    suspects = [stray]
    kind = OwnTails(tails, suspects)

    assert [file.upload_id for file in kind.take_suspects()] == [upload.id]
    assert kind.take_suspects() == suspects == []
    assert await soon(sweep(world.engine, await kind.find_all())) == []
    assert tails.found == [own]

    await world.terminate(upload)
    await soon(sweep(world.engine, await kind.find_all()))
    assert tails.found == []
