"""Receiving a part of a direct upload, where this server itself answers the signed URLs.

Order of effects: a commit says that the part is not stored (any more), its bytes are written to
their place, file and name are durable, a commit says that the part is stored, the reply. So its
place is written only while the row says that it means nothing, and no upload can be completed with
half of a part that is sent again. A part is whole or not there: of a body that was cut nothing
counts.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from tus_server.core.errors import (
    BodyInterrupted,
    BytesMissing,
    PartBusy,
    SignatureRefused,
    UnknownPart,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import UNFINISHED, UploadState
from tus_server.core.upload import Part, Upload
from tus_server.engine.direct.complete import complete_if_all_in
from tus_server.engine.direct.lookup import check_takes_parts, get_planned
from tus_server.engine.direct.pouring import pour
from tus_server.engine.engine import Engine
from tus_server.engine.finish import fail
from tus_server.engine.leases import stay
from tus_server.engine.lookup import find_row
from tus_server.ports import Body


@dataclass(frozen=True, slots=True)
class PartRequest:
    """A request to store a part. size: what it was signed for."""

    upload_id: UploadId
    number: int
    size: int


async def receive_part(engine: Engine, request: PartRequest, body: Body) -> Part:
    """Receive a part for somebody who has shown a signature; give it with its ETag, durable.

    Another request that sends the same part is asked to let go. Before the first byte is asked for,
    raises: ShuttingDown, UploadNotFound, NoDirectUpload, UploadGone, IllegalStep, UnknownPart,
    SignatureRefused (Content-Length is another); nothing has changed then. Raises also: PartBusy,
    SignatureRefused (a chunked body has another size), BodyStopped, StorageFull, StoreUnavailable,
    StateUnavailable: the part may be sent again; BytesMissing: the upload is in state error.
    """
    engine.check_open()
    part = get_planned(await _find(engine, request.upload_id), request.number)
    if part.size != request.size:
        raise UnknownPart(f"Part {request.number} of the upload has {part.size} bytes.")
    if body.size not in (None, part.size):
        raise SignatureRefused(f"The URL is for {part.size} bytes, the body has {body.size}.")
    return await engine.undisturbed(_receive(engine, request.upload_id, part, body), body.interrupt)


async def _receive(engine: Engine, upload_id: UploadId, part: Part, body: Body) -> Part:
    try:
        async with engine.turns.of(
            upload_id, part.number, body.interrupt, wait_s=engine.leases.wait_s
        ):
            engine.check_open()
            upload, stored = await _store(engine, upload_id, part, body)
    except BodyInterrupted:
        await _refuse(engine, upload_id)
    except BytesMissing as exc:
        await _give_up(engine, upload_id, exc)
        raise
    if upload.auto_complete and upload.committed_bytes == upload.length:
        engine.behind(complete_if_all_in(engine, upload))
    return stored


async def _store(
    engine: Engine, upload_id: UploadId, part: Part, body: Body
) -> tuple[Upload, Part]:
    assert engine.part_files is not None
    upload = await _find(engine, upload_id)
    if upload.state is not UploadState.INITIATED:  # some part has been stored: this one maybe
        upload = await _record(engine, upload_id, part)
    file = engine.part_files.open_part(upload, part)
    try:
        await pour(engine, body, file, part.size)
        stored = await file.finish()
    finally:
        await file.close()
    slid = engine.expiry.slid(upload, engine.state.now())
    return await _record(engine, upload_id, stored, expires_at=slid.expires_at), stored


async def _record(
    engine: Engine, upload_id: UploadId, part: Part, *, expires_at: datetime | None = None
) -> Upload:
    """Write down whether a part is stored, if that is still of use. Raises: as _refuse."""
    async with engine.books.of(upload_id):
        after = await engine.state.record_parts(upload_id, [part], expires_at=expires_at)
    if after is None:
        await _refuse(engine, upload_id)
    return after


async def _refuse(engine: Engine, upload_id: UploadId) -> NoReturn:
    """Raise what has come between a part and its row."""
    engine.check_open()
    await _find(engine, upload_id)
    raise PartBusy


async def _give_up(engine: Engine, upload_id: UploadId, error: BytesMissing) -> None:
    """End an upload of which stored parts are lost: nobody would send them again."""
    lease, row = await engine.leases.acquire(upload_id, stay)
    try:
        if row.state in UNFINISHED:
            await fail(engine, lease, row, error)
    finally:
        await engine.leases.release(lease)


async def _find(engine: Engine, upload_id: UploadId) -> Upload:
    """Give an upload that takes parts. Raises: UploadNotFound, as check_takes_parts."""
    upload = await find_row(engine, upload_id)
    check_takes_parts(engine, upload)
    return upload
