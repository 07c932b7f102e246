"""Appending a body to an upload at an offset: tus PATCH, and appends of other protocols."""

from dataclasses import dataclass

from tus_server.core.errors import (
    AlreadyCompleted,
    BodyStopped,
    BodyTooLarge,
    BytesMissing,
    FinalUpload,
    LengthBelowOffset,
    LengthChanged,
    LengthInconsistent,
    MalformedRequest,
    OffsetMismatch,
    TailMissing,
    TusServerError,
    UploadTooLarge,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, UNFINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.engine import Engine
from tus_server.engine.finish import fail, finish_now
from tus_server.engine.join import join_ready
from tus_server.engine.lookup import check_alive, check_for
from tus_server.engine.receive import Reception
from tus_server.engine.rewind import rewind_tail
from tus_server.engine.terms import PLAIN, Overrun, Terms
from tus_server.engine.verdict import check_empty
from tus_server.ports import Body, Lease, Operation, Principal


@dataclass(frozen=True, slots=True)
class Append:
    """A request to append at `offset`."""

    upload_id: UploadId
    offset: int
    protocol: Protocol
    terms: Terms = PLAIN


@dataclass(frozen=True, slots=True)
class Appended:
    """The upload as committed, and why the body ended early (None: it was read to its end)."""

    upload: Upload
    stopped: BodyStopped | None = None


async def append(engine: Engine, command: Append, principal: Principal, body: Body) -> Appended:
    """Append `body` at command.offset; every refusal comes before the first byte is asked for.

    Raises: as lookup.check_for, Leases.claim and Reception.run; OffsetMismatch, LengthChanged,
    LengthBelowOffset, BodyTooLarge, UploadTooLarge, AppendTooLarge, ShuttingDown: nothing has
    changed then.
    """
    engine.check_open()
    return await engine.undisturbed(_append(engine, command, principal, body), body.interrupt)


async def _append(engine: Engine, command: Append, principal: Principal, body: Body) -> Appended:
    is_news = False

    async def admit(upload: Upload, held: bool) -> None:
        nonlocal is_news
        is_news = upload.state not in FINISHED
        # What no running request can change is answered before one is asked to let go.
        await check_for(engine, upload, principal, Operation.APPEND, command.protocol, held=held)
        if upload.is_final:
            raise FinalUpload  # tus 1.0.0, Concatenation: PATCH on a final upload is 403 (T108)
        command.terms.check_body_size(body.size)
        if upload.length is not None and command.offset > upload.length:
            raise OffsetMismatch(current=upload.offset, given=command.offset)

    claim = await engine.leases.claim(
        command.upload_id, body.interrupt, offset=command.offset, admit=admit
    )
    upload, lease = claim.upload, claim.lease
    assert upload is not None
    if lease is None:
        return await _append_nothing(engine, upload, command, body, is_news=is_news)
    terms = command.terms
    try:
        check_alive(engine, upload)
        try:
            check_append(engine, upload, command, body.size)
        except (BodyTooLarge, UploadTooLarge) as exc:
            await _refuse_overrun(engine, lease, upload, terms, exc)
        return await receive(engine, lease, upload, body, terms)
    except TailMissing as exc:
        await _rewind_by_policy(engine, lease, upload, command, exc)
        raise
    finally:
        await engine.leases.release(lease, next_part_number=lease.numbers.start or None)


async def _append_nothing(
    engine: Engine, upload: Upload, command: Append, body: Body, *, is_news: bool
) -> Appended:
    """Answer an append to an upload that is at another offset, or has all its bytes.

    is_news: it was not finished yet when the request came.
    """
    check_alive(engine, upload)
    if upload.state is UploadState.COMPLETED:
        # Also before a mismatch is told: its offset would say that the upload is complete (P5).
        upload = await finish_now(engine, upload.id)
    if command.protocol is Protocol.RUFH:
        await _check_replay(upload, command, body, is_news=is_news)
        return Appended(upload)
    check_append(engine, upload, command, body.size)
    if await _has_byte(body):
        raise BodyTooLarge("The upload is complete.")  # T122
    if command.terms.checks is not None:
        check_empty(command.terms.checks)
    return Appended(upload)


async def _check_replay(upload: Upload, command: Append, body: Body, *, is_news: bool) -> None:
    """Raise unless an append to a complete upload is one that completes it again (R58).

    is_news: nobody had been told that it is complete, so that every version lets it wait for that
    (D10).
    """
    if command.offset != upload.offset:
        raise OffsetMismatch(current=upload.offset, given=command.offset)
    if not command.terms.replays and not is_news:
        raise AlreadyCompleted
    if await _has_byte(body):
        if not command.terms.replays:
            raise AlreadyCompleted
        raise LengthInconsistent(f"The upload is complete with {upload.length} bytes.")
    if command.terms.completes is False:
        raise AlreadyCompleted


async def _refuse_overrun(
    engine: Engine, lease: Lease, upload: Upload, terms: Terms, error: TusServerError
) -> None:
    """Deal with a Content-Length that goes beyond the upload, or beyond what the server takes.

    Returns where what fits is to be kept (R60). Raises: `error`, or LengthInconsistent.
    """
    if terms.overrun is Overrun.REFUSE:
        raise error
    if isinstance(error, BodyTooLarge):
        if terms.overrun is Overrun.KEEP:
            return
        error = LengthInconsistent(error.detail)
    await fail(engine, lease, upload, error)
    raise error


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
    engine: Engine, lease: Lease, upload: Upload, body: Body, terms: Terms
) -> Appended:
    """Receive `body` under `lease`, which ends with it. Raises: as Reception.run.

    After TailMissing the lease is still there: nothing was done under it.
    """
    reception = Reception(engine, lease, upload, body, terms)
    holds = False
    try:
        appended = Appended(await reception.run(), reception.stopped)
    except TailMissing:
        holds = True
        raise
    except BodyStopped as exc:
        return Appended(reception.upload, exc)  # nothing of a body with a checksum counts
    except TusServerError as exc:
        over = reception.gives_up or isinstance(exc, BytesMissing)
        if over and reception.upload.state in UNFINISHED:
            await fail(engine, lease, reception.upload, exc)
        raise
    finally:
        if not holds:
            await reception.release()
    if appended.upload.is_partial and appended.upload.state in FINISHED:
        engine.behind(join_ready(engine, of=upload.id))
    return appended


