"""Rows <-> values, and every statement, on a plain connection: shared by writer and reader."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from tus_server.core.errors import LeaseLost
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Tail, Upload
from tus_server.ports import Event, StatusChange
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


def _mutable(upload: Upload) -> tuple[Any, ...]:
    tail = upload.tail
    return (
        upload.length,
        upload.committed_bytes,
        _signed(upload.crc64),
        upload.next_part_number,
        tail.length if tail else 0,
        _signed(tail.crc64) if tail else None,
        tail.node if tail else None,
        tail.generation if tail else None,
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
        tail=Tail(row[11], _unsigned(row[12]), row[13], row[14]) if row[11] else None,
        error_code=row[15],
        error_message=row[16],
        freed_at=None if row[17] is None else moment(row[17]),
    )


@cache
def _render_steps(steps: tuple[UploadState, ...]) -> str:
    return json.dumps(steps)  # one of few: the ways through the table of transitions


def insert(db: Connection, upload: Upload) -> None:
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
            *_mutable(upload),
        ),
    )


def update(
    db: Connection,
    before: Upload,
    after: Upload,
    steps: tuple[UploadState, ...],
    parts: Sequence[Part],
) -> None:
    """Replace the row; a trigger adds history and events. Raises LeaseLost, then nothing changed.

    steps: the way from before.state to after.state.
    """
    changed = db.execute(
        SQL["update_upload"],
        (
            after.state,
            microseconds(after.state_on),
            *_mutable(after),
            _render_steps(steps),
            after.id,
            before.offset,
        ),
    ).rowcount
    if changed != 1:
        raise LeaseLost
    if parts:
        db.executemany(
            SQL["insert_part"],
            [(after.id, p.number, p.start, p.size, _signed(p.crc64), p.etag) for p in parts],
        )


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
    db: Connection, limit: int, after: UploadId | None, *, receiving: bool
) -> list[Upload]:
    """Give rows a crash may have left half-way, oldest first."""
    found = db.execute(SQL["unfinished_work"], (receiving, after, limit))
    return [_upload(row) for row in found]


def history(db: Connection, upload_id: UploadId) -> list[StatusChange]:
    """Give status changes, newest first."""
    found = db.execute(SQL["history"], (upload_id,))
    return [StatusChange(UploadState(state), moment(at)) for state, at in found]


def pending_events(db: Connection, limit: int) -> list[Event]:
    """Give undelivered events, oldest first."""
    found = db.execute(SQL["pending_events"], (limit,))
    return [Event(UploadId(i), UploadState(kind), moment(at)) for i, kind, at in found]
