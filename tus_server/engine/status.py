"""Telling how far an upload is: the offset reported is final."""

from tus_server.core.errors import UploadNotFound
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, UNFINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.concatenate import final_status
from tus_server.engine.engine import Engine
from tus_server.engine.finish import finish_now
from tus_server.engine.leases import stay
from tus_server.engine.lookup import check_alive, check_for
from tus_server.ports import Operation, Principal


async def status(
    engine: Engine, upload_id: UploadId, principal: Principal, protocol: Protocol
) -> Upload:
    """Give the upload once nobody is writing to it: an earlier holder is asked to let go (T125).

    Raises: as find_for; LeaseNotObtained, StillFinishing (P5), StateUnavailable.
    """
    seen = await engine.state.observe_upload(upload_id)
    upload = seen.upload
    if upload is None:
        raise UploadNotFound
    held = seen.held and upload.state in UNFINISHED
    await check_for(engine, upload, principal, Operation.STATUS, protocol, held=held)
    if upload.state in FINISHED:
        return upload
    if upload.is_final:
        return await final_status(engine, upload)
    if seen.held:
        upload = await engine.leases.settle(upload_id)
        check_alive(engine, upload)
    if upload.state is UploadState.COMPLETED:
        return await engine.undisturbed(finish_now(engine, upload_id), stay)
    return upload
