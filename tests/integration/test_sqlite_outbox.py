"""What is special about the outbox, and about direct uploads, in an SQLite file."""

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fakes import FakeClock, planned_parts
from tests.support.state import create, walk
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol
from tus_server.ports import Attempt
from tus_server.state.sqlite import SqliteState
from tus_server.state.sqlite.rows import SQL
from tus_server.state.sqlite.schema import connect

S = UploadState


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def state(path: Path, clock: FakeClock) -> AsyncIterator[SqliteState]:
    async with SqliteState(path, clock) as state:
        yield state


async def test_the_id_of_an_event_is_given_once(state: SqliteState, clock: FakeClock) -> None:
    seen: list[int] = []
    for _ in range(3):
        await walk(state, clock, await create(state, clock), S.CANCELED)
        events = await state.claim_events(10, 60)
        await state.settle_events([Attempt(event, event.done) for event in events])
        seen += [event.id for event in events]
        clock.advance(100)
        await state.purge_events(10, delivered_s=60)

    assert seen == sorted(set(seen))
    assert len(seen) == 3


async def test_what_a_process_that_died_was_delivering_is_due_at_the_next_start(
    path: Path, clock: FakeClock
) -> None:
    async with SqliteState(path, clock) as died:
        upload = await walk(died, clock, await create(died, clock), S.CANCELED)
        (claimed,) = await died.claim_events(10, 3600)
        assert await died.claim_events(10, 3600) == []

    async with SqliteState(path, clock) as state:
        (again,) = await state.claim_events(10, 3600)

    assert (again.id, again.upload_id) == (claimed.id, upload.id)
    assert again.attempts == 2


async def test_a_place_that_is_used_again_holds_no_events_up(
    state: SqliteState, path: Path, clock: FakeClock
) -> None:
    first = await walk(state, clock, await create(state, clock), S.CANCELED)
    lease = (await state.claim_upload(first.id)).lease
    assert lease is not None
    await state.commit(lease, first, replace(first, freed_at=clock.now()), release=True)
    clock.advance(100)
    assert await state.purge(10, ended_s=60) == 1

    second = await walk(state, clock, await create(state, clock), S.CANCELED)

    with closing(sqlite3.connect(path)) as db:
        places = db.execute("SELECT upload_seq FROM outbox").fetchall()
    assert places == [(1,), (1,)]
    events = await state.claim_events(10, 60)
    assert [event.upload_id for event in events] == [first.id, second.id]


async def test_a_look_that_finds_nothing_to_deliver_writes_nothing(
    state: SqliteState, path: Path, clock: FakeClock
) -> None:
    await walk(state, clock, await create(state, clock), S.CANCELED)
    await state.claim_events(10, 60)
    log = path.with_name("state.db-wal")
    before = log.stat()

    assert await state.claim_events(10, 60) == []
    assert await state.purge_events(10, delivered_s=60) == 0

    after = log.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


async def test_parts_that_change_nothing_are_not_written(
    state: SqliteState, path: Path, clock: FakeClock
) -> None:
    fields = {"protocol": Protocol.MULTIPART, "length": 9, "part_size": 3}
    upload = await create(state, clock, expires_at=clock.now(), **fields)
    parts = [replace(part, etag='"e"') for part in planned_parts(upload)]
    await state.record_parts(upload.id, parts)
    log = path.with_name("state.db-wal")
    before = log.stat()

    await state.record_parts(upload.id, parts, expires_at=upload.expires_at)

    after = log.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("claim_events", "outbox_due"),
        ("claim_events", "outbox_pending_of"),
        ("purge_events", "outbox_delivered"),
        ("find_event", "PRIMARY KEY"),
        ("find_by_file_id", "uploads_by_file"),
        ("find_active", "uploads_active"),
        ("find_requested", "uploads_requested"),
        ("find_auto_complete", "uploads_auto_complete"),
        ("find_some_parts", "PRIMARY KEY"),
    ],
)
async def test_what_is_looked_for_often_is_found_by_an_index(
    path: Path, query: str, index: str
) -> None:
    with closing(connect(path, durable=True)) as db:
        names = re.findall(r":(\w+)", SQL[query])
        values = dict.fromkeys(names, 0) if names else (0,) * SQL[query].count("?")
        plan = db.execute(f"EXPLAIN QUERY PLAN {SQL[query]}", values).fetchall()

    steps = [f"{line[3]} " for line in plan]
    assert any(index in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps
    assert not any(re.match(r"SCAN (?!json_each)(?!.*INDEX)", step) for step in steps), steps
