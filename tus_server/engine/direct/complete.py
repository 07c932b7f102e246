"""Completing a direct upload: the client says that all parts are there, and a look agrees.

Order of effects: what has arrived is in the rows; one commit makes the upload `completed`, from
which any process may go on; then it is finished like any other (engine/finish.py), behind the
reply. What does not agree is a conflict, and changes nothing: the client sends what is missing, and
says so again.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tus_server.core.errors import IllegalStep, LeaseLost, PartsDiffer
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, TERMINAL, UploadState
from tus_server.core.upload import Part, Upload
from tus_server.engine.direct.compare import Promised, Reported, compare
from tus_server.engine.direct.look import Look, look
from tus_server.engine.direct.lookup import check_takes_parts, find_any
from tus_server.engine.engine import Engine
from tus_server.engine.finish import finish, finish_now
from tus_server.engine.leases import stay
from tus_server.engine.lookup import find_row
from tus_server.ports import Lease, Operation, Principal

LOOK_AGAIN_S = 0.5
LOOKS = 3  # of one call, at what moves between the look and the commit
_DONE = FINISHED | {UploadState.COMPLETED}
# The row, and what finishes it, if that was begun here.
Completed = tuple[Upload, "asyncio.Task[None] | None"]


class _Moved(Exception):
    """The row is not what was looked at."""


async def complete(
    engine: Engine,
    upload_id: UploadId,
    principal: Principal,
    reported: Sequence[Reported] | None = None,
    *,
    wait_s: float = 0.0,
) -> Upload:
    """Complete a direct upload; give its row, after at most `wait_s` for the verification.

    reported: every part; None: whatever has arrived. Repeating it gives the row as it is by then,
    also of an upload that has ended since. A server that stops waits no longer.
    Raises: UploadNotFound, NoDirectUpload, UploadGone, IllegalStep, PartsDiffer, UnknownPart,
    MalformedRequest, LeaseNotObtained, StoreUnavailable, StateUnavailable.
    """
    upload = await find_any(engine, upload_id, principal, Operation.COMPLETE)
    if upload.is_direct and upload.state in TERMINAL and await _was_completed(engine, upload):
        return upload
    finishing = None
    if not (upload.is_direct and upload.state in _DONE):
        check_takes_parts(engine, upload)
        upload, finishing = await _complete(engine, upload, reported)
    if upload.state is UploadState.COMPLETED:
        if finishing is None:  # somebody else has completed it
            finishing = engine.behind(_finish(engine, upload_id))
        if wait_s > 0:
            upload = await _wait_for_end(engine, upload, finishing, wait_s=wait_s)
    return upload


async def complete_if_all_in(engine: Engine, upload: Upload) -> None:
    """Complete an upload that is to complete by itself, if every part has arrived.

    Raises: as complete, but what it is in the nature of things to come too early or too late for.
    """
    if not upload.auto_complete or upload.committed_bytes != upload.length:
        return
    try:
        completed, finishing = await _complete(engine, upload, None)
    except (PartsDiffer, IllegalStep):
        return
    if finishing is not None:
        await asyncio.wait({finishing})
    elif completed.state is UploadState.COMPLETED:
        await _finish(engine, upload.id)


def complete_behind(engine: Engine, upload: Upload) -> None:
    """Let an upload that was just looked at complete by itself, if that is to be; no waiting."""
    if upload.auto_complete and upload.committed_bytes == upload.length:
        engine.behind(complete_if_all_in(engine, upload))


async def _was_completed(engine: Engine, upload: Upload) -> bool:
    history = await engine.state.history(upload.id)
    return any(change.state is UploadState.COMPLETED for change in history)


async def _wait_for_end(
    engine: Engine, upload: Upload, finishing: "asyncio.Task[None]", *, wait_s: float
) -> Upload:
    """Give the row once it is completed no longer, or `wait_s` have passed, or the server stops."""
    row: Upload | None = upload
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s), engine.until_closing() as closing:
            await asyncio.wait({finishing, closing}, return_when=asyncio.FIRST_COMPLETED)
            while not closing.done():
                row = await engine.state.find_upload(upload.id)
                if row is None or row.state is not UploadState.COMPLETED:
                    break
                # Another process is at it, or it is tried again later.
                await asyncio.wait({closing}, timeout=LOOK_AGAIN_S)
    return row or upload


async def _complete(
    engine: Engine, upload: Upload, reported: Sequence[Reported] | None
) -> Completed:
    async with engine.books.of(upload.id):
        return await engine.undisturbed(_look_and_commit(engine, upload, reported), stay)


async def _look_and_commit(
    engine: Engine, upload: Upload, reported: Sequence[Reported] | None
) -> Completed:
    """Look, compare and commit; what has moved in between is looked at again.

    A part that was sent since moves the row, but so does a lease that is taken over from a node
    that died: only another look tells whether what the client says still holds.
    """
    for _ in range(LOOKS):
        seen = await look(engine, upload)
        if seen.upload.state in _DONE:
            return seen.upload, None
        check_takes_parts(engine, seen.upload)
        promised = compare(seen, reported)
        try:
            return await _commit(engine, seen, promised)
        except _Moved:
            upload = await find_row(engine, upload.id)
    raise PartsDiffer("Parts were sent while the upload was being completed: try again.")


async def _commit(engine: Engine, seen: Look, promised: Promised) -> Completed:
    """Commit, and go on with the same lease: behind the reply the upload is finished.

    Raises: _Moved, if the row is not what was looked at.
    """
    lease, row = await engine.leases.acquire(seen.upload.id, stay)
    finishing = None
    try:
        if row.state in _DONE:
            return row, None
        check_takes_parts(engine, row)
        if row.generation != seen.upload.generation:
            raise _Moved
        after = promised.applied(row)
        steps = (UploadState.COMPLETED,)
        after = after.stepped(*steps, on=engine.clock.now())
        try:
            await engine.state.commit(lease, row, after, steps=steps)
        except LeaseLost as exc:
            raise _Moved from exc
        finishing = engine.behind(_finish_held(engine, lease, after, seen.parts))
        return after, finishing
    finally:
        if finishing is None:
            await engine.leases.release(lease)


async def _finish_held(engine: Engine, lease: Lease, upload: Upload, parts: Sequence[Part]) -> None:
    try:
        await finish(engine, lease, upload, parts=parts)
    finally:
        await engine.leases.release(lease)


async def _finish(engine: Engine, upload_id: UploadId) -> None:
    await finish_now(engine, upload_id)
