"""The end of a request: its last bytes, the last commit, the lease, and what a failure leaves.

Order: the last part, or the tail, is durable; one commit tells of it and ends the lease, unless
something is still to be removed that the next holder must not meet.
"""

import asyncio
from dataclasses import replace

import structlog

from tus_server.core.checksums import combine_crc64, crc64
from tus_server.core.errors import (
    BytesMissing,
    LeaseLost,
    StateUnavailable,
    StoreUnavailable,
    TusServerError,
)
from tus_server.core.parts import flush_at_end
from tus_server.core.states import UploadState
from tus_server.core.upload import Tail, Upload
from tus_server.engine.engine import Engine
from tus_server.engine.finish import finish
from tus_server.engine.storing import NOTHING, FilledPart, Storing, loses_tail
from tus_server.ports import Lease, PartReceipt

log = structlog.get_logger(__name__)


class Ending:
    """Ends what one lease receives.

    is_clean: nothing was left in the store that the row does not have, for sure.
    """

    def __init__(self, engine: Engine, lease: Lease, storing: Storing) -> None:
        self.is_clean = False
        self._engine = engine
        self._lease = lease
        self._storing = storing
        self._limits = engine.limits_for(storing.upload)
        self._tail_is_sure = True
        self._saved: Tail | None = None  # not in the row yet

    @property
    def upload(self) -> Upload:
        return self._storing.upload

    async def end(
        self,
        last: FilledPart | None,
        *,
        completes: bool,
        digests: dict[str, bytes] | None,
        patience_s: float | None,
    ) -> Upload:
        """Store the last bytes as part or tail, commit what belongs to the end, end the lease.

        completes: the upload is complete with them, and storing.length is known. digests: those
        of the whole, if they are known. patience_s: how long the store may take, where another
        request waits. Raises: as Reception.run.
        """
        storing = self._storing
        if last is not None and last.start != self.upload.committed_bytes:
            # A part before it was given up.
            await storing.drop(last)
            last = None
        if last is not None and last.end == self.upload.offset and not completes:
            # Not a byte has arrived, only the tail was read.
            await storing.drop(last)
            last = None
        stored, tail = [], None
        if last is not None:
            receipt = await self._store_last(last, patience_s, completes=completes)
            if receipt is not None:
                stored.append((last, receipt))
            else:
                tail = await self._save_tail(last)
        after, parts = storing.after(stored)
        if tail is not None:
            after = replace(after, tail=tail)
        completes = completes and after.offset == after.length
        if after is self.upload and not completes:
            self.is_clean = not storing.is_untidy or await storing.undo(holds=True)
            return self.upload
        steps = storing.steps(after)
        if completes:
            is_object = bool(stored) and stored[-1][1].is_object
            # Length 0 and a length that turns out to be the offset complete without a part.
            if last is None and after.length == 0:
                is_object = await self._store_empty()
            if digests is not None:
                after = replace(after, digests=digests)
            is_verified = is_object and (digests is not None or not after.digests)
            is_verified = is_verified and not self._engine.must_look_at(after)
            steps += (UploadState.COMPLETED, UploadState.VERIFIED)[: 1 + is_verified]
        if self._limits.reserved_numbers:
            after = replace(after, next_part_number=storing.next_number)
        completed = UploadState.COMPLETED in steps[-1:]
        # What is still to be removed, the next holder must not meet.
        untidy = storing.is_untidy
        at_once = not (completed or untidy or loses_tail(self.upload, after))
        await storing.commit(after, parts, steps, release=at_once)
        self._saved = None
        self.is_clean = not untidy or await storing.undo(holds=True)
        self.is_clean &= not storing.left_tail
        upload = self.upload
        if completed:
            # The commit that ends the lease then also says whether recovery has to look.
            upload = replace(upload, unclean=upload.unclean or not self.is_clean)
            upload = storing.upload = await finish(
                self._engine, self._lease, upload, digested=digests is not None
            )
        if upload.state is UploadState.VERIFIED:
            log.info("upload.verified", upload=upload.id, length=upload.length)
        return upload

    async def _store_last(
        self, last: FilledPart, patience_s: float | None, *, completes: bool
    ) -> PartReceipt | None:
        """Store the last part of a request; None where it is to become the tail.

        So that few acknowledged bytes depend on one node, whatever the store takes goes there at
        once. Where it does not answer, or another request waits and it takes long, the tail has
        to do; but not for the bytes that complete an upload, which is then not complete.
        """
        if last.skipped or not (
            completes or self.becomes_part(last.start, last.size, last.number, full=last.full)
        ):
            return None
        if completes or self._engine.tails is None:
            return await self._storing.finish_part(last, completes=completes)
        try:
            async with asyncio.timeout(patience_s):
                return await self._storing.finish_part(last, completes=False)
        except (StoreUnavailable, TimeoutError) as exc:
            log.warning("upload.kept_as_tail", upload=self.upload.id, cause=str(exc))
            return None

    def becomes_part(self, start: int, size: int, number: int, *, full: bool) -> bool:
        """Tell whether the last bytes of a request, which do not complete it, go to the store."""
        length = self._storing.length
        if start + size == length:
            return size >= self._limits.min_part_size  # smaller only where it may become the whole
        return flush_at_end(
            self._limits,
            length=length,
            start=start,
            size=size,
            numbers_left=self._limits.max_parts - number + 1,
            full=full,
        )

    async def _save_tail(self, last: FilledPart) -> Tail:
        """Make the last bytes of a request durable outside the store's parts."""
        assert self._engine.tails is not None
        await self._engine.leases.ensure(self._lease)
        writer = last.writer
        crc = crc64(last.rest, writer.crc64)
        if last.skipped:
            assert self.upload.tail is not None
            crc = combine_crc64(self.upload.tail.crc64, crc, last.size - last.skipped)
        whole = Tail(last.size, crc, None, 0)
        # One that was parked and got no answer may be there all the same.
        self._tail_is_sure = False
        tail = await self._engine.tails.save(
            self.upload, self._lease, writer, last.rest, whole, skipped=last.skipped
        )
        self._tail_is_sure = True
        self._saved = tail
        await self._storing.drop(last)
        return tail

    async def _store_empty(self) -> bool:
        _, writer = await self._storing.open_part(0)
        try:
            return (await writer.finish(NOTHING, completes=True)).is_object
        except TusServerError:
            await writer.discard()
            raise

    async def abandon(self, cause: TusServerError) -> None:
        """Wait for every thread and call of this request, then remove what was not committed.

        Nothing is removed after a commit of unknown outcome (those bytes may count) or once all
        bytes are committed.
        """
        causes = [cause, *await self._storing.outcomes()]
        lost = any(isinstance(found, LeaseLost) for found in causes)
        if self._saved is not None:
            assert self._engine.tails is not None
            await self._engine.tails.disown(self.upload, self._saved, lost=lost)
            self._tail_is_sure = self._saved.node is not None  # a parked one is recovery's
        if any(isinstance(found, StateUnavailable) for found in causes):
            return
        if self.upload.state is UploadState.COMPLETED or any(
            isinstance(found, BytesMissing) for found in causes
        ):
            self.is_clean = self._tail_is_sure and not self._storing.is_untidy
            return
        if lost:
            # What we took for a failure may have taken effect: the row tells what it has.
            try:
                row = await self._engine.state.find_upload(self.upload.id)
            except TusServerError:
                return
            self._storing.upload = row or self.upload
        self.is_clean = await self._storing.undo(holds=not lost) and self._tail_is_sure
