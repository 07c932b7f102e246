"""Rows <-> values, and every statement, on a plain connection: shared by writer and reader."""

import json
import sqlite3
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from tus_server.core.errors import LeaseLost
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Tail, Upload
from tus_server.ports import Event, StatusChange
from tus_server.state.outcome import has_become
from tus_server.state.queries import load_queries

SQL = load_queries(__package__, "queries.sql")
_SIGN = 1 << 63
_WRAP = 1 << 64

Connection = sqlite3.Connection


def microseconds(moment: datetime) -> int:
    """Give an aware time as microseconds since 1970."""
    return round(moment.timestamp() * 1e6)


def moment(microseconds: int) -> datetime:
    """Give microseconds since 1970 as an aware time."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def _signed(crc64: int) -> int:
    return crc64 - _WRAP if crc64 >= _SIGN else crc64


def _unsigned(stored: int) -> int:
    return stored + _WRAP if stored < 0 else stored


class Change(NamedTuple):
    """A commit, as the thread that writes it needs it.

    release: the lease ends. held: it goes on, and has set part numbers aside. may_repeat: the row
    may be `after` already. now: microseconds since 1970.
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


def _received(upload: Upload) -> tuple[Any, ...]:
    return upload.length, upload.committed_bytes, _signed(upload.crc64)


def _kept(upload: Upload) -> tuple[Any, ...]:
    tail = upload.tail
    return (
        upload.next_part_number,
        upload.object_key,
        upload.multipart_id,
        upload.part_size,
        tail.length if tail else 0,
        _signed(tail.crc64) if tail else None,
        tail.node if tail else None,
        tail.generation if tail else None,
        upload.generation,
        upload.unclean,
        upload.error_code,
        upload.error_message,
        None if upload.freed_at is None else microseconds(upload.freed_at),
    )


def _upload(row: tuple[Any, ...]) -> Upload:
    return Upload(
        id=UploadId(row[0]),
        protocol=Protocol(row[1]),
        state=UploadState(row[2]),
        created_at=moment(row[3]),
        state_on=moment(row[4]),
        owner=row[5],
        metadata=row[6],
        length=row[7],
        committed_bytes=row[8],
        crc64=_unsigned(row[9]),
        next_part_number=row[10],
        object_key=row[11],
        multipart_id=row[12],
        part_size=row[13],
        tail=Tail(row[14], _unsigned(row[15]), row[16], row[17]) if row[14] else None,
        generation=row[18],
        unclean=bool(row[19]),
        error_code=row[20],
        error_message=row[21],
        freed_at=None if row[22] is None else moment(row[22]),
    )


@cache
def _render_steps(steps: tuple[UploadState, ...]) -> str:
    return json.dumps(steps)  # one of few: the ways through the table of transitions


def begin_run(db: Connection) -> tuple[int, set[UploadId]]:
    """Give the number of this run, and the uploads that an earlier one held and never released."""
    (number,) = db.execute(SQL["begin_run"]).fetchone()
    return number, {UploadId(row[0]) for row in db.execute(SQL["held_uploads"])}


def insert(db: Connection, upload: Upload, *, held: bool) -> None:
    """Insert the row; a trigger adds its first history row."""
    db.execute(
        SQL["insert_upload"],
        (
            upload.id,
            upload.protocol,
            upload.state,
            microseconds(upload.created_at),
            microseconds(upload.state_on),
            upload.owner,
            upload.metadata,
            *_received(upload),
            *_kept(upload),
            held,
        ),
    )


def mark_claimed(db: Connection, claims: Sequence[tuple[Upload, bool]]) -> None:
    """Write down what claims have changed in rows; with each, whether numbers were set aside."""
    db.executemany(
        SQL["mark_claimed"],
        [(row.next_part_number, row.generation, row.unclean, held, row.id) for row, held in claims],
    )


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
    after = change.after
    if change.may_repeat and _took_effect(db, change):
        return
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
            change.before.offset,
        ),
    ).rowcount
    if changed != 1:
        if _took_effect(db, change):
            return
        raise LeaseLost
    if change.parts:
        db.executemany(
            SQL["insert_part"],
            [(after.id, p.number, p.start, p.size, _signed(p.crc64), p.etag) for p in change.parts],
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
    return None if row is None else _upload(row)


def select(
    db: Connection, states: frozenset[UploadState] | None, limit: int, before: UploadId | None
) -> list[Upload]:
    """Give rows, newest first."""
    wanted = None if states is None else json.dumps(sorted(states))
    found = db.execute(SQL["list_uploads"], {"states": wanted, "before": before, "limit": limit})
    return [_upload(row) for row in found]


def find_parts(db: Connection, upload_id: UploadId) -> list[Part]:
    """Give the receipts of an upload, by start."""
    found = db.execute(SQL["find_parts"], (upload_id,))
    return [Part(number, start, size, _unsigned(c), etag) for number, start, size, c, etag in found]


def unfinished(
    db: Connection,
    limit: int,
    after: UploadId | None,
    *,
    receiving: bool,
    freed_before: int,
    held: Container[UploadId],
) -> list[Upload]:
    """Give rows a crash may have left half-way, oldest first, without those in `held`.

    freed_before: microseconds since 1970; of unclean terminal rows, those freed since then wait.
    """
    found: list[Upload] = []
    text = SQL["unfinished_work" if receiving else "work_to_recover"]
    query = db.execute(text, {"after": after, "freed_before": freed_before})
    while len(found) < limit and (row := query.fetchone()) is not None:
        if row[0] not in held:
            found.append(_upload(row))
    query.close()
    return found


def history(db: Connection, upload_id: UploadId) -> list[StatusChange]:
    """Give status changes, newest first."""
    found = db.execute(SQL["history"], (upload_id,))
    return [StatusChange(UploadState(state), moment(at), note) for state, at, note in found]


def pending_events(db: Connection, limit: int) -> list[Event]:
    """Give undelivered events, oldest first."""
    found = db.execute(SQL["pending_events"], (limit,))
    return [Event(UploadId(i), UploadState(kind), moment(at)) for i, kind, at in found]
