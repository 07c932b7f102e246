"""Looking at what has arrived of a direct upload, and writing it down.

Where this server receives the parts itself the rows tell; elsewhere the store is asked. A part of
another size than planned has not arrived, whatever its ETag.
"""

from dataclasses import dataclass, field, replace

from tus_server.core.states import UNFINISHED
from tus_server.core.upload import Part, Upload
from tus_server.engine.direct.lookup import get_all_planned
from tus_server.engine.engine import Engine
from tus_server.engine.lookup import find_row
from tus_server.ports import FoundPart


@dataclass(frozen=True, slots=True)
class Look:
    """The row and the parts as they were found. odd: what is there and does not fit, by number."""

    upload: Upload
    parts: list[Part]
    odd: dict[int, FoundPart] = field(default_factory=dict)

    @property
    def missing(self) -> list[Part]:
        return [part for part in self.parts if part.etag is None]


async def look(engine: Engine, upload: Upload) -> Look:
    """Find out what has arrived of a direct upload; within engine.books.of() it.

    Raises: StoreUnavailable, StateUnavailable.
    """
    if upload.state not in UNFINISHED:
        return Look(upload, await engine.state.find_parts(upload.id))
    # The rows of parts have nothing then that the plan has not; and they may be ten thousand.
    is_new = bool(upload.length) and not upload.committed_bytes
    parts = get_all_planned(upload) if is_new else await engine.state.find_parts(upload.id)
    assert engine.direct is not None
    found = await engine.direct.find_stored(upload)
    if found is None:
        if is_new:
            parts = await engine.state.find_parts(upload.id)
        return Look(await find_row(engine, upload.id), parts)
    if is_new and not found:
        # Of an upload that another process has completed meanwhile the store tells nothing.
        row = await find_row(engine, upload.id)
        if row.state not in UNFINISHED:
            return Look(row, await engine.state.find_parts(row.id))
    odd = {
        part.number: found[part.number]
        for part in parts
        if part.number in found and found[part.number].size != part.size
    }
    seen = [
        _as_found(part, None if part.number in odd else found.get(part.number)) for part in parts
    ]
    changed = [after for before, after in zip(parts, seen, strict=True) if after != before]
    if changed:
        slid = engine.expiry.slid(upload, engine.state.now())
        after = await engine.state.record_parts(upload.id, changed, expires_at=slid.expires_at)
        if after is None:  # it has ended, or was completed, meanwhile
            after = await find_row(engine, upload.id)
            seen = await engine.state.find_parts(upload.id)
        upload = after
    return Look(upload, seen, odd)


def _as_found(part: Part, found: FoundPart | None) -> Part:
    if found is None:
        return part if part.etag is None else replace(part, etag=None, crc64=None)
    return Part(part.number, part.start, part.size, found.crc64, found.etag)
