"""Rows <-> values, and every statement, on a plain connection: shared by writer and reader."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from tus_server.core.errors import FileIdTaken, LeaseLost, RequestKeyTaken
from tus_server.core.ids import UploadId
from tus_server.core.states import UNFINISHED, UploadState
from tus_server.core.upload import Part, Protocol, Tail, Upload
from tus_server.state.crc64 import signed, unsigned, unsigned_if_known
from tus_server.state.digests import parse_digests, render_digests
from tus_server.state.instructions import parse_instructions, render_instructions
from tus_server.state.outcome import has_become
from tus_server.state.queries import load_queries

SQL = load_queries(__package__, "queries.sql")

Connection = sqlite3.Connection


def microseconds(moment: datetime) -> int:
    """Give an aware time as microseconds since 1970."""
    return round(moment.timestamp() * 1e6)


def moment(microseconds: int) -> datetime:
    """Give microseconds since 1970 as an aware time."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


class Change(NamedTuple):
    """A commit, as the thread that writes it needs it.

    release: the lease ends. held: it goes on, and has set part numbers aside. may_repeat: the row
    may be `after` already. now: microseconds since 1970. is_early: the first step is an event, too.
    """

    before: Upload
    after: Upload
    steps: tuple[UploadState, ...]
    parts: Sequence[Part]
    note: str | None
    release: bool
    held: bool
    may_repeat: bool
    now: int
    is_early: bool = False


def _received(upload: Upload) -> tuple[Any, ...]:
    return upload.length, upload.committed_bytes, signed(upload.crc64)


def _kept(upload: Upload) -> tuple[Any, ...]:
    tail = upload.tail
    return (
        upload.next_part_number,
        upload.object_key,
        upload.multipart_id,
        upload.part_size,
        tail.length if tail else 0,
        signed(tail.crc64) if tail else None,
        tail.node if tail else None,
        tail.generation if tail else None,
        upload.generation,
        upload.unclean,
        upload.error_code,
        upload.error_message,
        None if upload.freed_at is None else microseconds(upload.freed_at),
        None if upload.expires_at is None else microseconds(upload.expires_at),
        render_digests(upload.digests),
        None if upload.completed_at is None else microseconds(upload.completed_at),
        upload.content_type,
    )


def upload(row: tuple[Any, ...]) -> Upload:
    return Upload(
        id=UploadId(row[0]),
        protocol=Protocol(row[1]),
        concat=row[2],
        state=UploadState(row[3]),
        created_at=moment(row[4]),
        state_on=moment(row[5]),
        owner=row[6],
        metadata=row[7],
        length=row[8],
        committed_bytes=row[9],
        crc64=unsigned_if_known(row[10]),
        next_part_number=row[11],
        object_key=row[12],
        multipart_id=row[13],
        part_size=row[14],
        tail=Tail(row[15], unsigned(row[16]), row[17], row[18]) if row[15] else None,
        generation=row[19],
        unclean=bool(row[20]),
        error_code=row[21],
        error_message=row[22],
        freed_at=None if row[23] is None else moment(row[23]),
        expires_at=None if row[24] is None else moment(row[24]),
        digests=parse_digests(row[25]),
        max_size=row[26],
        file_id=row[27],
        request_key=row[28],
        instructions=parse_instructions(row[29]),
        completed_at=None if row[30] is None else moment(row[30]),
        content_type=row[31],
        auto_complete=bool(row[32]),
    )


@cache
def _render_steps(steps: tuple[UploadState, ...]) -> str:
    return json.dumps(steps)  # one of few: the ways through the table of transitions


def begin_run(db: Connection) -> tuple[int, set[UploadId]]:
    """Give the number of this run, and the uploads that an earlier one held and never released."""
    (number,) = db.execute(SQL["begin_run"]).fetchone()
    db.execute(SQL["forget_claims"])
    return number, {UploadId(row[0]) for row in db.execute(SQL["held_uploads"])}


def insert(
    db: Connection,
    upload: Upload,
    *,
    held: bool,
    partials: Sequence[UploadId] = (),
    is_news: bool = False,
) -> None:
    """Insert the row, and what it consists of; a trigger adds its first history row.

    is_news: its creation is an event. Raises: FileIdTaken, RequestKeyTaken; nothing was changed.
    """
    _check_unique(db, upload)
    db.execute(
        SQL["insert_upload"],
        (
            upload.id,
            upload.protocol,
            upload.concat,
            upload.state,
            microseconds(upload.created_at),
            microseconds(upload.state_on),
            upload.owner,
            upload.metadata,
            *_received(upload),
            *_kept(upload),
            upload.max_size,
            upload.file_id,
            upload.request_key,
            render_instructions(upload.instructions),
            upload.auto_complete,
            held,
        ),
    )
    if upload.is_direct:
        db.execute(SQL["insert_planned_parts"], {"id": upload.id})
    if is_news:
        db.execute(SQL["insert_early_event"], {"id": upload.id, "kind": upload.state})
    if partials:
        members = [(upload.id, position, one) for position, one in enumerate(partials, 1)]
        db.executemany(SQL["insert_member"], members)


