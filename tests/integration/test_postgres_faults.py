"""Postgres restarted, killed, frozen, full; sessions cut in the middle; answers lost."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.cluster import Cluster, eventually
from tests.support.fakes import FakeClock, make_upload
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import PostgresServer
from tests.support.state import claim, create, row
from tus_server.core.errors import StateUnavailable, StorageFull
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports import Beat, Lease
from tus_server.state.postgres import PostgresState
from tus_server.state.postgres.errors import translated

pytestmark = pytest.mark.full

S = UploadState
CUT_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def fill_pool(state: PostgresState, size: int = 4) -> None:
    """Let the pool have several idle connections."""
    await asyncio.gather(*(state.check() for _ in range(size)))


def finished(upload: Upload, clock: FakeClock) -> tuple[Upload, dict[str, Any]]:
    """Give the row of an upload that is done, and what a commit writes with it."""
    steps = (S.RECEIVING, S.COMPLETED, S.VERIFIED)
    after = upload.with_length(3).with_bytes(3, 1).stepped(*steps, on=clock.now())
    return after, {"steps": steps, "parts": [Part(1, 0, 3, 1, "e")], "release": True}


async def took_effect_once(state: PostgresState, after: Upload) -> bool:
    history = [change.state for change in await state.history(after.id)]
    return (
        await state.find_upload(after.id) == after
        and history == [S.VERIFIED, S.COMPLETED, S.RECEIVING, S.INITIATED]
        and len(await state.find_parts(after.id)) == 1
        and [event.kind for event in await state.pending_events(9)] == [S.VERIFIED]
    )


# --- sessions that are cut


async def test_after_all_sessions_were_cut_no_request_notices(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    upload, other = await create(state, clock), await create(state, clock)
    held = await claim(state, other)
    works = (
        lambda: state.find_upload(upload.id),
        lambda: state.claim_upload(upload.id),
        lambda: state.create_upload(make_upload(clock), claim=True),
        lambda: state.commit(held, other, other.with_length(3)),
        lambda: state.beat([held]),
        lambda: state.release(held),
        lambda: state.check(),
    )
    for work in works:
        await fill_pool(state)
        await cluster.query(CUT_ALL)

        await work()


async def test_a_session_cut_in_the_middle_of_a_commit_leaves_all_or_nothing_and_it_is_repeated(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    for _ in range(10):
        upload = await create(state, clock)
        lease = await claim(state, upload)
        after, effects = finished(upload, clock)

        commit = asyncio.ensure_future(state.commit(lease, upload, after, **effects))
        await cluster.query(CUT_ALL)
        await commit

        assert await state.find_upload(upload.id) == after
        assert len(await state.history(upload.id)) == 4
    assert len(await state.pending_events(99)) == 10


async def test_a_second_creation_under_an_id_is_a_defect(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    upload = await create(state, clock, length=1)

    with pytest.raises(asyncpg.UniqueViolationError):
        await state.create_upload(upload.with_length(2), claim=True)


async def test_a_commit_of_which_nobody_can_tell_says_so(
    cluster: Cluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, other = await cluster.open("a", pool_size=1), await cluster.open("b")
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after, effects = finished(upload, clock)
    run = state._pool._run
    cut: list[bool] = []

    async def lose_answer(connection: Any, *args: Any) -> list[asyncpg.Record]:
        rows = await run(connection, *args)
        if not cut:
            cut.append(True)
            await claim(other, upload)  # before the outcome of the commit is known
            raise ConnectionResetError
        return rows

    monkeypatch.setattr(state._pool, "_run", lose_answer)
    with pytest.raises(StateUnavailable):
        await state.commit(lease, upload, after, **effects)


async def test_a_notification_connection_that_was_cut_comes_back(
    cluster: Cluster, clock: FakeClock
) -> None:
    state, other = await cluster.open("a"), await cluster.open("b")
    heard: list[str] = []
    state.watch(wanted=heard.append, freed=heard.append)
    upload = await create(state, clock)
    await claim(state, upload)
    await cluster.query(CUT_ALL)

    await eventually(lambda: not state.hears, "the loss is noticed")
    await eventually(lambda: state.hears, "it listens again")
    await other.ask_release(upload.id)

    await eventually(lambda: heard == [upload.id], "the holder is asked")


# --- the server


async def test_a_commit_waits_for_a_postgres_that_was_killed(
    cluster: Cluster, breakable_postgres: PostgresServer, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after, effects = finished(upload, clock)
    await fill_pool(state)
    breakable_postgres.kill9()

    commit = asyncio.ensure_future(state.commit(lease, upload, after, **effects))
    with pytest.raises(StateUnavailable):
        await state.check()
    with pytest.raises(StateUnavailable):
        await state.create_upload(make_upload(clock), claim=True)
    assert not commit.done()
    breakable_postgres.start()
    await commit

    assert await took_effect_once(state, after)
    await eventually(lambda: state.hears, "it listens again")


async def test_a_commit_in_flight_when_postgres_is_killed_takes_effect_once(
    cluster: Cluster, breakable_postgres: PostgresServer, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    await fill_pool(state)
    works = []
    for _ in range(8):
        upload = await create(state, clock)
        works.append((await claim(state, upload), upload, *finished(upload, clock)))
    commits = [
        asyncio.ensure_future(state.commit(lease, upload, after, **effects))
        for lease, upload, after, effects in works
    ]
    for _ in range(3):
        await asyncio.sleep(0)

    breakable_postgres.kill9()
    breakable_postgres.start()
    await asyncio.gather(*commits)

    for _, _, after, _ in works:
        assert await state.find_upload(after.id) == after
        assert len(await state.history(after.id)) == 4
        assert len(await state.find_parts(after.id)) == 1
    assert len(await state.pending_events(99)) == 8


async def test_a_commit_gives_up_when_postgres_stays_away(
    cluster: Cluster, breakable_postgres: PostgresServer, clock: FakeClock
) -> None:
    state = await cluster.open("a", retry_s=0.2)
    upload = await create(state, clock)
    lease = await claim(state, upload)
    breakable_postgres.stop()

    with pytest.raises(StateUnavailable):
        await state.commit(lease, upload, upload.with_length(3))


async def test_a_frozen_postgres_is_unavailable_in_time_and_heals(
    cluster: Cluster, breakable_postgres: PostgresServer, clock: FakeClock
) -> None:
    state = await cluster.open("a", statement_timeout_s=0.3, connect_timeout_s=0.3)
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after, effects = finished(upload, clock)
    await fill_pool(state)
    breakable_postgres.freeze()
    begin = time.monotonic()

    found = await asyncio.gather(
        *(state.observe_upload(upload.id) for _ in range(30)), return_exceptions=True
    )
    commit = asyncio.ensure_future(state.commit(lease, upload, after, **effects))
    with pytest.raises(StateUnavailable):
        await state.check()

    assert {type(one) for one in found} == {StateUnavailable}
    assert time.monotonic() - begin < 5
    breakable_postgres.thaw()
    await commit
    # What was sent into the frozen server may still arrive, and must change nothing.
    assert await took_effect_once(state, after)
    assert await state.beat([]) == Beat()


async def test_a_statement_that_waits_too_long_is_given_up_by_the_server_too(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a", statement_timeout_s=0.3, retry_s=0.0)
    upload = await create(state, clock)
    lease = await claim(state, upload)
    blocker = await asyncpg.connect(cluster.url)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("SELECT FROM uploads FOR UPDATE")

    with pytest.raises(StateUnavailable):
        await state.commit(lease, upload, upload.with_length(3))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    async def is_given_up() -> bool:
        return not await cluster.query(waiting)

    await eventually(is_given_up, "no statement waits")
    await transaction.rollback()
    await blocker.close()
    assert await row(state, upload) == upload


async def test_constraints_hold_and_break_nothing_else(cluster: Cluster, clock: FakeClock) -> None:
    state = await cluster.open("a", pool_size=1)
    upload = await create(state, clock, length=1)
    lease = await claim(state, upload)

    with pytest.raises(asyncpg.CheckViolationError):
        await state.commit(lease, upload, upload.with_bytes(2, 2))

    await state.commit(lease, upload, upload.with_bytes(1, 1), release=True)


def test_a_full_disk_is_told_apart() -> None:
    assert isinstance(translated(asyncpg.DiskFullError("no space")), StorageFull)
    assert isinstance(translated(asyncpg.TooManyConnectionsError("x")), StateUnavailable)
    assert isinstance(translated(asyncpg.InternalClientError("x")), StateUnavailable)
    assert isinstance(translated(asyncpg.DeadlockDetectedError("x")), StateUnavailable)
    assert isinstance(translated(asyncpg.ReadOnlySQLTransactionError("x")), StateUnavailable)
    defect = asyncpg.UndefinedColumnError("x")
    assert translated(defect) is defect


# --- the network


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultProxy]:
    """A proxy in front of Postgres."""
    with FaultProxy(urlsplit(cluster.url).port or 5432) as found:
        yield found


async def open_through(proxy: FaultProxy, cluster: Cluster, **options: Any) -> PostgresState:
    """Open a store whose statements, and nothing else, go through the proxy."""
    parts = urlsplit(cluster.url)
    there = parts._replace(netloc=parts.netloc.replace(str(parts.port), str(proxy.port)))
    return await cluster.open("a", url=there.geturl(), listen_url=cluster.url, **options)


@pytest.mark.parametrize("count", [0, 1, 5, 20])
async def test_a_commit_whose_answer_is_lost_takes_effect_once(
    cluster: Cluster, proxy: FaultProxy, clock: FakeClock, count: int
) -> None:
    state = await open_through(proxy, cluster)
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after, effects = finished(upload, clock)

    proxy.down.cut_after(count)
    await state.commit(lease, upload, after, **effects)

    assert proxy.down.cuts_left == 0
    assert await took_effect_once(state, after)


@pytest.mark.parametrize("count", [0, 1, 5, 20])
async def test_a_commit_whose_answer_is_lost_took_effect_whatever_part_numbers_the_lease_still_has(
    cluster: Cluster, proxy: FaultProxy, clock: FakeClock, count: int
) -> None:
    state = await open_through(proxy, cluster)
    upload = await create(state, clock)
    lease = await claim(state, upload, numbers=16)
    before = await row(state, upload)
    after = replace(before.with_bytes(3, 1), next_part_number=2)
    parts = [Part(1, 0, 3, 1, "e")]

    proxy.down.cut_after(count)
    await state.commit(lease, before, after, parts=parts)

    assert proxy.down.cuts_left == 0
    assert await row(state, upload) == replace(after, next_part_number=17)
    assert await state.find_parts(upload.id) == parts
    await state.commit(lease, after, after.with_bytes(1, 1), release=True)
    assert (await row(state, upload)).next_part_number == 2


@pytest.mark.parametrize("count", [0, 100, 300])
async def test_a_commit_that_is_lost_on_its_way_takes_effect_once(
    cluster: Cluster, proxy: FaultProxy, clock: FakeClock, count: int
) -> None:
    state = await open_through(proxy, cluster)
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after, effects = finished(upload, clock)

    proxy.up.cut_after(count)
    await state.commit(lease, upload, after, **effects)

    assert proxy.up.cuts_left == 0
    assert await took_effect_once(state, after)


async def test_a_creation_whose_answer_is_lost_gives_the_lease_it_made(
    cluster: Cluster, proxy: FaultProxy, clock: FakeClock
) -> None:
    state = await open_through(proxy, cluster)
    await create(state, clock)
    upload = make_upload(clock)

    proxy.down.cut_after(0)
    lease = await state.create_upload(upload, claim=True, numbers=2)

    assert proxy.down.cuts_left == 0
    assert lease == Lease(upload.id, 1, range(1, 3))
    made = await row(state, upload)
    await state.commit(lease, made, made.with_bytes(1, 1), release=True)


async def test_a_claim_whose_answer_is_lost_is_granted_again(
    cluster: Cluster, proxy: FaultProxy, clock: FakeClock
) -> None:
    state = await open_through(proxy, cluster)
    upload = await create(state, clock)
    await state.release(await claim(state, upload))

    proxy.down.cut_after(0)
    lease = await claim(state, upload)

    assert proxy.down.cuts_left == 0
    made = await row(state, upload)
    await state.commit(lease, made, made.with_bytes(1, 1), release=True)


async def test_a_silent_network_is_noticed_in_time_and_heals(
    cluster: Cluster, proxy: FaultProxy, clock: FakeClock
) -> None:
    state = await open_through(proxy, cluster, statement_timeout_s=0.3, connect_timeout_s=0.3)
    await fill_pool(state)
    proxy.stalled = True

    for _ in range(3):
        with pytest.raises(StateUnavailable):
            await state.check()
    proxy.stalled = False

    await state.check()
