"""Jobs for procrastinate: its real schema in the same database, and its real worker."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import asyncpg
import procrastinate
import pytest
from procrastinate.schema import SchemaManager, migrations_path

from tests.support.cluster import Cluster, eventually
from tests.support.fakes import FakeClock
from tests.support.state import create, walk
from tus_server.core.errors import DeliveryFailed
from tus_server.core.jobs import Instructions, Job
from tus_server.core.states import UploadState
from tus_server.ports import Attempt, Event, Letters
from tus_server.state.postgres import PostgresOptions, PostgresState, migrate
from tus_server.state.postgres.pool import Session
from tus_server.state.postgres.procrastinate import SQL

S = UploadState
JOBS = "SELECT queue_name, task_name, lock, args::text, status::text FROM procrastinate_jobs"
GATE = 77  # an advisory lock: whoever inserts a job waits for it
WAITING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@dataclass
class Queue:
    """A database that both use, and what is in the queue."""

    cluster: Cluster

    async def script(self, text: str) -> None:
        """Run a script of many statements."""
        connection = await asyncpg.connect(self.cluster.url)
        await connection.execute(text)
        await connection.close()

    async def apply(self, first: str, last: str) -> None:
        """Apply the migrations of the installed package of versions in [first, last)."""
        for path in sorted(migrations_path.glob("*.sql")):
            if first <= path.name < last:
                await self.script(path.read_text(encoding="utf-8"))

    async def jobs(self) -> list[tuple[Any, ...]]:
        return await self.cluster.query(JOBS)

    async def count(self) -> int:
        return len(await self.jobs())

    async def run_out(self) -> None:
        """Let all claims of events run out."""
        await self.cluster.query("UPDATE outbox SET claimed_until = now()")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def bare(empty_database_url: str) -> AsyncIterator[Queue]:
    """Our tables without a queue."""
    await migrate(PostgresOptions(empty_database_url))
    cluster = Cluster(empty_database_url)
    yield Queue(cluster)
    await cluster.close()


@pytest.fixture
async def queue(bare: Queue) -> Queue:
    await bare.script(SchemaManager.get_schema())
    return bare


@pytest.fixture
async def state(bare: Queue) -> PostgresState:
    return await bare.cluster.open("a")


async def new_event(state: PostgresState, clock: FakeClock, **kwargs: Any) -> Event:
    """Let an upload fail whose job for that has those arguments; claim the event."""
    wishes = Instructions(failure_job=Job("ours", kwargs))
    await walk(state, clock, await create(state, clock, instructions=wishes), S.CANCELED)
    return await claim(state)


async def claim(state: PostgresState) -> Event:
    [event] = await state.claim_events(10, 60)
    return event


async def defer(state: PostgresState, event: Event, **names: str) -> bool:
    where = {"queue": "files", "task": "tasks.notify", "lock": event.upload_id} | names
    return await state.job_queue.defer(event, "job", **where)


async def now(state: PostgresState, event: Event) -> Event:
    found = await state.find_event(event.id)
    assert found is not None
    return found


# --- once


async def test_a_job_is_run_once_by_a_worker(
    queue: Queue, state: PostgresState, clock: FakeClock
) -> None:
    kwargs = {"text": "é ␛ 🙈 '", "n": 1.5, "deep": {"list": [None, True]}}
    event = await new_event(state, clock, **kwargs)
    for _ in range(2):
        assert await defer(state, event)
    ran: list[dict[str, Any]] = []
    connector = procrastinate.PsycopgConnector(conninfo=queue.cluster.url)
    app = procrastinate.App(connector=connector)

    @app.task(name="tasks.notify", queue="files", pass_context=True)
    async def notify(context: procrastinate.JobContext, **given: Any) -> None:
        assert context.job.lock == event.upload_id
        ran.append(given)

    async with app.open_async():
        for _ in range(2):
            await app.run_worker_async(
                queues=["files"], wait=False, listen_notify=False, install_signal_handlers=False
            )

    assert ran == [kwargs]
    assert [job[4] for job in await queue.jobs()] == ["succeeded"]


async def test_enqueuing_writes_down_that_the_target_has_it(
    queue: Queue, state: PostgresState, clock: FakeClock
) -> None:
    event = await new_event(state, clock)
    event = replace(event, done=frozenset({"hook"}))
    await state.settle_events([Attempt(event, event.done, "no", 0.0)])
    event = await claim(state)

    assert await defer(state, event)

    assert await now(state, event) == replace(event, done=frozenset({"hook", "job"}))
    assert await queue.jobs() == [("files", "tasks.notify", event.upload_id, "{}", "todo")]


async def test_two_at_once_enqueue_one_job(
    queue: Queue, state: PostgresState, clock: FakeClock
) -> None:
    other = await queue.cluster.open("b")
    event = await new_event(state, clock)

    found = await asyncio.gather(*(defer(one, event) for one in [state, other] * 5))

    assert all(found)
    assert await queue.count() == 1


async def test_a_later_attempt_does_not_enqueue_it_again(
    queue: Queue, state: PostgresState, clock: FakeClock
) -> None:
    await defer(state, await new_event(state, clock))
    await queue.run_out()

    event = await claim(state)

    assert (event.attempts, event.done) == (2, {"job"})
    assert await defer(state, event)
    assert await queue.count() == 1


async def test_an_attempt_that_never_heard_of_it_does_not_undo_it(
    queue: Queue, state: PostgresState, clock: FakeClock
) -> None:
    event = await new_event(state, clock)
    await defer(state, event)
    # It timed out meanwhile, so this attempt has failed for all it knows.
    await state.settle_events([Attempt(event, frozenset({"hook"}), "timed out", 0.0)])

    again = await claim(state)
    assert again.done == {"hook", "job"}
    assert await defer(state, again)
    await state.settle_events([Attempt(again, frozenset(), "no")])
    await state.retry_event(event.id)
    assert await defer(state, await claim(state))

    assert await queue.count() == 1


async def test_an_event_that_is_another_attempts_is_not_enqueued(
    queue: Queue, state: PostgresState, clock: FakeClock
) -> None:
    first = await new_event(state, clock)
    await queue.run_out()
    second = await claim(state)
    assert not await defer(state, first)

    await state.settle_events([Attempt(second, frozenset(), "gone")])
    assert not await defer(state, second)
    await state.retry_event(first.id)
    third = await claim(state)
    assert third.attempts == first.attempts
    assert not await defer(state, first)

    await state.settle_events([Attempt(third, frozenset())])
    assert not await defer(state, third)
    assert not await defer(state, replace(third, id=10**9))
    assert await queue.count() == 0
    assert (await now(state, first)).done == frozenset()


# --- cut in the middle


@pytest.fixture
async def gate(queue: Queue) -> AsyncIterator[Session]:
    """Let nobody enqueue a job before the lock GATE is let go of."""
    await queue.script(f"""
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NEW; END $$;
        CREATE TRIGGER wait AFTER INSERT ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION wait();
    """)
    connection = await asyncpg.connect(queue.cluster.url)
    await connection.execute(f"SELECT pg_advisory_lock({GATE})")
    yield connection
    await connection.close()


async def test_what_is_cut_in_the_middle_is_neither_enqueued_nor_written_down(
    queue: Queue,
    state: PostgresState,
    clock: FakeClock,
    gate: Session,
) -> None:
    event = await new_event(state, clock)
    deferring = asyncio.ensure_future(defer(state, event))
    [(pid,)] = await eventually(lambda: queue.cluster.query(WAITING), "the job is being enqueued")

    await queue.cluster.query("SELECT pg_terminate_backend($1)", pid)
    # The pool tries again on another connection: the first one has left nothing.
    await eventually(
        lambda: queue.cluster.query(f"{WAITING} AND pid <> {pid}"), "it is enqueued again"
    )
    assert await queue.count() == 0
    assert (await now(state, event)).done == frozenset()
    await gate.execute(f"SELECT pg_advisory_unlock({GATE})")

    assert await deferring
    assert await queue.count() == 1


@pytest.mark.parametrize("took_effect", [True, False])
async def test_whoever_goes_on_after_one_that_died_enqueues_it_once(
    queue: Queue, state: PostgresState, clock: FakeClock, took_effect: bool
) -> None:
    event = await new_event(state, clock)
    dying = await asyncpg.connect(queue.cluster.url)
    transaction = dying.transaction()
    await transaction.start()
    attempt = (event.id, event.attempts, event.due_at)
    await dying.fetch(SQL["defer_jobs_v1"], *attempt, "job", "q", "t", "lock", "{}")
    other = await queue.cluster.open("b")
    failed = Attempt(event, frozenset({"hook"}), "timed out", 0.0)

    settling = asyncio.ensure_future(other.settle_events([failed]))
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
    await eventually(lambda: queue.cluster.query(waiting), "the outcome waits for the statement")
    await (transaction.commit() if took_effect else transaction.rollback())
    await dying.close()
    await settling

    again = await claim(other)
    assert again.done == ({"hook", "job"} if took_effect else {"hook"})
    assert await defer(other, again)
    assert (await now(other, again)).done == {"hook", "job"}
    assert await queue.count() == 1


async def test_a_statement_that_comes_late_enqueues_nothing(
    queue: Queue, state: PostgresState, clock: FakeClock
) -> None:
    event = await new_event(state, clock)
    locking = await asyncpg.connect(queue.cluster.url)
    transaction = locking.transaction()
    await transaction.start()
    await locking.fetch("SELECT FROM outbox WHERE id = $1 FOR UPDATE", event.id)

    late = asyncio.ensure_future(defer(state, event))
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
    await eventually(lambda: queue.cluster.query(waiting), "the statement waits")
    # As settle_events() does where it does not know of the statement.
    await locking.execute("UPDATE outbox SET due_at = now() WHERE id = $1", event.id)
    await transaction.commit()
    await locking.close()

    assert not await late
    assert await queue.count() == 0
    assert await defer(state, await now(state, event))
    assert await queue.count() == 1


# --- refused


async def test_without_a_queue_it_is_said_what_to_do(
    bare: Queue, state: PostgresState, clock: FakeClock
) -> None:
    event = await new_event(state, clock)

    with pytest.raises(DeliveryFailed, match="procrastinate schema --apply") as caught:
        await defer(state, event)
    assert not caught.value.is_final
    assert (await now(state, event)).done == frozenset()

    await bare.script(SchemaManager.get_schema())
    assert await defer(state, event)
    assert await bare.count() == 1


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"text": "a\0b"}, {}),  # jsonb has no such text
        ({"number": float("nan")}, {}),
        ({}, {"queue": "q" * 129}),
        ({}, {"task": "t" * 129}),
    ],
    ids=["NUL", "NaN", "long queue", "long task"],
)
async def test_a_job_that_the_queue_never_takes_is_not_tried_again(
    queue: Queue,
    state: PostgresState,
    clock: FakeClock,
    kwargs: dict[str, Any],
    names: dict[str, str],
) -> None:
    event = await new_event(state, clock, **kwargs)

    with pytest.raises(DeliveryFailed, match="does not take the job") as caught:
        await defer(state, event, **names)

    assert caught.value.is_final
    assert await queue.count() == 0
    assert (await now(state, event)).done == frozenset()
    assert await state.list_events(Letters.PENDING, 10) == [event]


async def test_a_job_that_a_rule_forbids_is_tried_again(
    queue: Queue, state: PostgresState, clock: FakeClock
) -> None:
    await queue.script("ALTER TABLE procrastinate_jobs ADD CHECK (task_name <> 'tasks.notify')")
    event = await new_event(state, clock)

    with pytest.raises(DeliveryFailed, match="violates check constraint") as caught:
        await defer(state, event)

    assert not caught.value.is_final
    assert (await now(state, event)).done == frozenset()


async def test_a_missing_right_is_named(queue: Queue, clock: FakeClock) -> None:
    url = queue.cluster.url
    role = "reader_of_queues"
    await queue.script(f"""
        DROP ROLE IF EXISTS {role};
        CREATE ROLE {role} LOGIN;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
        REVOKE ALL ON procrastinate_jobs FROM {role};
    """)
    try:
        state = await queue.cluster.open("a", url=url.replace("postgres@", f"{role}@"))
        event = await new_event(state, clock)
        with pytest.raises(DeliveryFailed, match=r"procrastinate_jobs.*GRANT"):
            await defer(state, event)
    finally:
        await queue.cluster.close()
        await queue.script(f"DROP OWNED BY {role}; DROP ROLE {role}")


# --- versions


@pytest.mark.parametrize(
    "version",
    ["02.00.04", "02.15", "03.00.00_02", "03.01.00_02", "03.01.00_99", "03.02.00_02", "99"],
)
async def test_older_versions_of_the_queue_do(
    bare: Queue, state: PostgresState, clock: FakeClock, version: str
) -> None:
    await bare.apply("00", version)

    for n in range(2):
        event = await new_event(state, clock, n=n)
        assert await defer(state, event)
        assert await defer(state, event)

    expected = [f'{{"n": {n}}}' for n in range(2)]
    assert [job[3] for job in await bare.jobs()] == expected


async def test_a_queue_may_migrate_while_the_server_runs(
    bare: Queue, state: PostgresState, clock: FakeClock
) -> None:
    versions = ["00", "02.15", "03.00.00_02", "03.02.00_02", "99"]
    for n, (first, last) in enumerate(pairwise(versions)):
        await bare.apply(first, last)
        assert await defer(state, await new_event(state, clock, n=n))

    assert await bare.count() == len(versions) - 1
