"""Telling how far an upload is: the offset reported is final."""

from tus_server.core.errors import StillFinishing, StorageFull, TryAgainError
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.engine import Engine
from tus_server.engine.finish import finish
from tus_server.engine.leases import stay
from tus_server.engine.lookup import check_alive, find_for
from tus_server.ports import Operation, Principal


async def status(
    engine: Engine, upload_id: UploadId, principal: Principal, protocol: Protocol
) -> Upload:
    """Give the upload once nobody is writing to it: an earlier holder is asked to let go (T125).

    Raises: as find_for; LeaseNotObtained, StillFinishing (P5), StateUnavailable.
    """
    upload = await find_for(engine, upload_id, principal, Operation.STATUS, protocol)
    if upload.state in FINISHED:
        return upload
    await engine.leases.settle(upload_id)
    # Read again: a holder may have committed and gone while the authorizer was thinking.
    upload = await engine.state.find_upload(upload_id) or upload
    check_alive(upload)
    if upload.state is UploadState.COMPLETED:
        return await engine.undisturbed(finish_now(engine, upload_id), stay)
    return upload


async def finish_now(engine: Engine, upload_id: UploadId) -> Upload:
    """Finish an upload whose bytes are all stored, if nobody else does.

    Raises: StillFinishing where that does not succeed now; BytesMissing.
    """
    lease, upload = await engine.leases.acquire(upload_id, stay)
    try:
        check_alive(upload)
        if upload.state is UploadState.COMPLETED:
            return await finish(engine, lease, upload)
        return upload
    except (TryAgainError, StorageFull) as exc:
        raise StillFinishing(exc.detail) from exc
    finally:
        await engine.leases.release(lease)
