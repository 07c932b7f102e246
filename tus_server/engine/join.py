"""Making a final upload of its partial ones, once it waits for none of them any more.

Order of effects: its bytes are joined in the store (no byte passes through here where the store
can copy); one commit tells of them (`completed`); then it is finished like any upload. A crash
before that commit leaves nothing but what recovery removes, and joining starts again. A partial
that is lost takes every final upload with it that waits for it.
"""

import asyncio
from dataclasses import replace

import structlog

from tus_server.core.checksums import EMPTY_CRC64, combine_crc64
from tus_server.core.errors import (
    BytesMissing,
    TusServerError,
    UnusablePartial,
    UploadTooLarge,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, TERMINAL, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.chores import work_under
from tus_server.engine.engine import Engine
from tus_server.engine.finish import fail, finish
from tus_server.engine.terminate import discard
from tus_server.ports import Joined, Lease

log = structlog.get_logger(__name__)

INTERVAL_S = 5.0
PAGE = 100
AT_ONCE = 4  # of those nobody waits for


async def join_loop(engine: Engine) -> None:
    """Until the engine closes: join what was not joined at its time, a few at a time.

    Some take hours, and some fail again and again; neither keeps others waiting.
    """
    running: dict[UploadId, asyncio.Task[None]] = {}
    last: UploadId | None = None
    while not engine.closing:
        try:
            running = {one: task for one, task in running.items() if not task.done()}
            ready = await engine.state.find_ready_finals(PAGE, last)
            last = None  # from the start again, unless some are left
            for upload_id in ready:
                if len(running) == AT_ONCE:
                    break
                last = upload_id
                if upload_id not in running:
                    running[upload_id] = engine.behind(join_if_ready(engine, upload_id))
        except TusServerError as exc:
            log.warning("join.postponed", code=exc.code, detail=exc.detail)
        except Exception:
            log.exception("join.failed")
        await asyncio.sleep(INTERVAL_S)


async def join_ready(engine: Engine, *, of: UploadId | None = None) -> None:
    """Join every final upload that waits for no partial any more; of: those with this one."""
    last: UploadId | None = None
    while ready := await engine.state.find_ready_finals(PAGE, last, of=of):
        for upload_id in ready:
            await join_if_ready(engine, upload_id)
        last = ready[-1]


async def join_if_ready(engine: Engine, upload_id: UploadId) -> None:
    """Join a final upload unless it waits for a partial, or somebody else is about to.

    One that has lost a partial waits for no other one: it is given up.
    """
    partials = await engine.state.find_partials(upload_id)
    states = {partial.state for partial in partials}
    if not states & TERMINAL and not states <= FINISHED:
        return
    claim = await engine.state.claim_upload(upload_id)
    if claim.lease is None or claim.upload is None:
        return
    join = _Join(engine, claim.lease, claim.upload, partials)
    await work_under(engine, claim.lease, join.run(), let_go=join.let_go, leaves=True)


class _Join:
    """One try. Only the copying can be interrupted: a commit runs to its end."""

    def __init__(
        self, engine: Engine, lease: Lease, upload: Upload, partials: list[Upload]
    ) -> None:
        self._engine = engine
        self._lease = lease
        self._upload = upload
        self._partials = partials
        self._joining: asyncio.Future[Joined] | None = None
        self._wanted = False

    def let_go(self) -> None:
        self._wanted = True
        if self._joining is not None:
            self._joining.cancel()

    async def run(self) -> None:
        engine, upload = self._engine, self._upload
        if upload.state is not UploadState.INITIATED:
            return  # somebody has done it since
        for partial in self._partials:
            if partial.state in TERMINAL:
                await self._give_up(partial)
                return
        try:
            upload = await self._join()
        except (BytesMissing, UploadTooLarge) as exc:
            await fail(engine, self._lease, upload, exc)
            return
        upload = await finish(engine, self._lease, upload)
        log.info(
            "upload.verified",
            upload=upload.id,
            length=upload.length,
            partials=len(self._partials),
        )

    async def _give_up(self, lost: Upload) -> None:
        """End an upload that can never be finished: expired with a partial, or in error (T105)."""
        if lost.state is not UploadState.EXPIRED:
            error = UnusablePartial(f"Partial upload {lost.id} is {lost.state}.")
            await fail(self._engine, self._lease, self._upload, error)
            return
        note = f"with partial upload {lost.id}"
        await discard(self._engine, self._lease, self._upload, UploadState.EXPIRED, note=note)

    async def _join(self) -> Upload:
        """Make the bytes of finished partials those of the upload, and commit that.

        Raises: BytesMissing, UploadTooLarge (their lengths were not known before).
        """
        engine, upload, partials = self._engine, self._upload, self._partials
        crc = EMPTY_CRC64
        for partial in partials:
            assert partial.crc64 is not None  # a partial upload is no direct one
            crc = combine_crc64(crc, partial.crc64, partial.committed_bytes)
        length = sum(partial.committed_bytes for partial in partials)
        engine.check_length(length)
        whole = replace(upload, length=length, crc64=crc)
        self._joining = asyncio.ensure_future(
            engine.objects.join(whole, partials, confirm=lambda: engine.leases.confirm(self._lease))
        )
        if self._wanted or engine.closing:
            self._joining.cancel()  # nobody asks a second time
        joined = await self._joining
        after = replace(whole, committed_bytes=length, multipart_id=joined.multipart_id)
        after = after.stepped(UploadState.COMPLETED, on=engine.clock.now())
        await engine.state.commit(
            self._lease, upload, after, steps=(UploadState.COMPLETED,), parts=joined.parts
        )
        return after
