"""Signing the requests by which clients send parts.

Order of effects: where the store wants a multipart upload, its id is in the row before a URL with
it is given to anybody; one whose commit failed is recovery's to remove.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from tus_server.core.errors import StorageFull, StoreUnavailable, TryAgainError
from tus_server.core.ids import UploadId
from tus_server.core.upload import Part, Upload
from tus_server.engine.direct.lookup import check_takes_parts, find_any, get_planned
from tus_server.engine.engine import Engine
from tus_server.engine.leases import stay
from tus_server.ports import Lease, Operation, Principal, SignedRequest

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 1000

Signed = list[tuple[int, SignedRequest]]


async def sign(
    engine: Engine, upload_id: UploadId, principal: Principal, numbers: Sequence[int] | None
) -> Signed:
    """Sign the requests that send parts `numbers`; None: of those that have not arrived, the first
    MOST_AT_ONCE.

    Raises: as check_takes_parts; UploadNotFound, UnknownPart, LeaseNotObtained, StoreUnavailable,
    StateUnavailable, what the authorizer raises.
    """
    upload = await find_any(engine, upload_id, principal, Operation.SIGN)
    check_takes_parts(engine, upload)
    if numbers is None:
        parts = await _find_missing(engine, upload)
    else:
        parts = [get_planned(upload, number) for number in dict.fromkeys(numbers)]
    upload = await begin(engine, upload)
    await _extend(engine, upload)
    return await _sign(engine, upload, parts)


async def sign_new(engine: Engine, upload: Upload, principal: Principal) -> Signed:
    """Sign the request that sends a single upload, of which this process has the row; nothing is
    read. Raises: as sign; StoreUnavailable, where create_begun() could not begin it.
    """
    await engine.authorizer.check(principal, Operation.SIGN, upload)
    if _is_to_begin(engine, upload):
        raise StoreUnavailable("The upload is there, and can be signed later.")
    return await _sign(engine, upload, [get_planned(upload, 1)])


async def create_begun(engine: Engine, upload: Upload) -> Upload:
    """Insert the row of an upload of which a part is signed at once, and give it, begun.

    Where the store is away it is begun when something is signed. Raises: as create_upload.
    """
    if engine.direct is None or not _is_to_begin(engine, upload):
        await engine.state.create_upload(upload, claim=False)
        return upload
    return await engine.undisturbed(_create_begun(engine, upload), stay)


async def _create_begun(engine: Engine, upload: Upload) -> Upload:
    lease = await engine.state.create_upload(upload, claim=True)
    assert lease is not None
    engine.leases.adopt(lease, stay)
    try:
        return await _begin_held(engine, lease, upload)
    except (TryAgainError, StorageFull) as exc:
        log.warning("direct.not_begun", upload=upload.id, code=exc.code, detail=exc.detail)
        return upload


async def _sign(engine: Engine, upload: Upload, parts: Sequence[Part]) -> Signed:
    assert engine.direct is not None
    expires_at = engine.clock.now() + timedelta(seconds=engine.sign_expires_s)
    requests = await engine.direct.sign_parts(upload, parts, expires_at=expires_at)
    return [(part.number, request) for part, request in zip(parts, requests, strict=True)]


async def _extend(engine: Engine, upload: Upload) -> None:
    """Let who asks for signatures keep the upload alive: of parts in another store nobody hears."""
    later = engine.expiry.slid(upload, engine.state.now()).expires_at
    if later is not None and later != upload.expires_at:
        await engine.state.record_parts(upload.id, (), expires_at=later)


async def begin(engine: Engine, upload: Upload) -> Upload:
    """Give the row of an upload to which parts can be sent. Raises: as sign."""
    if not _is_to_begin(engine, upload):
        return upload
    return await engine.undisturbed(_begin(engine, upload.id), stay)


def _is_to_begin(engine: Engine, upload: Upload) -> bool:
    return upload.multipart_id is None and engine.objects.limits.keeps_receipts


async def _begin(engine: Engine, upload_id: UploadId) -> Upload:
    lease, row = await engine.leases.acquire(upload_id, stay)
    return await _begin_held(engine, lease, row)


async def _begin_held(engine: Engine, lease: Lease, row: Upload) -> Upload:
    """Give the row, begun; the lease ends. Raises: as sign."""
    assert engine.direct is not None
    begun = False
    try:
        check_takes_parts(engine, row)
        if row.multipart_id is not None:
            return row
        begun = True
        after = replace(row, multipart_id=await engine.direct.begin(row))
        await engine.state.commit(lease, row, after, release=True)
        begun = False
        return after
    finally:
        await engine.leases.release(lease, clean=not begun)


async def _find_missing(engine: Engine, upload: Upload) -> list[Part]:
    parts = await engine.state.find_parts(upload.id)
    return [part for part in parts if part.etag is None][:MOST_AT_ONCE]
