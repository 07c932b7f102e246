"""Local disk: final uploads, copied by the kernel, and partial files that nobody asked for."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.disk import Faulty, Platter, open_files
from tests.support.fakes import FakeClock, make_upload
from tus_server.core.errors import BytesMissing, StorageFull, StoreUnavailable, TusServerError
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.disk.threads import FileThreads
from tus_server.objects.local import LocalObjects

S = UploadState


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tus_server.objects.local_join.STEP_SIZE", 10)


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[LocalObjects]:
    with FileThreads(4) as threads:
        yield LocalObjects(tmp_path, threads)


async def confirmed() -> None:
    """Confirm that the lease is still held."""


async def put_sources(objects: LocalObjects, *contents: bytes) -> list[Upload]:
    """Store finished uploads; give their rows."""
    rows = []
    for content in contents:
        row = make_upload(FakeClock(), length=len(content), state=S.VERIFIED)
        part = objects.open_writer(row).open_part(row, number=1, start=0)
        await part.finish(memoryview(content), completes=True)
        rows.append(row)
    return rows


def partial_path(objects: LocalObjects, upload: Upload) -> Path:
    return Path(objects.paths.partial(upload.id))


CONTENTS = [bytes(range(40)), b"x", b"", bytes(range(100, 125)), b"yz"]
JOINED = b"".join(CONTENTS)


@pytest.mark.parametrize("steps", [1, 7, 10, 1000])
async def test_a_join_in_steps_of_any_size_is_whole(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr("tus_server.objects.local_join.STEP_SIZE", steps)
    sources = await put_sources(objects, *CONTENTS)
    upload = make_upload(FakeClock(), length=len(JOINED))

    await objects.join(upload, sources, confirm=confirmed)

    assert partial_path(objects, upload).read_bytes() == JOINED


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("refused", [["copy_file_range"], ["copy_file_range", "sendfile"]])
@pytest.mark.parametrize("nth", [1, 2])
async def test_a_kernel_that_does_not_copy_files_is_helped(
    objects: LocalObjects,
    monkeypatch: pytest.MonkeyPatch,
    small_steps: None,
    code: int,
    refused: list[str],
    nth: int,
) -> None:
    for name in refused:
        Faulty(monkeypatch, name, code, nth=nth)
    sources = await put_sources(objects, *CONTENTS)
    upload = make_upload(FakeClock(), length=len(JOINED))

    await objects.join(upload, sources, confirm=confirmed)

    assert partial_path(objects, upload).read_bytes() == JOINED


async def test_no_byte_of_a_join_passes_through_the_process(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = await put_sources(objects, *CONTENTS)
    upload = make_upload(FakeClock(), length=len(JOINED))
    for name in ("read", "pread", "preadv", "write", "pwrite", "pwritev"):
        Faulty(monkeypatch, name, errno.EIO)

    await objects.join(upload, sources, confirm=confirmed)

    assert partial_path(objects, upload).stat().st_size == len(JOINED)


@pytest.mark.parametrize(
    ("name", "code", "error"),
    [
        ("copy_file_range", errno.ENOSPC, StorageFull),
        ("copy_file_range", errno.EIO, StoreUnavailable),
        ("fdatasync", errno.EIO, StoreUnavailable),
    ],
)
@pytest.mark.parametrize("nth", [1, 3])
async def test_a_join_the_disk_refuses_can_be_tried_again(
    objects: LocalObjects,
    monkeypatch: pytest.MonkeyPatch,
    small_steps: None,
    name: str,
    code: int,
    error: type[TusServerError],
    nth: int,
) -> None:
    sources = await put_sources(objects, *CONTENTS)
    upload = make_upload(FakeClock(), length=len(JOINED))
    with monkeypatch.context() as patched:
        Faulty(patched, name, code, nth=nth)
        with pytest.raises(error):
            await objects.join(upload, sources, confirm=confirmed)

    await objects.join(upload, sources, confirm=confirmed)

    assert partial_path(objects, upload).read_bytes() == JOINED
    assert open_files(objects.paths.root) == 0


@pytest.mark.parametrize("failing", [None, 1, 2, 3, 4, 5])
async def test_a_join_that_returns_is_on_the_platter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_steps: None, failing: int | None
) -> None:
    platter = Platter(tmp_path, monkeypatch)
    with FileThreads(4) as threads:
        objects = LocalObjects(tmp_path, threads)
        sources = await put_sources(objects, *CONTENTS)
        upload = make_upload(FakeClock(), length=len(JOINED))
        if failing is not None:
            platter.fail(failing)
            with pytest.raises(StoreUnavailable):
                await objects.join(upload, sources, confirm=confirmed)

        await objects.join(upload, sources, confirm=confirmed)
        assert platter.read(partial_path(objects, upload)) == JOINED

        row = replace(upload, committed_bytes=len(JOINED), state=S.COMPLETED)
        await objects.complete(row, ())
        assert platter.read(Path(objects.paths.final(upload.id))) == JOINED


async def test_a_cancelled_join_ends_with_the_step_it_is_at(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch, small_steps: None
) -> None:
    sources = await put_sources(objects, *CONTENTS)
    upload = make_upload(FakeClock(), length=len(JOINED))
    at_work, go_on = threading.Event(), threading.Event()
    copy = os.copy_file_range
    copied: list[int] = []

    def slow(source: int, target: int, size: int, start: int, end: int) -> int:
        at_work.set()
        assert go_on.wait(10)
        copied.append(size)
        return copy(source, target, size, start, end)

    monkeypatch.setattr(os, "copy_file_range", slow)
    joining = asyncio.create_task(objects.join(upload, sources, confirm=confirmed))
    while not at_work.is_set():
        await asyncio.sleep(0.001)
    joining.cancel()
    await asyncio.sleep(0)
    # The thread still writes, so nobody may begin anew.
    assert not joining.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await joining

    assert copied == [10]
    assert open_files(objects.paths.root) == 0
    await objects.recover(upload, confirm=confirmed)
    assert not partial_path(objects, upload).exists()


async def test_a_source_that_ends_while_it_is_copied_is_missing(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch, small_steps: None
) -> None:
    sources = await put_sources(objects, *CONTENTS)
    upload = make_upload(FakeClock(), length=len(JOINED))

    async def shorten() -> None:
        os.truncate(objects.paths.final(sources[3].id), 3)

    with pytest.raises(BytesMissing, match=sources[3].id):
        await objects.join(upload, sources, confirm=shorten)


# --- partial files


async def test_partial_files_are_found_and_removed(objects: LocalObjects) -> None:
    (finished,) = await put_sources(objects, b"abc")
    begun = make_upload(FakeClock())
    part = objects.open_writer(begun).open_part(begun, number=1, start=0)
    await part.finish(memoryview(b"abc"), completes=False)
    os.utime(partial_path(objects, begun), (1, 1))

    (found,) = await objects.find_partials()
    assert found.upload_id == begun.id
    assert found.age_s > 3600

    await objects.remove_partial(begun.id)
    await objects.remove_partial(begun.id)
    await objects.remove_partial(finished.id)
    assert await objects.find_partials() == []
    assert Path(objects.paths.final(finished.id)).read_bytes() == b"abc"


async def test_files_of_other_names_are_nobodys_business(objects: LocalObjects) -> None:
    root = objects.paths.root
    assert await objects.find_partials() == []
    await put_sources(objects, b"abc")
    inside = root / "objects" / "a" / "b"
    inside.mkdir(parents=True, exist_ok=True)
    (root / "objects" / "aa" / "b").mkdir(parents=True)
    (root / "objects" / "a" / "file").touch()
    hexes = "ab" + 30 * "0"
    for name in (
        "notes.partial",
        f"{hexes}.partial.bak",
        f"{hexes}.node.partial",
        f"{hexes.upper()}.partial",
        f"cd{hexes[2:]}.partial",
        ".partial",
    ):
        (inside / name).touch()
    (root / "objects" / "aa" / "b" / f"{hexes}.partial").touch()

    assert await objects.find_partials() == []
    (inside / f"{hexes}.partial").touch()
    assert [found.upload_id for found in await objects.find_partials()] == [hexes]
