"""What a crash left half-way: cut, finished or freed at start, and retried while running."""

import asyncio
from collections.abc import AsyncIterator

import structlog

from tus_server.core.errors import BytesMissing, TusServerError
from tus_server.core.states import TERMINAL, UNFINISHED, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.engine.finish import fail, finish
from tus_server.engine.terminate import free
from tus_server.ports import Lease

log = structlog.get_logger(__name__)

INTERVAL_S = 30.0
PAGE = 500


async def recover(engine: Engine) -> None:
    """At start, before the first request: leave every upload as its row says.

    Bytes behind the committed offset are cut; completed uploads are finished; bytes of ended ones
    are freed. One upload that resists is logged and does not keep the server from starting.
    """
    async for upload in _half_way(engine, receiving=True):
        await _recover_one(engine, upload)


async def recovery_loop(engine: Engine) -> None:
    """For ever: finish and free what could not be finished or freed at its time."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            async for upload in _half_way(engine, receiving=False):
                await _recover_one(engine, upload)
        except TusServerError as exc:
            log.warning("recovery.postponed", code=exc.code, detail=exc.detail)


async def _half_way(engine: Engine, *, receiving: bool) -> AsyncIterator[Upload]:
    page = await engine.state.unfinished_work(PAGE, receiving=receiving)
    while page:
        for upload in page:
            yield upload
        page = await engine.state.unfinished_work(PAGE, page[-1].id, receiving=receiving)


async def _recover_one(engine: Engine, found: Upload) -> None:
    claim = await engine.state.claim_upload(found.id)
    if claim.lease is None or claim.upload is None:
        return
    try:
        await _repair(engine, claim.lease, claim.upload)
    except TusServerError as exc:
        log.warning("recovery.postponed", upload=found.id, code=exc.code, detail=exc.detail)
    finally:
        await engine.state.release(claim.lease)


async def _repair(engine: Engine, lease: Lease, upload: Upload) -> None:
    """Bring one upload to where its row says it is, or give it up. Raises: what may pass."""
    try:
        if upload.state in UNFINISHED:
            await engine.objects.recover(upload)
        elif upload.state is UploadState.COMPLETED:
            await finish(engine, lease, upload)
            log.info("upload.finished_late", upload=upload.id)
        elif upload.state in TERMINAL:
            await free(engine, lease, upload)
    except BytesMissing as exc:
        # finish() has given a completed one up by itself.
        if upload.state in UNFINISHED:
            await fail(engine, lease, upload, exc)
