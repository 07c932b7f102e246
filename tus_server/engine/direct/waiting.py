"""Direct uploads that complete by themselves: looked at now and again, in one process at a time.

Where this server receives the parts, it completes an upload on arrival of the last one; the loop is
then for what a crash came between. In another store nobody tells of an arrival, so it looks. The
longer an upload waits, the less often.
"""

import asyncio

import structlog

from tus_server.core.errors import TusServerError
from tus_server.core.ids import UploadId
from tus_server.core.upload import Upload
from tus_server.engine.direct.complete import complete_if_all_in
from tus_server.engine.direct.look import look
from tus_server.engine.engine import Engine

log = structlog.get_logger(__name__)

INTERVAL_S = 5.0
DUTY = "auto-complete"
DUTY_S = 15.0
PAGE = 100
CONCURRENCY = 8
PATIENCE_S = 10.0  # with one that is complete and not finished: a check may take its time
# Of an upload that was begun ten minutes ago every second pass looks, after an hour every seventh.
SLOWER_EVERY_S = 600.0
SLOWEST = 60


async def auto_complete_loop(engine: Engine) -> None:
    """Until the engine closes: complete what has all its parts."""
    number = 0
    while not engine.closing:
        try:
            if await engine.state.claim_duty(DUTY, DUTY_S):
                await auto_complete(engine, number)
                number += 1
        except TusServerError as exc:
            log.warning("auto_complete.postponed", code=exc.code, detail=exc.detail)
        except Exception:
            log.exception("auto_complete.failed")
        await asyncio.sleep(INTERVAL_S)


async def auto_complete(engine: Engine, number: int = 0) -> None:
    """Do one pass, the `number`th. Raises: StateUnavailable."""
    slots = asyncio.Semaphore(CONCURRENCY)
    last: UploadId | None = None
    while page := await engine.state.find_auto_complete(PAGE, last):
        last = page[-1].id
        async with asyncio.TaskGroup() as group:
            for upload in page:
                if _is_due(engine, upload, number):
                    group.create_task(_try(engine, upload, slots))
        if not engine.closing:
            await engine.state.claim_duty(DUTY, DUTY_S)


def _is_due(engine: Engine, upload: Upload, number: int) -> bool:
    if upload.multipart_id is None and engine.objects.limits.keeps_receipts:
        return False  # nothing was signed yet
    age_s = (engine.clock.now() - upload.created_at).total_seconds()
    return number % min(SLOWEST, 1 + int(age_s / SLOWER_EVERY_S)) == 0


async def _try(engine: Engine, upload: Upload, slots: asyncio.Semaphore) -> None:
    async with slots:
        try:
            async with engine.books.of(upload.id):
                seen = await look(engine, upload)
            # What takes longer goes on behind, so that nobody waits for the check of another.
            completing = engine.behind(complete_if_all_in(engine, seen.upload))
            await asyncio.wait({completing}, timeout=PATIENCE_S)
        except TusServerError as exc:
            log.info("auto_complete.postponed", upload=upload.id, code=exc.code, detail=exc.detail)
        except Exception:
            log.exception("auto_complete.failed", upload=upload.id)