def _check_unique(db: Connection, upload: Upload) -> None:
    """Raise what a unique index would refuse, with the row that it would refuse it for.

    A look in the thread that alone writes, so nothing comes between it and the insert.
    """
    if upload.request_key is not None:
        first = db.execute(SQL["find_requested"], (upload.request_key,)).fetchone()
        if first is not None:
            raise RequestKeyTaken(upload=first[0])
    if upload.file_id is not None:
        first = db.execute(SQL["find_active"], (upload.file_id,)).fetchone()
        if first is not None:
            raise FileIdTaken(
                f"Upload {first[0]} of this file_id is {first[3]}.",
                upload=first[0],
                state=first[3],
            )


def record_parts(
    db: Connection,
    upload_id: UploadId,
    parts: Sequence[Part],
    *,
    expires_at: int | None,
    now: int,
    is_news: bool,
) -> Upload | None:
    """Write down what has arrived of a direct upload; None: it takes no parts any more."""
    before = find(db, upload_id)
    if before is None or not before.is_direct or before.state not in UNFINISHED:
        return None
    told = {part.number: (signed(part.crc64), part.etag) for part in parts}
    about = {"id": upload_id, "numbers": json.dumps(list(told))}
    moved, new = 0, []
    for number, size, *had in db.execute(SQL["find_some_parts"], about):
        crc, etag = told[number]
        if [crc, etag] != had:
            new.append((crc, etag, upload_id, number))
            moved += size * ((etag is not None) - (had[1] is not None))
    if not new and not _is_later(expires_at, before.expires_at):
        return before
    db.executemany(SQL["record_part"], new)
    begins = any(etag is not None for _, etag, *_ in new)
    values = {
        "id": upload_id,
        "moved": moved,
        "begins": begins,
        "expires_at": expires_at,
        "now": now,
    }
    after = upload(db.execute(SQL["move_direct"], values).fetchone())
    if is_news and begins and before.state is UploadState.INITIATED:
        db.execute(SQL["insert_early_event"], {"id": upload_id, "kind": UploadState.RECEIVING})
    return after


def _is_later(told: int | None, known: datetime | None) -> bool:
    return told is not None and known is not None and told > microseconds(known)


class Mark(NamedTuple):
    """What a claim changes in a row. generation: None: it was taken from nobody."""

    upload_id: UploadId
    next_part_number: int
    generation: int | None
    held: bool


def mark_claimed(db: Connection, marks: Sequence[Mark]) -> list[Upload]:
    """Write down what claims have changed in rows; give those as they are then."""
    found = []
    for mark in marks:
        found.append(upload(db.execute(SQL["mark_claimed"], mark._asdict()).fetchone()))
    return found


def mark_released(
    db: Connection, upload_id: UploadId, next_part_number: int | None, *, unclean: bool
) -> None:
    """Write down the end of a lease."""
    values = {"id": upload_id, "next_part_number": next_part_number, "unclean": unclean}
    db.execute(SQL["mark_released"], values)


def update(db: Connection, change: Change) -> None:
    """Replace the row; a trigger adds history and events.

    Raises LeaseLost, then nothing was changed.
    """
    after, before = change.after, change.before
    if change.may_repeat and _took_effect(db, change):
        return
    if change.is_early:
        values = {
            "id": after.id,
            "kind": change.steps[0],
            "at": microseconds(after.state_on),
            "offset": before.offset,
            "was": before.state,
            "generation": before.generation,
        }
        db.execute(SQL["insert_first_event"], values)
    changed = db.execute(
        SQL["update_upload"],
        (
            after.state,
            microseconds(after.state_on),
            *_received(after),
            change.release,
            *_kept(after),
            change.held,
            _render_steps(change.steps),
            after.id,
            before.offset,
            before.state,
            before.generation,
        ),
    ).rowcount
    if changed != 1:
        if _took_effect(db, change):
            return
        raise LeaseLost
    if change.parts:
        db.executemany(
            SQL["insert_part"],
            [(after.id, p.number, p.start, p.size, signed(p.crc64), p.etag) for p in change.parts],
        )
    if change.note is not None:
        query = SQL["note_last_step" if change.steps else "add_note"]
        db.execute(query, {"id": after.id, "note": change.note, "at": change.now})


def _took_effect(db: Connection, change: Change) -> bool:
    """Tell whether this is the repetition of a change that is there already; end its lease too."""
    found = find(db, change.after.id)
    if found is None or not has_become(found, change.after, release=change.release):
        return False
    if not change.held:
        mark_released(db, change.after.id, None, unclean=False)
    return True


def find(db: Connection, upload_id: UploadId) -> Upload | None:
    """Give the row, or None."""
    row = db.execute(SQL["find_upload"], (upload_id,)).fetchone()
    return None if row is None else upload(row)


def find_parts(db: Connection, upload_id: UploadId) -> list[Part]:
    """Give the receipts of an upload, by start."""
    found = db.execute(SQL["find_parts"], (upload_id,))
    return [
        Part(number, start, size, unsigned_if_known(crc), etag)
        for number, start, size, crc, etag in found
    ]
