"""Tail files that no row has: left where a process died between a commit and the removal.

Each node sweeps its own disk. A file goes only while the sweeper holds the upload's lease, so
nobody is about to write it; or when there is no such row, and the file is old.
"""

import asyncio
from collections.abc import Sequence

import structlog

from tus_server.core.errors import TusServerError
from tus_server.core.states import TERMINAL
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.ports import FoundTail, TailFiles

log = structlog.get_logger(__name__)

INTERVAL_S = 600.0
RETRY_S = 2.0
# No row: the creation may be under way, or this is another installation's database.
ROWLESS_AGE_S = 3600.0


async def sweep_loop(engine: Engine, files: TailFiles) -> None:
    """For ever: at start, and then now and again; sooner what is suspect, or was held."""
    assert engine.tails is not None
    due: list[FoundTail] = []
    look_at_s = engine.clock.monotonic_s()
    while True:
        try:
            now_s = engine.clock.monotonic_s()
            if now_s >= look_at_s:
                due = await files.find_all()
                look_at_s = now_s + INTERVAL_S
            due += engine.tails.suspects
            engine.tails.suspects.clear()
            due = await sweep(engine, files, due)
        except TusServerError as exc:
            log.warning("sweep.postponed", code=exc.code, detail=exc.detail)
        except Exception:
            log.exception("sweep.failed")
        await asyncio.sleep(RETRY_S)


async def sweep(engine: Engine, files: TailFiles, due: Sequence[FoundTail]) -> list[FoundTail]:
    """Remove those of `due` that no row has; give those that could not be told now.

    After a crash clients are back at once, and hold what the dead process was writing. Raises:
    StateUnavailable.
    """
    held = []
    for found in due:
        row = await engine.state.find_upload(found.upload_id)
        if row is None:
            if found.age_s < ROWLESS_AGE_S:
                continue
            await files.remove_found(found.upload_id, found.generation)
        elif _is_rows(row, found):
            continue
        elif not await _remove_held(engine, files, found):
            held.append(found)
            continue
        log.info("sweep.removed_tail", upload=found.upload_id, generation=found.generation)
    return held


async def _remove_held(engine: Engine, files: TailFiles, found: FoundTail) -> bool:
    """Remove a file if nobody holds its upload; False: somebody does, or it is the row's by now."""
    claim = await engine.state.claim_upload(found.upload_id)
    if claim.lease is None or claim.upload is None:
        return False
    try:
        if _is_rows(claim.upload, found):
            return False
        await files.remove_found(found.upload_id, found.generation)
        return True
    finally:
        await engine.state.release(claim.lease)


def _is_rows(row: Upload, found: FoundTail) -> bool:
    """Tell whether a file may be the tail of its row."""
    tail = row.tail
    if tail is None or row.state in TERMINAL:
        return False
    return tail.node is not None and tail.generation == found.generation
