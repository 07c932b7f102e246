"""Finding an upload for a request, and what of it no running request can change."""

from tus_server.core.errors import ProtocolMismatch, UploadGone, UploadNotFound
from tus_server.core.ids import UploadId
from tus_server.core.states import TERMINAL, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.engine import Engine
from tus_server.ports import Operation, Principal


async def find_for(
    engine: Engine,
    upload_id: UploadId,
    principal: Principal,
    operation: Operation,
    protocol: Protocol | None = None,
) -> Upload:
    """Give the upload if `principal` may do `operation` on it and it still exists.

    Raises: UploadNotFound, UploadGone, ProtocolMismatch (checks 7 and 8 of the tus page), and
    what the authorizer raises.
    """
    upload = await engine.state.find_upload(upload_id)
    if upload is None:
        raise UploadNotFound
    await check_for(engine, upload, principal, operation, protocol)
    return upload


async def check_for(
    engine: Engine,
    upload: Upload,
    principal: Principal,
    operation: Operation,
    protocol: Protocol | None = None,
) -> None:
    """Return if `principal` may do `operation` on an upload that exists. Raises: as find_for."""
    await engine.authorizer.check(principal, operation, upload)
    check_alive(upload)
    if protocol is not None:
        check_protocol(upload, protocol)


def check_protocol(upload: Upload, protocol: Protocol) -> None:
    """Raise ProtocolMismatch unless the upload was created with `protocol`."""
    if upload.protocol is not protocol:
        raise ProtocolMismatch(f"This upload was created with {upload.protocol}.")


def check_alive(upload: Upload) -> None:
    """Raise UploadGone for an expired upload, UploadNotFound for any other that has ended."""
    if upload.state is UploadState.EXPIRED:
        raise UploadGone
    if upload.state in TERMINAL:
        raise UploadNotFound
