"""Signing the requests by which clients send parts.

Order of effects: where the store wants a multipart upload, its id is in the row before a URL with
it is given to anybody; one whose commit failed is recovery's to remove.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from tus_server.core.ids import UploadId
from tus_server.core.upload import Part, Upload
from tus_server.engine.direct.lookup import check_takes_parts, find_any, get_planned
from tus_server.engine.engine import Engine
from tus_server.engine.leases import stay
from tus_server.ports import Operation, Principal, SignedRequest

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
    assert engine.direct is not None
    upload = await begin(engine, upload)
    await _extend(engine, upload)
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
    if upload.multipart_id is not None or not engine.objects.limits.keeps_receipts:
        return upload
    return await engine.undisturbed(_begin(engine, upload.id), stay)


async def _begin(engine: Engine, upload_id: UploadId) -> Upload:
    assert engine.direct is not None
    lease, row = await engine.leases.acquire(upload_id, stay)
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
