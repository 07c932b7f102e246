"""Receiving a body into an upload: parts to the store, the contiguous prefix to the row.

Order of effects, for every part: its bytes and its name are durable in the store, then one fenced
commit moves the offset (P1). What is too little for a part at the end of a request becomes the
tail: its file is durable, then the row tells of it. The last commit of a request also ends the
lease. While one part is made durable the next one is received. Interrupted, stalled, cut: the same
way with what arrived. A commit whose outcome is unknown is followed by nothing that undoes bytes.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import aclosing

import structlog

from tus_server.core.errors import (
    BodyInterrupted,
    BodyStopped,
    BodyTooLarge,
    PartsExhausted,
    TusServerError,
    UploadTooLarge,
)
from tus_server.core.parts import plan_part_size
from tus_server.core.upload import Upload
from tus_server.engine.buffers import SMALL, grown
from tus_server.engine.ending import Ending
from tus_server.engine.engine import Engine
from tus_server.engine.storing import FilledPart, Storing
from tus_server.ports import Body, Lease, PartWriter

log = structlog.get_logger(__name__)

# A sender that needs longer to fill a block is slow, and gets no larger one.
QUICK_S = 0.1
# A sender that pauses for longer gets the memory of its part taken away.
PAUSE_S = 1.0
# What parts under way get when another request waits for the upload, and when the server stops.
PATIENCE_S = 1.0
PATIENCE_AT_STOP_S = 10.0


class Reception:
    """One body on its way into one upload, under one lease, which it ends.

    `upload` is the row as last committed. `stopped` tells why the body ended early, None if it
    was read to its end.
    """

    def __init__(
        self, engine: Engine, lease: Lease, upload: Upload, body: Body, *, length: int | None
    ) -> None:
        """length: the length this request settles; None if it says nothing about it."""
        self.stopped: BodyStopped | None = None
        self._engine = engine
        self._lease = lease
        self._body = body
        self._length = upload.length if upload.length is not None else length
        self._storing = Storing(engine, lease, upload, length=self._length)
        self._limits = engine.objects.limits
        self._end = engine.max_size if self._length is None else self._length
        self._start = upload.committed_bytes  # of the next part
        self._taken = 0  # bytes of the body received
        self._ended = body.size == 0
        self._first_block = SMALL
        self._ending = Ending(engine, lease, self._storing, length=self._length)

    @property
    def upload(self) -> Upload:
        return self._storing.upload

    async def run(self) -> Upload:
        """Receive the body and commit what arrived, with the end of the lease; give the row.

        Raises: TailMissing (before a byte was asked for; nothing changed); BodyTooLarge,
        UploadTooLarge (a chunked body ran over: T120, T62), StorageFull, StoreUnavailable,
        StateUnavailable, BytesMissing, LeaseLost. In each case the row says what is durable, and
        the upload may go on from there.
        """
        try:
            last = await self._receive()
            try:
                patience_s = self._find_patience_s()
                await self._storing.all_stored(patience_s)
                return await self._ending.end(last, patience_s=patience_s)
            except TusServerError:
                await self._storing.drop(last)
                raise
        except TusServerError as exc:
            await self._ending.abandon(exc)
            raise

    async def release(self) -> None:
        """End the lease, if it has not ended with the last commit."""
        unused = self._storing.next_number if self._limits.reserved_numbers else None
        await self._engine.leases.release(
            self._lease, next_part_number=unused, clean=self._ending.is_clean
        )

    def _find_patience_s(self) -> float | None:
        """Give how long the store may take: only where another request, or the end, waits."""
        if not isinstance(self.stopped, BodyInterrupted):
            return None
        return PATIENCE_AT_STOP_S if self._engine.closing else PATIENCE_S

    # --- receiving

    async def _receive(self) -> FilledPart | None:
        """Receive every part, store all but the last, which is returned if it has any byte."""
        if self._ended and self.upload.offset != self._length:
            return None  # an empty body that completes nothing: not even the tail is looked at
        while True:
            part = await self._fill_part()
            if self._ended or part.end == self._end:
                await self._check_overrun(part)
                if part.size:
                    return part
                await self._storing.drop(part)
                return None
            await self._storing.store_behind(part)
            await self._storing.make_room()

    async def _fill_part(self) -> FilledPart:
        """Receive until the part is full or the body ends; the first one begins with the tail.

        A fast body is received into one block while the one before is taken by the writer, and
        gets larger blocks; a slow one keeps one small block, which is written out whenever it
        pauses.
        """
        blocks, clock, start = self._engine.blocks, self._engine.clock, self._start
        number, writer = await self._storing.open_part(start)
        pending: Awaitable[None] | None = None
        written = bytearray()  # the block that `pending` writes
        block = bytearray()
        fill = 0
        kept = False  # the writer has blocks of the pool
        try:
            goal = self._part_size(start, number)
            skipped = self._skipped(start, number, goal)
            size = await self._feed_tail(writer, start, skip=skipped > 0)
            block = blocks.take(min(goal - size, self._first_block))
            while True:
                want = min(len(block), fill + goal - size) - fill
                began_s = clock.monotonic_s()
                view = memoryview(block)[fill : fill + want]
                count = await (self._read_beside(view, writer) if kept else self._read(view))
                size += count
                fill += count
                if pending is not None:
                    writing, pending = pending, None
                    try:
                        await writing
                    finally:
                        blocks.give(written)
                if self._ended or size == goal:
                    self._start += size
                    self._first_block = len(block)
                    rest = memoryview(block)[:fill]
                    full = size == goal
                    return FilledPart(writer, number, start, size, rest, block, full, skipped)
                if count < want or clock.monotonic_s() - began_s > QUICK_S:
                    await writer.write(memoryview(block)[:fill])
                    fill = 0
                    continue
                larger = blocks.take(min(grown(len(block)), fill + goal - size))
                if len(larger) > len(block):
                    larger[:fill] = memoryview(block)[:fill]
                    blocks.give(block)
                else:
                    if not blocks.is_short and writer.keep(block, fill):
                        kept = True
                    else:
                        pending, written = writer.write(memoryview(block)[:fill]), block
                    fill = 0
                block = larger
        except TusServerError:
            if pending is not None:
                await asyncio.wait({asyncio.ensure_future(pending)})
                blocks.give(written)
            if block:
                blocks.give(block)
            await writer.discard()
            raise

    def _skipped(self, start: int, number: int, goal: int) -> int:
        """Give how many bytes of the tail the writer need not have, all of them or none.

        Where Content-Length tells that there will be no part, but a longer tail, and its file
        can be continued.
        """
        tails, upload, body_size = self._engine.tails, self.upload, self._body.size
        if tails is None or upload.tail is None or start != upload.committed_bytes:
            return 0
        if body_size is None or not tails.continues(upload, self._lease):
            return 0
        size = upload.tail.length + body_size
        if size >= goal or self._ending.becomes_part(start, size, number, full=False):
            return 0
        return upload.tail.length

    async def _feed_tail(self, writer: PartWriter, start: int, *, skip: bool) -> int:
        """Begin the first part with the bytes of the tail; tell how many.

        skip: the writer does not get them, but they are looked at all the same.
        """
        tails, upload = self._engine.tails, self.upload
        if upload.tail is None or start != upload.committed_bytes:
            return 0
        assert tails is not None
        async with aclosing(tails.read(upload)) as content:
            async for view in content:
                if skip:
                    continue
                block = self._engine.blocks.take(len(view))
                if len(block) >= len(view):
                    block[: len(view)] = view
                    if writer.keep(block, len(view)):
                        continue
                self._engine.blocks.give(block)
                await writer.write(view)
        return upload.tail.length

    def _part_size(self, start: int, number: int) -> int:
        if start == self._end:
            return 0
        tail = self.upload.tail
        try:
            size = plan_part_size(
                self._limits,
                length=self._length,
                start=start,
                number=number,
                first_size=self._storing.part_size,
                # The tail begins this part, and was planned with other settings, maybe.
                at_least=tail.length if tail and start == self.upload.committed_bytes else 0,
            )
        except ValueError as exc:
            raise PartsExhausted(f"The rest of the upload has no plan: {exc}.") from exc
        return min(size, self._end - start)

    async def _read_beside(self, view: memoryview, writer: PartWriter) -> int:
        """Read; a part does not sit on the pool's memory while its sender pauses (P7)."""
        reading = asyncio.ensure_future(self._read(view))
        await asyncio.wait({reading}, timeout=PAUSE_S)
        if not reading.done():
            try:
                await writer.put_away()
            except TusServerError:
                self._body.interrupt()
                await reading
                raise
        return await reading

    async def _read(self, view: memoryview) -> int:
        """Read, and learn of the end without another call where Content-Length tells it."""
        if self._ended:
            return 0
        try:
            count = await self._body.read_into(view) if view else 0
        except BodyStopped as exc:
            self.stopped, self._ended = exc, True
            return 0
        self._taken += count
        if (count == 0 and view) or self._taken == self._body.size:
            self._ended = True
        return count

    async def _check_overrun(self, part: FilledPart) -> None:
        """Refuse a body that goes on behind the end of the upload (T120).

        Only a chunked one can: a Content-Length was compared before. The part that reaches the
        end is not stored before the end of the body, or of the connection, is seen.
        """
        if self._ended or await self._read(memoryview(bytearray(1))) == 0:
            return
        await self._storing.drop(part)
        if self._length is None:
            raise UploadTooLarge(f"The largest upload taken has {self._end} bytes.")
        raise BodyTooLarge(f"The upload ends at byte {self._end}, the body goes on.")
