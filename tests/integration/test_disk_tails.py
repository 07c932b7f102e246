"""Tails on disk: what a power cut would leave, disks that fail or are full, names, the sweeper."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.conftest import SmallDisk, soon
from tests.support.disk import Faulty, Platter, open_files
from tests.support.fakes import FakeClock, make_upload
from tus_server.core.checksums import crc64
from tus_server.core.errors import StorageFull, StoreUnavailable, TailMissing
from tus_server.core.ids import UploadId, find_upload_id, new_upload_id
from tus_server.core.states import UploadState
from tus_server.core.upload import Tail, Upload
from tus_server.disk.threads import FileThreads
from tus_server.engine.buffers import BlockPool
from tus_server.ports import FoundTail, Node
from tus_server.tails import DiskTails, parse_tail_name, tail_path

HERE, ELSEWHERE = Node("1" * 32, "here"), Node("2" * 32, "elsewhere")
OLD, NEW = bytes(range(1, 24)), bytes(range(101, 133))


class Disk:
    """Tails over real files: rows as they are committed, and what their files have."""

    def __init__(self, folder: Path, threads: FileThreads, *, durable: bool = True) -> None:
        self.folder = folder
        self.pool = BlockPool(1 << 22)
        self.durable = durable
        self.threads = threads
        self.tails = self.open()

    def open(self, node: Node = HERE) -> DiskTails:
        return DiskTails(
            self.folder, self.threads, node=node, blocks=self.pool, durable=self.durable
        )

    def path(self, upload: Upload, generation: int = 0) -> Path:
        return tail_path(self.folder, upload.id, generation)

    async def begin(self, upload: Upload, content: bytes, generation: int = 0) -> Upload:
        """Save a new tail, and commit it."""
        await self.tails.save(upload, generation=generation, kept=0, content=views(content))
        return committed(upload, content, generation)

    async def go_on(self, upload: Upload, before: bytes, content: bytes) -> Upload:
        """Continue the tail of the row, and commit it."""
        assert upload.tail is not None
        generation = upload.tail.generation
        await self.tails.save(
            upload, generation=generation, kept=len(before), content=views(content)
        )
        return committed(upload, before + content, generation)

    async def read(self, upload: Upload, tails: DiskTails | None = None) -> bytes:
        return b"".join([bytes(view) async for view in (tails or self.tails).read(upload)])


def committed(upload: Upload, content: bytes, generation: int) -> Upload:
    return replace(upload, tail=Tail(len(content), crc64(content), HERE.id, generation))


async def views(*blocks: bytes) -> AsyncGenerator[memoryview, None]:
    for block in blocks:
        yield memoryview(block)


@pytest.fixture
def upload() -> Upload:
    return make_upload(FakeClock(), state=UploadState.RECEIVING)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    with FileThreads(4) as threads:
        disk = Disk(tmp_path, threads)
        yield disk
    assert open_files(tmp_path) == 0
    assert disk.pool.lent_bytes == 0


# --- names


IDS = st.builds(
    lambda number, label: UploadId(f"{number:032x}{label}"),
    st.integers(0, 2**128 - 1),
    st.just("") | st.from_regex(r"\.[a-z0-9-]{1,16}", fullmatch=True),
)


@given(IDS, st.integers(0, 2**63 - 1))
def test_the_name_of_a_tail_tells_upload_and_generation(
    upload_id: UploadId, generation: int
) -> None:
    path = tail_path(Path("/data"), upload_id, generation)

    assert find_upload_id(upload_id)
    assert path.parent == Path("/data/tails")
    assert parse_tail_name(path.name) == (upload_id, generation)


def test_the_first_generation_has_no_number_in_its_name() -> None:
    upload_id = UploadId("0123456789abcdef" * 2 + ".node-1")
    name = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYubm9kZS0x"

    assert tail_path(Path("d"), upload_id, 0) == Path(f"d/tails/{name}.tail")
    assert tail_path(Path("d"), upload_id, 17) == Path(f"d/tails/{name}.17.tail")


NAME = tail_path(Path(), UploadId("ab" * 16), 0).name.removesuffix(".tail")
FOREIGN = [
    "",
    ".tail",
    "notes.txt",
    NAME,
    f"{NAME}.0.tail",
    f"{NAME}.01.tail",
    f"{NAME}.+1.tail",
    f"{NAME}.-1.tail",
    f"{NAME}.1.2.tail",
    f"{NAME}=.tail",
    f"{NAME}.tail.tail",
    f"{NAME}.tail.bak",
    f"{NAME[:-1]}.tail",
    f"{NAME} .tail",
    "Li4vLi4vZXRjL3Bhc3N3ZA.tail",
    "\u00e9.tail",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_other_names_are_no_tails(name: str) -> None:
    assert parse_tail_name(name) is None


@given(st.text(max_size=80))
def test_no_name_is_an_error(name: str) -> None:
    parse_tail_name(name)
    parse_tail_name(name + ".tail")


async def test_nobody_else_may_read_a_tail(disk: Disk, upload: Upload) -> None:
    await disk.begin(upload, OLD)

    for path in (disk.folder / "tails", disk.path(upload)):
        assert path.stat().st_mode & 0o077 == 0


# --- which node


async def test_a_file_that_is_right_is_the_tail_whatever_node_the_row_names(
    disk: Disk, upload: Upload
) -> None:
    # A data directory that was moved to another machine, or whose node id was lost.
    upload = await disk.begin(upload, OLD)

    assert await disk.read(upload, disk.open(ELSEWHERE)) == OLD


async def test_a_tail_of_another_node_is_missing_here(disk: Disk, upload: Upload) -> None:
    row = replace(upload, tail=Tail(len(OLD), crc64(OLD), ELSEWHERE.id, 0))
    with pytest.raises(TailMissing, match="is not there"):
        await disk.read(row)

    await disk.begin(upload, NEW)
    with pytest.raises(TailMissing, match="other bytes"):
        await disk.read(row)

    assert disk.path(upload).read_bytes() == NEW


async def test_under_another_node_id_a_tail_is_replaced_as_a_whole_and_not_removed_after(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_row = await disk.begin(upload, OLD)
    moved = disk.open(ELSEWHERE)
    with monkeypatch.context() as patched:
        Faulty(patched, "rename", errno.EIO)
        with pytest.raises(StoreUnavailable):
            await moved.save(old_row, generation=0, kept=0, content=views(OLD + NEW))
    assert await disk.read(old_row, moved) == OLD

    await moved.save(old_row, generation=0, kept=0, content=views(OLD, NEW))
    assert old_row.tail is not None
    row = replace(old_row, tail=Tail(len(OLD + NEW), crc64(OLD + NEW), ELSEWHERE.id, 0))
    assert await moved.remove(row, old_row.tail)

    assert await disk.read(row, moved) == OLD + NEW


# --- a power cut


async def test_a_tail_is_on_the_platter_when_it_is_saved(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    platter = Platter(disk.folder, monkeypatch)
    upload = await disk.begin(upload, OLD)
    assert platter.read(disk.path(upload)) == OLD

    upload = await disk.go_on(upload, OLD, NEW)
    assert platter.read(disk.path(upload)) == OLD + NEW

    upload = await disk.begin(upload, OLD + NEW, generation=9)
    assert platter.read(disk.path(upload, 9)) == OLD + NEW


async def test_continuing_a_tail_costs_one_sync(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    platter = Platter(disk.folder, monkeypatch)
    upload = await disk.begin(upload, OLD)
    before = platter.syncs

    await disk.go_on(upload, OLD, NEW)

    assert platter.syncs == before + 1


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_new_tail_whose_sync_fails_is_not_saved(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    platter = Platter(disk.folder, monkeypatch)
    platter.fail(*range(1, times + 1))
    for _ in range(times):
        with pytest.raises(StoreUnavailable):
            await disk.begin(upload, OLD)

    upload = await disk.begin(upload, NEW)

    assert platter.read(disk.path(upload)) == NEW


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_after_a_failed_sync_a_tail_is_written_again_as_a_whole(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    upload = await disk.begin(upload, OLD)
    platter = Platter(disk.folder, monkeypatch)
    inode = disk.path(upload).stat().st_ino
    platter.fail(*range(1, times + 1))
    for _ in range(times):
        with pytest.raises(StoreUnavailable):
            await disk.go_on(upload, OLD, b"x" * 40)
        assert await disk.read(upload) == OLD

    upload = await disk.go_on(upload, OLD, NEW)

    assert platter.read(disk.path(upload)) == OLD + NEW
    assert disk.path(upload).stat().st_ino != inode
    upload = await disk.go_on(upload, OLD + NEW, b"more")
    assert platter.read(disk.path(upload)) == OLD + NEW + b"more"
    assert [path.name for path in (disk.folder / "tails").iterdir()] == [disk.path(upload).name]


async def test_a_tail_that_cannot_be_copied_as_it_was_is_missing(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await disk.begin(upload, OLD)
    with monkeypatch.context() as patched:
        Faulty(patched, "fdatasync", errno.EIO)
        with pytest.raises(StoreUnavailable):
            await disk.go_on(upload, OLD, NEW)
    disk.path(upload).write_bytes(NEW)

    with pytest.raises(TailMissing):
        await disk.go_on(upload, OLD, NEW)

    assert disk.path(upload).read_bytes() == NEW


async def test_relaxed_durability_drops_the_syncs(
    tmp_path: Path, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileThreads(1) as threads:
        disk = Disk(tmp_path, threads, durable=False)
        platter = Platter(tmp_path, monkeypatch)
        upload = await disk.begin(upload, OLD)
        upload = await disk.go_on(upload, OLD, NEW)
        await disk.tails.check()

        assert platter.syncs == 0
        assert await disk.read(upload) == OLD + NEW


# --- errors of the disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_without_space_a_tail_is_cut_back_to_what_counts(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    upload = await disk.begin(upload, OLD)
    real = os.pwrite

    def half(descriptor: int, block: Any, at: int) -> int:
        if at > len(OLD):
            raise OSError(code, os.strerror(code))
        return real(descriptor, block[:5], at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", half)
        with pytest.raises(StorageFull):
            await disk.go_on(upload, OLD, NEW)

    assert disk.path(upload).read_bytes() == OLD
    upload = await disk.go_on(upload, OLD, NEW)
    assert await disk.read(upload) == OLD + NEW


@pytest.mark.parametrize("name", ["open", "mkdir", "pwrite", "fdatasync", "rename", "fsync"])
async def test_an_error_of_the_disk_is_temporary_and_leaks_nothing(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as patched:
        Faulty(patched, name, errno.EIO)
        with pytest.raises(StoreUnavailable):
            await disk.begin(upload, OLD)

    assert open_files(disk.folder) == 0
    upload = await disk.begin(upload, OLD)
    assert await disk.read(upload) == OLD


@pytest.mark.parametrize("name", ["open", "preadv"])
async def test_an_error_of_reading_is_not_a_missing_tail(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    upload = await disk.begin(upload, OLD)
    with monkeypatch.context() as patched:
        Faulty(patched, name, errno.EIO)
        with pytest.raises(StoreUnavailable):
            await disk.read(upload)

    assert await disk.read(upload) == OLD


async def test_a_tail_that_cannot_be_removed_is_left_to_the_sweeper(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await disk.begin(upload, OLD)
    assert before.tail is not None
    with monkeypatch.context() as patched:
        Faulty(patched, "unlink", errno.EIO)
        assert not await disk.tails.remove(upload, before.tail)

    assert [found.upload_id for found in await disk.tails.find_all()] == [upload.id]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_the_check_tells_a_full_disk_from_a_broken_one(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with monkeypatch.context() as patched:
        Faulty(patched, "pwrite", code)
        with pytest.raises(StorageFull if code == errno.ENOSPC else StoreUnavailable):
            await disk.tails.check()

    await disk.tails.check()
    assert list((disk.folder / "tails").iterdir()) == []


@pytest.mark.needs_root
async def test_on_a_full_disk_the_tail_stays_and_goes_on_when_there_is_space(
    small_disk: SmallDisk, upload: Upload
) -> None:
    with FileThreads(2) as threads:
        disk = Disk(small_disk.path, threads)
        old, new = os.urandom(100_000), os.urandom(300_000)
        upload = await disk.begin(upload, old)
        small_disk.fill()

        with pytest.raises(StorageFull):
            await disk.go_on(upload, old, new)
        with pytest.raises(StorageFull):
            await disk.tails.check()
        assert await disk.read(upload) == old

        small_disk.make_space()
        upload = await disk.go_on(upload, old, new)
        assert await disk.read(upload) == old + new


# --- cancellation


class Slow:
    """One function of os whose calls wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.reached = threading.Event()
        self.gate = threading.Event()
        self._real = getattr(os, name)
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args: Any) -> Any:
        self.reached.set()
        self.gate.wait(20)
        return self._real(*args)


