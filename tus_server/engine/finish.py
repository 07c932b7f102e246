"""Finishing: from all bytes stored to an object that is there and right.

Order: the row is `completed` (any process may go on from here), the store makes the object, what
is in it is looked at, the row is `verified` with its event in the same transaction (P5, P6). Every
step may be repeated.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from tus_server.core.errors import (
    BytesMissing,
    ContentRefused,
    DigestMismatch,
    OperatorError,
    PartsDiffer,
    StillFinishing,
    StorageFull,
    TryAgainError,
    TusServerError,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.engine.engine import Engine
from tus_server.engine.hashing import Hashing
from tus_server.engine.leases import stay
from tus_server.engine.lookup import check_not_ended
from tus_server.engine.verify import look_at
from tus_server.ports import Lease

log = structlog.get_logger(__name__)


# A retried request for a final upload, whose first answer was lost, finds its partials for so long.
PARTIALS_S = 3600.0


async def finish(
    engine: Engine,
    lease: Lease,
    upload: Upload,
    *,
    digested: bool = False,
    parts: Sequence[Part] | None = None,
) -> Upload:
    """Make the object of a completed upload, mark it verified and end the lease.

    digested: upload.digests were computed from what was received just now. parts: the receipts as
    its row has them; None: they are looked up. Raises: BytesMissing,
    DigestMismatch, PartsDiffer and ContentRefused (the upload is then in state error),
    StoreUnavailable, StorageFull, CheckPostponed and StateUnavailable (it stays completed, and the
    recovery loop tries again).
    """
    needed = engine.objects.limits.keeps_receipts
    if parts is None:
        parts = await engine.state.find_parts(upload.id) if needed else []
    after = upload
    try:
        crc = await engine.objects.complete(
            upload, parts, confirm=lambda: engine.leases.confirm(lease)
        )
        after = replace(upload, crc64=crc)
        if upload.digests and not digested:
            after = replace(after, digests=await find_digests(engine, after))
        after = await look_at(engine, after)
    except (BytesMissing, DigestMismatch, PartsDiffer, ContentRefused) as exc:
        await fail(engine, lease, upload, exc)
        raise
    if upload.is_final and not engine.keep_partials:
        # Once its own bytes are proved; and before the last step, so that a crash forgets none.
        await engine.state.let_partials_expire(upload.id, PARTIALS_S)
    verified = after.stepped(UploadState.VERIFIED, on=engine.clock.now())
    await engine.state.commit(lease, upload, verified, steps=(UploadState.VERIFIED,), release=True)
    return verified


async def find_digests(engine: Engine, upload: Upload) -> dict[str, bytes]:
    """Give the digests of upload.digests, as the stored object has them.

    It is read, unless its CRC is all that is asked for, and known. Raises: DigestMismatch,
    BytesMissing, StoreUnavailable.
    """
    assert upload.length is not None
    if upload.crc64 is not None and set(upload.digests) == {"crc64nvme"}:
        return check_digests(upload.digests, {"crc64nvme": upload.crc64.to_bytes(8, "big")})
    hashing = Hashing(engine.threads, upload.digests)
    async with aclosing(engine.objects.read(upload, 0, upload.length)) as content:
        async for block in content:
            hashing.feed(memoryview(block))
            await hashing.taken(hashing.fed - len(block))
    await hashing.settle()
    return check_digests(upload.digests, hashing.digests())


def check_digests(
    wanted: Mapping[str, bytes | None], computed: dict[str, bytes]
) -> dict[str, bytes]:
    """Give those computed that are wanted. Raises DigestMismatch where one has to be another."""
    for algorithm, digest in wanted.items():
        if digest is not None and computed[algorithm] != digest:
            raise DigestMismatch(f"The {algorithm} digest of all bytes differs.")
    return {algorithm: computed[algorithm] for algorithm in wanted}


async def fail(engine: Engine, lease: Lease, upload: Upload, error: TusServerError) -> None:
    """Give an upload up for good, loudly where the server has lost its bytes (R3)."""
    tell = log.error if isinstance(error, OperatorError) else log.warning
    tell("upload.failed", upload=upload.id, code=error.code, detail=error.detail)
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
        check_not_ended(upload)
        if upload.state is UploadState.COMPLETED:
            return await finish(engine, lease, upload)
        return upload
    except (TryAgainError, StorageFull) as exc:
        raise StillFinishing(exc.detail) from exc
    finally:
        await engine.leases.release(lease)
