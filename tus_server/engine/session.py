"""Beginning an upload for the application: a direct one, or one that a tus client sends.

The row is all there is at first, with the planned parts of a direct upload: nothing is asked of the
store before something is signed. A request that is repeated under its Idempotency-Key finds the
upload that the first one made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tus_server.core.direct import check_part_size, plan_direct
from tus_server.core.errors import (
    MalformedRequest,
    RequestKeyReused,
    RequestKeyTaken,
    UploadTooLarge,
)
from tus_server.core.upload import DIRECT, Protocol, Upload
from tus_server.engine.create import Create, create, new_upload
from tus_server.engine.direct.sign import create_begun
from tus_server.engine.engine import Engine
from tus_server.engine.terms import Terms
from tus_server.engine.wishes import Wishes
from tus_server.ports import Operation, Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Initiate:
    """A request to begin. length: in bytes; None: deferred, of one that a tus client sends.

    metadata: as in an Upload-Metadata field. digests: of the whole content, by algorithm.
    part_size: of every part but the last, of a multipart upload; None: as the server likes it.
    """

    protocol: Protocol
    length: int | None
    part_size: int | None = None
    metadata: str | None = None
    digests: Mapping[str, bytes | None] = field(default_factory=dict)
    wishes: Wishes


async def initiate(engine: Engine, command: Initiate, principal: Principal) -> Upload:
    """Begin an upload; give its row, or that of the request this one repeats.

    Raises: FileIdTaken, RequestKeyReused, JobRefused, UploadTooLarge, MalformedRequest, what the
    authorizer raises, RefusedByHook, StateUnavailable, StorageFull: nothing was created then.
    """
    wishes = command.wishes
    try:
        if command.protocol in DIRECT:
            return await _initiate_direct(engine, command, principal)
        terms = Terms(length=command.length, digests=command.digests)
        made = Create(command.metadata, command.protocol, terms, wishes=wishes)
        return (await create(engine, made, principal, _NoBody())).upload
    except RequestKeyTaken:
        assert wishes.request_key is not None
        first = await engine.state.find_requested(wishes.request_key)
        if first is None:
            raise
        if first.instructions.request_digest != wishes.instructions.request_digest:
            raise RequestKeyReused(
                f"Upload {first.id} was created with this Idempotency-Key by a request of other"
                " content: use a new key for a new upload."
            ) from None
        return first


async def _initiate_direct(engine: Engine, command: Initiate, principal: Principal) -> Upload:
    engine.check_open()
    await engine.authorizer.check(principal, Operation.CREATE, None)
    length = command.length
    if length is None:
        raise MalformedRequest("The size of a direct upload has to be known: give `size`.")
    engine.check_length(length)
    upload = replace(
        new_upload(engine, command.protocol, principal, command.metadata),
        length=length,
        part_size=_plan_part_size(engine, command, length),
        digests=command.digests,
        expires_at=engine.expiry.first(engine.state.now()),
    )
    upload = command.wishes.applied(engine, upload)
    if engine.gate is not None:
        upload = await engine.gate.before_create(upload, principal)
    if upload.protocol is Protocol.SINGLE:
        return await create_begun(engine, upload)
    await engine.state.create_upload(upload, claim=False)
    return upload


def _plan_part_size(engine: Engine, command: Initiate, length: int) -> int:
    limits, chosen = engine.objects.limits, command.part_size
    if chosen is not None and command.protocol is Protocol.MULTIPART:
        try:
            check_part_size(limits, chosen, length=length)
        except ValueError as exc:
            raise MalformedRequest(f"No part size for this upload is {chosen}: {exc}.") from exc
        return chosen
    try:
        return plan_direct(
            limits, command.protocol, length=length, preferred_size=engine.direct_part_size
        )
    except ValueError as exc:
        raise UploadTooLarge(f"The store takes no such part: {exc}; use kind multipart.") from exc


class _NoBody:
    """See ports.Body: of a request that brings no bytes."""

    size: int | None = 0

    async def read_into(self, view: memoryview) -> int:
        return 0

    def interrupt(self) -> None:
        pass
