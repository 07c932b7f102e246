"""What is special about state in an SQLite file, and about the data directory around it."""

import asyncio
import fcntl
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.conftest import SmallDisk, soon
from tests.support.fakes import FakeClock, make_upload, settle
from tests.support.state import claim, create, row, walk
from tus_server.core.checksums import crc64
from tus_server.core.errors import (
    DataDirInUse,
    DataDirUnusable,
    LeaseLost,
    SchemaMismatch,
    StateUnavailable,
    StorageFull,
    TusServerError,
)
from tus_server.core.ids import UploadId
from tus_server.core.jobs import Outcome
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Tail, Upload
from tus_server.datadir import DataDir, find_server
from tus_server.ports import Attempt, Letters
from tus_server.state.sqlite import SqliteReader, SqliteState
from tus_server.state.sqlite.rows import SQL, microseconds, moment
from tus_server.state.sqlite.schema import APPLICATION_ID, VERSION, connect
from tus_server.state.sqlite.writer import Writer

S = UploadState
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


# --- group commit


class Ledger:
    """A writer over a table of numbers, what it told SQLite, and a way to keep it busy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statements: list[str] = []
        self.writer = Writer(self._connect)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("CREATE TABLE number (n INTEGER PRIMARY KEY)")
        db.execute(
            "CREATE TABLE named (n INTEGER REFERENCES number (n) DEFERRABLE INITIALLY DEFERRED)"
        )
        db.set_trace_callback(self.statements.append)
        return db

    def insert(self, number: int) -> "asyncio.Future[None]":
        return self.writer.submit(lambda db: _insert(db, number))

    def break_commit(self) -> "asyncio.Future[None]":
        """Submit what SQLite accepts until the end of the transaction."""

        def operation(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO named VALUES (-1)")

        return self.writer.submit(operation)

    def numbers(self) -> list[int]:
        """Give what another connection sees: the committed rows."""
        with closing(sqlite3.connect(self.path)) as db:
            return [row[0] for row in db.execute("SELECT n FROM number ORDER BY n")]


@asynccontextmanager
async def busy(writer: Writer) -> AsyncIterator[None]:
    """Keep the thread busy, so that all that is submitted meanwhile waits."""
    begun, gate = threading.Event(), threading.Event()

    def wait(db: sqlite3.Connection) -> None:
        begun.set()
        gate.wait(20)

    writer.submit(wait)
    await asyncio.to_thread(begun.wait, 20)
    yield
    await settle()
    gate.set()


def _insert(db: sqlite3.Connection, number: int) -> None:
    db.execute("INSERT INTO number VALUES (?)", (number,))


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.writer.start()
    yield ledger
    await ledger.writer.close()


async def outcomes(futures: list["asyncio.Future[None]"]) -> list[type]:
    return [type(one) for one in await soon(asyncio.gather(*futures, return_exceptions=True))]


async def test_what_a_future_tells_of_is_committed(ledger: Ledger) -> None:
    for number in range(3):
        await ledger.insert(number)
        assert ledger.numbers() == list(range(number + 1))


async def test_all_that_waits_is_committed_together(ledger: Ledger) -> None:
    async with busy(ledger.writer):
        futures = [ledger.insert(number) for number in range(100)]

    await soon(asyncio.gather(*futures))

    assert ledger.numbers() == list(range(100))
    assert ledger.statements.count("COMMIT") <= 3


async def test_a_refused_operation_does_not_harm_those_that_wait_with_it(ledger: Ledger) -> None:
    async with busy(ledger.writer):
        futures = [ledger.insert(number) for number in (1, 2, 2, 3, 1, 4)]

    assert await outcomes(futures) == [
        type(None),
        type(None),
        StateUnavailable,
        type(None),
        StateUnavailable,
        type(None),
    ]
    assert ledger.numbers() == [1, 2, 3, 4]


async def test_a_lost_race_does_not_harm_those_that_wait_with_it(ledger: Ledger) -> None:
    def lose(db: sqlite3.Connection) -> None:
        raise LeaseLost

    async with busy(ledger.writer):
        futures = [ledger.insert(1), ledger.writer.submit(lose), ledger.insert(2)]

    assert await outcomes(futures) == [type(None), LeaseLost, type(None)]
    assert ledger.numbers() == [1, 2]


async def test_a_refused_operation_leaves_nothing_of_itself(ledger: Ledger) -> None:
    def half(db: sqlite3.Connection) -> None:
        _insert(db, 7)
        _insert(db, 7)

    futures = [ledger.insert(1), ledger.writer.submit(half)]

    assert await outcomes(futures) == [type(None), StateUnavailable]
    assert ledger.numbers() == [1]


async def test_when_the_commit_fails_nobody_is_told_of_success(ledger: Ledger) -> None:
    async with busy(ledger.writer):
        futures = [ledger.insert(1), ledger.break_commit(), ledger.insert(2)]

    assert await outcomes(futures) == [StateUnavailable] * 3
    assert ledger.numbers() == []

    await ledger.insert(3)
    assert ledger.numbers() == [3]


@pytest.mark.parametrize("error", [OverflowError, UnicodeEncodeError, KeyError])
async def test_an_operation_with_a_defect_does_not_stop_the_writer(
    ledger: Ledger, error: type[Exception]
) -> None:
    def fail(db: sqlite3.Connection) -> None:
        _insert(db, 7)
        if error is UnicodeEncodeError:
            "\udcff".encode()
        raise error

    async with busy(ledger.writer):
        futures = [ledger.insert(1), ledger.writer.submit(fail), ledger.insert(2)]
    found = await outcomes(futures)

    assert found[1] is not type(None)
    await soon(ledger.insert(3))
    assert 3 in ledger.numbers()
    assert 7 not in ledger.numbers()


async def test_bookkeeping_runs_even_when_nobody_waits_any_more(ledger: Ledger) -> None:
    told: list[BaseException | None] = []
    future = ledger.writer.submit(
        lambda db: _insert(db, 1), lambda result, error: told.append(error)
    )
    future.cancel()

    await ledger.insert(2)

    assert told == [None]
    assert ledger.numbers() == [1, 2]


async def test_results_come_in_the_order_of_submission(ledger: Ledger) -> None:
    order: list[int] = []
    futures = [
        ledger.writer.submit(
            lambda db, n=number: n, lambda result, error, n=number: order.append(n)
        )
        for number in range(50)
    ]

    await soon(asyncio.gather(*futures))

    assert order == list(range(50))


async def test_closing_runs_what_was_submitted_and_refuses_the_rest(ledger: Ledger) -> None:
    last = ledger.insert(1)
    await ledger.writer.close()

    await last
    assert ledger.numbers() == [1]
    with pytest.raises(StateUnavailable, match="closed"):
        await ledger.insert(2)


async def test_a_row_the_constraints_refuse_does_not_harm_the_others(
    state: SqliteState, clock: FakeClock
) -> None:
    uploads = [make_upload(clock) for _ in range(3)]
    leases = [await state.create_upload(upload, claim=True) for upload in uploads]
    rows = [upload.with_bytes(3, 1) for upload in uploads]
    rows[1] = rows[1].with_length(2)  # beyond its length

    found = await asyncio.gather(
        *(state.commit(*args) for args in zip(leases, uploads, rows, strict=True)),
        return_exceptions=True,
    )

    assert [type(one) for one in found] == [type(None), StateUnavailable, type(None)]
    assert [await state.find_upload(one.id) for one in uploads] == [rows[0], uploads[1], rows[2]]


async def test_an_id_is_taken_once(state: SqliteState, clock: FakeClock) -> None:
    upload = make_upload(clock)
    await state.create_upload(upload, claim=False)

    with pytest.raises(StateUnavailable):
        await state.create_upload(upload, claim=True)

    assert not (await state.observe_upload(upload.id)).held
    assert await state.find_upload(upload.id) == upload


# --- leases in memory and in the file


@asynccontextmanager
async def statements(state: SqliteState) -> AsyncIterator[list[str]]:
    """Give what SQLite is told to change from now on."""
    told: list[str] = []
    await state._run(lambda db: db.set_trace_callback(told.append))
    yield told
    await state._run(lambda db: db.set_trace_callback(None))
    told[:] = [one for one in told if one.startswith(("INSERT", "UPDATE", "DELETE"))]


async def test_a_lease_without_part_numbers_is_never_written_down(
    state: SqliteState, clock: FakeClock
) -> None:
    upload = make_upload(clock)
    await state.create_upload(upload, claim=False)

    async with statements(state) as told:
        for _ in range(3):
            lease = await claim(state, upload)
            await state.release(lease, next_part_number=lease.numbers.start)
            assert (await state.claim_upload(upload.id, offset=7)).lease is None
            await state.observe_upload(upload.id)
            [(_, lease)] = await state.claim_unfinished(1, receiving=True)
            await state.release(lease)

    assert told == []


async def test_a_claim_with_part_numbers_is_one_statement_and_so_is_its_commit(
    state: SqliteState, clock: FakeClock
) -> None:
    upload = make_upload(clock)
    await state.create_upload(upload, claim=False)

    async with statements(state) as told:
        lease = await claim(state, upload, numbers=4)
        before = await row(state, upload)
        await state.commit(lease, before, before.with_bytes(1, 1), release=True)
        await state.release(lease)

    assert len(set(told)) == 2  # a statement is told of again when it fires a trigger


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("numbers", [0, 4])
async def test_a_cancelled_claim_leaves_no_lease_behind(
    path: Path, clock: FakeClock, numbers: int, turns: int
) -> None:
    upload = make_upload(clock)
    async with SqliteState(path, clock) as state:
        await state.create_upload(upload, claim=False)
    async with SqliteState(path, clock) as state:  # nothing is in memory: the claim has to read
        attempt = asyncio.ensure_future(state.claim_upload(upload.id, numbers=numbers))
        for _ in range(turns):
            await asyncio.sleep(0)
        await cancel(state, attempt)
        if not attempt.cancelled():  # it was quicker
            await state.release(attempt.result().lease)

        lease = await claim(state, upload, numbers=4)

        assert lease.numbers.start in (1, 1 + numbers)
        await state.release(lease)


async def cancel(state: SqliteState, attempt: "asyncio.Future[Any]") -> None:
    """Cancel and wait until nothing of it is under way."""
    attempt.cancel()
    await asyncio.wait({attempt})
    await state.check()
    await settle()


@pytest.mark.parametrize("what", ["claim", "claim_unfinished"])
async def test_a_claim_cancelled_when_it_was_written_down_leaves_no_lease_behind(
    state: SqliteState, clock: FakeClock, what: str
) -> None:
    upload = make_upload(clock)
    await state.create_upload(upload, claim=False)
    attempt: asyncio.Future[Any]
    if what == "claim":
        attempt = asyncio.ensure_future(state.claim_upload(upload.id, numbers=4))
    else:
        attempt = asyncio.ensure_future(state.claim_unfinished(5, receiving=True, numbers=4))
    # What memory knows changes when the write is delivered, one turn before the caller hears.
    while (await now_in_memory(state, upload)).next_part_number == 1:
        assert not attempt.done()
    await cancel(state, attempt)
    assert attempt.cancelled()

    found = await state.claim_upload(upload.id, numbers=4)

    assert found.lease is not None
    assert found.lease.numbers == range(5, 9)


async def now_in_memory(state: SqliteState, upload: Upload) -> Upload:
    await asyncio.sleep(0)
    return state._cache[upload.id]


async def test_a_lease_whose_end_cannot_be_written_down_counts_as_its_holder_having_died(
    state: SqliteState, clock: FakeClock
) -> None:
    upload = make_upload(clock)
    await state.create_upload(upload, claim=False)
    lease = await claim(state, upload, numbers=4)
    await refuse_updates(state)
    with pytest.raises(StateUnavailable):
        await state.release(lease, next_part_number=1)
    with pytest.raises(StateUnavailable):
        await state.claim_upload(upload.id, numbers=4)
    await allow_updates(state)

    assert (await state.observe_upload(upload.id)).held
    found = await state.claim_upload(upload.id, numbers=4)

    assert found.lease is not None
    assert found.lease.numbers == range(5, 9)
    assert found.upload == replace(
        upload, next_part_number=9, generation=found.lease.epoch, unclean=True
    )


async def refuse_updates(state: SqliteState) -> None:
    await state._run(
        lambda db: db.execute(
            "CREATE TEMP TRIGGER refuse BEFORE UPDATE ON uploads"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    )


async def allow_updates(state: SqliteState) -> None:
    await state._run(lambda db: db.execute("DROP TRIGGER refuse"))


async def test_a_lease_that_a_killed_server_had_is_taken_over_by_the_next(
    path: Path, clock: FakeClock
) -> None:
    upload, idle = make_upload(clock), make_upload(clock)
    async with SqliteState(path, clock) as state:
        await state.create_upload(upload, claim=True, numbers=4)
        await state.create_upload(idle, claim=True)

    async with SqliteState(path, clock) as state:
        claims = await state.claim_unfinished(10, receiving=False)
        [(found, lease)] = claims

    assert found == replace(upload, next_part_number=5, generation=lease.epoch, unclean=True)
    async with SqliteState(path, clock) as state:  # and that one without having said so
        assert (await state.claim_upload(upload.id)).upload == found


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("unfinished_work", "uploads_unfinished"),
        ("work_to_recover", "uploads_to_recover"),
        ("held_uploads", "uploads_"),
        ("find_expired", "uploads_expiring"),
        ("find_kept_longer", "uploads_finished"),
        ("ready_finals", "uploads_awaiting"),
        ("purge", "uploads_ended"),
    ],
)
async def test_what_is_looked_for_in_the_background_is_found_by_an_index_of_few_rows(
    path: Path, query: str, index: str
) -> None:
    with closing(connect(path, durable=True)) as db:
        values: dict[str, object] = dict.fromkeys(re.findall(r":(\w+)", SQL[query]), 0)
        plan = db.execute(f"EXPLAIN QUERY PLAN {SQL[query]}", values).fetchall()

    steps = [line[3] for line in plan]
    assert any(index in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps
    assert not any(re.match(r"SCAN (?!json_each)(?!.*INDEX)", step) for step in steps), steps


# --- rows in memory and in the file


async def test_a_claim_that_has_to_read_never_gives_a_row_that_was_replaced_meanwhile(
    state: SqliteState, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tus_server.state.sqlite.store.CACHED_ROWS", 1)
    upload = make_upload(clock)
    lease = await state.create_upload(upload, claim=True)
    assert lease is not None
    await state.create_upload(make_upload(clock), claim=False)  # pushes the row out of memory
    after = upload.with_bytes(3, crc64(b"abc"))

    async with busy(state._writer):
        claiming = asyncio.ensure_future(state.claim_upload(upload.id))
        await settle()
        committing = asyncio.ensure_future(state.commit(lease, upload, after, release=True))
    claim = await soon(claiming)
    await soon(committing)

    # Whoever gets a lease with an old row cuts committed bytes off as excess.
    assert claim.lease is None or claim.upload == after


async def test_rows_pushed_out_of_memory_are_read_again(
    state: SqliteState, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tus_server.state.sqlite.store.CACHED_ROWS", 2)
    uploads = [make_upload(clock, length=n) for n in range(6)]
    for upload in uploads:
        await state.create_upload(upload, claim=False)

    for upload in uploads:
        assert await state.find_upload(upload.id) == upload
        claim = await state.claim_upload(upload.id)
        assert claim.upload == upload
        assert claim.lease is not None


async def test_rows_changed_behind_the_memory_are_changed_or_gone_in_it_too(
    state: SqliteState, clock: FakeClock
) -> None:
    steps = (S.COMPLETED, S.VERIFIED)
    one = await walk(state, clock, await create(state, clock, concat="partial"), *steps)
    final = make_upload(clock, concat="final;...")
    await state.create_upload(final, claim=False, partials=[one.id])
    assert one.id in state._cache

    letting = asyncio.ensure_future(state.let_partials_expire(final.id, 60))
    lease = await claim(state, one)  # from memory, before the answer
    await letting
    assert state._cache[one.id].expires_at is not None
    ended = (await row(state, one)).stepped(S.EXPIRED, on=clock.now())
    ended = replace(ended, freed_at=clock.now())
    await state.commit(lease, one, ended, steps=(S.EXPIRED,), release=True)
    await walk(state, clock, final, S.CANCELED)
    clock.advance(100)
    assert await state.purge(10, ended_s=60) == 1

    assert one.id not in state._cache
    assert await state.find_upload(one.id) is None


async def test_a_purge_leaves_what_is_held_in_memory_alone(
    state: SqliteState, clock: FakeClock
) -> None:
    upload = await walk(state, clock, await create(state, clock), S.CANCELED)
    lease = await claim(state, upload)
    freed = replace(upload, freed_at=clock.now())
    await state.commit(lease, upload, freed)
    clock.advance(100)

    assert await state.purge(10, ended_s=60) == 0
    await state.release(lease)
    assert await state.purge(10, ended_s=60) == 1


async def test_after_a_purge_of_unknown_outcome_the_file_is_asked(
    state: SqliteState, clock: FakeClock
) -> None:
    upload = await create(state, clock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SQL, "purge", "SELECT * FROM nowhere")
        with pytest.raises(StateUnavailable):
            await state.purge(10, ended_s=60)

    assert not state._cache
    assert await row(state, upload) == upload


@given(st.integers(0, 4_102_444_800_000_000))  # to the year 2100
def test_a_time_is_stored_to_the_microsecond(since_1970: int) -> None:
    aware = EPOCH + timedelta(microseconds=since_1970)

    assert microseconds(aware) == since_1970
    assert moment(since_1970) == aware


# --- opening the file


def test_every_commit_is_synced_before_it_is_reported(path: Path) -> None:
    with closing(connect(path, durable=True)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_relaxed_durability_drops_the_sync_of_a_commit_only(path: Path) -> None:
    with closing(connect(path, durable=False)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 1  # NORMAL


def test_a_file_of_the_current_schema_is_opened_as_it_is(path: Path) -> None:
    connect(path, durable=True).close()
    before = schema_of(path)

    connect(path, durable=True).close()

    assert schema_of(path) == before


def schema_of(path: Path) -> list[tuple[str, str | None]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def make_database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def normal(schema: list[tuple[str, str | None]]) -> list[tuple[str, str]]:
    """Give a schema without what has no meaning in it."""
    without_comments = [(name, re.sub("--.*", "", sql or "")) for name, sql in schema]
    return [(name, re.sub(r'[\s"]+', "", sql)) for name, sql in without_comments]


def write_schema(path: Path, version: int) -> None:
    """Make a database as an earlier version of this server did."""
    script = Path(__file__).with_name(f"sqlite_schema_{version}.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(script)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", range(1, VERSION))
def test_migrations_lead_to_the_schema_of_a_new_file(path: Path, version: int) -> None:
    new = path.with_name("new.db")
    write_schema(path, version)

    connect(path, durable=True).close()
    connect(new, durable=True).close()

    assert normal(schema_of(path)) == normal(schema_of(new))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == VERSION


async def test_a_file_of_the_first_version_keeps_all_it_has(path: Path, clock: FakeClock) -> None:
    write_schema(path, 1)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"""
            INSERT INTO uploads (seq, id, protocol, state, created_at, state_on, owner, metadata,
                length, committed_bytes, crc64, next_part_number)
            VALUES (3, '{"a" * 32}', 'tus', 'receiving', 1000000, 2000000, 'ann', 'n YQ==', 9, 3,
                -2, 2);
            INSERT INTO upload_parts VALUES ('{"a" * 32}', 1, 0, 3, -2, NULL);
            INSERT INTO uploads (seq, id, protocol, state, created_at, state_on)
            VALUES (7, '{"b" * 32}', 'tus', 'initiated', 1, 1);
            UPDATE uploads SET state = 'canceled', steps = '["canceled"]' WHERE seq = 7;
        """)

    async with SqliteState(path, clock) as state:
        receiving, ended = (await state.list_uploads(None, 10))[::-1]
        assert receiving == Upload(
            id=UploadId("a" * 32),
            protocol=Protocol.TUS,
            state=S.RECEIVING,
            created_at=EPOCH + timedelta(seconds=1),
            state_on=EPOCH + timedelta(seconds=2),
            owner="ann",
            metadata="n YQ==",
            length=9,
            committed_bytes=3,
            crc64=2**64 - 2,
            next_part_number=2,
        )
        assert await state.find_parts(receiving.id) == [Part(1, 0, 3, 2**64 - 2, None)]
        assert [one.state for one in await state.history(ended.id)] == [S.CANCELED, S.INITIATED]
        assert [one.upload_id for one in await state.pending_events(10)] == [ended.id]
        found = [one for one, _ in await state.claim_unfinished(10, receiving=True)]
        assert found == [receiving, ended]
        new = make_upload(clock)
        await state.create_upload(new, claim=False)
        assert (await state.list_uploads(None, 1)) == [new]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_file_from_before_the_extensions_keeps_all_it_has(
    path: Path, clock: FakeClock
) -> None:
    write_schema(path, 2)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"""
            INSERT INTO uploads (seq, id, protocol, state, created_at, state_on, length,
                committed_bytes, tail_length, tail_crc64, tail_node, tail_generation, object_key)
            VALUES (3, '{"a" * 32}', 'tus', 'receiving', 1000000, 2000000, 9, 3, 2, -2, 'n', 1,
                'key');
            INSERT INTO upload_parts VALUES ('{"a" * 32}', 1, 0, 3, -2, 'etag');
            INSERT INTO uploads (seq, id, protocol, state, created_at, state_on, length)
            VALUES (7, '{"b" * 32}', 'tus', 'completed', 1, 1, 0);
            UPDATE uploads SET state = 'verified', steps = '["verified"]' WHERE seq = 7;
        """)

    async with SqliteState(path, clock) as state:
        receiving, done = (await state.list_uploads(None, 10))[::-1]
        assert receiving == Upload(
            id=UploadId("a" * 32),
            protocol=Protocol.TUS,
            state=S.RECEIVING,
            created_at=EPOCH + timedelta(seconds=1),
            state_on=EPOCH + timedelta(seconds=2),
            length=9,
            committed_bytes=3,
            tail=Tail(2, 2**64 - 2, "n", 1),
            object_key="key",
        )
        assert (receiving.concat, receiving.expires_at, receiving.digests) == (None, None, {})
        assert receiving.max_size is None
        assert await state.find_parts(receiving.id) == [Part(1, 0, 3, 2**64 - 2, "etag")]
        assert [one.state for one in await state.history(done.id)] == [S.VERIFIED, S.COMPLETED]
        assert [one.upload_id for one in await state.pending_events(10)] == [done.id]
        assert await state.find_expired(10) == []
        assert await state.find_kept_longer(10, kept_s=60) == [done]
        lease = await claim(state, receiving)
        after = replace(receiving, expires_at=EPOCH, tail=None).stepped(S.CANCELED, on=EPOCH)
        await state.commit(lease, receiving, after, steps=(S.CANCELED,))
        assert len(await state.pending_events(10)) == 2
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_file_from_before_direct_uploads_keeps_all_it_has(
    path: Path, clock: FakeClock
) -> None:
    lives = {
        "r": ("receiving", "NULL"),
        "v": ("verified", "NULL"),
        "p": ("verified", "'partial'"),
        "f": ("verified", "'final;/p'"),
        "c": ("canceled", "NULL"),
        "x": ("expired", "'partial'"),
    }
    write_schema(path, 3)
    with closing(sqlite3.connect(path)) as db:
        for seq, (name, (state_now, concat)) in enumerate(lives.items(), 1):
            values = f"{seq}, '{name * 32}', 'tus', 'initiated', {seq}, {seq}, {concat}, 3, 3, -2"
            db.executescript(f"""
                INSERT INTO uploads (seq, id, protocol, state, created_at, state_on, concat, length,
                    committed_bytes, crc64) VALUES ({values});
                UPDATE uploads SET state = '{state_now}', state_on = {seq * 1000000},
                    steps = '["{state_now}"]', next_part_number = {seq + 1},
                    digests = '{{"md5": null}}', max_size = 9, held = {seq == 1} WHERE seq = {seq};
            """)
        db.executescript(f"""
            INSERT INTO upload_parts VALUES ('{"r" * 32}', 1, 0, 3, -2, 'etag');
            INSERT INTO upload_members VALUES (4, 1, 3);
            UPDATE outbox SET delivered_at = 5 WHERE upload_id = '{"f" * 32}';
            INSERT INTO outbox (upload_id, kind, created_at) VALUES
                ('{"g" * 32}', 'verified', 7), ('{"g" * 32}', 'deleted', 7);
        """)

    async with SqliteState(path, clock) as state:
        uploads = {one.id[0]: one for one in await state.list_uploads(None, 10)}
        assert list(uploads) == list(lives)[::-1]
        assert uploads["r"] == Upload(
            id=UploadId("r" * 32),
            protocol=Protocol.TUS,
            state=S.RECEIVING,
            created_at=EPOCH + timedelta(microseconds=1),
            state_on=EPOCH + timedelta(seconds=1),
            length=3,
            committed_bytes=3,
            crc64=2**64 - 2,
            next_part_number=2,
            digests={"md5": None},
            max_size=9,
        )
        # Their outcome is decided, and no job is due for it.
        decided = {name: one.completed_at for name, one in uploads.items() if one.completed_at}
        assert decided == {name: uploads[name].state_on for name in "vfc"}
        assert await state.find_parts(uploads["r"].id) == [Part(1, 0, 3, 2**64 - 2, "etag")]
        assert await state.find_partials(uploads["f"].id) == [uploads["p"]]
        assert [one.state for one in await state.history(uploads["c"].id)] == [
            S.CANCELED,
            S.INITIATED,
        ]
        pending = await state.pending_events(10)
        assert [(one.upload_id[0], one.kind, one.outcome, one.job) for one in pending] == [
            ("v", S.VERIFIED, None, None),
            ("c", S.CANCELED, None, None),
            ("g", S.VERIFIED, None, None),
            ("g", S.DELETED, None, None),
        ]
        [delivered] = await state.list_events(Letters.DELIVERED, 10)
        assert delivered.upload_id == uploads["f"].id
        # And go on as they would have; one after the other also of an upload that is gone.
        for expected in (pending[:3], pending[3:]):
            events = await state.claim_events(10, 60)
            assert [event.id for event in events] == [event.id for event in expected]
            await state.settle_events([Attempt(event, event.done) for event in events])
        await walk(state, clock, uploads["v"], S.DELETED)
        await walk(state, clock, (await claim_row(state, uploads["r"])), S.COMPLETED, S.VERIFIED)
        told = [(one.kind, one.outcome) for one in await state.pending_events(10)]
        assert told == [(S.DELETED, None), (S.VERIFIED, Outcome.SUCCESS)]
        await create(state, clock, protocol=Protocol.SINGLE, length=3, part_size=3, file_id="f")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def claim_row(state: SqliteState, upload: Upload) -> Upload:
    """Take over what a server that died had held, and let go of it; give the row after it."""
    lease = await claim(state, upload)
    await state.release(lease)
    return await row(state, upload)


async def test_a_reader_leaves_a_file_of_an_older_version_to_the_server(path: Path) -> None:
    write_schema(path, 1)
    before = path.read_bytes()

    async with SqliteReader(path) as reader:
        with pytest.raises(SchemaMismatch, match="older version") as caught:
            await reader.list_uploads(None, 10)

    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def from_the_future(path: Path) -> None:
    connect(path, durable=True).close()
    make_database(path, f"PRAGMA user_version = {VERSION + 1}", "CREATE TABLE more (n)")


def with_an_application_id(path: Path) -> None:
    make_database(path, "PRAGMA application_id = 7", "CREATE TABLE theirs (n)")


def with_tables(path: Path) -> None:
    make_database(path, "CREATE TABLE theirs (n)")


def with_a_version(path: Path) -> None:
    make_database(path, "PRAGMA user_version = 1", "CREATE TABLE uploads (n)")


def no_database(path: Path) -> None:
    path.write_bytes(b"this is a letter, not a database. " * 200)


FOREIGN = {
    "from-the-future": (from_the_future, "newer version"),
    "application-id": (with_an_application_id, "another application"),
    "tables": (with_tables, "another application"),
    "version": (with_a_version, "another application"),
    "no-database": (no_database, "not an SQLite database"),
}


@pytest.mark.parametrize("what", FOREIGN)
async def test_what_is_not_ours_is_refused_in_one_sentence_and_left_as_it_is(
    path: Path, clock: FakeClock, what: str
) -> None:
    make, words = FOREIGN[what]
    make(path)
    before = path.read_bytes()

    with pytest.raises(SchemaMismatch, match=words) as caught:
        await soon(SqliteState(path, clock).__aenter__())

    sentence = str(caught.value)
    assert str(path) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("what", ["from-the-future", "application-id", "no-database"])
async def test_a_reader_refuses_what_is_not_ours_too(path: Path, what: str) -> None:
    make, words = FOREIGN[what]
    make(path)

    async with SqliteReader(path) as reader:
        with pytest.raises(SchemaMismatch, match=words):
            await reader.list_uploads(None, 10)


async def test_an_empty_file_becomes_a_database(path: Path, clock: FakeClock) -> None:
    path.touch()
    async with SqliteState(path, clock) as state:
        await state.create_upload(make_upload(clock), claim=False)

    with closing(connect(path, durable=True)) as db:
        assert db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID


@pytest.mark.parametrize("kind", ["folder", "missing-folder"])
async def test_a_path_that_cannot_be_a_file_is_refused_in_one_sentence(
    path: Path, clock: FakeClock, kind: str
) -> None:
    if kind == "folder":
        path.mkdir()
    else:
        path = path / "below" / "nothing.db"

    with pytest.raises(DataDirUnusable, match="cannot be opened") as caught:
        await soon(SqliteState(path, clock).__aenter__())

    assert str(path) in str(caught.value)


# --- a look from outside


async def test_a_reader_sees_what_is_committed_while_the_writer_is_open(
    state: SqliteState, path: Path, clock: FakeClock
) -> None:
    async with SqliteReader(path) as reader:
        assert await reader.list_uploads(None, 10) == []
        upload = make_upload(clock, length=3)
        lease = await state.create_upload(upload, claim=True)
        assert lease is not None
        assert await reader.find_upload(upload.id) == upload
        ended = upload.stepped(S.CANCELED, on=clock.now())
        await state.commit(lease, upload, ended, steps=(S.CANCELED,))

        assert await reader.find_upload(upload.id) == ended
        assert await reader.list_uploads(frozenset({S.CANCELED}), 10) == [ended]
        assert [change.state for change in await reader.history(upload.id)] == [
            S.CANCELED,
            S.INITIATED,
        ]
        assert [event.kind for event in await reader.pending_events(10)] == [S.CANCELED]


async def test_a_reader_finds_what_a_reaper_would(path: Path) -> None:
    clock = FakeClock()  # years ago: a reader goes by the time it is
    past = clock.now()
    async with SqliteState(path, clock) as state, SqliteReader(path) as reader:
        expired = await create(state, clock, concat="partial", expires_at=past)
        await create(state, clock, expires_at=datetime.now(UTC) + timedelta(days=1))
        kept = await walk(state, clock, await create(state, clock), S.COMPLETED, S.VERIFIED)
        final = make_upload(clock, concat="final;...")
        await state.create_upload(final, claim=False, partials=[expired.id])

        assert await reader.find_expired(10) == [expired]
        assert await reader.find_kept_longer(10, kept_s=60) == [kept]
        assert await reader.find_partials(final.id) == [expired]
        assert await reader.find_uploads([kept.id]) == {kept.id: kept}
        assert await reader.find_parts(kept.id) == []
        assert await reader.find_stale_nodes(1) == []


async def test_a_reader_does_not_hold_the_writer_up(
    state: SqliteState, path: Path, clock: FakeClock
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM uploads").fetchall()

        upload = make_upload(clock)
        await soon(state.create_upload(upload, claim=False))

        assert await state.find_upload(upload.id) == upload


async def test_a_reader_of_a_closed_server_sees_everything(path: Path, clock: FakeClock) -> None:
    upload = make_upload(clock)
    async with SqliteState(path, clock) as state:
        await state.create_upload(upload, claim=False)

    async with SqliteReader(path) as reader:
        assert await reader.find_upload(upload.id) == upload


async def test_a_reader_without_a_database_says_so_and_makes_none(path: Path) -> None:
    with pytest.raises(DataDirUnusable, match="no state database"):
        await SqliteReader(path).__aenter__()

    assert not path.exists()


async def test_a_reader_of_a_file_without_our_tables_says_so(path: Path) -> None:
    path.touch()

    async with SqliteReader(path) as reader:
        with pytest.raises(TusServerError):
            await reader.list_uploads(None, 10)


# --- a disk that is full


@pytest.mark.needs_root
async def test_a_full_disk_takes_nothing_and_the_state_goes_on_when_there_is_space(
    small_disk: SmallDisk, clock: FakeClock
) -> None:
    path = small_disk.path / "state.db"
    async with SqliteState(path, clock) as state:
        upload = make_upload(clock)
        lease = await state.create_upload(upload, claim=True)
        assert lease is not None
        after = upload.with_bytes(3, crc64(b"abc"))
        small_disk.fill()

        with pytest.raises(StorageFull):
            await fill(state, clock, [])
        with pytest.raises(StorageFull):
            await state.commit(lease, upload, after)
        with pytest.raises(StorageFull):
            await state.check()
        assert await state.find_upload(upload.id) == upload

        small_disk.make_space()
        await state.commit(lease, upload, after)
        await state.check()
    async with SqliteState(path, clock) as again:
        assert await again.find_upload(upload.id) == after


async def fill(state: SqliteState, clock: FakeClock, reported: list[Upload]) -> None:
    """Create uploads until that fails: a log that is used again has some space left."""
    for _ in range(1000):
        upload = make_upload(clock, metadata="x" * 5000)
        await state.create_upload(upload, claim=False)
        reported.append(upload)


async def test_a_file_that_may_not_grow_loses_nothing_that_was_reported(
    path: Path, clock: FakeClock
) -> None:
    reported: list[Upload] = []
    async with SqliteState(path, clock) as state:
        with no_file_beyond(100_000), pytest.raises((StorageFull, StateUnavailable)):
            await fill(state, clock, reported)
        later = make_upload(clock)
        await state.create_upload(later, claim=False)
        reported.append(later)
    async with SqliteState(path, clock) as again:
        for upload in reported:
            assert await again.find_upload(upload.id) == upload
        assert len(await again.list_uploads(None, 10_000)) == len(reported)


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Limit the size of files this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


# --- the data directory


def test_a_second_server_on_a_data_directory_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with DataDir(tmp_path):
        with pytest.raises(DataDirInUse) as caught:
            DataDir(tmp_path).__enter__()

    sentence = str(caught.value)
    assert str(tmp_path) in sentence
    assert f"process {os.getpid()}" in sentence
    assert "\n" not in sentence


def test_a_refused_server_does_not_disturb_the_one_that_runs(tmp_path: Path) -> None:
    with DataDir(tmp_path) as running:
        running.announce("http://127.0.0.1:1/files/")
        for _ in range(2):
            with pytest.raises(DataDirInUse):
                DataDir(tmp_path).__enter__()

        assert find_server(tmp_path) == "http://127.0.0.1:1/files/"


def test_a_data_directory_is_free_when_its_server_has_ended(tmp_path: Path) -> None:
    with DataDir(tmp_path) as first:
        first.announce("http://127.0.0.1:1/files/")
    assert find_server(tmp_path) is None

    with DataDir(tmp_path):
        with pytest.raises(DataDirInUse):  # it runs, and has not said where
            find_server(tmp_path)


def test_different_data_directories_do_not_meet(tmp_path: Path) -> None:
    with DataDir(tmp_path / "a"), DataDir(tmp_path / "b"):
        pass


HOLDER = """
import sys
from pathlib import Path
from tus_server.datadir import DataDir
with DataDir(Path(sys.argv[1])) as running:
    running.announce("http://127.0.0.1:1/files/")
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_the_lock_ends_with_a_killed_server(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(DataDirInUse, match=f"process {holder.pid}"):
            DataDir(tmp_path).__enter__()
        assert find_server(tmp_path) == "http://127.0.0.1:1/files/"

        holder.kill()
        holder.wait()

        assert find_server(tmp_path) is None
        with DataDir(tmp_path):
            pass


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\0", b'{"pid": 1}'])
def test_what_is_in_the_lock_file_does_not_matter(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "server.lock").write_bytes(text)

    assert find_server(tmp_path) is None
    with DataDir(tmp_path):
        pass
    (tmp_path / "server.lock").write_bytes(text)
    with (tmp_path / "server.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataDirInUse):
            DataDir(tmp_path).__enter__()


def test_nobody_else_may_look_into_a_new_data_directory(tmp_path: Path) -> None:
    with DataDir(tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o077 == 0
        assert (tmp_path / "data" / "server.lock").stat().st_mode & 0o077 == 0


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "data"


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def in_proc(folder: Path) -> Path:
    return Path("/proc/tus-data")


@pytest.mark.parametrize("make", [below_a_file, a_file, in_proc])
def test_a_data_directory_that_cannot_be_made_is_refused_in_one_sentence(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)

    with pytest.raises(DataDirUnusable, match="cannot be written") as caught:
        DataDir(path).__enter__()

    sentence = str(caught.value)
    assert str(path) in sentence
    assert "TUS_DATA_DIR" in sentence
    assert "\n" not in sentence


def test_a_data_directory_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(DataDirUnusable, match="owner or rights"):
            DataDir(tmp_path).__enter__()
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
