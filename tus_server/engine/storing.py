"""Parts of one request on their way into the store, and the row that follows them.

Parts are stored in parallel, as many as the store takes; one fenced commit at a time moves the row
over the contiguous prefix (P2). The tail stays until the part that begins with its bytes is
committed, and goes before anybody else can get the lease.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tus_server.core.errors import TusServerError
from tus_server.core.parts import number_of
from tus_server.core.states import UNFINISHED, UploadState
from tus_server.core.upload import Part, Upload
from tus_server.engine.engine import Engine
from tus_server.engine.tails import is_same_place
from tus_server.ports import Lease, PartReceipt, PartWriter

NOTHING = memoryview(b"")
NO_DIGESTS: Mapping[str, bytes | None] = {}


@dataclass(slots=True)
class FilledPart:
    """A part with all its bytes: those given to `writer` and `rest`, which lies in `block`.

    block: the pool's; empty once it went back. full: it has the size it was planned with.
    skipped: bytes of the tail it begins with that the writer was not given.
    """

    writer: PartWriter
    number: int
    start: int
    size: int
    rest: memoryview
    block: bytearray
    full: bool
    skipped: int

    @property
    def end(self) -> int:
        return self.start + self.size


Stored = tuple[FilledPart, PartReceipt]


class Storing:
    """What one lease stores. `upload` is always the row as last committed.

    dropped: some part was given up, so the store may have something the row never gets. left_tail:
    an old tail could not be removed. length: the length the next commit settles; None if it is
    open. holds_back: parts are stored, and none is committed before commit_stored().
    """

    def __init__(
        self,
        engine: Engine,
        lease: Lease,
        upload: Upload,
        *,
        length: int | None,
        digests: Mapping[str, bytes | None] = NO_DIGESTS,
        holds_back: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """digests: of the whole, as the request gives them. on_progress: see terms.Terms."""
        self.upload = upload
        self.length = length
        self.holds_back = holds_back
        self._digests = digests
        self._on_progress = on_progress
        self.dropped = False
        self.left_tail = False
        self._engine = engine
        self._lease = lease
        self._limits = engine.objects.limits
        self.part_size = upload.part_size  # of every part but the last, where all are equal
        self._writer = engine.objects.open_writer(
            upload, confirm=lambda: engine.leases.confirm(lease)
        )
        # Before the row has a multipart upload this lease makes its own, where all numbers are
        # free: what failed before must not use them up.
        first = lease.numbers.start or upload.next_part_number
        self._next_number = self._unused = first if upload.multipart_id else 1
        self._numbers_end = self._next_number + len(lease.numbers)  # of those set aside
        self._stored: dict[int, Stored] = {}  # by start, not yet committed
        self._committing = asyncio.Lock()
        self._under_way: list[asyncio.Task[None]] = []
        self._calling: set[asyncio.Task[None]] = set()  # of those, with a call to the store

    # --- parts

    @property
    def next_number(self) -> int:
        """The first part number that no call to the store has named; opening a part is none."""
        return self._unused

    def number_at(self, start: int) -> int:
        """Give the number that a part at `start` would have now."""
        if self._limits.equal_parts:
            return number_of(start, self.part_size)
        return self._next_number

    async def open_part(self, start: int) -> tuple[int, PartWriter]:
        """Give the number of a new part at byte `start`, which no other part ever has, and its
        writer.
        """
        if self._limits.reserved_numbers and self._next_number == self._numbers_end:
            # Each commit sets more of them aside.
            await self.all_stored()
            if self._next_number == self._numbers_end:
                await self._commit([])
            assert self._next_number < self._numbers_end
        number = self.number_at(start)
        self._next_number = number + 1
        return number, self._writer.open_part(self.upload, number=number, start=start)

    async def store_behind(self, part: FilledPart) -> None:
        """Store a part while the next one is received, within the limit of the store."""
        self._learn_part_size(part)
        if len(part.rest) == part.size:
            # All of it is still in its block: the contract of open_part wants it begun.
            await self._begin(part)
        self._under_way.append(asyncio.create_task(self._store(part)))
        while len(self._under_way) >= self._limits.parallel_parts:
            await self._first_stored()

    async def make_room(self) -> None:
        """Wait for a part under way where memory is short, rather than take more."""
        while self._under_way and self._engine.blocks.is_short:
            await self._first_stored()

    async def all_stored(self, patience_s: float | None = None) -> None:
        """Wait until every part is stored and committed. Raises what kept one from it.

        patience_s: parts that the store has not taken by then are given up. Not on a disk, whose
        threads cannot be called off, and are quick; and commits are waited for.
        """
        if patience_s is not None and self._under_way and self._limits.keeps_receipts:
            await asyncio.wait(self._under_way, timeout=patience_s)
            if late := set(self._calling):
                for task in late:
                    task.cancel()
                await asyncio.wait(late)
                self._under_way = [task for task in self._under_way if task not in late]
        while self._under_way:
            await self._first_stored()

    async def outcomes(self) -> list[BaseException | None]:
        """Wait for every call under way; give how each ended."""
        outcomes = await asyncio.gather(*self._under_way, return_exceptions=True)
        self._under_way.clear()
        return outcomes

    async def finish_part(self, part: FilledPart, *, completes: bool) -> PartReceipt:
        """Make a part durable. Raises: as PartWriter.finish; the part still has its bytes then."""
        # A holder that slept has lost its right, maybe: it must not begin to write (P3).
        await self._engine.leases.ensure(self._lease)
        if not (completes and part.start == 0):  # then it is an object, and has no number
            self._unused = max(self._unused, part.number + 1)
        try:
            receipt = await part.writer.finish(part.rest, completes=completes)
        except (TusServerError, asyncio.CancelledError):
            self.dropped = True
            raise
        self._give_back(part)
        return receipt

    async def drop(self, part: FilledPart | None) -> None:
        """Give up what is left of a part that was received; may be called again."""
        if part is not None and part.block:
            await part.writer.discard()
            self._give_back(part)

    @property
    def is_untidy(self) -> bool:
        """Tell whether the store may have something that the row never gets: undo() is due."""
        return self.dropped or self._writer.leaves

    async def undo(self, *, holds: bool) -> bool:
        """Remove what the row does not have; tell whether nothing is left."""
        return await self._writer.undo(self.upload, holds=holds)

    def _give_back(self, part: FilledPart) -> None:
        block, part.block = part.block, bytearray()
        self._engine.blocks.give(block)

    async def _begin(self, part: FilledPart) -> None:
        try:
            await part.writer.write(part.rest)
        except TusServerError:
            await self.drop(part)
            raise
        part.rest = NOTHING

    async def _first_stored(self) -> None:
        await self._under_way.pop(0)

    async def _store(self, part: FilledPart) -> None:
        """Store a part, then commit the contiguous prefix: one commit at a time, coalesced."""
        task = asyncio.current_task()
        assert task is not None
        self._calling.add(task)
        try:
            receipt = await self.finish_part(part, completes=False)
        except (TusServerError, asyncio.CancelledError):
            await self.drop(part)
            raise
        finally:
            self._calling.discard(task)
        self._stored[part.start] = (part, receipt)
        if not self.holds_back:
            await self.commit_stored()

    async def commit_stored(self) -> None:
        """Commit the contiguous prefix of what is stored."""
        async with self._committing:
            prefix = []
            reached = self.upload.committed_bytes
            while reached in self._stored:
                prefix.append(self._stored.pop(reached))
                reached += prefix[-1][1].size
            if prefix:
                await self._commit(prefix)

    # --- the row

    def after(self, stored: "list[Stored]") -> tuple[Upload, tuple[Part, ...]]:
        """Give the row as it will be with `stored`, and the receipts to keep."""
        after = self.upload
        if self.length is not None and after.length is None:
            after = after.with_length(self.length)
        after = after.with_digests(self._digests)
        for part, receipt in stored:
            after = after.with_bytes(receipt.size, receipt.crc64)
            if receipt.multipart_id is not None:
                self._learn_part_size(part)
                after = replace(after, multipart_id=receipt.multipart_id, part_size=self.part_size)
        if not self._limits.keeps_receipts:
            return after, ()
        return after, tuple(
            Part(part.number, part.start, receipt.size, receipt.crc64, receipt.etag)
            for part, receipt in stored
        )

    def _learn_part_size(self, part: FilledPart) -> None:
        """Let all parts have the size of the first one, where a store wants that."""
        if self._limits.equal_parts and self.part_size is None:
            self.part_size = part.size

    def steps(self, after: Upload) -> tuple[UploadState, ...]:
        """Give the step that the first byte makes."""
        began = after.state is UploadState.INITIATED and after.offset > 0
        return (UploadState.RECEIVING,) if began else ()

    async def commit(
        self,
        after: Upload,
        parts: tuple[Part, ...],
        steps: tuple[UploadState, ...],
        *,
        release: bool,
    ) -> None:
        """Commit the row `after`, and remove the tail it has no more.

        release: end the lease with it; not where a tail is lost, whose name the next holder may
        use at once.
        """
        before = self.upload
        assert not (release and loses_tail(before, after))
        after = after.stepped(*steps, on=self._engine.clock.now())
        if after.offset > before.offset and (after.state in UNFINISHED or after.is_partial):
            after = self._engine.expiry.slid(after, self._engine.state.now())
        await self._engine.state.commit(
            self._lease, before, after, steps=steps, parts=parts, release=release
        )
        self.upload = after
        if loses_tail(before, after):
            assert self._engine.tails is not None
            assert before.tail is not None
            # A parked one that cannot be removed now is found by recovery.
            self.left_tail |= not await self._engine.tails.remove(after, before.tail)

    async def _commit(self, stored: "list[Stored]") -> None:
        """Commit parts, if any; the request goes on, with more part numbers set aside."""
        after, parts = self.after(stored) if stored else (self.upload, ())
        numbers_end = self._numbers_end
        if reserved := self._limits.reserved_numbers:
            numbers_end = self._next_number + reserved
            after = replace(after, next_part_number=numbers_end)
        await self.commit(after, parts, self.steps(after), release=False)
        self._numbers_end = numbers_end
        if stored and self._on_progress is not None:
            self._on_progress(after.offset)


def loses_tail(before: Upload, after: Upload) -> bool:
    """Tell whether the file or object of before.tail is no longer that of after.tail."""
    if before.tail is None:
        return False
    return after.tail is None or not is_same_place(before.tail, after.tail)
