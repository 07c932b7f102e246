"""Appending a body to an upload at an offset: tus PATCH, and appends of other protocols."""

from dataclasses import dataclass

from tus_server.core.errors import (
    BodyStopped,
    BodyTooLarge,
    BytesMissing,
    LengthBelowOffset,
    LengthChanged,
    OffsetMismatch,
    TailMissing,
    UploadTooLarge,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import UNFINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.engine import Engine
from tus_server.engine.finish import fail, finish_now
from tus_server.engine.lookup import check_alive, check_for
from tus_server.engine.receive import Reception
from tus_server.engine.rewind import rewind_tail
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

    Raises: as lookup.check_for, Leases.claim and Reception.run; OffsetMismatch, LengthChanged,
    LengthBelowOffset, BodyTooLarge, UploadTooLarge, ShuttingDown: nothing has changed then.
    """
    engine.check_open()
    return await engine.undisturbed(_append(engine, command, principal, body), body.interrupt)


async def _append(engine: Engine, command: Append, principal: Principal, body: Body) -> Appended:
    async def admit(upload: Upload) -> None:
        # What no running request can change is answered before one is asked to let go.
        await check_for(engine, upload, principal, Operation.APPEND, command.protocol)
        if upload.length is not None and command.offset > upload.length:
            raise OffsetMismatch(current=upload.offset, given=command.offset)

    claim = await engine.leases.claim(
        command.upload_id, body.interrupt, offset=command.offset, admit=admit
    )
    upload, lease = claim.upload, claim.lease
    assert upload is not None
    if lease is None:
        return await _append_nothing(engine, upload, command, body)
    try:
        check_alive(upload)
        check_append(upload, command, body.size, max_size=engine.max_size)
        return await receive(engine, lease, upload, body, length=command.length)
    except TailMissing as exc:
        await _rewind_by_policy(engine, lease, upload, command, exc)
        raise
    finally:
        await engine.leases.release(lease, next_part_number=lease.numbers.start or None)


async def _append_nothing(engine: Engine, upload: Upload, command: Append, body: Body) -> Appended:
    """Answer an append to an upload that is at another offset, or has all its bytes."""
    check_alive(upload)
    if upload.state is UploadState.COMPLETED:
        # Also before a mismatch is told: its offset would say that the upload is complete (P5).
        upload = await finish_now(engine, upload.id)
    check_append(upload, command, body.size, max_size=engine.max_size)
    await _expect_no_byte(body)
    return Appended(upload)


async def _rewind_by_policy(
    engine: Engine, lease: Lease, upload: Upload, command: Append, cause: TailMissing
) -> None:
    """Give the tail up if policy says so, and let the client look at the offset again."""
    assert engine.tails is not None
    assert upload.tail is not None
    silence_counts = engine.leases.steady_s > engine.tails.node_dead_after_s
    if silence_counts and await engine.tails.may_rewind(upload.tail):
        rewound = await rewind_tail(engine, lease, upload)
        raise OffsetMismatch(current=rewound.offset, given=command.offset) from cause


async def receive(
    engine: Engine, lease: Lease, upload: Upload, body: Body, *, length: int | None
) -> Appended:
    """Receive `body` under `lease`, which ends with it. Raises: as Reception.run.

    After TailMissing the lease is still there: nothing was done under it.
    """
    reception = Reception(engine, lease, upload, body, length=length)
    try:
        appended = Appended(await reception.run(), reception.stopped)
    except TailMissing:
        raise
    except BytesMissing as exc:
        if reception.upload.state in UNFINISHED:
            await fail(engine, lease, reception.upload, exc)
        await reception.release()
        raise
    except BaseException:
        await reception.release()
        raise
    await reception.release()
    return appended


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