def check_append(engine: Engine, upload: Upload, command: Append, body_size: int | None) -> None:
    """Raise what speaks against the append; body_size is the Content-Length, None if chunked."""
    # tus 1.0.0, PATCH: an offset that differs is 409 and changes nothing (T24, T25).
    if command.offset != upload.offset:
        raise OffsetMismatch(current=upload.offset, given=command.offset)
    length, terms = upload.length, command.terms
    if terms.length is not None:
        # tus 1.0.0, Upload-Defer-Length: once set, the length does not change (T60).
        if length is not None and terms.length != length:
            raise LengthChanged(f"The length is {length} bytes.")
        if terms.length < upload.offset:
            raise LengthBelowOffset(f"{upload.offset} bytes have arrived already.")
        engine.check_length(terms.length, upload)
        length = terms.length
    if length is None and terms.completes is None and command.protocol is Protocol.RUFH:
        raise MalformedRequest("Upload-Complete is needed while the length is not known.")
    if terms.completes and None not in (body_size, length):
        assert body_size is not None
        if upload.offset + body_size != length:
            raise LengthInconsistent(
                f"The upload has {length} bytes and would end at {upload.offset + body_size}."
            )
    for algorithm, digest in terms.digests.items():
        if digest is not None and upload.digests.get(algorithm) not in (None, digest):
            raise MalformedRequest(f"Another {algorithm} digest of the whole was given before.")
    if body_size is not None and length is not None and body_size > length - upload.offset:
        raise BodyTooLarge(f"{length - upload.offset} bytes are missing, the body has {body_size}.")
    if body_size is not None and length is None:
        engine.check_length(upload.offset + body_size, upload)


async def _has_byte(body: Body) -> bool:
    """Tell whether a body has any byte; of a chunked one the first is read."""
    if body.size is not None:
        return body.size > 0
    try:
        return await body.read_into(memoryview(bytearray(1))) > 0
    except BodyStopped:
        return False
