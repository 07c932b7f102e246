"""Final uploads: partial ones joined in order (tus 1.0.0, Concatenation).

The row of a final upload says what it consists of; engine/join.py makes its bytes of theirs.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tus_server.core.errors import (
    Forbidden,
    TusServerError,
    UnusablePartial,
    UploadGone,
    UploadNotFound,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, TERMINAL, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.create import new_upload
from tus_server.engine.engine import Engine
from tus_server.engine.join import join_if_ready
from tus_server.engine.lookup import check_alive, is_expired
from tus_server.engine.terms import Checks
from tus_server.engine.verdict import check_empty
from tus_server.ports import Operation, Principal

# What takes longer goes on behind the reply (T109).
NORMAL_S = 10.0


@dataclass(frozen=True, slots=True)
class Concatenate:
    """A request to create a final upload. concat: Upload-Concat as received.

    partials: what it names, in order; None for a URL that names no upload of ours. checks: of the
    body of the request, which is empty (T92).
    """

    concat: str
    partials: Sequence[UploadId | None]
    metadata: str | None
    checks: Checks | None = None


async def concatenate(engine: Engine, command: Concatenate, principal: Principal) -> Upload:
    """Create a final upload; done on return where that takes at most NORMAL_S.

    Raises: UnusablePartial, UploadTooLarge, ChecksumMismatch, what the authorizer and engine.gate
    raise, StateUnavailable, StorageFull: nothing was created then.
    """
    engine.check_open()
    await engine.authorizer.check(principal, Operation.CREATE, None)
    if command.checks is not None:
        check_empty(command.checks)
    partials = await _find_partials(engine, command, principal)
    engine.check_length(sum(partial.length or 0 for partial in partials))
    # Without a time of its own: it expires with its partials.
    upload = replace(
        new_upload(engine, Protocol.TUS, principal, command.metadata),
        concat=command.concat,
        length=_sum(partials),
    )
    if engine.gate is not None:
        upload = await engine.gate.before_create(upload, principal)
    ids = [partial.id for partial in partials]
    await engine.state.create_upload(upload, claim=False, partials=ids)
    # The last of them may have been finished while it was created: so always look, not only if
    # all were before.
    await asyncio.wait({engine.behind(join_if_ready(engine, upload.id))}, timeout=NORMAL_S)
    try:
        return await engine.state.find_upload(upload.id) or upload
    except TusServerError:
        return upload  # it is there; how far it is, a HEAD tells


async def final_status(engine: Engine, upload: Upload) -> Upload:
    """Give an unfinished final upload with its length, as far as that can be told (T112).

    Raises: UploadGone, UploadNotFound (one of its partials is lost: T105).
    """
    if upload.state is not UploadState.INITIATED:
        return upload
    partials = await engine.state.find_partials(upload.id)
    for partial in partials:
        if partial.state in FINISHED:
            continue  # whatever its time: it is needed, so the reaper spares it
        check_alive(engine, partial)
    return replace(upload, length=_sum(partials))


async def _find_partials(
    engine: Engine, command: Concatenate, principal: Principal
) -> list[Upload]:
    """Give the rows of what the request names. Raises: UnusablePartial."""
    ids = {upload_id for upload_id in command.partials if upload_id is not None}
    rows = await engine.state.find_uploads(sorted(ids))
    partials = []
    for place, upload_id in enumerate(command.partials, 1):
        row = None if upload_id is None else rows.get(upload_id)
        if row is None or not await _may_use(engine, row, principal):
            raise UnusablePartial(f"URL {place} of Upload-Concat names no partial upload.")
        partials.append(row)
    return partials


async def _may_use(engine: Engine, row: Upload, principal: Principal) -> bool:
    """Tell whether `principal` may use an upload as a part; another's is as if unknown (T118)."""
    if not row.is_partial or row.state in TERMINAL or is_expired(engine, row):
        return False
    try:
        await engine.authorizer.check(principal, Operation.CONCATENATE, row)
    except (Forbidden, UploadNotFound, UploadGone):
        return False
    return True


def _sum(partials: list[Upload]) -> int | None:
    lengths = [partial.length for partial in partials]
    return None if None in lengths else sum(length for length in lengths if length is not None)
