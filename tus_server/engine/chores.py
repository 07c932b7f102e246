"""Work under a lease that no request waits for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from tus_server.core.errors import TusServerError
from tus_server.engine.engine import Engine
from tus_server.ports import Lease

log = structlog.get_logger(__name__)


async def work_under(
    engine: Engine,
    lease: Lease,
    work: Coroutine[Any, Any, None],
    *,
    let_go: Callable[[], None] | None = None,
    leaves: bool = False,
) -> None:
    """Run `work` under `lease`, and end that; what fails is logged, and left to a later pass.

    let_go: is called when a request wants the upload; None: the work is cancelled then. leaves:
    work that fails may leave something in the store, which recovery then looks for.
    """
    task = asyncio.ensure_future(work)

    def cancel() -> None:
        task.cancel()

    engine.leases.adopt(lease, let_go or cancel)
    done = False
    try:
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
            done = True
    except TusServerError as exc:
        log.warning("recovery.postponed", upload=lease.upload_id, code=exc.code, detail=exc.detail)
    except Exception:
        log.exception("recovery.failed", upload=lease.upload_id)
    finally:
        task.cancel()
        await engine.leases.release(lease, clean=done or not leaves)