@pytest.mark.parametrize("name", ["pwrite", "fdatasync"])
async def test_a_cancelled_save_ends_when_its_thread_does(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    upload = await disk.begin(upload, OLD)
    with monkeypatch.context() as patched:
        slow = Slow(patched, name)
        saving = asyncio.ensure_future(disk.go_on(upload, OLD, NEW))
        await asyncio.to_thread(slow.reached.wait, 20)
        for _ in range(3):
            saving.cancel()
            await asyncio.wait({saving}, timeout=0.02)
        assert not saving.done()  # the thread reads the block

        slow.gate.set()
        await asyncio.wait({saving})

    assert saving.cancelled()
    assert await disk.read(upload) == OLD
    assert disk.path(upload).read_bytes() in (OLD, OLD + NEW)


async def test_a_cancelled_read_gives_its_block_back_when_its_thread_has_ended(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await disk.begin(upload, OLD)
    with monkeypatch.context() as patched:
        slow = Slow(patched, "preadv")
        reading = asyncio.ensure_future(disk.read(upload))
        await asyncio.to_thread(slow.reached.wait, 20)
        reading.cancel()
        await asyncio.wait({reading}, timeout=0.02)
        assert disk.pool.lent_bytes > 0

        slow.gate.set()
        await asyncio.wait({reading})

    assert disk.pool.lent_bytes == 0


async def test_a_small_tail_is_read_in_one_step(
    disk: Disk, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await disk.begin(upload, OLD)
    steps: list[Callable[[], object]] = []
    run = disk.threads.run

    def counted(step: Callable[[], object]) -> "asyncio.Future[object]":
        steps.append(step)
        return run(step)

    monkeypatch.setattr(disk.threads, "run", counted)

    assert await soon(disk.read(upload)) == OLD
    assert len(steps) == 1


# --- the sweeper


async def test_the_sweeper_finds_every_tail_and_nothing_else(disk: Disk, upload: Upload) -> None:
    assert await disk.tails.find_all() == []
    other = replace(upload, id=new_upload_id("node-7"))
    await disk.begin(upload, OLD)
    await disk.begin(upload, OLD, generation=12)
    await disk.begin(other, OLD)
    folder = disk.folder / "tails"
    (folder / "notes.txt").touch()
    (folder / f"{disk.path(upload).name}.bak").touch()
    stale = disk.path(other, 5).name + ".new"  # a crash came before it was renamed
    (folder / stale).touch()
    os.utime(folder / stale, (0, 0))

    found = sorted(await disk.tails.find_all(), key=lambda one: (one.upload_id, one.generation))

    expected = [(upload.id, 0), (upload.id, 12), (other.id, 0), (other.id, 5)]
    assert [(one.upload_id, one.generation) for one in found] == sorted(expected)
    for one in found:
        assert isinstance(one, FoundTail)
        assert (one.age_s > 1e9) == (one.generation == 5)
        assert one.age_s > -60
        for _ in range(2):
            await disk.tails.remove_found(one.upload_id, one.generation)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["notes.txt", f"{disk.path(upload).name}.bak"]
    )
