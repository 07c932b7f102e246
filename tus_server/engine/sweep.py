"""Files on this node's disk that no row has: left where a process died before it removed them.

Each node sweeps its own disk. A file goes only while the sweeper holds the upload's lease, so
nobody is about to write it; or when there is no such row, and the file is old.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from tus_server.core.errors import StoreUnavailable, TusServerError
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, TERMINAL
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.ports import FoundPartial, FoundTail, PartialFiles, TailFiles

log = structlog.get_logger(__name__)

INTERVAL_S = 600.0
RETRY_S = 2.0
# No row: the creation may be under way, or this is another installation's database.
ROWLESS_AGE_S = 3600.0
PAGE = 500  # rows looked up at once


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of an upload, found on this node's disk. kind: what it should be, for the log."""

    kind: str
    upload_id: UploadId
    age_s: float
    is_rows: Callable[[Upload], bool]  # may it be what the row counts on?
    remove: Callable[[], Awaitable[None]]


class OwnFiles(Protocol):
    """One kind of files on this node's disk."""

    async def find_all(self) -> list[OwnFile]:
        """Find every file of the kind. Raises: StoreUnavailable."""

    def take_suspects(self) -> list[OwnFile]:
        """Give, once, files of which it became known meanwhile that they may be nobody's."""


class OwnTails:
    """See OwnFiles: the tails. suspects: those of which a commit failed."""

    def __init__(self, files: TailFiles, suspects: list[FoundTail]) -> None:
        self._files = files
        self._suspects = suspects

    async def find_all(self) -> list[OwnFile]:
        return [self._own(found) for found in await self._files.find_all()]

    def take_suspects(self) -> list[OwnFile]:
        taken = [self._own(found) for found in self._suspects]
        self._suspects.clear()
        return taken

    def _own(self, found: FoundTail) -> OwnFile:
        def is_rows(row: Upload) -> bool:
            tail = row.tail
            if tail is None or row.state in TERMINAL:
                return False
            return tail.node is not None and tail.generation == found.generation

        remove = partial(self._files.remove_found, found.upload_id, found.generation)
        return OwnFile("tail", found.upload_id, found.age_s, is_rows, remove)


class OwnPartials:
    """See OwnFiles: what has arrived of uploads, in a store on this disk."""

    def __init__(self, files: PartialFiles) -> None:
        self._files = files

    async def find_all(self) -> list[OwnFile]:
        return [self._own(found) for found in await self._files.find_partials()]

    def take_suspects(self) -> list[OwnFile]:
        return []

    def _own(self, found: FoundPartial) -> OwnFile:
        remove = partial(self._files.remove_partial, found.upload_id)
        return OwnFile("partial", found.upload_id, found.age_s, _takes_bytes, remove)


def _takes_bytes(row: Upload) -> bool:
    """Tell whether the bytes of an upload are not in their finished place yet."""
    return row.state not in TERMINAL | FINISHED


async def sweep_loop(engine: Engine, kinds: Sequence[OwnFiles]) -> None:
    """For ever: at start, and then now and again; sooner what is suspect, or was held."""
    due: list[OwnFile] = []
    look_at_s = engine.clock.monotonic_s()
    while True:
        try:
            now_s = engine.clock.monotonic_s()
            if now_s >= look_at_s:
                due = [file for kind in kinds for file in await kind.find_all()]
                look_at_s = now_s + INTERVAL_S
            due += [file for kind in kinds for file in kind.take_suspects()]
            due = await sweep(engine, due)
        except TusServerError as exc:
            log.warning("sweep.postponed", code=exc.code, detail=exc.detail)
        except Exception:
            log.exception("sweep.failed")
        await asyncio.sleep(RETRY_S)


async def sweep(engine: Engine, due: Sequence[OwnFile]) -> list[OwnFile]:
    """Remove those of `due` that no row has; give those that are held, and could not be told now.

    After a crash clients are back at once, and hold what the dead process was writing. One that
    cannot be removed waits for the next look at the disk. Raises: StateUnavailable.
    """
    held: list[OwnFile] = []
    for start in range(0, len(due), PAGE):
        page = due[start : start + PAGE]
        rows = await engine.state.find_uploads([file.upload_id for file in page])
        for file in page:
            try:
                await _judge(engine, file, rows.get(file.upload_id), held)
            except StoreUnavailable as exc:
                log.warning("sweep.not_removed", upload=file.upload_id, detail=exc.detail)
    return held


async def _judge(engine: Engine, file: OwnFile, row: Upload | None, held: list[OwnFile]) -> None:
    if row is None:
        if file.age_s < ROWLESS_AGE_S:
            return
        await file.remove()
    elif file.is_rows(row):
        return
    elif not await _remove_held(engine, file):
        held.append(file)
        return
    log.info(f"sweep.removed_{file.kind}", upload=file.upload_id)


async def _remove_held(engine: Engine, file: OwnFile) -> bool:
    """Remove a file if nobody holds its upload; False: somebody does, or it is the row's by now."""
    claim = await engine.state.claim_upload(file.upload_id)
    if claim.lease is None or claim.upload is None:
        return False
    try:
        if file.is_rows(claim.upload):
            return False
        await file.remove()
        return True
    finally:
        await engine.state.release(claim.lease)
