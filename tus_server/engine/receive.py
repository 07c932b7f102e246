"""Receiving a body into an upload: parts to the store, the contiguous prefix to the row.

Order of effects, for every part: its bytes and its name are durable in the store, then one fenced
commit moves the offset (P1). The last commit of a request also ends the lease. While one part is
made durable the next one is received. Interrupted, stalled, cut: the same way with what arrived.
A commit whose outcome is unknown is followed by nothing that undoes bytes.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import structlog

from tus_server.core.errors import (
    BodyStopped,
    BodyTooLarge,
    BytesMissing,
    LeaseLost,
    StateUnavailable,
    StorageFull,
    StoreUnavailable,
    TusServerError,
    UploadTooLarge,
)
from tus_server.core.parts import plan_part_size
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.engine.buffers import SMALL, grown
from tus_server.engine.engine import Engine
from tus_server.engine.finish import finish
from tus_server.ports import Body, Lease, PartReceipt, PartWriter

log = structlog.get_logger(__name__)

_NOTHING = memoryview(b"")
# A sender that needs longer to fill a block is slow, and gets no larger one.
QUICK_S = 0.1


@dataclass(slots=True)
class _Filled:
    """A part with all its bytes: those given to `writer` and `rest`, which lies in `block`."""

    writer: PartWriter
    number: int
    start: int
    size: int
    rest: memoryview
    block: bytearray


class Reception:
    """One body on its way into one upload, under one lease.

    `upload` is always the row as last committed. `stopped` tells why the body ended early, None
    if it was read to its end.
    """

    def __init__(
        self, engine: Engine, lease: Lease, upload: Upload, body: Body, *, length: int | None
    ) -> None:
        """length: the length this request settles; None if it says nothing about it."""
        self.upload = upload
        self.stopped: BodyStopped | None = None
        self._engine = engine
        self._lease = lease
        self._body = body
        self._length = upload.length if upload.length is not None else length
        self._end = engine.max_size if self._length is None else self._length
        self._position = upload.offset  # behind the last byte received
        self._number = upload.next_part_number
        self._taken = 0  # bytes of the body received
        self._ended = False
        self._first_block = SMALL
        self._stored: dict[int, tuple[_Filled, PartReceipt]] = {}  # by start, not yet committed
        self._committing = asyncio.Lock()
        self._under_way: list[asyncio.Task[None]] = []

    async def run(self) -> Upload:
        """Receive the body and commit what arrived, with the end of the lease; give the row.

        Raises: BodyTooLarge, UploadTooLarge (a chunked body ran over: T120, T62), StorageFull,
        StoreUnavailable, StateUnavailable, BytesMissing, LeaseLost. In each case the row says
        what is durable, and the upload may go on from there.
        """
        try:
            last = await self._receive()
            try:
                await self._all_stored()
            except TusServerError:
                await self._drop(last)
                raise
            return await self._end_request(last)
        except TusServerError as exc:
            await self._abandon(exc)
            raise

    async def _receive(self) -> _Filled | None:
        """Receive every part, store all but the last, which is returned if it has any byte."""
        while True:
            filled = await self._fill_part()
            if self._ended or self._position == self._end:
                await self._check_overrun(filled)
                if filled.size:
                    return filled
                await self._drop(filled)
                return None
            await self._store_behind(filled)

    async def _fill_part(self) -> _Filled:
        """Receive until the part is full or the body ends.

        A fast body is received into one block while the one before is written, and gets larger
        blocks; a slow one keeps one small block, which is written out whenever it pauses.
        """
        blocks, clock = self._engine.blocks, self._engine.clock
        start, number = self._position, self._number
        goal = self._part_size(start, number)
        writer = self._engine.objects.open_part(self.upload, number=number, start=start)
        block = blocks.take(min(goal, self._first_block))
        pending: Awaitable[None] | None = None
        written = bytearray()  # the block that `pending` writes
        size = fill = 0
        try:
            while True:
                want = min(len(block), fill + goal - size) - fill
                began_s = clock.monotonic_s()
                count = await self._read(memoryview(block)[fill : fill + want])
                size += count
                fill += count
                if pending is not None:
                    await pending
                    blocks.give(written)
                    pending = None
                if self._ended or size == goal:
                    self._position += size
                    self._number += 1
                    self._first_block = len(block)
                    return _Filled(writer, number, start, size, memoryview(block)[:fill], block)
                if count < want or clock.monotonic_s() - began_s > QUICK_S:
                    await writer.write(memoryview(block)[:fill])
                    fill = 0
                    continue
                larger = blocks.take(min(grown(len(block)), fill + goal - size))
                if len(larger) > len(block):
                    larger[:fill] = memoryview(block)[:fill]
                    blocks.give(block)
                else:
                    pending, written = writer.write(memoryview(block)[:fill]), block
                    fill = 0
                block = larger
        except TusServerError:
            if pending is not None:
                await asyncio.wait({asyncio.ensure_future(pending)})
                blocks.give(written)
            blocks.give(block)
            await writer.discard()
            raise

    def _part_size(self, start: int, number: int) -> int:
        if start == self._end:
            return 0
        size = plan_part_size(
            self._engine.objects.limits,
            length=self._length,
            start=start,
            number=number,
            first_size=None,
        )
        return min(size, self._end - start)

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

    async def _check_overrun(self, filled: _Filled) -> None:
        """Refuse a body that goes on behind the end of the upload (T120).

        Only a chunked one can: a Content-Length was compared before. The part that reaches the
        end is not stored before the end of the body, or of the connection, is seen.
        """
        if self._ended or await self._read(memoryview(bytearray(1))) == 0:
            return
        await self._drop(filled)
        if self._length is None:
            raise UploadTooLarge(f"The largest upload taken has {self._end} bytes.")
        raise BodyTooLarge(f"The upload ends at byte {self._end}, the body goes on.")

    # --- storing and committing

    async def _store_behind(self, filled: _Filled) -> None:
        """Store a part while the next one is received, within the limit of the store."""
        if len(filled.rest) == filled.size:
            # All of it is still in its block: the contract of open_part wants it begun.
            await self._begin_part(filled)
        self._under_way.append(asyncio.create_task(self._store(filled)))
        while len(self._under_way) >= self._engine.objects.limits.parallel_parts:
            await self._under_way[0]
            del self._under_way[0]

    async def _all_stored(self) -> None:
        while self._under_way:
            await self._under_way[0]
            del self._under_way[0]

    async def _store(self, filled: _Filled) -> None:
        """Store a part, then commit the contiguous prefix (P2): one commit at a time, coalesced."""
        receipt = await self._finish_part(filled, completes=False)
        self._stored[filled.start] = (filled, receipt)
        async with self._committing:
            prefix = []
            reached = self.upload.committed_bytes
            while reached in self._stored:
                prefix.append(self._stored.pop(reached))
                reached += prefix[-1][1].size
            if prefix:
                await self._commit(prefix)

    async def _begin_part(self, filled: _Filled) -> None:
        try:
            await filled.writer.write(filled.rest)
        except TusServerError:
            await self._drop(filled)
            raise
        filled.rest = _NOTHING

    async def _finish_part(self, filled: _Filled, *, completes: bool) -> PartReceipt:
        try:
            receipt = await filled.writer.finish(filled.rest, completes=completes)
        except TusServerError:
            await self._drop(filled)
            raise
        # Not given back after a cancellation: the thread may still read it (P9).
        self._engine.blocks.give(filled.block)
        return receipt

    async def _drop(self, filled: _Filled | None) -> None:
        """Give up a part that was received and will not be stored."""
        if filled is not None:
            self._engine.blocks.give(filled.block)
            await filled.writer.discard()

    async def _commit(self, stored: "list[tuple[_Filled, PartReceipt]]") -> None:
        """Commit parts; the request goes on."""
        after, parts = self._after(stored)
        steps = self._steps(after)
        after = after.stepped(*steps, on=self._engine.clock.now())
        await self._engine.state.commit(self._lease, self.upload, after, steps=steps, parts=parts)
        self.upload = after

    async def _end_request(self, last: _Filled | None) -> Upload:
        """Store the last part, commit with it what belongs to the end, and end the lease."""
        engine = self._engine
        stored: list[tuple[_Filled, PartReceipt]] = []
        is_object = False
        if last is not None:
            receipt = await self._finish_part(last, completes=self._position == self._length)
            stored.append((last, receipt))
            is_object = receipt.is_object
        after, parts = self._after(stored)
        if after is self.upload and after.offset != after.length:
            return self.upload
        steps = self._steps(after)
        if after.offset == after.length:
            # Length 0 and a length that turns out to be the offset complete without a part.
            if last is None and after.length == 0:
                is_object = await self._store_empty()
            steps += (UploadState.COMPLETED, UploadState.VERIFIED)[: 1 + is_object]
        after = after.stepped(*steps, on=engine.clock.now())
        completed = after.state is UploadState.COMPLETED
        await engine.state.commit(
            self._lease, self.upload, after, steps=steps, parts=parts, release=not completed
        )
        self.upload = after
        if completed:
            self.upload = await finish(engine, self._lease, after)
        if self.upload.state is UploadState.VERIFIED:
            log.info("upload.verified", upload=self.upload.id, length=self.upload.length)
        return self.upload

    async def _store_empty(self) -> bool:
        writer = self._engine.objects.open_part(self.upload, number=1, start=0)
        try:
            return (await writer.finish(_NOTHING, completes=True)).is_object
        except TusServerError:
            await writer.discard()
            raise

    def _after(self, stored: list[tuple[_Filled, PartReceipt]]) -> tuple[Upload, tuple[Part, ...]]:
        """Give the row as it will be with `stored`, and the receipts to keep."""
        after = self.upload
        if self._length is not None and after.length is None:
            after = after.with_length(self._length)
        for _, receipt in stored:
            after = after.with_bytes(receipt.size, receipt.crc64)
        if not self._engine.objects.limits.keeps_receipts:
            return after, ()
        return after, tuple(
            Part(part.number, part.start, receipt.size, receipt.crc64, receipt.etag)
            for part, receipt in stored
        )

    def _steps(self, after: Upload) -> tuple[UploadState, ...]:
        began = after.state is UploadState.INITIATED and after.offset > 0
        return (UploadState.RECEIVING,) if began else ()

    async def _abandon(self, cause: TusServerError) -> None:
        """Wait for every thread and call of this request, then cut what was not committed.

        Nothing is cut after a commit of unknown outcome (those bytes may count), after a lost
        lease (they are another writer's) or once all bytes are committed.
        """
        outcomes = await asyncio.gather(*self._under_way, return_exceptions=True)
        self._under_way.clear()
        if self.upload.state is UploadState.COMPLETED or any(
            isinstance(outcome, StateUnavailable | LeaseLost | BytesMissing)
            for outcome in (cause, *outcomes)
        ):
            return
        try:
            await self._engine.objects.recover(self.upload)
        except (StorageFull, StoreUnavailable):
            pass  # the next writer cuts it
