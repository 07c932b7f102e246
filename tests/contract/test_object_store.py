"""The contract of ports.ObjectStore, sentence by sentence, over every implementation."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from tests.contract.conftest import ObjectsBackend
from tests.support.fakes import FakeClock, make_upload
from tus_server.core.checksums import crc64
from tus_server.core.errors import BytesMissing, LeaseLost, StoreUnavailable
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Tail, Upload
from tus_server.ports import Joined, ObjectStore, PartReceipt, PartWriter, UploadWriter

NOTHING = memoryview(b"")


@pytest.fixture
def upload(clock: FakeClock) -> Upload:
    return make_upload(clock)


@pytest.fixture(autouse=True)
async def all_blocks_come_back(
    objects_backend: ObjectsBackend, objects: ObjectStore
) -> AsyncIterator[None]:
    yield
    await objects_backend.close()
    assert objects_backend.blocks.lent_bytes == 0


@dataclass(slots=True)
class Writing:
    """An upload on its way into a store, under one lease: what an engine would have committed."""

    objects: ObjectStore
    upload: Upload
    writer: UploadWriter
    parts: list[Part] = field(default_factory=list)
    next_number: int = 1  # no number is ever used twice
    numbers: dict[int, int] = field(default_factory=dict)  # by start, of the last one opened

    def piece(self, text: bytes) -> bytes:
        """Give bytes that are enough for a part which is not the last."""
        return text * -(-self.objects.limits.min_part_size // len(text))

    def open(self, *, start: int | None = None) -> PartWriter:
        start = self.upload.committed_bytes if start is None else start
        self.numbers[start] = self.next_number
        self.next_number += 1
        return self.writer.open_part(self.upload, number=self.numbers[start], start=start)

    async def store(self, *blocks: bytes, completes: bool = False) -> PartReceipt:
        """Store a part that nobody commits."""
        writer = self.open()
        for block in blocks[:-1]:
            await writer.write(memoryview(block))
        return await writer.finish(memoryview(blocks[-1]), completes=completes)

    def commit(self, receipt: PartReceipt) -> None:
        """Commit the part behind those committed before."""
        start = self.upload.committed_bytes
        self.parts.append(
            Part(self.numbers[start], start, receipt.size, receipt.crc64, receipt.etag)
        )
        self.upload = self.upload.with_bytes(receipt.size, receipt.crc64)
        if receipt.multipart_id is not None:
            self.upload = replace(self.upload, multipart_id=receipt.multipart_id)

    async def add(self, *blocks: bytes, completes: bool = False) -> None:
        """Store a part and commit it."""
        self.commit(await self.store(*blocks, completes=completes))

    def next_lease(self, objects: ObjectStore | None = None) -> None:
        """Go on under another lease, in another process maybe."""
        self.objects = objects or self.objects
        self.writer = self.objects.open_writer(self.upload)

    async def complete(self) -> bytes:
        """Make the object of the committed bytes, and give it."""
        self.upload = replace(
            self.upload, length=self.upload.committed_bytes, state=UploadState.COMPLETED
        )
        await self.objects.complete(self.upload, self.parts)
        return await read(self.objects, self.upload)


async def confirmed() -> None:
    """Confirm that the lease is still held."""


async def lost() -> None:
    """Tell that it is not."""
    raise LeaseLost


def writing(objects: ObjectStore, upload: Upload) -> Writing:
    upload = replace(upload, object_key=objects.make_key(upload))
    return Writing(objects, upload, objects.open_writer(upload))


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
    w = writing(objects, upload)
    writer = w.open()

    assert not await objects_backend.has_anything(upload)
    await writer.discard()
    assert await w.writer.undo(w.upload, holds=True)
    assert not await objects_backend.has_anything(upload)


@pytest.mark.parametrize(
    "blocks", [(b"abcdef",), (b"abc", b"def"), (b"a", b"b", b"cd", b"ef"), (b"abcdef", b"")]
)
async def test_a_receipt_tells_size_and_checksum_of_the_part(
    objects: ObjectStore, upload: Upload, blocks: tuple[bytes, ...]
) -> None:
    w = writing(objects, upload)

    receipt = await w.store(*map(w.piece, blocks[:-1]), blocks[-1] and w.piece(blocks[-1]))

    whole = b"".join(w.piece(block) for block in blocks if block)
    assert (receipt.size, receipt.crc64, receipt.is_object) == (len(whole), crc64(whole), False)
    assert await w.writer.undo(w.upload, holds=True)


async def test_a_part_under_way_tells_its_size_and_checksum(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    writer = writing(objects, upload).open()
    assert (writer.size, writer.crc64) == (0, 0)

    await writer.write(memoryview(b"abc"))
    assert (writer.size, writer.crc64) == (3, crc64(b"abc"))

    block = objects_backend.blocks.take(3)
    block[:3] = b"def"
    if not writer.keep(block, 3):
        await writer.write(memoryview(block)[:3])
        objects_backend.blocks.give(block)
    assert (writer.size, writer.crc64) == (6, crc64(b"abcdef"))
    await writer.discard()


async def test_memory_may_be_used_again_once_a_write_was_awaited(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    block = bytearray(3)
    writer = w.open()
    for text in (b"abc", b"def", b"ghi"):
        block[:] = text
        await writer.write(memoryview(block))
    w.commit(await writer.finish(memoryview(w.piece(b"j")), completes=False))

    assert await w.complete() == b"abcdefghi" + w.piece(b"j")


async def test_blocks_may_be_kept_between_writes_and_come_back_with_the_part(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w, pool = writing(objects, upload), objects_backend.blocks
    whole = b""
    writer = w.open()
    for text in (b"a" * 16_000, b"b" * 5, b"c" * 16_384):
        await writer.write(memoryview(b"-"))
        block = pool.take(len(text))
        block[: len(text)] = text
        if not writer.keep(block, len(text)):
            await writer.write(memoryview(block)[: len(text)])
            pool.give(block)
        whole += b"-" + text
    rest = w.piece(b"z")
    w.commit(await writer.finish(memoryview(rest), completes=False))

    assert pool.lent_bytes == 0
    await writer.discard()
    assert pool.lent_bytes == 0
    assert await w.complete() == whole + rest


async def test_a_part_given_up_gives_kept_blocks_back(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    pool = objects_backend.blocks
    writer = writing(objects, upload).open()
    block = pool.take(3)
    if not writer.keep(block, 3):
        pool.give(block)

    await writer.discard()

    assert pool.lent_bytes == 0


async def test_the_bytes_of_a_part_can_be_read_back_before_it_is_given_up(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    if objects.limits.min_part_size == 1:
        pytest.skip("this store never leaves a tail")
    pool = objects_backend.blocks
    writer = writing(objects, upload).open()
    await writer.write(memoryview(b"abc"))
    block = pool.take(5000)
    block[:5000] = bytes(range(250)) * 20
    if not writer.keep(block, 5000):
        await writer.write(memoryview(block)[:5000])
        pool.give(block)
    await writer.write(memoryview(b"def"))
    whole = b"abc" + bytes(range(250)) * 20 + b"def" + b"rest"

    for start in (0, 1, 3, 2000, 5006, 5008, len(whole)):
        found = [bytes(view) async for view in writer.read_back(start, memoryview(b"rest"))]
        assert b"".join(found) == whole[start:]
    await writer.discard()


async def test_parts_become_the_object(objects: ObjectStore, upload: Upload) -> None:
    w = writing(objects, upload)
    first, second = w.piece(b"abcd"), w.piece(b"efgh")
    await w.add(first[:2], first[2:])
    await w.add(second)
    await w.add(b"i", completes=True)

    assert await w.complete() == first + second + b"i"


async def test_parts_of_several_leases_become_the_object(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    whole = b""
    for text in (b"ab", b"cd", b"ef"):
        await w.add(w.piece(text))
        whole += w.piece(text)
        await objects_backend.close()
        w.next_lease(await objects_backend.open())

    assert await w.complete() == whole


async def test_a_part_that_is_first_and_last_is_the_object(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)

    receipt = await w.store(b"abc", b"def", completes=True)

    assert receipt.is_object
    w.commit(receipt)
    assert await read(objects, w.upload.with_length(6)) == b"abcdef"


async def test_a_first_part_that_may_not_be_the_last_is_no_object(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abc"))

    with pytest.raises(objects_backend.losses):
        await read(objects, w.upload.with_length(w.upload.committed_bytes))


async def test_the_last_of_several_parts_is_not_yet_the_object(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))

    receipt = await w.store(b"ef", completes=True)

    assert not receipt.is_object
    with pytest.raises(objects_backend.losses):
        await read(objects, w.upload.with_length(w.upload.committed_bytes + 2))


async def test_an_empty_upload_is_an_object_of_no_bytes(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)

    receipt = await w.store(b"", completes=True)

    assert (receipt.size, receipt.is_object) == (0, True)
    assert await objects_backend.has_anything(upload)
    assert await read(objects, w.upload.with_length(0)) == b""


async def test_uploads_do_not_mix(objects: ObjectStore, clock: FakeClock) -> None:
    first, second = (writing(objects, make_upload(clock)) for _ in range(2))
    await first.add(first.piece(b"a"))
    await second.add(second.piece(b"b"))
    await first.add(b"AA", completes=True)

    assert await first.complete() == first.piece(b"a") + b"AA"
    assert await second.complete() == second.piece(b"b")


@pytest.mark.parametrize("seed", range(10))
async def test_any_way_of_cutting_gives_the_same_object(
    objects: ObjectStore, upload: Upload, seed: int
) -> None:
    random = Random(seed)
    w = writing(objects, upload)
    whole = b""
    for _ in range(random.randint(1, 8)):
        blocks = [random.randbytes(random.randint(0, 4000)) for _ in range(random.randint(1, 4))]
        blocks[-1] += w.piece(b".")
        await w.add(*blocks)
        whole += b"".join(blocks)

    assert await w.complete() == whole
    assert w.upload.crc64 == crc64(whole)


# --- several parts under way


async def test_a_part_may_overtake_the_one_before_it_once_that_was_begun(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    one, two = w.piece(b"abcd"), w.piece(b"efgh")
    first = w.open(start=0)
    await first.write(memoryview(one[:2]))
    second = w.open(start=len(one))
    await second.write(memoryview(two[:2]))
    after = await second.finish(memoryview(two[2:]), completes=False)
    before = await first.finish(memoryview(one[2:]), completes=False)
    w.commit(before)
    w.commit(after)

    assert before.multipart_id == after.multipart_id
    assert await w.complete() == one + two


async def test_two_parts_may_be_written_at_the_same_time(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    size = max(300_000, objects.limits.min_part_size)
    blocks = [bytes([value]) * size for value in range(1, 5)]
    first = w.open(start=0)
    await first.write(memoryview(blocks[0]))
    second = w.open(start=2 * size)
    await asyncio.gather(first.write(memoryview(blocks[1])), second.write(memoryview(blocks[2])))
    receipts = await asyncio.gather(
        first.finish(NOTHING, completes=False), second.finish(memoryview(blocks[3]), completes=True)
    )
    for receipt in receipts:
        w.commit(receipt)

    assert receipts[0].multipart_id == receipts[1].multipart_id
    assert await w.complete() == b"".join(blocks)


async def test_later_parts_may_overtake_while_earlier_ones_are_committed(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    pieces = [w.piece(text) for text in (b"abcd", b"efgh", b"ij", b"k")]
    ends = [sum(map(len, pieces[:count])) for count in range(1, 5)]
    await w.add(pieces[0])
    second = w.open(start=ends[0])
    await second.write(memoryview(pieces[1][:1]))
    third = w.open(start=ends[1])
    await third.write(memoryview(pieces[2]))
    w.commit(await second.finish(memoryview(pieces[1][1:]), completes=False))
    fourth = w.open(start=ends[2])
    last = await fourth.finish(memoryview(pieces[3]), completes=True)
    w.commit(await third.finish(NOTHING, completes=False))
    w.commit(last)

    assert await w.complete() == b"".join(pieces)


async def test_a_stored_part_behind_a_given_up_one_is_cut(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    size = len(w.piece(b"abcd"))
    await w.add(w.piece(b"abcd"))
    first = w.open(start=size)
    await first.write(memoryview(b"xx"))
    second = w.open(start=2 * size)
    await second.finish(memoryview(w.piece(b"yyyy")), completes=False)
    await first.discard()

    assert await w.writer.undo(w.upload, holds=True)
    w.next_lease()
    await w.add(b"ef", completes=True)

    assert await w.complete() == w.piece(b"abcd") + b"ef"


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
    assert await w.writer.undo(w.upload, holds=True)

    await w.add(w.piece(b"abc"), completes=False)

    assert await w.complete() == w.piece(b"abc")


async def test_discarding_a_finished_part_is_harmless(objects: ObjectStore, upload: Upload) -> None:
    w = writing(objects, upload)
    writer = w.open()
    w.commit(await writer.finish(memoryview(w.piece(b"abc")), completes=False))

    await writer.discard()

    assert await w.writer.undo(w.upload, holds=True)
    assert await w.complete() == w.piece(b"abc")


async def test_a_part_whose_finish_was_cancelled_can_be_given_up(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    writer = w.open()
    await writer.write(memoryview(b"xx"))
    finishing = asyncio.create_task(writer.finish(memoryview(w.piece(b"xxxx")), completes=False))
    await asyncio.sleep(0)
    finishing.cancel()
    await asyncio.wait({finishing})
    await writer.discard()

    await w.writer.undo(w.upload, holds=True)
    await objects.recover(w.upload, confirm=confirmed)
    w.next_lease()
    await w.add(b"ef", completes=True)

    assert await w.complete() == w.piece(b"abcd") + b"ef"


async def test_what_was_stored_but_not_committed_is_replaced_by_the_next_writer(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.store(w.piece(b"xxxxxxxx"))
    await w.add(w.piece(b"ab"))
    await w.store(w.piece(b"yyyyyyyy"))
    await w.add(w.piece(b"cd"))

    assert await w.complete() == w.piece(b"ab") + w.piece(b"cd")


# --- undo


async def test_undoing_when_nothing_was_stored_leaves_nothing(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)

    assert await w.writer.undo(w.upload, holds=True)
    assert await w.writer.undo(w.upload, holds=False)


@pytest.mark.parametrize("completes", [False, True])
async def test_undoing_removes_what_was_not_committed(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload, completes: bool
) -> None:
    w = writing(objects, upload)
    await w.store(w.piece(b"xxxxxxxx"), completes=completes)

    # Where it cannot be sure that nothing is left, the row is marked, and recovered before long.
    while not await w.writer.undo(w.upload, holds=True):
        await objects.recover(w.upload, confirm=confirmed)
        w.next_lease()

    again = b"ab"
    if completes and objects.limits.keeps_receipts:
        again = w.piece(b"xxxxxxxx")  # an object stays, for who sends the same bytes again
    else:
        assert not await objects_backend.has_anything(w.upload)
    w.next_lease()
    await w.add(again, completes=True)
    assert await w.complete() == again


async def test_undoing_keeps_what_was_committed(objects: ObjectStore, upload: Upload) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    await w.store(w.piece(b"xxxx"))

    assert await w.writer.undo(w.upload, holds=True)

    w.next_lease()
    await w.add(b"ef", completes=True)
    assert await w.complete() == w.piece(b"abcd") + b"ef"


async def test_undoing_without_the_lease_keeps_what_the_next_one_counts_on(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    old, old_row = w.writer, w.upload
    late = w.open()
    await late.write(memoryview(b"yyyy"))
    await late.discard()
    w.next_lease()
    await w.add(b"ef", completes=True)

    await old.undo(old_row, holds=False)

    assert await w.complete() == w.piece(b"abcd") + b"ef"


async def test_an_object_of_the_next_lease_survives_undoing_without_the_lease(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    old, old_row = w.writer, w.upload
    late = w.open()
    await late.write(memoryview(b"yyyy"))
    await late.discard()
    w.next_lease()
    await w.add(b"abc", completes=True)

    await old.undo(old_row, holds=False)

    assert await w.complete() == b"abc"


# --- complete


async def test_completing_again_changes_nothing(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    await w.add(b"ef", completes=True)
    whole = await w.complete()

    await objects.complete(w.upload, w.parts)
    assert await read(objects, w.upload) == whole

    await objects_backend.close()
    again = await objects_backend.open()
    await again.complete(w.upload, w.parts)
    assert await read(again, w.upload) == whole


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
    await w.add(w.piece(b"abcd"))

    await objects_backend.close()
    w.next_lease(await objects_backend.open())
    await w.objects.recover(w.upload, confirm=confirmed)
    await w.add(b"ef", completes=True)

    assert await w.complete() == w.piece(b"abcd") + b"ef"


@pytest.mark.parametrize("left", [0, 3, 5])
async def test_completing_with_a_committed_byte_gone_is_refused(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload, left: int
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    await w.add(b"efgh", completes=True)
    await objects_backend.shorten(w.upload, left)

    for _ in range(2):
        with pytest.raises(objects_backend.losses):
            await w.complete()


async def test_completing_what_was_never_stored_is_refused(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    w.upload = w.upload.with_bytes(3, 1)
    w.parts.append(Part(1, 0, 3, 1, None))

    with pytest.raises(objects_backend.losses):
        await w.complete()


async def test_completing_leaves_out_what_was_stored_but_never_committed(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    await w.store(w.piece(b"xxxx"))

    assert await w.complete() == w.piece(b"abcd")


# --- recover


async def test_recovering_cuts_what_was_never_committed(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    await w.store(w.piece(b"xxxx"))

    await objects.recover(w.upload, confirm=confirmed)

    assert await w.complete() == w.piece(b"abcd")


async def test_recovering_cuts_a_part_a_crash_left_half_written(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    writer = w.open()
    await writer.write(memoryview(b"xxxxxxxx"))

    await objects_backend.close()
    w.next_lease(await objects_backend.open())
    await w.objects.recover(w.upload, confirm=confirmed)
    await w.add(b"ef", completes=True)

    assert await w.complete() == w.piece(b"abcd") + b"ef"


async def test_recovering_an_upload_without_committed_bytes_removes_its_parts(
    objects_backend: ObjectsBackend, objects: ObjectStore, clock: FakeClock
) -> None:
    part, nothing = (writing(objects, make_upload(clock)) for _ in range(2))
    await part.store(part.piece(b"xxxx"))

    for w in (part, nothing):
        await objects.recover(w.upload, confirm=confirmed)
        assert not await objects_backend.has_anything(w.upload)


async def test_an_object_that_was_not_committed_stays_where_others_may_have_adopted_it(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.store(b"xxxxxxxx", completes=True)

    await objects.recover(w.upload, confirm=confirmed)

    assert await objects_backend.has_anything(w.upload) == objects.limits.keeps_receipts
    w.next_lease()
    await w.add(b"xxxxxxxx", completes=True)
    assert await w.complete() == b"xxxxxxxx"


async def test_an_object_that_was_not_committed_is_adopted_by_parts_of_the_same_bytes(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.store(w.piece(b"abcd") + b"ef", completes=True)
    await objects.recover(w.upload, confirm=confirmed)
    w.next_lease()
    await w.add(w.piece(b"abcd"))
    await w.add(b"ef", completes=True)

    assert await w.complete() == w.piece(b"abcd") + b"ef"


async def test_bytes_other_than_those_of_the_object_at_the_key_are_refused_for_good(
    objects: ObjectStore, clock: FakeClock
) -> None:
    if not objects.limits.keeps_receipts:
        pytest.skip("the data directory has one process, which replaces what it left")
    whole, parts = (writing(objects, make_upload(clock)) for _ in range(2))
    for w in (whole, parts):
        await w.store(w.piece(b"xxxx"), completes=True)
        await objects.recover(w.upload, confirm=confirmed)
        w.next_lease()
    await parts.add(parts.piece(b"ab"))

    for _ in range(2):
        with pytest.raises(BytesMissing):
            await whole.store(whole.piece(b"yyyy"), completes=True)
        with pytest.raises(BytesMissing):
            await parts.complete()

    for w in (whole, parts):
        length = len(w.piece(b"xxxx"))
        assert await read(objects, w.upload.with_length(length)) == w.piece(b"xxxx")


async def test_recovering_removes_nothing_once_the_lease_is_lost(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    receipt = await w.store(w.piece(b"abcd"))

    with pytest.raises(LeaseLost):
        await objects.recover(w.upload, confirm=lost)

    w.commit(receipt)
    assert await w.complete() == w.piece(b"abcd")


async def test_recovering_leaves_what_a_later_holder_has_begun(
    objects: ObjectStore, upload: Upload
) -> None:
    if not objects.limits.keeps_receipts:
        pytest.skip("the data directory has one process, so there is no later holder")
    w = writing(objects, upload)
    old = w.upload
    await w.store(w.piece(b"xxxx"))
    w.next_lease()

    async def overtaken() -> None:
        # It still held the lease when it was asked, and stood still after that.
        await w.add(w.piece(b"abcd"))

    await objects.recover(old, confirm=overtaken)
    await w.add(b"ef", completes=True)

    assert await w.complete() == w.piece(b"abcd") + b"ef"


async def test_recovering_leaves_committed_bytes_alone(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    for _ in range(2):
        await objects.recover(w.upload, confirm=confirmed)
    await w.add(w.piece(b"ef"))
    await objects.recover(w.upload, confirm=confirmed)

    assert await w.complete() == w.piece(b"abcd") + w.piece(b"ef")


async def test_recovering_a_completed_upload_leaves_it_to_be_completed(
    objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    await w.add(b"ef", completes=True)
    done = replace(w.upload, length=w.upload.committed_bytes, state=UploadState.COMPLETED)

    await objects.recover(done, confirm=confirmed)
    whole = await w.complete()
    await objects.recover(done, confirm=confirmed)

    assert whole == w.piece(b"abcd") + b"ef"
    assert await w.complete() == whole


@pytest.mark.parametrize("size", [0, 1])
async def test_recovering_a_verified_upload_leaves_its_object(
    objects: ObjectStore, upload: Upload, size: int
) -> None:
    w = writing(objects, upload)
    await w.add(bytes(size), completes=True)
    w.upload = replace(w.upload, length=size, state=UploadState.VERIFIED)

    await objects.recover(w.upload, confirm=confirmed)

    assert await read(objects, w.upload) == bytes(size)


@pytest.mark.parametrize("left", [0, 3, 5])
async def test_recovering_with_a_committed_byte_gone_says_so(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload, left: int
) -> None:
    if not objects_backend.recover_finds_losses:
        pytest.skip("this store finds out when it completes the upload")
    w = writing(objects, upload)
    await w.add(b"abcd")
    await w.add(b"ef")
    await objects_backend.shorten(w.upload, left)

    with pytest.raises(BytesMissing):
        await objects.recover(w.upload, confirm=confirmed)


async def test_recovering_an_upload_whose_bytes_are_all_gone_says_so(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abc"))
    await objects.free(w.upload)

    with pytest.raises(objects_backend.losses):
        await objects.recover(w.upload, confirm=confirmed)


async def test_recovering_keeps_the_tail_of_the_row(objects: ObjectStore, upload: Upload) -> None:
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    await objects.recover(
        replace(w.upload, tail=Tail(3, crc64(b"xyz"), "1" * 32, 0)), confirm=confirmed
    )

    assert await w.complete() == w.piece(b"abcd")


# --- late calls of a writer that lost its lease


async def test_a_late_part_changes_nothing_of_a_finished_object(
    objects_backend: ObjectsBackend, objects: ObjectStore, upload: Upload
) -> None:
    if not objects.limits.keeps_receipts:
        pytest.skip("the data directory has one process, so there are no late calls")
    w = writing(objects, upload)
    await w.add(w.piece(b"abcd"))
    late = w.open()
    w.next_lease()
    await w.add(b"ef", completes=True)
    whole = await w.complete()

    with suppress(StoreUnavailable, *objects_backend.losses):  # either answer is right
        await late.finish(memoryview(w.piece(b"XX")), completes=False)
    await late.discard()

    assert await read(objects, w.upload) == whole


async def test_a_late_object_never_replaces_the_one_that_counts(
    objects: ObjectStore, upload: Upload
) -> None:
    if not objects.limits.keeps_receipts:
        pytest.skip("the data directory has one process, so there are no late calls")
    w = writing(objects, upload)
    late = w.open()
    w.next_lease()
    await w.add(b"abc", completes=True)
    whole = await w.complete()

    with pytest.raises(BytesMissing):
        await late.finish(memoryview(b"XX"), completes=True)
    await late.discard()

    assert await read(objects, w.upload) == whole


# --- join


async def stored(objects: ObjectStore, clock: FakeClock, content: bytes) -> Upload:
    """Give the row of a finished upload of `content`."""
    w = writing(objects, make_upload(clock))
    await w.add(content, completes=True)
    return replace(w.upload, length=len(content), state=UploadState.VERIFIED)


def final_of(objects: ObjectStore, clock: FakeClock, contents: Sequence[bytes]) -> Upload:
    """Give the row of a new final upload."""
    whole = b"".join(contents)
    upload = make_upload(clock, length=len(whole), crc64=crc64(whole), concat="final;a b")
    return replace(upload, object_key=objects.make_key(upload))


def committed(upload: Upload, joined: Joined) -> Upload:
    """Give the row with what join() has given."""
    return replace(
        upload,
        state=UploadState.COMPLETED,
        committed_bytes=upload.length or 0,
        multipart_id=joined.multipart_id,
    )


async def join(objects: ObjectStore, upload: Upload, sources: Sequence[Upload]) -> bytes:
    """Join, commit, complete; give what can be read then."""
    joined = await objects.join(upload, sources, confirm=confirmed)
    row = committed(upload, joined)
    check_parts(objects, row, joined)
    await objects.complete(row, joined.parts)
    return await read(objects, row)


def check_parts(objects: ObjectStore, row: Upload, joined: Joined) -> None:
    """Check that receipts, where a store has such, are those of the whole."""
    if not objects.limits.keeps_receipts:
        assert joined == Joined()
        return
    made = replace(row, committed_bytes=0, crc64=0)
    for part in joined.parts:
        assert part.start == made.committed_bytes
        made = made.with_bytes(part.size, part.crc64)
    assert (made.committed_bytes, made.crc64) == (row.length, row.crc64)
    assert joined.is_object == (joined.multipart_id is None)
    sizes = [part.size for part in joined.parts]
    assert all(size >= objects.limits.min_part_size for size in sizes[:-1])
    assert all(size <= objects.limits.max_part_size for size in sizes)


# The smallest part of the S3 store here, and of the fake one, has 3 bytes. Few parts each: Swift
# gives out small segments slowly, one a second from the tenth on.
JOINED = [
    [],
    [b""],
    [b"", b"", b""],
    [b"a"],
    [b"ab", b""],
    [b"abc"],
    [b"abcd"],
    [b"ab", b"c"],
    [b"a", b"b", b"c", b"d"],
    [b"", b"abcdefgh", b""],
    [b"abcdefgh", b"i"],
    [b"a", b"bcdefgh"],
    [b"a", b"bcd", b"efgh", b"", b"i", b"jk", b"lmnopq"],
    [b"abcdef", b"g", b"hijklm", b"no", b"pqrstu", b"v"],
    [bytes([65 + number]) * (number % 7) for number in range(15)],
]


@pytest.mark.parametrize("contents", JOINED, ids=lambda found: "-".join(str(len(c)) for c in found))
async def test_joined_uploads_are_one_behind_the_other(
    objects: ObjectStore, clock: FakeClock, contents: list[bytes]
) -> None:
    sources = [await stored(objects, clock, content) for content in contents]
    upload = final_of(objects, clock, contents)

    assert await join(objects, upload, sources) == b"".join(contents)

    for source, content in zip(sources, contents, strict=True):
        assert await read(objects, source) == content


@pytest.mark.parametrize("large", [0, 3])
async def test_a_hundred_uploads_are_joined(
    objects: ObjectStore, clock: FakeClock, large: int
) -> None:
    sizes = [5000] * large + [0, 1, 0] * 10 + [700_000] * large
    contents = [Random(place).randbytes(size) for place, size in enumerate(sizes)]
    contents += [b""] * (100 - len(contents))
    sources = [await stored(objects, clock, content) for content in contents]

    whole = await join(objects, final_of(objects, clock, contents), sources)

    assert whole == b"".join(contents)


async def test_an_upload_may_be_joined_more_than_once(
    objects: ObjectStore, clock: FakeClock
) -> None:
    contents = [b"abcdefg", b"h", b""]
    sources = [await stored(objects, clock, content) for content in contents]
    first = final_of(objects, clock, [b"abcdefg", b"abcdefg", b"h", b"h", b"", b"abcdefg"])
    second = final_of(objects, clock, [b"h", b"abcdefg"])
    order = [sources[place] for place in (0, 0, 1, 1, 2, 0)]

    assert await join(objects, first, order) == b"abcdefgabcdefghhabcdefg"
    assert await join(objects, second, [sources[1], sources[0]]) == b"habcdefg"


async def test_a_joined_upload_can_be_joined_again(objects: ObjectStore, clock: FakeClock) -> None:
    contents = [b"abcd", b"efgh"]
    sources = [await stored(objects, clock, content) for content in contents]
    upload = final_of(objects, clock, contents)
    await join(objects, upload, sources)
    row = replace(upload, state=UploadState.VERIFIED)

    again = final_of(objects, clock, [b"abcdefgh", b"i"])

    assert await join(objects, again, [row, await stored(objects, clock, b"i")]) == b"abcdefghi"


async def test_joining_stores_nothing_once_the_lease_is_lost(
    objects_backend: ObjectsBackend, objects: ObjectStore, clock: FakeClock
) -> None:
    contents = [b"abcdefg", b"h"]
    sources = [await stored(objects, clock, content) for content in contents]
    upload = final_of(objects, clock, contents)

    with pytest.raises(LeaseLost):
        await objects.join(upload, sources, confirm=lost)

    assert not await objects_backend.has_anything(upload)


@pytest.mark.parametrize("missing", [0, 1, 2])
@pytest.mark.parametrize("how", ["gone", "shorter"])
async def test_joining_with_a_source_that_is_not_whole_is_refused(
    objects_backend: ObjectsBackend,
    objects: ObjectStore,
    clock: FakeClock,
    missing: int,
    how: str,
) -> None:
    contents = [b"abcdefgh", b"i", b"jklmnopq"]
    sources = [await stored(objects, clock, content) for content in contents]
    if how == "gone":
        await objects.free(sources[missing])
    else:
        await objects_backend.shorten(sources[missing], len(contents[missing]) - 1)
    upload = final_of(objects, clock, contents)

    for _ in range(2):
        with pytest.raises(objects_backend.losses):
            await objects.join(upload, sources, confirm=confirmed)
    await objects.recover(upload, confirm=confirmed)
    assert not await objects_backend.has_anything(upload)


async def test_joining_again_after_a_crash_leaves_nothing_of_the_first_try(
    objects_backend: ObjectsBackend, objects: ObjectStore, clock: FakeClock
) -> None:
    contents = [b"abcdefg", b"h", b"ijklmno"]
    sources = [await stored(objects, clock, content) for content in contents]
    upload = final_of(objects, clock, contents)
    await objects.join(upload, sources, confirm=confirmed)  # and nobody commits it
    await objects_backend.close()
    again = await objects_backend.open()

    joined = await again.join(upload, sources, confirm=confirmed)
    row = replace(committed(upload, joined), unclean=True)
    await again.recover(row, confirm=confirmed)
    await again.complete(row, joined.parts)

    assert await read(again, row) == b"".join(contents)
    await again.free(replace(row, state=UploadState.DELETED))
    assert not await objects_backend.has_anything(upload)


async def test_recovering_removes_what_a_crashed_join_left(
    objects_backend: ObjectsBackend, objects: ObjectStore, clock: FakeClock
) -> None:
    contents = [b"abcdefg", b"h"]
    sources = [await stored(objects, clock, content) for content in contents]
    upload = final_of(objects, clock, contents)
    await objects.join(upload, sources, confirm=confirmed)
    await objects_backend.close()
    again = await objects_backend.open()

    await again.recover(upload, confirm=confirmed)

    assert not await objects_backend.has_anything(upload)
    assert await join(again, upload, sources) == b"abcdefgh"


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 20, 60])
async def test_a_cancelled_join_leaves_nothing_that_recovering_does_not_remove(
    objects_backend: ObjectsBackend, objects: ObjectStore, clock: FakeClock, turns: int
) -> None:
    contents = [b"abcdefg", b"h", b"ijklmno", b"pqrstuv"]
    sources = [await stored(objects, clock, content) for content in contents]
    upload = final_of(objects, clock, contents)
    joining = asyncio.create_task(objects.join(upload, sources, confirm=confirmed))
    for _ in range(turns):
        await asyncio.sleep(0)
    joining.cancel()
    await asyncio.wait({joining})

    await objects.recover(upload, confirm=confirmed)

    assert not await objects_backend.has_anything(upload)
    assert await join(objects, upload, sources) == b"".join(contents)


async def test_freeing_a_joined_upload_leaves_its_sources(
    objects_backend: ObjectsBackend, objects: ObjectStore, clock: FakeClock
) -> None:
    contents = [b"abcdefg", b"h"]
    sources = [await stored(objects, clock, content) for content in contents]
    upload = final_of(objects, clock, contents)
    await join(objects, upload, sources)

    await objects.free(replace(upload, state=UploadState.DELETED))

    assert not await objects_backend.has_anything(upload)
    assert [await read(objects, source) for source in sources] == contents


# --- free


async def test_freeing_removes_parts_and_object(
    objects_backend: ObjectsBackend, objects: ObjectStore, clock: FakeClock
) -> None:
    part, whole, completed = (writing(objects, make_upload(clock)) for _ in range(3))
    await part.add(part.piece(b"abcd"))
    await whole.add(b"abcd", completes=True)
    await completed.add(completed.piece(b"abcd"))
    await completed.complete()

    for w in (part, whole, completed):
        gone = replace(w.upload, state=UploadState.DELETED)
        await objects.free(gone)
        assert not await objects_backend.has_anything(w.upload)
        await objects.free(gone)


async def test_freeing_what_was_never_stored_is_no_error(
    objects: ObjectStore, upload: Upload
) -> None:
    await objects.free(writing(objects, upload).upload)


async def test_freeing_one_upload_leaves_the_others(objects: ObjectStore, clock: FakeClock) -> None:
    first, second = (writing(objects, make_upload(clock)) for _ in range(2))
    await first.add(first.piece(b"abcd"))
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
    objects: ObjectStore, clock: FakeClock
) -> None:
    freed, nothing = (writing(objects, make_upload(clock)) for _ in range(2))
    await freed.add(b"abc", completes=True)
    await objects.free(freed.upload)

    for w in (freed, nothing):
        with pytest.raises(BytesMissing):
            await anext(objects.read(w.upload.with_length(3), 0, 3))


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
    assert 0 <= limits.reserved_numbers < limits.max_parts


async def test_a_key_is_made_of_the_random_part_of_the_id(
    objects: ObjectStore, upload: Upload
) -> None:
    key = objects.make_key(upload)

    assert key == objects.make_key(upload)
    assert key is None or upload.id[:32] in key
    assert (key is None) == (not objects.limits.keeps_receipts)
