"""Finding rows of many uploads, on a plain connection: shared by writer and reader."""

import json
from collections.abc import Container, Sequence
from typing import Any

from tus_server.core.ids import UploadId
from tus_server.core.jobs import Outcome
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.ports import Event, Letters, StatusChange
from tus_server.state.instructions import parse_job
from tus_server.state.sqlite import rows
from tus_server.state.sqlite.rows import Connection


def select(
    db: Connection, states: frozenset[UploadState] | None, limit: int, before: UploadId | None
) -> list[Upload]:
    """Give rows, newest first."""
    wanted = None if states is None else json.dumps(sorted(states))
    found = db.execute(
        rows.SQL["list_uploads"], {"states": wanted, "before": before, "limit": limit}
    )
    return [rows.upload(row) for row in found]


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
    text = rows.SQL["unfinished_work" if receiving else "work_to_recover"]
    query = db.execute(text, {"after": after, "freed_before": freed_before})
    while len(found) < limit and (row := query.fetchone()) is not None:
        if row[0] not in held:
            found.append(rows.upload(row))
    query.close()
    return found


def history(db: Connection, upload_id: UploadId) -> list[StatusChange]:
    """Give status changes, newest first."""
    found = db.execute(rows.SQL["history"], (upload_id,))
    return [StatusChange(UploadState(state), rows.moment(at), note) for state, at, note in found]


def histories(db: Connection, upload_ids: Sequence[UploadId]) -> dict[UploadId, list[StatusChange]]:
    """Give the status changes of each, newest first."""
    found: dict[UploadId, list[StatusChange]] = {}
    for upload_id, state, at, note in db.execute(
        rows.SQL["histories"], (json.dumps(list(upload_ids)),)
    ):
        change = StatusChange(UploadState(state), rows.moment(at), note)
        found.setdefault(UploadId(upload_id), []).append(change)
    return found


def pending_events(db: Connection, limit: int) -> list[Event]:
    """Give undelivered events, oldest first."""
    return [event(row) for row in db.execute(rows.SQL["pending_events"], (limit,))]


def list_events(
    db: Connection, kind: Letters, limit: int, before: int | None, upload_id: UploadId | None
) -> list[Event]:
    """Give events of a kind, newest first."""
    values = {"kind": kind, "limit": limit, "before": before, "upload_id": upload_id}
    return [event(row) for row in db.execute(rows.SQL["list_events"], values)]


def find_event(db: Connection, event_id: int) -> Event | None:
    """Give one event."""
    row = db.execute(rows.SQL["find_event"], (event_id,)).fetchone()
    return None if row is None else event(row)


def event(row: tuple[Any, ...]) -> Event:
    """Give a row of the outbox."""
    due_at, delivered_at, given_up_at = (
        None if moment is None else rows.moment(moment) for moment in row[9:12]
    )
    return Event(
        upload_id=UploadId(row[0]),
        kind=UploadState(row[1]),
        at=rows.moment(row[2]),
        id=row[3],
        outcome=None if row[4] is None else Outcome(row[4]),
        job=parse_job(row[5]),
        attempts=row[6],
        done=frozenset(json.loads(row[7])),
        error=row[8],
        due_at=due_at,
        delivered_at=delivered_at,
        given_up_at=given_up_at,
    )


def by_file_id(db: Connection, file_id: str, limit: int, before: UploadId | None) -> list[Upload]:
    """Give uploads of a file_id, newest first."""
    values = {"file_id": file_id, "limit": limit, "before": before}
    return [rows.upload(row) for row in db.execute(rows.SQL["find_by_file_id"], values)]


def one(db: Connection, query: str, value: str) -> Upload | None:
    """Give the only row that a query of one value can have."""
    row = db.execute(rows.SQL[query], (value,)).fetchone()
    return None if row is None else rows.upload(row)


def auto_complete(db: Connection, limit: int, after: UploadId | None) -> list[Upload]:
    """Give unfinished direct uploads that are to complete by themselves."""
    values = {"limit": limit, "after": after}
    return [rows.upload(row) for row in db.execute(rows.SQL["find_auto_complete"], values)]


def find_all(db: Connection, upload_ids: Sequence[UploadId]) -> dict[UploadId, Upload]:
    """Give the rows that exist."""
    found = map(rows.upload, db.execute(rows.SQL["find_uploads"], (json.dumps(list(upload_ids)),)))
    return {upload.id: upload for upload in found}


def partials(db: Connection, upload_id: UploadId) -> list[Upload]:
    """Give what a final upload consists of, in order."""
    return [rows.upload(row) for row in db.execute(rows.SQL["find_partials"], (upload_id,))]


def expired(db: Connection, limit: int, after: UploadId | None, *, now: int) -> list[Upload]:
    """Give rows whose time is over at `now`, microseconds since 1970."""
    values = {"limit": limit, "after": after, "now": now}
    return [rows.upload(row) for row in db.execute(rows.SQL["find_expired"], values)]


def kept_longer(
    db: Connection, limit: int, after: UploadId | None, *, finished_before: int
) -> list[Upload]:
    """Give what was finished before then, in microseconds since 1970."""
    values = {"limit": limit, "after": after, "finished_before": finished_before}
    return [rows.upload(row) for row in db.execute(rows.SQL["find_kept_longer"], values)]


def ready_finals(
    db: Connection, limit: int, after: UploadId | None, of: UploadId | None
) -> list[UploadId]:
    """Give final uploads that wait for no partial any more, oldest first."""
    values = {"limit": limit, "after": after, "of": of}
    found = db.execute(rows.SQL["ready_finals"], values)
    return [UploadId(row[0]) for row in found]
