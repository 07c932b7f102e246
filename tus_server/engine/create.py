"""Creating an upload, with the first bytes in the same request if there are any."""

from contextlib import suppress
from dataclasses import dataclass, replace

from tus_server.core.errors import BodyTooLarge, TusServerError
from tus_server.core.ids import new_upload_id
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.append import Appended, check_length, receive
from tus_server.engine.engine import Engine
from tus_server.engine.terminate import terminate_now
from tus_server.ports import Body, Lease, Operation, Principal


@dataclass(frozen=True, slots=True)
class Create:
    """A request to create. length None: deferred. metadata: Upload-Metadata as received."""

    length: int | None
    metadata: str | None
    protocol: Protocol


async def create(engine: Engine, command: Create, principal: Principal, body: Body) -> Appended:
    """Create an upload; a body or length 0 is received at once.

    Row before object: a crash leaves a row nobody knows, never bytes nobody knows. Raises: what
    the authorizer raises; ShuttingDown, UploadTooLarge, BodyTooLarge, StateUnavailable,
    StorageFull, StoreUnavailable: no upload is left behind then, nor where the body stopped.
    """
    engine.check_open()
    await engine.authorizer.check(principal, Operation.CREATE, None)
    if command.length is not None:
        check_length(command.length, engine.max_size)
    if body.size:
        check_length(body.size, engine.max_size)
        if command.length is not None and body.size > command.length:
            raise BodyTooLarge(f"The upload has {command.length} bytes, the body {body.size}.")
    now = engine.clock.now()
    upload = Upload(
        id=new_upload_id(engine.node_label),
        protocol=command.protocol,
        state=UploadState.INITIATED,
        created_at=now,
        state_on=now,
        owner=principal.name,
        metadata=command.metadata,
        length=command.length,
    )
    upload = replace(upload, object_key=engine.objects.make_key(upload))
    if body.size == 0 and command.length != 0:
        await engine.state.create_upload(upload, claim=False)
        return Appended(upload)
    return await engine.undisturbed(_create_and_receive(engine, upload, body), body.interrupt)


async def _create_and_receive(engine: Engine, upload: Upload, body: Body) -> Appended:
    numbers = engine.objects.limits.reserved_numbers
    lease = await engine.state.create_upload(upload, claim=True, numbers=numbers)
    assert lease is not None
    engine.leases.adopt(lease, body.interrupt)
    try:
        appended = await receive(engine, lease, upload, body, length=None)
    except TusServerError:
        await _take_back(engine, lease)
        raise
    finally:
        await engine.leases.release(lease)
    if appended.stopped is not None and appended.upload.remaining != 0:
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
