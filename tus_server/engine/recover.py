"""What a crash left half-way: cut, finished, freed or swept, on whichever node finds it first.

Rows are claimed as they are found, so any number of processes may look at once. On a local disk
the first pass also cuts what lies behind the offsets, and is over before the first request.
"""

import asyncio
from dataclasses import replace

import structlog

from tus_server.core.errors import (
    BytesMissing,
    ContentRefused,
    DigestMismatch,
    PartsDiffer,
    TusServerError,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import TERMINAL, UNFINISHED, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.chores import work_under
from tus_server.engine.engine import Engine
from tus_server.engine.finish import fail, finish
from tus_server.engine.leases import stay
from tus_server.engine.terminate import free
from tus_server.ports import Lease

log = structlog.get_logger(__name__)

INTERVAL_S = 5.0
PAGE = 8  # as many are worked on at once
PATIENCE_S = 10.0  # with them, where the application's checks may take their time


async def recover(
    engine: Engine, *, receiving: bool, finishing: bool = True, patience_s: float | None = None
) -> None:
    """Leave every upload that nobody holds as its row says.

    Completed uploads are finished, unless that is left to a later pass; bytes of ended ones are
    freed; what crashed holders left in the store is removed; with `receiving`, bytes behind
    committed offsets are cut. One upload that resists is logged, and tried again by a later pass.
    patience_s: with a page of them; what takes longer goes on behind. Raises: StateUnavailable.
    """
    last: UploadId | None = None
    while True:
        claimed = await engine.state.claim_unfinished(PAGE, last, receiving=receiving)
        if not claimed:
            return
        last = claimed[-1][0].id
        repairs = []
        for upload, lease in claimed:
            repair = _repair(engine, lease, upload, finishing=finishing)
            # A client that wants an unfinished one goes first.
            let_go = None if upload.state in UNFINISHED else stay
            repairs.append(engine.behind(work_under(engine, lease, repair, let_go=let_go)))
        await asyncio.wait(repairs, timeout=patience_s)


async def recovery_loop(engine: Engine) -> None:
    """For ever: finish, free and sweep what could not be at its time."""
    while True:
        try:
            # Else one file that a check hangs at would hold up what the others wait for.
            patience_s = PATIENCE_S if engine.verifiers else None
            await recover(engine, receiving=False, patience_s=patience_s)
        except TusServerError as exc:
            log.warning("recovery.postponed", code=exc.code, detail=exc.detail)
        except Exception:
            log.exception("recovery.failed")
        await asyncio.sleep(INTERVAL_S)


async def _repair(engine: Engine, lease: Lease, upload: Upload, *, finishing: bool) -> None:
    """Bring one upload to where its row says it is, or give it up. Raises: what may pass."""
    if upload.state in TERMINAL:
        await free(engine, lease, upload)
        return
    try:
        if upload.state is UploadState.COMPLETED:
            if not finishing:
                return
            late = await finish(engine, lease, upload)
            log.info("upload.finished_late", upload=late.id)
            return  # unclean ones come again
        await engine.objects.recover(upload, confirm=lambda: engine.leases.confirm(lease))
    except (BytesMissing, DigestMismatch, PartsDiffer, ContentRefused) as exc:
        # finish() has given a completed one up by itself.
        if upload.state in UNFINISHED:
            await fail(engine, lease, upload, exc)
        return
    if upload.unclean:
        swept = replace(upload, unclean=False)
        await engine.state.commit(lease, upload, swept, release=True)
