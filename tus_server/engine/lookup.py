"""Finding an upload for a request, and what of it no running request can change."""

from tus_server.core.errors import ProtocolMismatch, UploadGone, UploadNotFound
from tus_server.core.ids import UploadId
from tus_server.core.states import TERMINAL, UNFINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.engine import Engine
from tus_server.ports import Operation, Principal


async def find_row(engine: Engine, upload_id: UploadId) -> Upload:
    """Give the row as it is now, whatever its state. Raises: UploadNotFound."""
    upload = await engine.state.find_upload(upload_id)
    if upload is None:
        raise UploadNotFound
    return upload


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
    upload = await find_row(engine, upload_id)
    await check_for(engine, upload, principal, operation, protocol)
    return upload


async def check_for(
    engine: Engine,
    upload: Upload,
    principal: Principal,
    operation: Operation,
    protocol: Protocol | None = None,
    *,
    held: bool = False,
) -> None:
    """Return if `principal` may do `operation` on an upload that exists. Raises: as find_for.

    held: somebody is writing to it, so it has not expired.
    """
    await engine.authorizer.check(principal, operation, upload)
    if not held:
        check_alive(engine, upload)
    else:
        check_not_ended(upload)
    if protocol is not None:
        check_protocol(upload, protocol)


def check_protocol(upload: Upload, protocol: Protocol) -> None:
    """Raise ProtocolMismatch unless the upload was created with `protocol`."""
    if upload.protocol is not protocol:
        raise ProtocolMismatch(f"This upload was created with {upload.protocol}.")


def check_alive(engine: Engine, upload: Upload) -> None:
    """Raise UploadGone for an expired upload, swept or not, UploadNotFound for any other that has
    ended (T76).
    """
    check_not_ended(upload)
    if is_expired(engine, upload):
        raise UploadGone


def is_expired(engine: Engine, upload: Upload) -> bool:
    """Tell whether the time of an upload is over that the reaper has not been at yet.

    Of an unfinished one, or a partial one; final uploads that wait for that ask its state alone.
    """
    if upload.expires_at is None or not (upload.state in UNFINISHED or upload.is_partial):
        return False
    return upload.expires_at <= engine.state.now()


def check_not_ended(upload: Upload) -> None:
    """Raise UploadGone for an upload given up when its time was over, UploadNotFound for any other
    that has ended.
    """
    if upload.state is UploadState.EXPIRED:
        raise UploadGone
    if upload.state in TERMINAL:
        raise UploadNotFound
