"""Local disk: what a power cut would leave, disks that fail and disks that are full."""

import asyncio
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import SmallDisk, World, Worlds, soon
from tests.support.disk import Faulty, Platter, open_files
from tests.support.fakes import FakeBody, FakeClock, make_upload
from tus_server.app import create_app
from tus_server.core.errors import BytesMissing, StorageFull, StoreUnavailable, TusServerError
from tus_server.core.ids import UploadId
from tus_server.core.parts import MIB
from tus_server.core.states import FINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.disk.threads import FileThreads
from tus_server.engine.create import Create, create
from tus_server.engine.terms import Terms
from tus_server.objects.local import LocalObjects
from tus_server.ports import ANONYMOUS, Lease
from tus_server.settings import load_settings
from tus_server.state.sqlite import SqliteState

S = UploadState
WHOLE = bytes(range(1, 24))


class Witness(SqliteState):
    """A state that checks at each commit that a power cut would leave what the row will say."""

    platter: Platter
    expected: bytes = WHOLE

    async def commit(
        self, lease: Lease, before: Upload, after: Upload, *args: Any, **named: Any
    ) -> None:
        if after.state in FINISHED | {S.INITIATED, S.RECEIVING, S.COMPLETED}:
            final = self.platter.root / "objects" / after.id[0] / after.id[1] / after.id
            left = self.platter.read(final)
            if after.state not in FINISHED and left is None:
                left = self.platter.read(final.with_name(f"{after.id}.partial"))
            size = after.committed_bytes
            assert (left or b"")[:size] == self.expected[:size]
            assert left is not None or after.state not in FINISHED
        await super().commit(lease, before, after, *args, **named)


