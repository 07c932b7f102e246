"""Receiving a body into an upload: parts to the store, the contiguous prefix to the row.

Order of effects, for every part: its bytes and its name are durable in the store, then one fenced
commit moves the offset (P1). What is too little for a part at the end of a request becomes the
tail: its file is durable, then the row tells of it. The last commit of a request also ends the
lease. While one part is made durable the next one is received. Interrupted, stalled, cut: the same
way with what arrived. A commit whose outcome is unknown is followed by nothing that undoes bytes.
A body with a checksum is stored as it arrives, and neither committed nor completed before the
verdict; without one, or with a wrong one, nothing of it counts (T86, T87).
"""

from tus_server.core.errors import (
    AppendTooLarge,
    BodyInterrupted,
    BodyStopped,
    BodyTooLarge,
    DigestMismatch,
    LengthInconsistent,
    TusServerError,
    UploadTooLarge,
)
from tus_server.core.upload import Upload
from tus_server.engine.ending import Ending
from tus_server.engine.engine import Engine
from tus_server.engine.filling import Filling
from tus_server.engine.storing import FilledPart, Storing
from tus_server.engine.terms import Overrun, Terms
from tus_server.engine.verdict import Verdict
from tus_server.ports import Body, Lease

# What parts under way get when another request waits for the upload, and when the server stops.
PATIENCE_S = 1.0
PATIENCE_AT_STOP_S = 10.0


class Reception:
    """One body on its way into one upload, under one lease, which it ends.

    `upload` is the row as last committed. `stopped` tells why the body ended early, None if it
    was read to its end. `gives_up`: what run() raised is the end of the upload.
    """

    def __init__(
        self, engine: Engine, lease: Lease, upload: Upload, body: Body, terms: Terms
    ) -> None:
        self.gives_up = False
        self._engine = engine
        self._lease = lease
        self._terms = terms
        self._storing = Storing(
            engine,
            lease,
            upload,
            length=upload.length if upload.length is not None else terms.length,
            digests=terms.digests,
            holds_back=terms.checks is not None,
            on_progress=terms.on_progress,
        )
        self._verdict = Verdict(engine.threads, upload, terms)
        self._ending = Ending(engine, lease, self._storing)
        self._filling = Filling(
            engine, lease, body, terms, self._storing, self._verdict, self._ending
        )
        self._excess: TusServerError | None = None  # the body goes on; what fits is kept

    @property
    def upload(self) -> Upload:
        return self._storing.upload

    @property
    def stopped(self) -> BodyStopped | None:
        return self._filling.stopped

    async def run(self) -> Upload:
        """Receive the body and commit what arrived, with the end of the lease; give the row.

        Raises: TailMissing (before a byte was asked for; nothing changed); BodyTooLarge,
        UploadTooLarge, AppendTooLarge, LengthInconsistent (a chunked body ran over or ended early:
        T120, T62, R13, R60, R10), ChecksumMismatch, MalformedRequest (its trailer),
        DigestMismatch, BodyStopped (of a body with a checksum), StorageFull, StoreUnavailable,
        StateUnavailable, BytesMissing, LeaseLost. In each case the row says what is durable, and
        unless gives_up the upload may go on from there.
        """
        try:
            last = await self._receive()
            try:
                upload = await self._end_with(last)
            except TusServerError:
                await self._storing.drop(last)
                raise
        except TusServerError as exc:
            await self._ending.abandon(exc)
            raise
        if self._excess is not None:
            raise self._excess
        if self._terms.completes and not self.stopped and upload.remaining:
            raise LengthInconsistent(
                f"The upload has {upload.length} bytes, the body ends at byte {upload.offset}."
            )
        return upload

    async def release(self) -> None:
        """End the lease, if it has not ended with the last commit."""
        unused = self._storing.next_number if self._engine.objects.limits.reserved_numbers else None
        await self._engine.leases.release(
            self._lease, next_part_number=unused, clean=self._ending.is_clean
        )

    async def _end_with(self, last: FilledPart | None) -> Upload:
        """Decide whether the upload is complete, and commit what arrived."""
        completes = self._is_complete(last)
        await self._verdict.settle()
        if self._terms.checks is not None:
            if self.stopped is not None:
                raise self.stopped
            if self._excess is not None:
                raise self._excess
            self._verdict.check_body()
        try:
            digests = self._verdict.find_digests() if completes else None
        except DigestMismatch:
            self.gives_up = True
            raise
        patience_s = self._find_patience_s()
        await self._storing.all_stored(patience_s)
        await self._storing.commit_stored()
        return await self._ending.end(
            last, completes=completes, digests=digests, patience_s=patience_s
        )

    def _is_complete(self, last: FilledPart | None) -> bool:
        """Tell whether the upload is complete with `last`; its length is then known."""
        end = self._filling.start if last is None else last.end
        if self._terms.completes is None:
            return end == self._storing.length
        # Not where the end of a chunked body was not seen, all its bytes or not (R34).
        if not self._terms.completes or self.stopped is not None or self._excess is not None:
            return False
        if self._storing.length is None:
            self._storing.length = end
        return end == self._storing.length

    def _find_patience_s(self) -> float | None:
        """Give how long the store may take: only where another request, or the end, waits."""
        if not isinstance(self.stopped, BodyInterrupted):
            return None
        return PATIENCE_AT_STOP_S if self._engine.closing else PATIENCE_S

    # --- receiving

    async def _receive(self) -> FilledPart | None:
        """Receive every part, store all but the last, which is returned if it has any byte."""
        if self._filling.ended and not self._completes_empty():
            return None  # an empty body that completes nothing: not even the tail is looked at
        while True:
            part = await self._filling.fill_part()
            if self._filling.ended or part.end == self._filling.end:
                await self._check_overrun(part)
                if part.size:
                    return part
                await self._storing.drop(part)
                return None
            await self._storing.store_behind(part)
            await self._storing.make_room()

    def _completes_empty(self) -> bool:
        if self._terms.completes is None:
            return self.upload.offset == self._storing.length
        return self._terms.completes

    async def _check_overrun(self, part: FilledPart) -> None:
        """Refuse a body that goes on behind the end of the upload (T120), or of what it may bring.

        Only a chunked one can: a Content-Length was compared before. The part that reaches the
        end is not stored before the end of the body, or of the connection, is seen.
        """
        filling = self._filling
        if filling.ended or await filling.read(memoryview(bytearray(1))) == 0:
            return
        if filling.end < filling.largest:
            self._excess = AppendTooLarge(
                f"The largest body taken has {self._terms.max_body} bytes."
            )
            return
        overrun = self._terms.overrun
        text = f"The upload ends at byte {filling.end}, the body goes on."
        if overrun is Overrun.KEEP and self._storing.length is not None:
            self._excess = LengthInconsistent(text)
            return
        await self._storing.drop(part)
        self.gives_up = overrun is not Overrun.REFUSE
        if self._storing.length is None:
            raise UploadTooLarge(f"The largest upload taken has {filling.end} bytes.")
        raise LengthInconsistent(text) if self.gives_up else BodyTooLarge(text)
