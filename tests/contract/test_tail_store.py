"""The contract of ports.TailStore, sentence by sentence, over every implementation."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import pytest

from tests.contract.conftest import TailsBackend
from tests.support.fakes import FakeClock, make_upload
from tus_server.core.checksums import crc64
from tus_server.core.errors import StorageFull, TailMissing
from tus_server.core.parts import MIB
from tus_server.core.states import UploadState
from tus_server.core.upload import Tail, Upload
from tus_server.ports import TailStore

OLD = b"the first bytes"
SIZES = [1, 999, 1000, 1001, 16 * 1024, MIB, MIB + 1, 5 * MIB - 1]


def row(clock: FakeClock) -> Upload:
    return make_upload(clock, state=UploadState.RECEIVING, object_key=f"key/{clock.now():%f}")


@pytest.fixture
def upload(clock: FakeClock) -> Upload:
    return row(clock)


@pytest.fixture(autouse=True)
async def all_blocks_come_back(
    tails_backend: TailsBackend, tails: TailStore
) -> AsyncIterator[None]:
    yield
    await tails_backend.close()
    assert tails_backend.blocks.lent_bytes == 0


async def views(*blocks: bytes) -> AsyncGenerator[memoryview, None]:
    """Give blocks in memory that is used again for the next one."""
    memory = bytearray(max(map(len, blocks), default=0))
    for block in blocks:
        memory[: len(block)] = block
        yield memoryview(memory)[: len(block)]
        memory[:] = bytes(len(memory))


def with_tail(upload: Upload, backend: TailsBackend, content: bytes, generation: int) -> Upload:
    """Give the row after the commit of a tail."""
    tail = Tail(len(content), crc64(content), backend.node_id, generation)
    return replace(upload, tail=tail, generation=generation)


async def saved(
    tails: TailStore, backend: TailsBackend, upload: Upload, *blocks: bytes, generation: int = 3
) -> Upload:
    """Save a tail and commit it."""
    await tails.save(upload, generation=generation, kept=0, content=views(*blocks))
    return with_tail(upload, backend, b"".join(blocks), generation)


async def read(tails: TailStore, upload: Upload) -> bytes:
    return b"".join([bytes(view) async for view in tails.read(upload)])


def only_on_disks(backend: TailsBackend) -> None:
    if backend.node_id is None:
        pytest.skip("a parked tail is never continued: each has a generation of its own")


# --- read


@pytest.mark.parametrize("size", SIZES)
async def test_a_saved_tail_is_read(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload, size: int
) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    cut = size // 3
    upload = await saved(tails, tails_backend, upload, content[:cut], content[cut:size])

    assert await read(tails, upload) == content[:size]


async def test_a_saved_tail_survives_the_process(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    upload = await saved(tails, tails_backend, upload, OLD)

    await tails_backend.close()
    again = await tails_backend.open()

    assert await read(again, upload) == OLD


@pytest.mark.parametrize(
    "found", [None, b"", OLD[:-1], b"X" + OLD[1:], OLD[:-1] + b"X", b"X" * 5000]
)
async def test_a_tail_that_is_not_what_the_row_says_is_missing_and_nothing_changes(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload, found: bytes | None
) -> None:
    upload = await saved(tails, tails_backend, upload, OLD)
    await tails_backend.put(upload, 3, found)

    for _ in range(2):
        with pytest.raises(TailMissing):
            await read(tails, upload)

    assert await tails_backend.get(upload, 3) == found


async def test_a_tail_that_was_never_saved_is_missing(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    with pytest.raises(TailMissing):
        await read(tails, with_tail(upload, tails_backend, OLD, 0))


async def test_a_long_tail_with_one_other_bit_is_missing(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    content = bytearray(3 * MIB)
    upload = await saved(tails, tails_backend, upload, bytes(content))
    content[-1] ^= 1
    await tails_backend.put(upload, 3, bytes(content))

    with pytest.raises(TailMissing):
        await read(tails, upload)


async def test_what_is_behind_the_tail_was_never_acknowledged(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    only_on_disks(tails_backend)
    upload = await saved(tails, tails_backend, upload, OLD)
    await tails_backend.put(upload, 3, OLD + b"more")

    assert await read(tails, upload) == OLD


async def test_a_reader_may_go_away_half_way(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    upload = await saved(tails, tails_backend, upload, bytes(3 * MIB))

    stream = tails.read(upload)
    first = bytes(await anext(stream))
    await stream.aclose()

    assert first
    assert len(await read(tails, upload)) == 3 * MIB


async def test_a_reader_may_be_cancelled(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    upload = await saved(tails, tails_backend, upload, bytes(3 * MIB))
    for turns in range(1, 8):
        reading = asyncio.create_task(read(tails, upload))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})

    assert len(await read(tails, upload)) == 3 * MIB


# --- save


async def test_a_tail_is_continued_behind_the_bytes_of_the_row(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    only_on_disks(tails_backend)
    upload = await saved(tails, tails_backend, upload, OLD)
    whole = OLD
    for block in (b"second", b"third", bytes(2 * MIB)):
        await tails.save(upload, generation=3, kept=len(whole), content=views(block[:2], block[2:]))
        whole += block
        upload = with_tail(upload, tails_backend, whole, 3)
        assert await read(tails, upload) == whole


async def test_what_was_not_acknowledged_is_cut_when_a_tail_is_continued(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    only_on_disks(tails_backend)
    upload = await saved(tails, tails_backend, upload, OLD)
    await tails_backend.put(upload, 3, OLD + b"never acknowledged")

    await tails.save(upload, generation=3, kept=len(OLD), content=views(b"new"))

    assert await tails_backend.get(upload, 3) == OLD + b"new"


async def test_a_tail_begun_anew_has_nothing_of_what_was_in_its_place(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    only_on_disks(tails_backend)
    await saved(tails, tails_backend, upload, b"of a part that was committed since")

    upload = await saved(tails, tails_backend, upload, b"new")

    assert await tails_backend.get(upload, 3) == b"new"
    assert await read(tails, upload) == b"new"


async def test_a_tail_of_another_generation_leaves_that_of_the_row_alone(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    old = await saved(tails, tails_backend, upload, OLD, generation=0)

    new = await saved(tails, tails_backend, old, OLD, b" and more", generation=7)

    assert await read(tails, old) == OLD
    assert await read(tails, new) == OLD + b" and more"


async def broken_off() -> AsyncGenerator[memoryview, None]:
    yield memoryview(b"lost")
    raise StorageFull


async def test_a_tail_whose_successor_could_not_be_saved_is_still_there(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    upload = await saved(tails, tails_backend, upload, OLD)
    kept = len(OLD) if tails_backend.node_id is not None else 0

    with pytest.raises(StorageFull):
        await tails.save(upload, generation=3 if kept else 4, kept=kept, content=broken_off())
    with pytest.raises(StorageFull):
        await tails.save(upload, generation=5, kept=0, content=broken_off())

    assert await read(tails, upload) == OLD
    assert await tails_backend.get(upload, 3) == OLD
    assert await tails_backend.get(upload, 5) is None
    new = await saved(tails, tails_backend, upload, b"new", generation=5)
    assert await read(tails, new) == b"new"


async def test_a_tail_whose_save_was_cancelled_is_still_there(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    upload = await saved(tails, tails_backend, upload, OLD)
    kept = len(OLD) if tails_backend.node_id is not None else 0
    for turns in range(8):
        generation = 3 if kept else 10 + turns
        content = views(b"lost", bytes(MIB), b"lost")
        saving = asyncio.create_task(
            tails.save(upload, generation=generation, kept=kept, content=content)
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        saving.cancel()
        await asyncio.wait({saving})

        assert await read(tails, upload) == OLD


async def test_tails_do_not_mix(
    tails_backend: TailsBackend, tails: TailStore, clock: FakeClock
) -> None:
    rows = [row(clock) for _ in range(4)]
    contents = [bytes([index]) * 5000 for index in range(4)]

    found = await asyncio.gather(
        *(saved(tails, tails_backend, *pair) for pair in zip(rows, contents, strict=True))
    )

    assert [await read(tails, upload) for upload in found] == contents


# --- remove


async def test_a_removed_tail_is_gone(
    tails_backend: TailsBackend, tails: TailStore, upload: Upload
) -> None:
    before = await saved(tails, tails_backend, upload, OLD)
    assert before.tail is not None

    for _ in range(2):
        assert await tails.remove(upload, before.tail)

    assert await tails_backend.get(upload, 3) is None
    with pytest.raises(TailMissing):
        await read(tails, before)


async def test_removing_a_tail_leaves_its_successor_and_other_uploads(
    tails_backend: TailsBackend, tails: TailStore, clock: FakeClock
) -> None:
    first, other = row(clock), row(clock)
    other = await saved(tails, tails_backend, other, b"other")
    before = await saved(tails, tails_backend, first, OLD)
    after = await saved(tails, tails_backend, before, OLD, b"more", generation=4)
    assert before.tail is not None

    assert await tails.remove(after, before.tail)

    assert await read(tails, after) == OLD + b"more"
    assert await read(tails, other) == b"other"
