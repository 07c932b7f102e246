"""Finishing: from all bytes stored to an object that is there and right.

Order: the row is `completed` (any process may go on from here), the store makes the object, the
row is `verified` with its event in the same transaction (P5, P6). Every step may be repeated.
"""

from dataclasses import replace

import structlog

from tus_server.core.errors import BytesMissing, StillFinishing, StorageFull, TryAgainError
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.engine.leases import stay
from tus_server.engine.lookup import check_alive
from tus_server.ports import Lease

log = structlog.get_logger(__name__)


async def finish(engine: Engine, lease: Lease, upload: Upload) -> Upload:
    """Make the object of a completed upload, mark it verified and end the lease.

    Raises: BytesMissing (the upload is then in state error), StoreUnavailable, StorageFull and
    StateUnavailable (it stays completed, and the recovery loop tries again).
    """
    needed = engine.objects.limits.keeps_receipts
    parts = await engine.state.find_parts(upload.id) if needed else []
    try:
        await engine.objects.complete(upload, parts, confirm=lambda: engine.leases.confirm(lease))
    except BytesMissing as exc:
        await fail(engine, lease, upload, exc)
        raise
    verified = upload.stepped(UploadState.VERIFIED, on=engine.clock.now())
    await engine.state.commit(lease, upload, verified, steps=(UploadState.VERIFIED,), release=True)
    return verified


async def fail(engine: Engine, lease: Lease, upload: Upload, error: BytesMissing) -> None:
    """Give an upload up whose committed bytes are gone for good (R3), loudly."""
    log.error("upload.bytes_missing", upload=upload.id, detail=error.detail)
    failed = replace(
        upload.stepped(UploadState.ERROR, on=engine.clock.now()),
        error_code=error.code,
        error_message=error.detail,
    )
    await engine.state.commit(lease, upload, failed, steps=(UploadState.ERROR,), release=True)


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
