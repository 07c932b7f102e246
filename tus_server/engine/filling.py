"""Filling parts with a body: blocks from the pool, the tail first, hashing beside writing."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from contextlib import aclosing

from tus_server.core.errors import BodyStopped, PartsExhausted, TusServerError
from tus_server.core.parts import plan_part_size
from tus_server.engine.buffers import SMALL, grown
from tus_server.engine.ending import Ending
from tus_server.engine.engine import Engine
from tus_server.engine.storing import FilledPart, Storing
from tus_server.engine.terms import Terms
from tus_server.engine.verdict import Verdict
from tus_server.ports import Body, Lease, PartWriter

# A sender that needs longer to fill a block is slow, and gets no larger one.
QUICK_S = 0.1
# How many blocks hashing may be behind writing: on few cores neither waits for the other then.
LAG_BLOCKS = 3
# A sender that pauses for longer gets the memory of its part taken away.
PAUSE_S = 1.0


class Filling:
    """The parts of one body, one after the other.

    start: of the next part. end: where this request has to end. ended: no more of the body is to
    come, because it was read to its end, or for the reason `stopped`.
    """

    def __init__(
        self,
        engine: Engine,
        lease: Lease,
        body: Body,
        terms: Terms,
        storing: Storing,
        verdict: Verdict,
        ending: Ending,
    ) -> None:
        upload = storing.upload
        self.start = upload.committed_bytes
        self.stopped: BodyStopped | None = None
        self.ended = body.size == 0
        self.largest = engine.max_size_of(upload) if storing.length is None else storing.length
        self.end = self.largest
        if terms.max_body is not None:
            self.end = min(self.end, upload.offset + terms.max_body)
        self._engine = engine
        self._lease = lease
        self._body = body
        self._terms = terms
        self._storing = storing
        self._verdict = verdict
        self._ending = ending
        self._limits = engine.limits_for(upload)
        self._taken = 0  # bytes of the body received
        self._first_block = SMALL

    async def fill_part(self) -> FilledPart:
        """Receive until the part is full or the body ends; the first one begins with the tail.

        A fast body is received into one block while the one before is taken by the writer, and
        gets larger blocks; a slow one keeps one small block, which is written out whenever it
        pauses.
        """
        blocks, clock, start = self._engine.blocks, self._engine.clock, self.start
        number, writer = await self._storing.open_part(start)
        pending: Awaitable[None] | None = None
        written = bytearray()  # the block that `pending` writes
        block = bytearray()
        fill = 0
        written_at = 0  # how far the body has come with it
        kept = False  # the writer has blocks of the pool
        behind: deque[tuple[int, bytearray]] = deque()  # written, and not hashed yet
        verdict = self._verdict
        try:
            planned = self._part_size(start, number)
            goal = min(planned, self.end - start)
            skipped = self._skipped(start, number, planned)
            size = await self._feed_tail(writer, start, skip=skipped > 0)
            block = blocks.take(min(goal - size, self._first_block))
            while True:
                want = min(len(block), fill + goal - size) - fill
                began_s = clock.monotonic_s()
                view = memoryview(block)[fill : fill + want]
                count = await self._read_from(view, writer if kept and pending is None else None)
                size += count
                fill += count
                verdict.feed(view[:count])
                if pending is not None:
                    writing, pending = pending, None
                    try:
                        await writing
                    finally:
                        behind.append((written_at, written))
                        await self._give_taken(behind, LAG_BLOCKS)
                if self.ended or size == goal:
                    self.start += size
                    self._first_block = len(block)
                    rest = memoryview(block)[:fill]
                    full = size == planned
                    await verdict.settle()  # the writer gives its blocks back when it likes
                    await self._give_taken(behind, 0)
                    return FilledPart(writer, number, start, size, rest, block, full, skipped)
                if count < want or clock.monotonic_s() - began_s > QUICK_S:
                    await verdict.settle()
                    await writer.write(memoryview(block)[:fill])
                    fill = 0
                    continue
                larger = blocks.take(min(grown(len(block)), fill + goal - size))
                if len(larger) > len(block):
                    await verdict.settle()
                    larger[:fill] = memoryview(block)[:fill]
                    blocks.give(block)
                else:
                    if not blocks.is_short and writer.keep(block, fill):
                        kept = True
                    else:
                        if kept:
                            await verdict.settle()  # it gives back what it has kept
                        pending, written = writer.write(memoryview(block)[:fill]), block
                        written_at = verdict.fed
                    fill = 0
                block = larger
        except TusServerError:
            await verdict.settle()
            await self._give_taken(behind, 0)
            if pending is not None:
                await asyncio.wait({asyncio.ensure_future(pending)})
                blocks.give(written)
            if block:
                blocks.give(block)
            await writer.discard()
            raise

    async def _give_taken(self, behind: deque[tuple[int, bytearray]], most: int) -> None:
        """Give blocks back that are hashed; wait until no more than `most` are left."""
        while behind and (len(behind) > most or self._verdict.has_taken(behind[0][0])):
            until, block = behind.popleft()
            await self._verdict.taken(until)
            self._engine.blocks.give(block)

    def _skipped(self, start: int, number: int, planned: int) -> int:
        """Give how many bytes of the tail the writer need not have, all of them or none.

        Where Content-Length tells that there will be no part, but a longer tail, and its file
        can be continued.
        """
        tails, upload, body_size = self._engine.tails, self._storing.upload, self._body.size
        if tails is None or upload.tail is None or start != upload.committed_bytes:
            return 0
        if body_size is None or not tails.continues(upload, self._lease):
            return 0
        size = upload.tail.length + body_size
        completes = self._terms.completes
        if start + size == self._storing.length if completes is None else completes:
            return 0
        if size >= planned or self._ending.becomes_part(start, size, number, full=False):
            return 0
        return upload.tail.length

    async def _feed_tail(self, writer: PartWriter, start: int, *, skip: bool) -> int:
        """Begin the first part with the bytes of the tail; tell how many.

        skip: the writer does not get them, but they are looked at all the same.
        """
        tails, upload = self._engine.tails, self._storing.upload
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
        if start == self.largest:
            return 0
        upload = self._storing.upload
        # The tail begins this part, and was planned with other settings, maybe.
        tail = upload.tail if start == upload.committed_bytes else None
        try:
            return plan_part_size(
                self._limits,
                length=self._storing.length,
                start=start,
                number=number,
                first_size=self._storing.part_size,
                at_least=tail.length if tail else 0,
            )
        except ValueError as exc:
            raise PartsExhausted(f"The rest of the upload has no plan: {exc}.") from exc

    async def _read_from(self, view: memoryview, writer: PartWriter | None) -> int:
        """Read; a part does not sit on the pool's memory while its sender pauses (P7).

        writer: the one that sits on it, None where it does not, or is about to write it out.
        """
        if writer is None:
            return await self.read(view)
        reading = asyncio.ensure_future(self.read(view))
        await asyncio.wait({reading}, timeout=PAUSE_S)
        if not reading.done():
            await self._verdict.settle()
            try:
                await writer.put_away()
            except TusServerError:
                self._body.interrupt()
                await reading
                raise
        return await reading

    async def read(self, view: memoryview) -> int:
        """Read, and learn of the end without another call where Content-Length tells it."""
        if self.ended:
            return 0
        try:
            count = await self._body.read_into(view) if view else 0
        except BodyStopped as exc:
            self.stopped, self.ended = exc, True
            return 0
        self._taken += count
        if (count == 0 and view) or self._taken == self._body.size:
            self.ended = True
        return count
