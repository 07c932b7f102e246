"""Finding rows of many uploads, on a plain connection: shared by writer and reader."""

import json
from collections.abc import Container, Sequence

from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.ports import Event, StatusChange
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


def pending_events(db: Connection, limit: int) -> list[Event]:
    """Give undelivered events, oldest first."""
    found = db.execute(rows.SQL["pending_events"], (limit,))
    return [Event(UploadId(i), UploadState(kind), rows.moment(at)) for i, kind, at in found]


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