@pytest.fixture
async def disk(
    open_world: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[World, Platter]:
    """An engine over SQLite and local disk, where each commit looks at the platter."""
    platter = Platter(tmp_path, monkeypatch)
    monkeypatch.setattr(Witness, "platter", platter, raising=False)
    monkeypatch.setattr("tests.integration.conftest.SqliteState", Witness)
    return await open_world(tmp_path), platter


# --- what a commit tells of is on the platter


async def test_every_byte_is_on_the_platter_before_a_commit_tells_of_it(
    disk: tuple[World, Platter],
) -> None:
    world, platter = disk
    upload = await world.new(length=len(WHOLE))
    for start, end in ((0, 3), (3, 15), (15, 23)):
        upload = (await world.append(upload, WHOLE[start:end])).upload

    assert upload.state is S.VERIFIED
    assert platter.read(final_path(platter, upload)) == WHOLE


@pytest.mark.parametrize("length", [0, 1, 23])
async def test_an_upload_in_one_request_is_on_the_platter_before_it_is_verified(
    disk: tuple[World, Platter], length: int
) -> None:
    world, platter = disk

    upload = (await world.create(WHOLE[:length], length=length)).upload

    assert upload.state is S.VERIFIED
    assert platter.read(final_path(platter, upload)) == WHOLE[:length]


def final_path(platter: Platter, upload: Upload) -> Path:
    return platter.root / "objects" / upload.id[0] / upload.id[1] / upload.id


def test_the_platter_forgets_what_was_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The witness all of this rests on.
    platter = Platter(tmp_path, monkeypatch)
    path = tmp_path / "file"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    folder = os.open(tmp_path, os.O_RDONLY)
    os.pwrite(file, b"abc", 0)
    os.fdatasync(file)
    assert platter.read(path) is None
    os.fsync(folder)
    assert platter.read(path) == b"abc"
    os.pwrite(file, b"def", 3)
    platter.fail(1)
    with pytest.raises(OSError, match="Input/output"):
        os.fdatasync(file)
    os.fdatasync(file)
    assert platter.read(path) == b"abc\0\0\0"
    os.pwrite(file, b"def", 3)
    os.fdatasync(file)
    assert platter.read(path) == b"abcdef"
    os.close(file)
    os.close(folder)


# --- a sync that fails


FAILING = [*({n} for n in range(1, 14)), {1, 2}, {2, 3}, {1, 3, 5}, {4, 5}, {1, 2, 3, 4}, {6, 8}]


@pytest.mark.parametrize("fail_at", FAILING, ids=lambda found: "-".join(map(str, sorted(found))))
async def test_a_failing_sync_is_never_reported_as_success(
    disk: tuple[World, Platter], fail_at: set[int]
) -> None:
    world, platter = disk
    upload = await world.new(length=len(WHOLE))
    platter.fail(*fail_at)

    failures = 0
    while upload.state is not S.VERIFIED:
        before = upload.offset
        try:
            await world.append(upload, WHOLE[before : before + 9])
        except StoreUnavailable:
            failures += 1
        upload = await status_at_last(world, upload)
        assert upload.offset >= before
        assert failures <= len(fail_at)

    # Witness has looked at every commit on the way.
    assert await world.content(upload) == WHOLE
    assert platter.read(final_path(platter, upload)) == WHOLE
    assert await world.events(upload) == [S.VERIFIED]


async def status_at_last(world: World, upload: Upload) -> Upload:
    """Ask for the status until a completed upload is finished."""
    for _ in range(5):
        try:
            return await world.status(upload)
        except TusServerError:
            continue
    raise AssertionError("never finished")


async def test_after_a_failing_sync_the_offset_stands_and_the_bytes_are_written_again(
    disk: tuple[World, Platter],
) -> None:
    world, platter = disk
    upload = (await world.create(WHOLE[:4], length=20)).upload
    platter.fail(1)

    with pytest.raises(StoreUnavailable):
        await world.append(upload, b"XXXX")

    upload = await world.status(upload)
    assert upload.offset == 4
    await world.append(upload, WHOLE[4:20])
    assert platter.read(final_path(platter, upload)) == WHOLE[:20]


async def test_an_empty_upload_whose_sync_fails_is_not_there(disk: tuple[World, Platter]) -> None:
    world, platter = disk
    platter.fail(*range(1, 100))

    with pytest.raises(StoreUnavailable):
        await world.create(length=0)

    platter.fail()
    assert await world.real_state.list_uploads(FINISHED, 10) == []


async def test_a_store_whose_syncs_fail_is_not_ready(disk: tuple[World, Platter]) -> None:
    world, platter = disk
    platter.fail(1)

    with pytest.raises(StoreUnavailable):
        await world.real_objects.check()

    await world.real_objects.check()
    assert not (platter.root / ".probe").exists()


async def test_two_uploads_that_share_a_new_folder_each_wait_until_its_name_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platter = Platter(tmp_path, monkeypatch)
    slow, entered = threading.Event(), threading.Event()
    parent = tmp_path / "objects" / "a"
    watched = os.fsync

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(parent) and not entered.is_set():
            entered.set()
            slow.wait(20)
        watched(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    clock = FakeClock()
    first, second = (make_upload(clock, id=UploadId(f"abc{n}" + "0" * 28)) for n in (1, 2))
    with FileThreads(4) as threads:
        objects = LocalObjects(tmp_path, threads)
        storing = asyncio.ensure_future(store_whole(objects, first))
        await asyncio.to_thread(entered.wait, 20)
        other = asyncio.ensure_future(store_whole(objects, second))
        await asyncio.wait({other}, timeout=0.2)  # it may as well wait for the first
        early = platter.read(final_path(platter, second)) if other.done() else b"abc"
        slow.set()
        await soon(asyncio.gather(storing, other))

    assert early == b"abc"
    for upload in (first, second):
        assert platter.read(final_path(platter, upload)) == b"abc"


async def store_whole(objects: LocalObjects, upload: Upload) -> None:
    writer = objects.open_writer(upload).open_part(upload, number=1, start=0)
    await writer.finish(memoryview(b"abc"), completes=True)


async def test_a_new_data_directory_has_a_name_that_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    platter = Platter(tmp_path, monkeypatch)
    data_dir = tmp_path / "new" / "data"
    app = create_app(load_settings(data_dir=data_dir))

    async with app.lifespan():
        command = Create(None, Protocol.TUS, Terms(length=3))
        upload = (await create(app.engine, command, ANONYMOUS, FakeBody(b"abc"))).upload

        assert upload.state is S.VERIFIED
        path = data_dir / "objects" / upload.id[0] / upload.id[1] / upload.id
        assert platter.read(path) == b"abc"


# --- relaxed durability


async def test_relaxed_durability_drops_the_syncs_and_keeps_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    platter = Platter(tmp_path, monkeypatch)
    upload = make_upload(clock)
    with FileThreads(2) as threads:
        objects = LocalObjects(tmp_path, threads, durable=False)
        writer = objects.open_writer(upload).open_part(upload, number=1, start=0)
        first = await writer.finish(memoryview(b"abcd"), completes=False)
        upload = upload.with_bytes(first.size, first.crc64).with_length(4)
        await objects.complete(upload, [])
        await objects.check()

        assert platter.syncs == 0
        assert b"".join([block async for block in objects.read(upload, 0, 4)]) == b"abcd"


# --- errors of the disk


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
async def test_a_disk_without_space_is_told_apart_and_the_upload_goes_on(
    open_world: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, nth: int
) -> None:
    world = await open_world(tmp_path)
    upload = await world.new(length=len(WHOLE))
    with monkeypatch.context() as patched:
        Faulty(patched, "pwrite", code, nth=nth)
        with pytest.raises(StorageFull):
            await world.append(upload, WHOLE)

    upload = await world.status(upload)
    assert upload.offset in (0, 4, 8, 12)
    assert (await world.append(upload, WHOLE[upload.offset :])).upload.state is S.VERIFIED
    assert await world.content(upload) == WHOLE


async def test_a_write_that_is_cut_short_is_continued(
    open_world: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await open_world(tmp_path)
    upload = await world.new(length=len(WHOLE))
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, block, at: real(file, block[:3], at))

    upload = (await world.append(upload, WHOLE)).upload

    assert await world.content(upload) == WHOLE


@pytest.mark.parametrize("name", ["open", "pwrite", "fdatasync", "rename", "mkdir"])
async def test_an_error_of_the_disk_is_temporary_and_leaks_nothing(
    open_world: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    world = await open_world(tmp_path)
    upload = await world.new(length=3)
    files = open_files(tmp_path)
    with monkeypatch.context() as patched:
        Faulty(patched, name, errno.EIO)
        with pytest.raises(StoreUnavailable):
            await world.append(upload, b"abc")

    assert open_files(tmp_path) == files
    assert (await world.status(upload)).offset == 0
    assert (await world.append(upload, b"abc")).upload.state is S.VERIFIED
    assert open_files(tmp_path) == files


@pytest.mark.parametrize("left", [None, 0, 2])
async def test_an_upload_whose_file_lost_committed_bytes_ends_and_leaks_nothing(
    open_world: Worlds, tmp_path: Path, left: int | None
) -> None:
    world = await open_world(tmp_path)
    upload = (await world.create(b"abcd", length=10)).upload
    (path,) = (tmp_path / "objects").rglob(f"{upload.id}*")
    files = open_files(tmp_path)
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left)

    with pytest.raises(BytesMissing):
        await world.append(upload, b"ef")

    assert (await world.row(upload)).state is S.ERROR
    assert open_files(tmp_path) == files


async def test_an_empty_upload_whose_sync_fails_leaks_nothing(
    open_world: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await open_world(tmp_path)
    files = open_files(tmp_path)
    with monkeypatch.context() as patched:
        Faulty(patched, "fdatasync", errno.EIO)
        with pytest.raises(StoreUnavailable):
            await world.create(length=0)

    assert open_files(tmp_path) == files


async def test_a_download_that_ends_early_leaks_nothing(open_world: Worlds, tmp_path: Path) -> None:
    world = await open_world(tmp_path, part_size_bytes=MIB)
    upload = (await world.create(bytes(MIB), length=MIB)).upload
    files = open_files(tmp_path)

    stream = world.real_objects.read(upload, 0, MIB)
    await anext(stream)
    await stream.aclose()

    assert open_files(tmp_path) == files


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_the_check_tells_a_full_disk_from_a_broken_one(
    open_world: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    world = await open_world(tmp_path)
    with monkeypatch.context() as patched:
        Faulty(patched, "pwrite", code)
        expected = StorageFull if code == errno.ENOSPC else StoreUnavailable
        with pytest.raises(expected):
            await world.real_objects.check()

    await world.real_objects.check()


@pytest.mark.needs_root
async def test_on_a_full_disk_the_offset_stays_true_and_the_upload_goes_on_when_there_is_space(
    open_world: Worlds, small_disk: SmallDisk
) -> None:
    world = await open_world(small_disk.path, part_size_bytes=100_000)
    whole = os.urandom(600_000)
    upload = await world.new(length=len(whole))
    upload = (await world.append(upload, whole[:250_000])).upload
    small_disk.fill()

    with pytest.raises(StorageFull):
        await world.append(upload, whole[250_000:])
    with pytest.raises(StorageFull):
        await world.real_objects.check()

    small_disk.make_space()
    upload = await world.status(upload)
    assert upload.offset >= 250_000
    upload = (await world.append(upload, whole[upload.offset :])).upload
    assert upload.state is S.VERIFIED
    assert await world.content(upload) == whole
    await world.real_objects.check()


# --- requests that are cancelled


class Slow:
    """One function of os whose first call waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.reached = threading.Event()
        self.gate = threading.Event()
        self._real = getattr(os, name)
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args: Any) -> Any:
        if not self.reached.is_set():
            self.reached.set()
            self.gate.wait(20)
        return self._real(*args)


async def test_a_part_is_not_closed_under_a_thread_that_still_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    upload = make_upload(clock)
    with FileThreads(4) as threads:
        objects = LocalObjects(tmp_path, threads)
        part = objects.open_writer(upload).open_part(upload, number=1, start=0)
        slow = Slow(monkeypatch, "pwrite")
        finishing = asyncio.ensure_future(part.finish(memoryview(b"abc"), completes=True))
        await asyncio.to_thread(slow.reached.wait, 20)
        finishing.cancel()
        discarding = asyncio.ensure_future(part.discard())
        await asyncio.wait({discarding}, timeout=0.05)

        assert not discarding.done()
        slow.gate.set()
        await soon(discarding)

    assert open_files(tmp_path) == 0


async def test_a_part_that_was_given_up_before_its_thread_began_writes_nothing(
    tmp_path: Path, clock: FakeClock
) -> None:
    upload = make_upload(clock)
    with FileThreads(1) as threads:
        objects = LocalObjects(tmp_path, threads)
        writer = objects.open_writer(upload)
        part = writer.open_part(upload, number=1, start=0)
        gate = threading.Event()
        busy = threads.run(lambda: gate.wait(20))
        finishing = asyncio.ensure_future(part.finish(memoryview(b"abc"), completes=True))
        await asyncio.sleep(0)
        finishing.cancel()
        discarding = asyncio.ensure_future(part.discard())
        await asyncio.sleep(0)
        gate.set()
        await soon(asyncio.gather(busy, discarding))
        assert await writer.undo(upload, holds=True)

    assert open_files(tmp_path) == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# --- undo


async def test_undoing_asks_the_disk_only_where_something_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    upload = make_upload(clock)
    with FileThreads(1) as threads:
        objects = LocalObjects(tmp_path, threads)
        writer = objects.open_writer(upload)
        part = writer.open_part(upload, number=1, start=0)
        receipt = await part.finish(memoryview(b"abc"), completes=False)
        upload = upload.with_bytes(receipt.size, receipt.crc64)
        with monkeypatch.context() as patched:
            patched.setattr(threads, "run", None)
            await part.discard()
            assert await writer.undo(upload, holds=True)


async def test_an_undo_that_fails_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    upload = make_upload(clock)
    with FileThreads(1) as threads:
        objects = LocalObjects(tmp_path, threads)
        writer = objects.open_writer(upload)
        part = writer.open_part(upload, number=1, start=0)
        await part.finish(memoryview(b"abc"), completes=False)
        with monkeypatch.context() as patched:
            Faulty(patched, "unlink", errno.EIO)
            assert not await writer.undo(upload, holds=True)

        assert not await writer.undo(upload, holds=False)
        assert await writer.undo(upload, holds=True)


# --- files


async def test_nobody_else_may_read_what_is_stored(open_world: Worlds, tmp_path: Path) -> None:
    world = await open_world(tmp_path)
    await world.create(b"abc", length=3)
    await world.create(b"abc", length=6)

    for path in (tmp_path / "objects", *(tmp_path / "objects").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0


async def test_a_finished_upload_is_one_file_of_exactly_its_bytes(
    open_world: Worlds, tmp_path: Path
) -> None:
    world = await open_world(tmp_path)
    upload = await world.new(length=len(WHOLE))
    for start in range(0, len(WHOLE), 5):
        upload = (await world.append(upload, WHOLE[start : start + 5])).upload

    (path,) = (path for path in (tmp_path / "objects").rglob("*") if path.is_file())
    assert path.name == upload.id
    assert path.read_bytes() == WHOLE


async def test_what_a_user_calls_an_upload_is_in_no_path(
    open_world: Worlds, tmp_path: Path
) -> None:
    world = await open_world(tmp_path)
    await world.create(b"abc", length=3, metadata="filename Li4vLi4vZXRjL3Bhc3N3ZA==")

    assert not [path for path in tmp_path.rglob("*") if "passwd" in path.name]
