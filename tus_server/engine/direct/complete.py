"""Completing a direct upload: the client says that all parts are there, and a look agrees.

Order of effects: what has arrived is in the rows; one commit makes the upload `completed`, from
which any process may go on; then it is finished like any other (engine/finish.py), behind the
reply. What does not agree is a conflict, and changes nothing: the client sends what is missing, and
says so again.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tus_server.core.checksums import EMPTY_CRC64, combine_crc64
from tus_server.core.errors import (
    IllegalStep,
    LeaseLost,
    MalformedRequest,
    PartsDiffer,
    UnknownPart,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, TERMINAL, UploadState
from tus_server.core.upload import Part, Upload
from tus_server.engine.direct.look import Look, look
from tus_server.engine.direct.lookup import check_takes_parts, find_any
from tus_server.engine.engine import Engine
from tus_server.engine.finish import finish_now
from tus_server.engine.leases import stay
from tus_server.ports import Operation, Principal

CRC64 = "crc64nvme"
LOOK_AGAIN_S = 0.5
_DONE = FINISHED | {UploadState.COMPLETED}


@dataclass(frozen=True, slots=True)
class Reported:
    """A part as the client reports it. etag: None: not told. crc64: its CRC-64/NVME, if told."""

    number: int
    etag: str | None = None
    crc64: int | None = None


async def complete(
    engine: Engine,
    upload_id: UploadId,
    principal: Principal,
    reported: Sequence[Reported] | None = None,
    *,
    wait_s: float = 0.0,
) -> Upload:
    """Complete a direct upload; give its row, after at most `wait_s` for the verification.

    reported: every part; None: whatever has arrived. Repeating it gives the row as it is by then,
    also of an upload that has ended since. A server that stops waits no longer.
    Raises: UploadNotFound, NoDirectUpload, UploadGone, IllegalStep, PartsDiffer, UnknownPart,
    MalformedRequest, LeaseNotObtained, StoreUnavailable, StateUnavailable.
    """
    upload = await find_any(engine, upload_id, principal, Operation.COMPLETE)
    if upload.is_direct and upload.state in TERMINAL and await _was_completed(engine, upload):
        return upload
    if not (upload.is_direct and upload.state in _DONE):
        check_takes_parts(engine, upload)
        upload = await _complete(engine, upload, reported)
    if upload.state is UploadState.COMPLETED:
        finishing = engine.behind(_finish(engine, upload_id))
        if wait_s > 0:
            upload = await _wait_for_end(engine, upload, finishing, wait_s=wait_s)
    return upload


async def complete_if_all_in(engine: Engine, upload: Upload) -> None:
    """Complete an upload that is to complete by itself, if every part has arrived.

    Raises: as complete, but what it is in the nature of things to come too early or too late for.
    """
    if not upload.auto_complete or upload.committed_bytes != upload.length:
        return
    try:
        completed = await _complete(engine, upload, None)
    except (PartsDiffer, IllegalStep):
        return
    if completed.state is UploadState.COMPLETED:
        await _finish(engine, upload.id)


def complete_behind(engine: Engine, upload: Upload) -> None:
    """Let an upload that was just looked at complete by itself, if that is to be; no waiting."""
    if upload.auto_complete and upload.committed_bytes == upload.length:
        engine.behind(complete_if_all_in(engine, upload))


async def _was_completed(engine: Engine, upload: Upload) -> bool:
    history = await engine.state.history(upload.id)
    return any(change.state is UploadState.COMPLETED for change in history)


async def _wait_for_end(
    engine: Engine, upload: Upload, finishing: "asyncio.Task[None]", *, wait_s: float
) -> Upload:
    """Give the row once it is completed no longer, or `wait_s` have passed, or the server stops."""
    row: Upload | None = upload
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s), engine.until_closing() as closing:
            await asyncio.wait({finishing, closing}, return_when=asyncio.FIRST_COMPLETED)
            while not closing.done():
                row = await engine.state.find_upload(upload.id)
                if row is None or row.state is not UploadState.COMPLETED:
                    break
                # Another process is at it, or it is tried again later.
                await asyncio.wait({closing}, timeout=LOOK_AGAIN_S)
    return row or upload


async def _complete(engine: Engine, upload: Upload, reported: Sequence[Reported] | None) -> Upload:
    async with engine.books.of(upload.id):
        return await engine.undisturbed(_look_and_commit(engine, upload, reported), stay)


async def _look_and_commit(
    engine: Engine, upload: Upload, reported: Sequence[Reported] | None
) -> Upload:
    seen = await look(engine, upload)
    if seen.upload.state in _DONE:
        return seen.upload
    check_takes_parts(engine, seen.upload)
    by_number = {part.number: part for part in reported or ()}
    if reported is not None:
        _check_numbers(seen, reported)
    for part in seen.parts:
        _compare(part, by_number.get(part.number), seen)
    completed = _completed(seen, by_number)
    return await _commit(engine, seen.upload, completed)


async def _commit(engine: Engine, seen: Upload, completed: Upload) -> Upload:
    lease, row = await engine.leases.acquire(seen.id, stay)
    try:
        if row.state in _DONE:
            return row
        check_takes_parts(engine, row)
        # A part that was sent since the look is not what was compared; it moves the generation.
        if row.generation != seen.generation:
            raise PartsDiffer("Parts were sent while the upload was being completed: try again.")
        after = replace(row, crc64=completed.crc64, digests=completed.digests)
        steps = (UploadState.COMPLETED,)
        after = after.stepped(*steps, on=engine.clock.now())
        try:
            await engine.state.commit(lease, row, after, steps=steps, release=True)
        except LeaseLost as exc:
            raise PartsDiffer("Parts were sent while the upload was being completed.") from exc
        return after
    finally:
        await engine.leases.release(lease)


async def _finish(engine: Engine, upload_id: UploadId) -> None:
    await finish_now(engine, upload_id)


def _check_numbers(seen: Look, reported: Sequence[Reported]) -> None:
    """Raise unless the client reports every part, once."""
    numbers = [part.number for part in reported]
    planned = {part.number for part in seen.parts}
    for number in numbers:
        if number not in planned:
            raise UnknownPart(f"The upload has parts 1 to {len(planned)}, not {number}.")
    if len(set(numbers)) != len(numbers):
        raise MalformedRequest("A part is reported twice.")
    left_out = planned.difference(numbers)
    if left_out:
        first = min(left_out)
        raise PartsDiffer(
            f"Part {first} is not among those reported; {len(left_out)} of {len(planned)} are not.",
            part=first,
        )


def _compare(part: Part, told: Reported | None, seen: Look) -> None:
    """Raise PartsDiffer unless a part has arrived, and is what the client reports."""
    number = part.number
    if part.etag is None:
        odd = seen.odd.get(number)
        if odd is None:
            raise PartsDiffer(f"Part {number} has not arrived: sign it and send it.", part=number)
        raise PartsDiffer(
            f"Part {number} has {odd.size} bytes, not {part.size}: send it again.", part=number
        )
    if told is None:
        return
    if told.etag is not None and told.etag.strip('"') != part.etag.strip('"'):
        raise PartsDiffer(
            f"Part {number} has the ETag {part.etag}, not the one reported: send it again, or"
            " report what its PUT was answered with.",
            part=number,
        )
    if told.crc64 is not None and part.crc64 not in (None, told.crc64):
        raise PartsDiffer(f"Part {number} has another checksum than reported.", part=number)


def _completed(seen: Look, told: dict[int, Reported]) -> Upload:
    """Give what the parts tell of the whole: what its CRC is, or has to be found to be."""
    upload = seen.upload
    known = _combined([(part.crc64, part.size) for part in seen.parts])
    if known is not None:
        return replace(upload, crc64=known)
    upload = replace(upload, crc64=None)
    reported = [told.get(part.number, Reported(part.number)).crc64 for part in seen.parts]
    promised = _combined(
        [
            (part.crc64 if one is None else one, part.size)
            for part, one in zip(seen.parts, reported, strict=True)
        ]
    )
    if promised is None or all(one is None for one in reported):
        return upload
    return upload.with_digests({CRC64: promised.to_bytes(8, "big")})


def _combined(crcs: list[tuple[int | None, int]]) -> int | None:
    """Give the CRC of parts, each with its size, laid end to end; None where one is not known."""
    whole = EMPTY_CRC64
    for crc, size in crcs:
        if crc is None:
            return None
        whole = combine_crc64(whole, crc, size)
    return whole
