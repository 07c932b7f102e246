"""Appending a body to an upload at an offset: tus PATCH, and appends of other protocols."""

from dataclasses import dataclass

from tus_server.core.errors import (
    BodyStopped,
    BodyTooLarge,
    BytesMissing,
    LengthBelowOffset,
    LengthChanged,
    OffsetMismatch,
    UploadTooLarge,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, UNFINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.engine import Engine
from tus_server.engine.finish import fail, finish
from tus_server.engine.lookup import check_alive, find_for
from tus_server.engine.receive import Reception
from tus_server.ports import Body, Lease, Operation, Principal


@dataclass(frozen=True, slots=True)
class Append:
    """A request to append. length: what it says about a deferred length, None if nothing."""

    upload_id: UploadId
    offset: int
    length: int | None
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Appended:
    """The upload as committed, and why the body ended early (None: it was read to its end)."""

    upload: Upload
    stopped: BodyStopped | None = None


async def append(engine: Engine, command: Append, principal: Principal, body: Body) -> Appended:
    """Append `body` at command.offset; every refusal comes before the first byte is asked for.

    Raises: as lookup.find_for, Leases.acquire and Reception.run; OffsetMismatch, LengthChanged,
    LengthBelowOffset, BodyTooLarge, UploadTooLarge, ShuttingDown: nothing has changed then.
    """
    engine.check_open()
    upload = await find_for(
        engine, command.upload_id, principal, Operation.APPEND, command.protocol
    )
    if upload.state in FINISHED:
        check_append(upload, command, body.size, max_size=engine.max_size)
        await _expect_no_byte(body)
        return Appended(upload)
    # What no running request can change is answered before the lease is asked for.
    if upload.length is not None and command.offset > upload.length:
        raise OffsetMismatch(current=upload.offset, given=command.offset)
    return await engine.undisturbed(_append(engine, command, body), body.interrupt)


async def _append(engine: Engine, command: Append, body: Body) -> Appended:
    lease, upload = await engine.leases.acquire(command.upload_id, body.interrupt)
    try:
        check_alive(upload)
        check_append(upload, command, body.size, max_size=engine.max_size)
        if upload.state in UNFINISHED:
            return await receive(engine, lease, upload, body, length=command.length)
        await _expect_no_byte(body)
        if upload.state is UploadState.COMPLETED:
            upload = await finish(engine, lease, upload)
        return Appended(upload)
    finally:
        await engine.leases.release(lease)


async def receive(
    engine: Engine, lease: Lease, upload: Upload, body: Body, *, length: int | None
) -> Appended:
    """Receive `body` under `lease`, which ends with it. Raises: as Reception.run."""
    reception = Reception(engine, lease, upload, body, length=length)
    try:
        return Appended(await reception.run(), reception.stopped)
    except BytesMissing as exc:
        if reception.upload.state in UNFINISHED:
            await fail(engine, lease, reception.upload, exc)
        raise


def check_append(upload: Upload, command: Append, body_size: int | None, *, max_size: int) -> None:
    """Raise what speaks against the append; body_size is the Content-Length, None if chunked."""
    # tus 1.0.0, PATCH: an offset that differs is 409 and changes nothing (T24, T25).
    if command.offset != upload.offset:
        raise OffsetMismatch(current=upload.offset, given=command.offset)
    length = upload.length
    if command.length is not None:
        # tus 1.0.0, Upload-Defer-Length: once set, the length does not change (T60).
        if length is not None and command.length != length:
            raise LengthChanged(f"The length is {length} bytes.")
        if command.length < upload.offset:
            raise LengthBelowOffset(f"{upload.offset} bytes have arrived already.")
        check_length(command.length, max_size)
        length = command.length
    if body_size is not None and length is not None and body_size > length - upload.offset:
        raise BodyTooLarge(f"{length - upload.offset} bytes are missing, the body has {body_size}.")
    if body_size is not None and length is None:
        check_length(upload.offset + body_size, max_size)


def check_length(length: int, max_size: int) -> None:
    """Raise UploadTooLarge for more than the server takes (T44, T62)."""
    if length > max_size:
        raise UploadTooLarge(f"The largest upload taken has {max_size} bytes.")


async def _expect_no_byte(body: Body) -> None:
    """Refuse a chunked body for an upload that has all its bytes (T122)."""
    if body.size is None:
        try:
            count = await body.read_into(memoryview(bytearray(1)))
        except BodyStopped:
            return
        if count:
            raise BodyTooLarge("The upload is complete.")
