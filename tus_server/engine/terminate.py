"""Ending an upload on request: terminal state first, then the bytes (T94-T97)."""

from dataclasses import replace

import structlog

from tus_server.core.errors import (
    IllegalStep,
    LeaseLost,
    ProtocolMismatch,
    StorageFull,
    StoreUnavailable,
    UploadNotFound,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, UNFINISHED, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.engine.leases import Admit, stay
from tus_server.engine.lookup import check_alive, check_for
from tus_server.ports import Lease, Operation, Principal

log = structlog.get_logger(__name__)


async def terminate(
    engine: Engine, upload_id: UploadId, principal: Principal, *, keeps_finished: bool = False
) -> None:
    """Cancel an unfinished upload or delete a finished one, and free its bytes.

    keeps_finished: of a finished one nothing is changed: IllegalStep.

    An earlier holder is asked to let go. Raises: as check_for, and as Gate.before_terminate;
    ProtocolMismatch (it is the application's alone to end), UploadNotFound, LeaseNotObtained,
    StateUnavailable. Bytes that cannot be removed now are removed by the recovery loop.
    """

    async def admit(upload: Upload, held: bool) -> None:
        await check_for(engine, upload, principal, Operation.TERMINATE, held=held)
        _check_may_end(engine, upload, principal)
        _check_keeps(upload, keeps_finished=keeps_finished)

    if engine.gate is not None:
        # Before the lease: the application may take its time, and disturbs nobody if it refuses.
        found = await engine.state.observe_upload(upload_id)
        if found.upload is None:
            raise UploadNotFound
        await admit(found.upload, found.held)
        await engine.gate.before_terminate(found.upload, principal)
    terminating = terminate_now(engine, upload_id, admit, keeps_finished=keeps_finished)
    await engine.undisturbed(terminating, stay)


async def terminate_now(
    engine: Engine,
    upload_id: UploadId,
    admit: Admit | None = None,
    *,
    keeps_finished: bool = False,
) -> None:
    """Terminate; `admit` says who may, None: everyone. Raises: as terminate."""
    lease, upload = await engine.leases.acquire(upload_id, stay, admit=admit)
    try:
        while True:
            check_alive(engine, upload)
            _check_keeps(upload, keeps_finished=keeps_finished)
            ended = UploadState.DELETED if upload.state in FINISHED else UploadState.CANCELED
            try:
                await discard(engine, lease, upload, ended)
                return
            except LeaseLost:
                row = await engine.state.find_upload(upload_id)
                if row is None or row == upload or not _moves_without_lease(row):
                    raise
                upload = row
    finally:
        await engine.leases.release(lease)


def _check_may_end(engine: Engine, upload: Upload, principal: Principal) -> None:
    """Raise ProtocolMismatch where nobody has decided who may end a direct upload.

    Whoever has a signed URL knows its id, and was given no more than to send a part.
    """
    if upload.is_direct and not principal.is_application and engine.authorizer.takes_all:
        raise ProtocolMismatch(
            f"This upload was created with {upload.protocol}: the application ends it."
        )


def _check_keeps(upload: Upload, *, keeps_finished: bool) -> None:
    if keeps_finished and upload.state in FINISHED:
        raise IllegalStep(f"The upload is {upload.state}: it stays.", state=upload.state)


def _moves_without_lease(row: Upload) -> bool:
    """Tell whether the row may change under a lease: parts are recorded as they arrive."""
    return row.is_direct and row.state in UNFINISHED


async def discard(
    engine: Engine, lease: Lease, upload: Upload, ended: UploadState, *, note: str | None = None
) -> bool:
    """End an upload in state `ended`, then free its bytes; tell whether they are gone.

    From the first commit on nobody can use it. Raises: LeaseLost, StateUnavailable.
    """
    terminal = upload.stepped(ended, on=engine.clock.now())
    await engine.state.commit(lease, upload, terminal, steps=(ended,), note=note)
    log.info("upload.terminated", upload=upload.id, state=ended)
    if upload.is_direct:
        # Who still sends a part to this server would leave a file behind.
        await engine.turns.end_all(upload.id, wait_s=engine.leases.wait_s)
    return await free(engine, lease, terminal)


async def free(engine: Engine, lease: Lease, upload: Upload) -> bool:
    """Remove the bytes of a terminal upload; freed_at is the mark that this need not be retried.

    A store that is away is no error here: the 404 stands from the terminal commit on. Tells
    whether all is gone but what other nodes' disks have, which they sweep.
    """
    if engine.tails is not None and upload.tail is not None:
        await engine.tails.remove(replace(upload, tail=None), upload.tail)
    try:
        await engine.objects.free(upload)
    except (StoreUnavailable, StorageFull) as exc:
        log.warning("upload.not_freed", upload=upload.id, detail=exc.detail)
        return False
    # What a holder that was not heard of any more had under way may arrive after this: a second
    # pass follows then, much later.
    again = upload.unclean and upload.freed_at is None
    freed = replace(upload, unclean=again, freed_at=engine.clock.now())
    await engine.state.commit(lease, upload, freed, release=True)
    return True
