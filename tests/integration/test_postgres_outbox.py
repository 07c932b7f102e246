"""The outbox of several processes on one Postgres: what is locked is skipped, one round trip."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace

import asyncpg
import pytest

from tests.support.cluster import Cluster
from tests.support.fakes import FakeClock, make_upload, planned_parts, settle
from tests.support.state import create, walk
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol
from tus_server.ports import Attempt, Event, Letters
from tus_server.state.postgres import PostgresState
from tus_server.state.postgres.rows import SQL

S = UploadState
DELETED = (S.COMPLETED, S.VERIFIED, S.DELETED)  # two events


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_events_that_another_transaction_looks_at_are_skipped(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    locked, other = [
        await walk(state, clock, await create(state, clock), *DELETED) for _ in range(2)
    ]
    connection = await asyncpg.connect(cluster.url)
    transaction = connection.transaction()
    await transaction.start()
    look = "SELECT id FROM outbox WHERE upload_id = $1 ORDER BY id LIMIT 1 FOR UPDATE"
    await connection.fetch(look, locked.id)

    claimed = await state.claim_events(10, 60)
    assert [event.upload_id for event in claimed] == [other.id]  # and not what follows
    await transaction.rollback()
    await connection.close()

    claimed = await state.claim_events(10, 60)
    assert [(event.upload_id, event.kind) for event in claimed] == [(locked.id, S.VERIFIED)]


async def test_a_purge_leaves_events_that_another_transaction_looks_at(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    for _ in range(3):
        await walk(state, clock, await create(state, clock), S.CANCELED)
    events = await state.claim_events(3, 60)
    await state.settle_events([Attempt(event, event.done) for event in events])
    connection = await asyncpg.connect(cluster.url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch("SELECT FROM outbox WHERE id = $1 FOR UPDATE", events[1].id)

    assert await state.purge_events(10, delivered_s=-1) == 2
    await transaction.rollback()
    await connection.close()

    assert await state.purge_events(10, delivered_s=-1) == 1


async def test_under_load_every_event_is_delivered_in_order_and_by_one_at_a_time(
    cluster: Cluster, clock: FakeClock
) -> None:
    states = [await cluster.open(label) for label in "ab"]
    chance = random.Random(3)
    heard: list[tuple[str, UploadState]] = []
    working: Counter[int] = Counter()
    attempts: Counter[int] = Counter()
    total = 2 * 60

    async def produce(state: PostgresState) -> None:
        for _ in range(15):
            await walk(state, clock, await create(state, clock), *DELETED)

    async def handle(event: Event) -> Attempt:
        working[event.id] += 1
        assert working[event.id] == 1  # nobody else is at it
        attempts[event.id] += 1
        assert event.attempts == attempts[event.id]
        await asyncio.sleep(0)
        working[event.id] -= 1
        if chance.random() < 0.3:
            return Attempt(event, event.done, "refused", 0.0)
        heard.append((event.upload_id, event.kind))
        return Attempt(event, event.done | {"x"})

    async def consume(state: PostgresState) -> None:
        while len(heard) < total:
            events = await state.claim_events(chance.randint(1, 9), 600)
            await state.settle_events([await handle(event) for event in events])

    await asyncio.gather(
        *(produce(states[n % 2]) for n in range(4)), *(consume(states[n % 2]) for n in range(6))
    )

    assert len(heard) == len(set(heard)) == total
    for upload_id, kind in heard:
        if kind == S.DELETED:
            assert heard.index((upload_id, S.VERIFIED)) < heard.index((upload_id, kind))
    assert await states[0].pending_events(10) == []
    assert len(await states[0].list_events(Letters.DELIVERED, 1000)) == total


async def test_every_operation_is_one_round_trip(cluster: Cluster, clock: FakeClock) -> None:
    state = await cluster.open("a", pool_size=1)
    names = {text: name for name, text in SQL.items()}
    queries: list[str] = []
    for connection, _ in state._pool._idle:
        connection.add_query_logger(lambda record: queries.append(record.query))

    async def asked(work: Awaitable[object]) -> list[str]:
        await settle()  # the log is written a turn later
        queries.clear()
        await work
        await settle()
        return [names.get(query, query) for query in queries]

    fields = {"protocol": Protocol.MULTIPART, "length": 10_000, "part_size": 1, "file_id": "f"}
    upload = make_upload(clock, request_key="k", **fields)
    parts = [replace(part, etag='"e"', crc64=1) for part in planned_parts(upload)]
    assert await asked(state.create_upload(upload, claim=False)) == ["create_direct"]
    assert await asked(state.record_parts(upload.id, parts)) == ["record_parts"]
    assert await asked(state.find_parts(upload.id)) == ["find_parts"]
    assert await asked(state.find_active("f")) == ["find_active"]
    assert await asked(state.find_by_file_id("f", 10)) == ["find_by_file_id"]
    assert await asked(state.find_requested("k")) == ["find_requested"]
    assert await asked(state.find_auto_complete(10)) == ["find_auto_complete"]
    assert await asked(state.histories([upload.id] * 100)) == ["histories"]
    await walk(state, clock, await create(state, clock), S.CANCELED)
    assert await asked(state.claim_events(10, 60)) == ["claim_events"]
    [event] = await state.pending_events(10)
    failed = Attempt(event, frozenset(), "no")
    assert await asked(state.settle_events([failed])) == ["settle_events"]
    assert await asked(state.list_events(Letters.DEAD, 10)) == ["list_events"]
    assert await asked(state.find_event(event.id)) == ["find_event"]
    assert await asked(state.retry_event(event.id)) == ["retry_event"]
    assert await asked(state.purge_events(10, delivered_s=1)) == ["purge_events"]
