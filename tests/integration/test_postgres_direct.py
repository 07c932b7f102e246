"""Direct uploads of several processes on one Postgres: parts that arrive at once, and promises.

READ COMMITTED shows each statement what was committed when it began; what a statement waited for is
newer. Who waited has to count with that.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from tests.support.cluster import Cluster, eventually
from tests.support.fakes import FakeClock, make_upload, planned_parts
from tests.support.state import create, row, walk
from tus_server.core.errors import FileIdTaken, RequestKeyTaken, StateUnavailable
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.state.postgres import PostgresState, rows
from tus_server.state.postgres.rows import SQL

S = UploadState


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def direct(clock: FakeClock, **fields: Any) -> Upload:
    return make_upload(
        clock, **{"protocol": Protocol.MULTIPART, "length": 1000, "part_size": 7} | fields
    )


def stored(upload: Upload, number: int, etag: str | None = '"e"') -> Part:
    return replace(planned_parts(upload)[number - 1], crc64=1 if etag else None, etag=etag)


@asynccontextmanager
async def transaction(
    cluster: Cluster, query: str, *values: object, commits: bool
) -> AsyncIterator[None]:
    """Run a statement in a transaction that is open meanwhile, and ends only when someone waits."""
    connection = await asyncpg.connect(cluster.url)
    open_one = connection.transaction()
    await open_one.start()
    await connection.fetch(query, *values)
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    waiting += " AND datname = current_database()"
    try:
        yield
        await eventually(lambda: cluster.query(waiting), "somebody waits for the transaction")
        await (open_one.commit() if commits else open_one.rollback())
    finally:
        await connection.close()


def recording(upload: Upload, *parts: Part) -> tuple[object, ...]:
    return upload.id, rows.render_receipts(parts), None, False


def creating(upload: Upload) -> tuple[object, ...]:
    return *rows.insert_values(upload), 0, None, None, False


# --- parts that arrive at once


@pytest.mark.parametrize("commits", [True, False])
async def test_a_part_that_another_is_just_recording_counts_once(
    cluster: Cluster, clock: FakeClock, commits: bool
) -> None:
    state = await cluster.open("a")
    upload = direct(clock)
    await state.create_upload(upload, claim=False)

    told = recording(upload, stored(upload, 1, '"a"'), stored(upload, 2))
    async with transaction(cluster, SQL["record_parts"], *told, commits=commits):
        parts = [stored(upload, 1, '"b"'), stored(upload, 3)]
        recorded = asyncio.ensure_future(state.record_parts(upload.id, parts))
    after = await recorded

    assert after == await row(state, upload)
    assert after.committed_bytes == (21 if commits else 14)
    etags = [part.etag for part in await state.find_parts(upload.id)][:3]
    assert etags == ['"b"', '"e"' if commits else None, '"e"']
    states = [change.state for change in await state.history(upload.id)]
    assert states == [S.RECEIVING, S.INITIATED]


async def test_a_part_that_comes_while_another_process_ends_the_upload_is_not_recorded(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    upload = direct(clock)
    await state.create_upload(upload, claim=False)

    ends = f"UPDATE uploads SET state = 'canceled' WHERE id = '{upload.id}'"
    async with transaction(cluster, ends, commits=True):
        recorded = asyncio.ensure_future(state.record_parts(upload.id, [stored(upload, 1)]))

    assert await recorded is None
    assert await state.find_parts(upload.id) == planned_parts(upload)


async def test_parts_that_two_processes_record_under_load_add_up(
    cluster: Cluster, clock: FakeClock
) -> None:
    states = [await cluster.open("a"), await cluster.open("b")]
    upload = direct(clock)
    await states[0].create_upload(upload, claim=False)
    planned, chance = planned_parts(upload), random.Random(7)

    async def client(state: PostgresState) -> None:
        for _ in range(20):
            numbers = chance.sample(range(1, len(planned) + 1), chance.randint(1, 12))
            parts = [
                stored(upload, number, chance.choice(['"a"', '"b"', '"c"', None]))
                for number in numbers
            ]
            after = await state.record_parts(upload.id, parts)
            assert after is not None
            assert 0 <= after.committed_bytes <= 1000

    await asyncio.gather(*(client(states[n % 2]) for n in range(20)))

    arrived = [part for part in await states[0].find_parts(upload.id) if part.etag is not None]
    now = await row(states[1], upload)
    assert now.committed_bytes == sum(part.size for part in arrived) > 0
    # Each that changed anything is one generation: none was lost.
    assert 300 < now.generation <= 400
    history = [change.state for change in await states[0].history(upload.id)]
    assert history == [S.RECEIVING, S.INITIATED]


# --- promises


@pytest.mark.parametrize("commits", [True, False])
async def test_of_two_creations_of_a_file_the_first_to_commit_wins(
    cluster: Cluster, clock: FakeClock, commits: bool
) -> None:
    state = await cluster.open("a")
    first, second = direct(clock, file_id="f"), direct(clock, file_id="f")

    async with transaction(cluster, SQL["create_direct"], *creating(first), commits=commits):
        creation = asyncio.ensure_future(state.create_upload(second, claim=False))

    if commits:
        with pytest.raises(FileIdTaken) as caught:
            await creation
        assert caught.value.members == {"upload": first.id, "state": S.INITIATED}
    else:
        await creation
    assert await state.find_active("f") == (first if commits else second)
    assert await cluster.query("SELECT count(*) FROM uploads") == [(1,)]
    assert await cluster.query("SELECT count(DISTINCT upload_seq) FROM upload_parts") == [(1,)]


@pytest.mark.parametrize("commits", [True, False])
async def test_of_two_creations_with_a_key_the_first_to_commit_wins(
    cluster: Cluster, clock: FakeClock, commits: bool
) -> None:
    state = await cluster.open("a")
    first = direct(clock, file_id="f", request_key="k")
    second = direct(clock, file_id="f", request_key="k")

    async with transaction(cluster, SQL["create_direct"], *creating(first), commits=commits):
        creation = asyncio.ensure_future(state.create_upload(second, claim=False))

    if commits:
        with pytest.raises(RequestKeyTaken) as caught:
            await creation
        assert caught.value.members == {"upload": first.id}
    else:
        await creation
    assert await state.find_requested("k") == (first if commits else second)


async def test_a_creation_that_is_refused_for_one_that_ends_is_tried_again(
    cluster: Cluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await cluster.open("a")
    first = await create(state, clock, file_id="f")
    find_active = state.find_active

    async def find_late(file_id: str) -> Upload | None:
        await walk(state, clock, first, S.CANCELED)
        return await find_active(file_id)

    monkeypatch.setattr(state, "find_active", find_late)
    second = direct(clock, file_id="f")
    await state.create_upload(second, claim=False)

    assert await find_active("f") == second


async def test_a_creation_between_uploads_that_come_and_go_is_given_up(
    cluster: Cluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await cluster.open("a")
    await create(state, clock, file_id="f")

    async def find_none(file_id: str) -> Upload | None:
        return None

    monkeypatch.setattr(state, "find_active", find_none)
    second = direct(clock, file_id="f")
    with pytest.raises(StateUnavailable):
        await state.create_upload(second, claim=True)

    assert await state.find_upload(second.id) is None


@pytest.mark.parametrize("claims", [False, True])
async def test_a_creation_that_took_effect_unheard_is_not_refused_for_itself(
    cluster: Cluster, clock: FakeClock, claims: bool
) -> None:
    state = await cluster.open("a")
    upload = direct(clock, file_id="f", request_key="k")
    first = await state.create_upload(upload, claim=claims)

    assert await state.create_upload(upload, claim=claims) == first

    assert await cluster.query("SELECT count(*) FROM status_history") == [(1,)]
    assert await state.find_parts(upload.id) == planned_parts(upload)


async def test_files_whose_ids_look_alike_are_not_the_same(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    names = ["é", "e\u0301", "É", "e", "E", "é "]
    uploads = [await create(state, clock, file_id=name) for name in names]

    assert [await state.find_active(name) for name in names] == uploads
