"""Creating an upload, with the first bytes in the same request if there are any."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from tus_server.core.errors import BodyTooLarge, TusServerError
from tus_server.core.ids import new_upload_id
from tus_server.core.states import UNFINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.append import Appended, receive
from tus_server.engine.engine import Engine
from tus_server.engine.terminate import terminate_now
from tus_server.engine.terms import PLAIN, Terms
from tus_server.engine.verdict import check_empty
from tus_server.engine.wishes import Wishes
from tus_server.ports import Body, Lease, Operation, Principal


@dataclass(frozen=True, slots=True)
class Create:
    """A request to create. terms.length None: deferred.

    metadata: as in an Upload-Metadata field. is_partial: to be part of final uploads. announce:
    is awaited once the upload is durable, before the first byte of its body is asked for; who
    has heard of it may go on with it, so an interrupted creation is then not taken back. wishes: of
    the application; None: a client creates it by itself.
    """

    metadata: str | None
    protocol: Protocol
    terms: Terms = PLAIN
    is_partial: bool = False
    announce: Callable[[Upload], Awaitable[None]] | None = None
    wishes: Wishes | None = None


async def create(engine: Engine, command: Create, principal: Principal, body: Body) -> Appended:
    """Create an upload; a body or length 0 is received at once.

    Row before object: a crash leaves a row nobody knows, never bytes nobody knows. Raises: what
    authorizer and gate raise; ShuttingDown, UploadTooLarge, BodyTooLarge, AppendTooLarge,
    StateUnavailable, StorageFull, StoreUnavailable, ChecksumMismatch, DigestMismatch,
    LengthInconsistent: no upload is left behind then, nor where the body stopped, unless it was
    announced.
    """
    engine.check_open()
    await engine.authorizer.check(principal, Operation.CREATE, None)
    terms = command.terms
    terms.check_body_size(body.size)
    if terms.length is not None:
        engine.check_length(terms.length)
    if body.size:
        engine.check_length(body.size)
        if terms.length is not None and body.size > terms.length:
            raise BodyTooLarge(f"The upload has {terms.length} bytes, the body {body.size}.")
    upload = replace(
        new_upload(engine, command.protocol, principal, command.metadata),
        length=terms.length,
        concat="partial" if command.is_partial else None,
        expires_at=engine.expiry.first(engine.state.now()),
        digests=terms.digests,
    )
    if command.wishes is not None:
        upload = command.wishes.applied(engine, upload)
    if engine.gate is not None:
        upload = await engine.gate.before_create(upload, principal)
    completes = terms.length == 0 if terms.completes is None else terms.completes
    if body.size == 0 and not completes:
        if terms.checks is not None:
            check_empty(terms.checks)
        await engine.state.create_upload(upload, claim=False)
        if command.announce is not None:
            await command.announce(upload)
        return Appended(upload)
    receiving = _create_and_receive(engine, upload, command, body)
    return await engine.undisturbed(receiving, body.interrupt)


def new_upload(
    engine: Engine, protocol: Protocol, principal: Principal, metadata: str | None
) -> Upload:
    """Give the row of an upload that nobody knows yet, with what every kind of upload has."""
    now = engine.clock.now()
    upload = Upload(
        id=new_upload_id(engine.node_label),
        protocol=protocol,
        state=UploadState.INITIATED,
        created_at=now,
        state_on=now,
        owner=principal.name,
        metadata=metadata,
        max_size=engine.max_size,
    )
    return replace(upload, object_key=engine.objects.make_key(upload))


async def _create_and_receive(
    engine: Engine, upload: Upload, command: Create, body: Body
) -> Appended:
    numbers = engine.objects.limits.reserved_numbers
    lease = await engine.state.create_upload(upload, claim=True, numbers=numbers)
    assert lease is not None
    engine.leases.adopt(lease, body.interrupt)
    announced = command.announce is not None
    try:
        if command.announce is not None:
            await command.announce(upload)
        appended = await receive(engine, lease, upload, body, command.terms)
    except TusServerError:
        if not announced:
            await _take_back(engine, lease)
        raise
    finally:
        await engine.leases.release(lease)
    if appended.stopped is not None and appended.upload.state in UNFINISHED and not announced:
        await _take_back(engine, lease)
    return appended


async def _take_back(engine: Engine, lease: Lease) -> None:
    """Remove an upload whose id the client never learns (T69): nobody could go on with it.

    Not after a cancellation: a thread may still write, and recovery at start cuts that.
    """
    # Released first: it may have ended with a commit whose outcome was not heard of.
    await engine.leases.release(lease)
    with suppress(TusServerError):
        await terminate_now(engine, lease.upload_id)
