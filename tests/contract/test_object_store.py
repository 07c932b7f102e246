"""The contract of ports.ObjectStore, sentence by sentence, over every implementation."""

import asyncio
from dataclasses import dataclass, replace
from random import Random

import pytest

from tests.contract.conftest import ObjectsBackend
from tests.support.fakes import FakeClock, make_upload
from tus_server.core.checksums import crc64
from tus_server.core.errors import BytesMissing
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports import ObjectStore, PartReceipt, PartWriter

NOTHING = memoryview(b"")


@pytest.fixture
def upload(clock: FakeClock) -> Upload:
    return make_upload(clock)


@dataclass(slots=True)
class Writing:
    """An upload on its way into a store: what the engine would have committed of it."""

    objects: ObjectStore
    upload: Upload
    parts: list[Part]

    def open(self, *, start: int | None = None, number: int | None = None) -> PartWriter:
        return self.objects.open_part(
            self.upload,
            number=self.upload.next_part_number if number is None else number,
            start=self.upload.committed_bytes if start is None else start,
        )

    async def store(self, *blocks: bytes, completes: bool = False) -> PartReceipt:
        """Store a part that nobody commits."""
        writer = self.open()
        for block in blocks[:-1]:
            await writer.write(memoryview(block))
        return await writer.finish(memoryview(blocks[-1]), completes=completes)

    def commit(self, receipt: PartReceipt) -> None:
        """Commit the part behind those committed before."""
        number, start = self.upload.next_part_number, self.upload.committed_bytes
        self.parts.append(Part(number, start, receipt.size, receipt.crc64, receipt.etag))
        self.upload = self.upload.with_bytes(receipt.size, receipt.crc64)

    async def add(self, *blocks: bytes, completes: bool = False) -> None:
        """Store a part and commit it."""
        self.commit(await self.store(*blocks, completes=completes))

    async def complete(self) -> bytes:
        """Make the object of the committed bytes, and give it."""
        self.upload = self.upload.with_length(self.upload.committed_bytes)
        await self.objects.complete(self.upload, self.parts)
        return await read(self.objects, self.upload)


def writing(objects: ObjectStore, upload: Upload) -> Writing:
    return Writing(objects, upload, [])


async def read(
    objects: ObjectStore, upload: Upload, start: int = 0, end: int | None = None
) -> bytes:
    assert upload.length is not None
    stream = objects.read(upload, start, upload.length if end is None else end)
    return b"".join([block async for block in stream])


# --- parts


