"""Rows <-> values, and the named statements."""

import json
from collections.abc import Sequence
from typing import Any

from asyncpg import Record

from tus_server.core.ids import UploadId
from tus_server.core.jobs import Outcome
from tus_server.core.states import EVENTS, UploadState
from tus_server.core.upload import Part, Protocol, Tail, Upload
from tus_server.ports import Attempt, Event, Node, NodeSeen, StatusChange
from tus_server.state.crc64 import signed, unsigned, unsigned_if_known
from tus_server.state.digests import parse_digests, render_digests
from tus_server.state.instructions import (
    parse_instructions,
    parse_job,
    render_instructions,
    render_job,
)
from tus_server.state.queries import load_queries

SQL = load_queries(__package__, "queries.sql")
COLUMNS = 33  # of an upload, at the beginning of every row that has one

# Postgres has no text with U+0000. It is written as ESC 0, and ESC itself twice, where ESC is a
# character that nobody uses; any other text is stored as it is.
_ESC = "\u241b"


def stored_text(text: str | None) -> str | None:
    """Give a text as Postgres can have it."""
    if text is None or ("\0" not in text and _ESC not in text):
        return text
    return text.replace(_ESC, _ESC * 2).replace("\0", _ESC + "0")


def plain_text(stored: str | None) -> str | None:
    """Give back what stored_text() was given."""
    if stored is None or _ESC not in stored:
        return stored
    pieces = stored.split(_ESC * 2)
    return _ESC.join(piece.replace(_ESC + "0", "\0") for piece in pieces)


def _mutable(upload: Upload) -> tuple[Any, ...]:
    tail = upload.tail
    return (
        upload.state,
        upload.state_on,
        upload.length,
        upload.committed_bytes,
        signed(upload.crc64),
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
        stored_text(upload.error_message),
        upload.freed_at,
        upload.expires_at,
        render_digests(upload.digests),
        upload.completed_at,
        upload.content_type,
    )


def insert_values(upload: Upload) -> tuple[Any, ...]:
    """Give what create_upload takes of an upload."""
    return (
        upload.id,
        upload.protocol,
        upload.created_at,
        stored_text(upload.owner),
        stored_text(upload.metadata),
        stored_text(upload.concat),
        *_mutable(upload),
        upload.max_size,
        stored_text(upload.file_id),
        stored_text(upload.request_key),
        render_instructions(upload.instructions),
        upload.auto_complete,
    )


def commit_values(
    before: Upload,
    after: Upload,
    steps: tuple[UploadState, ...],
    parts: Sequence[Part],
    note: str | None,
    *,
    early: frozenset[UploadState],
) -> tuple[Any, ...]:
    """Give what commit takes of the row, and of what is written with it.

    early: states that are events beside those of states.EVENTS.
    """
    # tus 1.0.0, Concatenation: a partial upload is no event (T100).
    events = frozenset[UploadState]() if after.is_partial else EVENTS | early
    outcome, job = after.decides(before)
    return (
        *_mutable(after),
        ",".join(steps),
        ",".join(step for step in steps if step in events),
        stored_text(note),
        render_receipts(parts),
        outcome,
        render_job(job),
        before.generation,
    )


def render_receipts(parts: Sequence[Part]) -> str:
    """Give parts as JSON."""
    return json.dumps([_receipt(part) for part in parts]) if parts else "[]"


def _receipt(part: Part) -> dict[str, Any]:
    return {
        "number": part.number,
        "start": part.start,
        "size": part.size,
        "crc64": signed(part.crc64),
        "etag": part.etag,
    }


def upload(row: Record) -> Upload:
    """Give the upload at the beginning of a row."""
    return Upload(
        id=UploadId(row[0]),
        protocol=Protocol(row[1]),
        created_at=row[2],
        owner=plain_text(row[3]),
        metadata=plain_text(row[4]),
        concat=plain_text(row[5]),
        state=UploadState(row[6]),
        state_on=row[7],
        length=row[8],
        committed_bytes=row[9],
        crc64=unsigned_if_known(row[10]),
        next_part_number=row[11],
        object_key=row[12],
        multipart_id=row[13],
        part_size=row[14],
        tail=Tail(row[15], unsigned(row[16]), row[17], row[18]) if row[15] else None,
        generation=row[19],
        unclean=row[20],
        error_code=row[21],
        error_message=plain_text(row[22]),
        freed_at=row[23],
        expires_at=row[24],
        digests=parse_digests(row[25]),
        max_size=row[26],
        file_id=plain_text(row[27]),
        request_key=plain_text(row[28]),
        instructions=parse_instructions(row[29]),
        completed_at=row[30],
        content_type=row[31],
        auto_complete=row[32],
    )


def part(row: Record) -> Part:
    """Give a receipt."""
    return Part(row[0], row[1], row[2], unsigned_if_known(row[3]), row[4])


def change(row: Sequence[Any]) -> StatusChange:
    """Give a row of the history."""
    return StatusChange(UploadState(row[0]), row[1], plain_text(row[2]))


def node(row: Record) -> NodeSeen:
    """Give a node."""
    return NodeSeen(Node(row[0], row[1]), row[2])


def event(row: Record) -> Event:
    """Give a row of the outbox."""
    return Event(
        upload_id=UploadId(row[0]),
        kind=UploadState(row[1]),
        at=row[2],
        id=row[3],
        outcome=None if row[4] is None else Outcome(row[4]),
        job=parse_job(row[5]),
        attempts=row[6],
        done=frozenset(json.loads(row[7])),
        error=plain_text(row[8]),
        due_at=row[9],
        delivered_at=row[10],
        given_up_at=row[11],
    )


def render_attempts(attempts: Sequence[Attempt]) -> str:
    """Give how attempts went as JSON."""
    return json.dumps(
        [
            {
                "id": one.event.id,
                "attempts": one.event.attempts,
                "was_due": str(one.event.due_at),
                "done": json.dumps(sorted(one.done)),
                "error": stored_text(one.error),
                "retry_in_s": one.retry_in_s,
            }
            for one in attempts
        ]
    )
