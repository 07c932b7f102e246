"""Making the bytes of finished objects, end to end, those of another one.

The store copies what it can into the parts of a multipart upload that each try has for itself;
what is too small for that is read and sent with what is next to it. Nothing is at the key before
complete(), but where the whole is so small that it is put at once.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from tus_server.core.checksums import EMPTY_CRC64, crc64
from tus_server.core.errors import BytesMissing, StoreUnavailable
from tus_server.core.upload import Part, Upload
from tus_server.objects.s3.assembly import Assembly, Room
from tus_server.objects.s3.bucket import Bucket, Found
from tus_server.objects.s3.download import read_object
from tus_server.objects.s3.failures import Refused
from tus_server.objects.s3.join_plan import JoinPart, Piece, combined, fill_in_crcs, plan_join
from tus_server.objects.s3.losses import Losses
from tus_server.objects.s3.writer import S3Writer
from tus_server.ports import Confirm, Joined, StoreLimits

NOTHING = memoryview(b"")
# Small sources are read several at a time: each costs a round trip.
SMALL_PIECE = 256 * 1024
SMALL_PIECES = 16
# Of all joins of a process: memory, and the disk that is used on the way, are bounded by it.
PARTS_PASSING = 4


class Joiner:
    """Joins objects of one bucket."""

    def __init__(self, bucket: Bucket, room: Room, losses: Losses, limits: StoreLimits) -> None:
        self._bucket = bucket
        self._room = room
        self._losses = losses
        self._limits = limits
        self._passing = asyncio.Semaphore(PARTS_PASSING)
        self._undoing: set[asyncio.Task[None]] = set()

    async def join(self, upload: Upload, sources: Sequence[Upload], confirm: Confirm) -> Joined:
        """See ports.ObjectStore."""
        sizes = [source.length for source in sources if source.length is not None]
        assert len(sizes) == len(sources)
        assert sum(sizes) == upload.length
        plan = plan_join(self._limits, sizes)
        await confirm()
        writer = S3Writer(self._bucket, self._room, confirm)
        joining = _Joining(
            self._bucket, self._room, self._losses, self._passing, writer, upload, sources
        )
        try:
            if self._losses.knows(upload):
                # Before hours are spent on the others; and what is denied is denied again soon.
                await joining.check_sources()
            if len(plan) == 1 and not plan[0].copied:
                joined = await joining.put(plan[0])
            else:
                joined = await joining.make_parts(plan, at_once=self._limits.parallel_parts)
        except BaseException:
            undoing = asyncio.create_task(self._undo(writer, upload))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            await asyncio.shield(undoing)
            raise
        self._losses.found(upload)
        return joined

    async def close(self) -> None:
        """Return when what failed tries have left is removed, or was tried to be."""
        if self._undoing:
            await asyncio.wait(self._undoing)

    async def _undo(self, writer: S3Writer, upload: Upload) -> None:
        """Abort the multipart upload of a try; nobody else knows its id. Ends in a while."""
        if not await writer.undo(upload, holds=False):
            self._bucket.doubt(upload)


@dataclass(slots=True)
class _Made:
    """A part the store has. crc64 None: it has copied it, and does not tell."""

    part: JoinPart
    etag: str
    crc64: int | None


@dataclass(frozen=True, slots=True)
class _Joining:
    """One try at one final upload."""

    bucket: Bucket
    room: Room
    losses: Losses
    passing: asyncio.Semaphore
    writer: S3Writer
    upload: Upload
    sources: Sequence[Upload]

    async def check_sources(self) -> None:
        """Raise BytesMissing, StoreUnavailable unless every source is there."""
        for source in {source.id: source for source in self.sources}.values():
            await self._check_source(source)

    async def put(self, part: JoinPart) -> Joined:
        """Put the whole as the object."""
        made = await self._pass_through(self.upload, 1, part, is_object=True)
        assert made.crc64 is not None
        parts = (Part(1, 0, part.size, made.crc64, made.etag),) if part.size else ()
        return Joined(parts, is_object=True)

    async def make_parts(self, plan: Sequence[JoinPart], *, at_once: int) -> Joined:
        """Make the parts of a multipart upload, and see that the store has them."""
        multipart_id = await self.writer.multipart_id(self.upload)
        row = replace(self.upload, multipart_id=multipart_id)
        made: list[_Made | None] = [None] * len(plan)
        left = iter(enumerate(plan))

        async def work() -> None:
            for place, part in left:
                made[place] = await self._make(row, place + 1, part)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(at_once, len(plan))):
                    group.create_task(work())
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from None
        return Joined(await self._compared(row, [one for one in made if one]), multipart_id)

    async def _make(self, row: Upload, number: int, part: JoinPart) -> _Made:
        if not part.copied:
            return await self._pass_through(row, number, part, is_object=False)
        (piece,) = part.pieces
        source = self.sources[piece.source]
        assert row.multipart_id is not None
        try:
            copied = await self.bucket.copy_part(
                row, row.multipart_id, number, source, start=piece.start, end=piece.end
            )
        except Refused as exc:
            if exc.code == "NoSuchUpload":
                raise StoreUnavailable("S3 does not know this multipart upload.") from exc
            await self._check_source(source)
            raise exc.translated() from exc
        if piece.size == source.length:
            return _Made(part, copied.etag, source.crc64 if copied.crc64 is None else copied.crc64)
        if copied.crc64 is not None and copied.crc64 == source.crc64:
            # versitygw 1.8.0 stores the checksum of the whole source with a range of it, and
            # refuses to complete with any other: backend/posix, UploadPartCopy, "Should the
            # checksum be recalculated or just copied?" Remove this when it is recalculated.
            return await self._pass_through(row, number, part, is_object=False)
        return _Made(part, copied.etag, copied.crc64)

    async def _check_source(self, source: Upload) -> None:
        found = await self.bucket.find_object(source)
        if found is None or found.size != source.length:
            size = "no object" if found is None else f"an object of {found.size}"
            raise self._lost(f"{source.id} has {source.length} bytes, S3 has {size}")

    async def _pass_through(
        self, row: Upload, number: int, part: JoinPart, *, is_object: bool
    ) -> _Made:
        """Read the pieces and send them."""
        assembly = Assembly(self.room)
        async with self.passing:
            try:
                async with aclosing(self._read(part.pieces)) as blocks:
                    async for block in blocks:
                        await assembly.write(memoryview(block))
                if is_object and assembly.crc64 != self.upload.crc64:
                    raise self._lost("their bytes are not those that were received")
                receipt = await self.writer.store(
                    row, assembly, NOTHING, number=number, is_object=is_object
                )
            finally:
                await assembly.close()
        return _Made(part, receipt.etag or "", receipt.crc64)

    async def _read(self, pieces: Sequence[Piece]) -> AsyncGenerator[bytes, None]:
        for batch in _batches(pieces):
            if len(batch) == 1:
                async with aclosing(self._stream(batch[0])) as blocks:
                    async for block in blocks:
                        yield block
                continue
            try:
                async with asyncio.TaskGroup() as group:
                    reading = [group.create_task(self._content(piece)) for piece in batch]
            except ExceptionGroup as exc:
                raise exc.exceptions[0] from None
            for one in reading:
                yield one.result()

    async def _content(self, piece: Piece) -> bytes:
        async with aclosing(self._stream(piece)) as blocks:
            return b"".join([block async for block in blocks])

    async def _stream(self, piece: Piece) -> AsyncGenerator[bytes, None]:
        """Read a piece; a whole source is found to be what was received."""
        source = self.sources[piece.source]
        assert source.object_key is not None
        assert source.length is not None
        content = read_object(
            self.bucket, source.object_key, piece.start, piece.end, length=source.length
        )
        crc = EMPTY_CRC64
        try:
            async with aclosing(content) as blocks:
                async for block in blocks:
                    crc = crc64(block, crc)
                    yield block
        except BytesMissing as exc:
            raise self._lost(f"{source.id} is not there: {exc.detail}") from exc
        if piece.size == source.length and crc != source.crc64:
            raise self._lost(f"{source.id} has other bytes than were received")

    async def _compared(self, row: Upload, made: Sequence[_Made]) -> tuple[Part, ...]:
        """Give the receipts of parts that the store has, with what it tells of them.

        Raises: BytesMissing, StoreUnavailable (it has something else).
        """
        try:
            stored = await self.bucket.list_parts(row)
        except Refused as exc:
            raise StoreUnavailable("S3 does not know the multipart upload it has made.") from exc
        for number, one in enumerate(made, 1):
            found = stored.get(number, Found(-1, "", None))
            if found.size != one.part.size:
                # A store may copy what there is of a range.
                raise self._lost(f"part {number} became {found.size} of {one.part.size} bytes")
            if one.crc64 is None:
                one.crc64 = found.crc64
        sizes = [one.part.size for one in made]
        assert row.crc64 is not None
        crcs = fill_in_crcs([one.crc64 for one in made], sizes, row.crc64)
        if combined(crcs, sizes) != row.crc64:
            raise self._lost("their bytes are not those that were received")
        start, parts = 0, []
        for number, (one, crc) in enumerate(zip(made, crcs, strict=True), 1):
            parts.append(Part(number, start, one.part.size, crc, one.etag))
            start += one.part.size
        return tuple(parts)

    def _lost(self, detail: str) -> BytesMissing | StoreUnavailable:
        return self.losses.conclude(
            self.upload,
            f"Upload {self.upload.id} cannot be made of its partial ones: {detail}.",
        )


def _batches(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Give pieces that may be in memory together, or a single one."""
    batch: list[Piece] = []
    for piece in pieces:
        if batch and (piece.size > SMALL_PIECE or len(batch) == SMALL_PIECES):
            yield batch
            batch = []
        batch.append(piece)
        if piece.size > SMALL_PIECE:
            yield batch
            batch = []
    if batch:
        yield batch