async def test_opening_a_part_stores_nothing(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    writer = objects.open_part(upload, number=1, start=0)

    assert not objects_backend.has_anything(upload)
    await writer.discard()
    assert not objects_backend.has_anything(upload)


@pytest.mark.parametrize(
    "blocks", [(b"abcdef",), (b"abc", b"def"), (b"a", b"b", b"cd", b"ef"), (b"abcdef", b"")]
)
async def test_a_receipt_tells_size_and_checksum_of_the_part(
    objects: ObjectStore, upload: Upload, blocks: tuple[bytes, ...]
) -> None:
    receipt = await writing(objects, upload).store(*blocks)

    assert (receipt.size, receipt.crc64, receipt.is_object) == (6, crc64(b"abcdef"), False)


async def test_memory_may_be_used_again_once_a_write_was_awaited(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    block = bytearray(3)
    writer = w.open()
    for text in (b"abc", b"def", b"ghi"):
        block[:] = text
        await writer.write(memoryview(block))
    w.commit(await writer.finish(NOTHING, completes=False))

    assert await w.complete() == b"abcdefghi"


async def test_parts_become_the_object(objects: ObjectStore, upload: Upload) -> None:
    w = writing(objects, upload)
    await w.add(b"ab", b"cd")
    await w.add(b"efgh")
    await w.add(b"i", completes=True)

    assert await w.complete() == b"abcdefghi"


async def test_a_part_that_is_first_and_last_is_the_object(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)

    receipt = await w.store(b"abc", b"def", completes=True)

    assert receipt.is_object
    w.commit(receipt)
    assert await read(objects, w.upload.with_length(6)) == b"abcdef"


async def test_a_first_part_that_may_not_be_the_last_is_no_object(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abc")

    with pytest.raises(BytesMissing):
        await read(objects, w.upload.with_length(3))


async def test_the_last_of_several_parts_is_not_yet_the_object(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")

    receipt = await w.store(b"ef", completes=True)

    assert not receipt.is_object
    with pytest.raises(BytesMissing):
        await read(objects, w.upload.with_length(6))


async def test_an_empty_upload_is_an_object_of_no_bytes(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)

    receipt = await w.store(b"", completes=True)

    assert (receipt.size, receipt.is_object) == (0, True)
    assert objects_backend.has_anything(upload)
    assert await read(objects, w.upload.with_length(0)) == b""


async def test_uploads_do_not_mix(objects: ObjectStore, clock: FakeClock) -> None:
    first, second = (writing(objects, make_upload(clock)) for _ in range(2))
    await first.add(b"aaaa")
    await second.add(b"bbbb")
    await first.add(b"AA", completes=True)

    assert await first.complete() == b"aaaaAA"
    assert await second.complete() == b"bbbb"


@pytest.mark.parametrize("seed", range(10))
async def test_any_way_of_cutting_gives_the_same_object(
    objects: ObjectStore, upload: Upload, seed: int
) -> None:
    random = Random(seed)
    w = writing(objects, upload)
    whole = b""
    for _ in range(random.randint(1, 8)):
        blocks = [random.randbytes(random.randint(0, 4000)) for _ in range(random.randint(1, 4))]
        blocks[-1] += b"."
        await w.add(*blocks)
        whole += b"".join(blocks)

    assert await w.complete() == whole
    assert w.upload.crc64 == crc64(whole)


# --- two parts under way


async def test_a_part_may_overtake_the_one_before_it_once_that_was_begun(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    first = w.open(start=0, number=1)
    await first.write(memoryview(b"ab"))
    second = w.open(start=4, number=2)
    await second.write(memoryview(b"ef"))
    after = await second.finish(memoryview(b"gh"), completes=False)
    before = await first.finish(memoryview(b"cd"), completes=False)
    w.commit(before)
    w.commit(after)

    assert await w.complete() == b"abcdefgh"


async def test_two_parts_may_be_written_at_the_same_time(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    size = 300_000
    blocks = [bytes([value]) * size for value in range(1, 5)]
    first = w.open(start=0, number=1)
    await first.write(memoryview(blocks[0]))
    second = w.open(start=2 * size, number=2)
    await asyncio.gather(first.write(memoryview(blocks[1])), second.write(memoryview(blocks[2])))
    receipts = await asyncio.gather(
        first.finish(NOTHING, completes=False), second.finish(memoryview(blocks[3]), completes=True)
    )
    for receipt in receipts:
        w.commit(receipt)

    assert await w.complete() == b"".join(blocks)


async def test_later_parts_may_overtake_while_earlier_ones_are_committed(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")
    third = w.open(start=4, number=2)
    await third.write(memoryview(b"e"))
    fourth = w.open(start=8, number=3)
    await fourth.write(memoryview(b"ij"))
    w.commit(await third.finish(memoryview(b"fgh"), completes=False))
    fifth = w.open(start=10, number=4)
    last = await fifth.finish(memoryview(b"k"), completes=True)
    w.commit(await fourth.finish(NOTHING, completes=False))
    w.commit(last)

    assert await w.complete() == b"abcdefghijk"


async def test_a_stored_part_behind_a_given_up_one_is_cut(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")
    first = w.open(start=4, number=2)
    await first.write(memoryview(b"xx"))
    second = w.open(start=8, number=3)
    await second.finish(memoryview(b"yyyy"), completes=False)
    await first.discard()

    await objects.recover(w.upload)
    await w.add(b"ef", completes=True)

    assert await w.complete() == b"abcdef"


# --- giving up


async def test_a_part_may_be_given_up_at_any_time_and_more_than_once(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    unused, begun = w.open(), w.open()
    await unused.discard()
    await unused.discard()
    await begun.write(memoryview(b"xxxxxx"))
    await begun.discard()
    await begun.discard()

    await w.add(b"abc", completes=True)

    assert await w.complete() == b"abc"


async def test_discarding_a_finished_part_is_harmless(objects: ObjectStore, upload: Upload) -> None:
    w = writing(objects, upload)
    writer = w.open()
    w.commit(await writer.finish(memoryview(b"abc"), completes=False))

    await writer.discard()

    assert await w.complete() == b"abc"


async def test_what_was_stored_but_not_committed_is_replaced_by_the_next_writer(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.store(b"xxxxxxxx")
    await w.add(b"ab")
    await w.store(b"yyyyyyyy")
    await w.add(b"cd")

    assert await w.complete() == b"abcd"


async def test_an_object_that_was_not_committed_is_replaced_by_the_next_writer(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.store(b"xxxxxxxx", completes=True)
    await objects.recover(w.upload)
    await w.add(b"ab")

    assert await w.complete() == b"ab"


# --- complete


async def test_completing_again_changes_nothing(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")
    await w.add(b"ef", completes=True)
    await w.complete()

    await objects.complete(w.upload, w.parts)
    assert await read(objects, w.upload) == b"abcdef"

    await objects_backend.close()
    again = await objects_backend.open()
    await again.complete(w.upload, w.parts)
    assert await read(again, w.upload) == b"abcdef"


async def test_completing_an_upload_that_is_an_object_already_changes_nothing(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abc", completes=True)

    assert await w.complete() == b"abc"


async def test_parts_survive_a_crash_and_can_be_completed_then(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")

    await objects_backend.close()
    w.objects = await objects_backend.open()
    await w.objects.recover(w.upload)
    await w.add(b"ef", completes=True)

    assert await w.complete() == b"abcdef"


@pytest.mark.parametrize("left", [0, 3, 5])
async def test_completing_with_a_committed_byte_gone_is_refused(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload, left: int
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")
    await w.add(b"ef", completes=True)
    objects_backend.shorten(w.upload, left)

    with pytest.raises(BytesMissing):
        await w.complete()
    with pytest.raises(BytesMissing):
        await w.complete()


async def test_completing_what_was_never_stored_is_refused(
    objects: ObjectStore, upload: Upload
) -> None:
    upload = upload.with_bytes(3, 1).with_length(3)

    with pytest.raises(BytesMissing):
        await objects.complete(upload, [Part(1, 0, 3, 1, None)])


async def test_completing_leaves_out_what_was_stored_but_never_committed(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")
    await w.store(b"xxxx")

    assert await w.complete() == b"abcd"


# --- recover


async def test_recovering_cuts_what_was_never_committed(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")
    await w.store(b"xxxx")

    await objects.recover(w.upload)

    assert await w.complete() == b"abcd"


async def test_recovering_cuts_a_part_a_crash_left_half_written(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")
    writer = w.open()
    await writer.write(memoryview(b"xxxxxxxx"))

    await objects_backend.close()
    w.objects = await objects_backend.open()
    await w.objects.recover(w.upload)
    await w.add(b"ef", completes=True)

    assert await w.complete() == b"abcdef"


async def test_recovering_an_upload_without_committed_bytes_removes_what_there_is(
    objects_backend: ObjectsBackend, objects: ObjectStore, clock: FakeClock
) -> None:
    part, whole, nothing = (writing(objects, make_upload(clock)) for _ in range(3))
    await part.store(b"xxxx")
    await whole.store(b"xxxx", completes=True)

    for w in (part, whole, nothing):
        await objects.recover(w.upload)
        assert not objects_backend.has_anything(w.upload)


async def test_recovering_leaves_committed_bytes_alone(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")
    for _ in range(2):
        await objects.recover(w.upload)
    await w.add(b"ef")
    await objects.recover(w.upload)

    assert await w.complete() == b"abcdef"


@pytest.mark.parametrize("left", [0, 3, 5])
async def test_recovering_with_a_committed_byte_gone_says_so(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload, left: int
) -> None:
    w = writing(objects, upload)
    await w.add(b"abcd")
    await w.add(b"ef")
    objects_backend.shorten(w.upload, left)

    with pytest.raises(BytesMissing):
        await objects.recover(w.upload)


async def test_recovering_an_upload_whose_bytes_are_all_gone_says_so(
    objects: ObjectStore, upload: Upload
) -> None:
    with pytest.raises(BytesMissing):
        await objects.recover(upload.with_bytes(3, 1))


# --- free


async def test_freeing_removes_parts_and_object(
    objects_backend: ObjectsBackend, objects: ObjectStore, clock: FakeClock
) -> None:
    part, whole, completed = (writing(objects, make_upload(clock)) for _ in range(3))
    await part.add(b"abcd")
    await whole.add(b"abcd", completes=True)
    await completed.add(b"abcd")
    await completed.complete()

    for w in (part, whole, completed):
        gone = replace(w.upload, state=UploadState.DELETED)
        await objects.free(gone)
        assert not objects_backend.has_anything(w.upload)
        await objects.free(gone)


async def test_freeing_what_was_never_stored_is_no_error(
    objects: ObjectStore, upload: Upload
) -> None:
    await objects.free(upload)


async def test_freeing_one_upload_leaves_the_others(objects: ObjectStore, clock: FakeClock) -> None:
    first, second = (writing(objects, make_upload(clock)) for _ in range(2))
    await first.add(b"abcd")
    await second.add(b"efgh", completes=True)

    await objects.free(first.upload)

    assert await second.complete() == b"efgh"


# --- read


@pytest.mark.parametrize(
    ("start", "end"), [(0, 10), (0, 1), (9, 10), (3, 7), (0, 0), (5, 5), (10, 10)]
)
async def test_any_range_of_an_object_can_be_read(
    objects: ObjectStore, upload: Upload, start: int, end: int
) -> None:
    w = writing(objects, upload)
    await w.add(b"0123456789", completes=True)

    assert await read(objects, w.upload.with_length(10), start, end) == b"0123456789"[start:end]


async def test_a_large_object_is_read_in_blocks(objects: ObjectStore, upload: Upload) -> None:
    whole = Random(0).randbytes(700_001)
    w = writing(objects, upload)
    await w.add(whole, completes=True)
    w.upload = w.upload.with_length(len(whole))

    blocks = [block async for block in objects.read(w.upload, 1, len(whole) - 1)]

    assert b"".join(blocks) == whole[1:-1]
    assert len(blocks) > 1


async def test_a_reader_may_go_away_half_way(objects: ObjectStore, upload: Upload) -> None:
    w = writing(objects, upload)
    await w.add(bytes(700_000), completes=True)

    stream = objects.read(w.upload.with_length(700_000), 0, 700_000)
    first = await anext(stream)
    await stream.aclose()

    assert first
    assert not any(first)


async def test_many_can_read_at_once(objects: ObjectStore, upload: Upload) -> None:
    w = writing(objects, upload)
    whole = bytes(range(256)) * 100
    await w.add(whole, completes=True)
    done = w.upload.with_length(len(whole))

    found = await asyncio.gather(*(read(objects, done, start) for start in range(20)))

    assert found == [whole[start:] for start in range(20)]


async def test_reading_what_is_not_there_fails_before_the_first_byte(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(b"abc", completes=True)
    await objects.free(w.upload)

    for gone in (w.upload.with_length(3), upload.with_length(3)):
        with pytest.raises(BytesMissing):
            await anext(objects.read(gone, 0, 3))


# --- the store


async def test_a_store_that_can_be_written_passes_the_check(objects: ObjectStore) -> None:
    await objects.check()
    await objects.check()


async def test_the_limits_are_consistent_and_stay(objects: ObjectStore) -> None:
    limits = objects.limits

    assert 1 <= limits.min_part_size <= limits.preferred_part_size <= limits.max_part_size
    assert limits.max_parts * limits.max_part_size >= limits.max_object_size
    assert limits.parallel_parts >= 1
    assert objects.limits == limits
