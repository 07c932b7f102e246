"""Processes of two nodes on one Postgres: leases, fences, notifications, one round trip each."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import asyncpg
import pytest

from tests.support.cluster import Cluster, eventually
from tests.support.fakes import FakeClock, make_upload, settle
from tests.support.state import NOBODY, claim, create, is_held, row, walk
from tus_server.core.errors import LeaseLost, StateUnavailable
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports import Beat, Lease
from tus_server.state.postgres import PostgresState

S = UploadState
SHORT = {"lease_s": 0.05}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def taken_over(state: PostgresState, upload: Upload) -> Lease:
    """Claim until it is granted."""

    async def attempt() -> Lease | None:
        return (await state.claim_upload(upload.id)).lease

    found: Lease = await eventually(attempt, "the lease is granted")
    return found


# --- who holds


async def test_of_claims_on_two_nodes_one_is_granted(cluster: Cluster, clock: FakeClock) -> None:
    nodes = [await cluster.open("a"), await cluster.open("b")]
    for _ in range(10):
        upload = await create(nodes[0], clock)

        claims = [node.claim_upload(upload.id) for node in nodes for _ in range(4)]
        found = await asyncio.gather(*claims)

        assert sum(one.lease is not None for one in found) == 1
        assert sum(one.held for one in found) == 7


async def test_a_lease_of_another_node_ends_when_it_runs_out(
    cluster: Cluster, clock: FakeClock
) -> None:
    first, second = await cluster.open("a", **SHORT), await cluster.open("b")
    upload = await create(first, clock, next_part_number=1)
    old = await claim(first, upload, numbers=3)

    new = await taken_over(second, upload)

    assert new.epoch > old.epoch
    found = await row(second, upload)
    assert (found.generation, found.unclean, found.next_part_number) == (new.epoch, True, 4)
    with pytest.raises(LeaseLost):
        await first.commit(old, upload, upload.with_bytes(1, 1), release=True)
    assert await row(second, upload) == found
    assert await is_held(second, upload.id)


async def test_a_lease_that_has_run_out_and_was_not_taken_still_commits(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a", **SHORT)
    upload = await create(state, clock)
    lease = await claim(state, upload)

    async def is_over() -> bool:
        return bool((await cluster.query("SELECT lease_until < now() FROM uploads"))[0][0])

    await eventually(is_over, "the lease has run out")

    await state.commit(lease, upload, upload.with_bytes(1, 1), release=True)

    assert (await row(state, upload)).offset == 1


async def test_a_renewed_lease_does_not_run_out(cluster: Cluster, clock: FakeClock) -> None:
    first, second = await cluster.open("a", **SHORT), await cluster.open("b")
    upload = await create(first, clock)
    lease = await claim(first, upload)
    patient = await cluster.open("a", lease_s=60)
    patient._holder = first._holder  # the same process, with more patience

    assert await patient.beat([lease]) == Beat()

    (until,) = await cluster.query("SELECT lease_until > now() + interval '30 s' FROM uploads")
    assert until == (True,)
    assert (await second.claim_upload(upload.id)).held


async def test_a_lease_of_a_killed_process_of_the_same_node_is_free_at_once(
    cluster: Cluster, clock: FakeClock
) -> None:
    first, second, other = [await cluster.open(label) for label in "aab"]
    upload = await create(first, clock)
    old = await claim(first, upload)
    assert (await second.claim_upload(upload.id)).held
    cluster.kill(first)

    assert (await other.claim_upload(upload.id)).held  # how should it know
    new = (await second.claim_upload(upload.id)).lease

    assert new is not None
    found = await row(second, upload)
    assert (found.generation, found.unclean) == (new.epoch, True)
    with pytest.raises(LeaseLost):
        await first.commit(old, upload, upload.with_bytes(1, 1))


async def test_a_lease_whose_claim_was_never_answered_is_nobodys(
    cluster: Cluster, clock: FakeClock
) -> None:
    state, other = await cluster.open("a"), await cluster.open("b")
    upload = await create(state, clock)
    lost = await claim(state, upload)
    del state._epochs[upload.id]  # as if the connection had broken before the answer

    assert (await other.claim_upload(upload.id)).held
    found = await state.claim_upload(upload.id)

    assert found.lease is not None
    assert found.lease.epoch > lost.epoch


async def test_a_claim_tells_a_wrong_offset_from_a_holder(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    upload = await create(state, clock, length=9)

    wrong = await state.claim_upload(upload.id, offset=3)
    right = await state.claim_upload(upload.id, offset=0)
    held = await state.claim_upload(upload.id, offset=3)

    assert (wrong.upload, wrong.lease, wrong.held) == (upload, None, False)
    assert right.lease is not None
    assert (held.lease, held.held) == (None, True)


async def test_of_eight_writers_at_one_offset_one_wins_each_round(
    cluster: Cluster, clock: FakeClock
) -> None:
    nodes = [await cluster.open(label) for label in "abcd"]
    upload = await create(nodes[0], clock)

    async def append(node: PostgresState, before: Upload) -> bool:
        found = await node.claim_upload(upload.id, offset=before.offset)
        if found.lease is None or found.upload is None:
            return False
        part = Part(before.offset + 1, before.offset, 1, 1, None)
        after = found.upload.with_bytes(1, 1)
        await node.commit(found.lease, found.upload, after, parts=[part], release=True)
        return True

    for offset in range(10):
        before = await row(nodes[0], upload)
        assert before.offset == offset
        wins = await asyncio.gather(*(append(node, before) for node in nodes * 2))
        assert wins.count(True) == 1

    assert [part.start for part in await nodes[1].find_parts(upload.id)] == list(range(10))


async def test_two_searches_for_unfinished_work_never_find_the_same(
    cluster: Cluster, clock: FakeClock
) -> None:
    nodes = [await cluster.open(label) for label in "abc"]
    uploads = [await create(nodes[0], clock) for _ in range(30)]

    pages = await asyncio.gather(
        *(node.claim_unfinished(5, receiving=True, numbers=2) for node in nodes * 2)
    )

    found = [upload.id for page in pages for upload, _ in page]
    assert len(found) == len(set(found))
    for page in pages:
        for upload, lease in page:
            assert lease.numbers == range(1, 3)
            assert upload.next_part_number == 3
    rest: list[tuple[Upload, Lease]] = []
    while page := await nodes[0].claim_unfinished(7, receiving=True):
        rest += page
    assert len(found) + len(rest) == len(uploads)


async def test_unfinished_work_of_the_dead_is_found_where_they_are_known_to_be(
    cluster: Cluster, clock: FakeClock
) -> None:
    dead, mate, other = [await cluster.open(label) for label in "aab"]
    upload = await create(dead, clock, state=S.VERIFIED, length=0)
    await claim(dead, upload)
    cluster.kill(dead)

    assert await other.claim_unfinished(9, receiving=True) == []
    found = await mate.claim_unfinished(9, receiving=False)

    assert [(one.id, one.unclean) for one, _ in found] == [(upload.id, True)]


# --- hearing of each other


async def test_who_waits_is_heard_and_told(cluster: Cluster, clock: FakeClock) -> None:
    holder, waiter, third = [await cluster.open(label) for label in "abc"]
    heard: list[tuple[str, UploadId]] = []

    def hear(what: str, upload_id: UploadId) -> None:
        heard.append((what, upload_id))

    for name, state in (("holder", holder), ("waiter", waiter), ("third", third)):
        state.watch(wanted=partial(hear, f"{name} wanted"), freed=partial(hear, f"{name} freed"))
        assert state.hears
    upload = await create(holder, clock)
    lease = await claim(holder, upload)

    await waiter.ask_release(upload.id)
    await eventually(lambda: ("holder wanted", upload.id) in heard, "the holder is asked")
    assert (await holder.beat([lease])).wanted == {upload.id}
    await holder.commit(lease, upload, upload.with_bytes(1, 1), release=True)
    told = {("waiter freed", upload.id), ("third freed", upload.id)}
    await eventually(lambda: told <= set(heard), "the others are told")

    assert set(heard) == {
        ("holder wanted", upload.id),
        ("waiter freed", upload.id),
        ("third freed", upload.id),
    }
    lease = await claim(waiter, upload)
    assert (await waiter.beat([lease])).wanted == frozenset()


async def test_an_end_nobody_waits_for_is_not_told(cluster: Cluster, clock: FakeClock) -> None:
    holder, other = await cluster.open("a"), await cluster.open("b")
    heard: list[UploadId] = []
    other.watch(wanted=heard.append, freed=heard.append)
    quiet, wanted = await create(holder, clock), await create(holder, clock)
    await holder.release(await claim(holder, quiet))
    lease = await claim(holder, wanted)
    await other.ask_release(wanted.id)

    await holder.release(lease)

    await eventually(lambda: heard, "something is heard")
    assert heard == [wanted.id]


async def test_asking_for_an_upload_of_the_own_process_tells_nobody_else(
    cluster: Cluster, clock: FakeClock
) -> None:
    state, other = await cluster.open("a"), await cluster.open("b")
    heard: list[UploadId] = []
    state.watch(wanted=heard.append, freed=heard.append)
    own, others = await create(state, clock), await create(other, clock)
    lease = await claim(state, own)
    await state.ask_release(own.id)
    await state.release(lease)
    lease = await claim(other, others)
    await state.ask_release(others.id)

    await other.release(lease)

    await eventually(lambda: heard, "something is heard")
    assert heard == [others.id]


async def test_a_beat_tells_what_is_lost(cluster: Cluster, clock: FakeClock) -> None:
    first, second = await cluster.open("a", **SHORT), await cluster.open("b")
    kept, lost = await create(first, clock), await create(first, clock)
    leases = [await claim(first, kept), await claim(first, lost)]
    await taken_over(second, lost)

    assert await first.beat(leases) == Beat(lost=frozenset({lost.id}))


# --- the row


async def test_a_commit_that_comes_late_takes_no_part_numbers_back(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    upload = await create(state, clock)
    lease = await claim(state, upload, numbers=4)
    before = await row(state, upload)
    later = replace(before, next_part_number=9)
    await state.commit(lease, before, later)

    await state.commit(lease, before, before)

    assert (await row(state, upload)).next_part_number == 9


@pytest.mark.parametrize("text", ["\0", "␛", "␛0", "a␛\0␛␛0\0b", "\\0", ""])
async def test_any_text_comes_back_as_it_was(cluster: Cluster, clock: FakeClock, text: str) -> None:
    state = await cluster.open("a")
    upload = await create(state, clock, owner=text, metadata=text)

    found = await row(state, upload)

    assert (found.owner, found.metadata) == (text, text)


# --- the reaper


async def test_a_duty_ends_by_the_clock_of_the_database(cluster: Cluster) -> None:
    first, second = await cluster.open("a"), await cluster.open("b")
    assert await first.claim_duty("reap", 60)
    assert not await second.claim_duty("reap", 60)
    await cluster.query("UPDATE duties SET until = now() - interval '1 ms'")

    assert await second.claim_duty("reap", 60)

    assert not await first.claim_duty("reap", 60)


async def test_a_purge_leaves_what_another_transaction_is_looking_at(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    uploads = [await walk(state, clock, await create(state, clock), S.CANCELED) for _ in range(3)]
    await cluster.query("UPDATE uploads SET freed_at = state_on")
    other = await asyncpg.connect(cluster.url)
    transaction = other.transaction()
    await transaction.start()
    # As the creation of a final upload does to its partials.
    seen = "SELECT FROM uploads WHERE id = $1 FOR KEY SHARE"
    await other.execute(seen, uploads[0].id)

    assert await state.purge(10, ended_s=60) == 2
    await transaction.commit()
    await other.close()

    assert await state.purge(10, ended_s=60) == 1


async def test_a_final_upload_of_what_is_not_there_is_a_defect_and_not_made(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    one, final = await create(state, clock, concat="partial"), make_upload(clock, concat="final;")

    with pytest.raises(asyncpg.NotNullViolationError):
        await state.create_upload(final, claim=False, partials=[one.id, NOBODY])

    assert await state.find_upload(final.id) is None


# --- connections


async def test_every_operation_of_a_request_is_one_round_trip(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a", pool_size=1)
    queries: list[str] = []
    for connection, _ in state._pool._idle:
        connection.add_query_logger(lambda record: queries.append(record.query))

    async def count(work: Awaitable[object]) -> int:
        queries.clear()
        await work
        await settle()  # the log is written a turn later
        return len(queries)

    upload, other = make_upload(clock), make_upload(clock)
    steps = (S.RECEIVING, S.COMPLETED, S.VERIFIED)
    after = replace(upload, length=3).with_bytes(3, 3).stepped(*steps, on=clock.now())
    assert await count(state.create_upload(other, claim=False)) == 1
    assert await count(state.create_upload(upload, claim=True)) == 1
    lease = Lease(upload.id, 1)
    parts = [Part(1, 0, 2, 1, "e"), Part(2, 2, 1, 1, "e")]
    commit = state.commit(lease, upload, after, steps=steps, parts=parts, release=True)
    assert await count(commit) == 1
    assert await count(state.release(lease)) == 0
    assert await count(state.observe_upload(upload.id)) == 1
    assert await count(state.claim_upload(other.id, offset=0, numbers=16)) == 1
    assert await count(state.claim_upload(other.id, offset=0, numbers=16)) == 1
    assert await count(state.ask_release(other.id)) == 1
    assert await count(state.beat([Lease(other.id, 1)])) == 1
    assert await count(state.release(Lease(other.id, 1))) == 1
    # And of the reaper.
    final = make_upload(clock, concat="final;...")
    ids = [upload.id, other.id] * 500
    assert await count(state.create_upload(final, claim=True, partials=ids)) == 1
    assert await count(state.find_uploads(ids)) == 1
    assert await count(state.find_partials(final.id)) == 1
    assert await count(state.find_ready_finals(10)) == 1
    assert await count(state.find_ready_finals(10, of=upload.id)) == 1
    assert await count(state.let_partials_expire(final.id, 1)) == 1
    assert await count(state.find_expired(10)) == 1
    assert await count(state.find_kept_longer(10, kept_s=1)) == 1
    assert await count(state.purge(10, ended_s=1)) == 1
    assert await count(state.find_stale_nodes(1)) == 1
    assert await count(state.forget_nodes(3600)) == 1
    assert await count(state.claim_duty("reap", 1)) == 1


async def test_a_small_pool_serves_many_at_once(cluster: Cluster, clock: FakeClock) -> None:
    state = await cluster.open("a", pool_size=2)

    async def life() -> None:
        upload = make_upload(clock)
        lease = await state.create_upload(upload, claim=True)
        assert lease is not None
        await state.commit(lease, upload, upload.with_bytes(1, 1), release=True)

    await asyncio.gather(*(life() for _ in range(200)))

    assert len(await state.list_uploads(None, 1000)) == 200
    (count,) = await cluster.query(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'tus-server' AND datname = current_database()"
    )
    assert count == (3,)  # two, and the one that listens


async def test_waiting_for_a_connection_is_bounded(cluster: Cluster, clock: FakeClock) -> None:
    state = await cluster.open("a", pool_size=1, statement_timeout_s=0.2)
    await state._pool._slots.acquire()

    with pytest.raises(StateUnavailable):
        await state.check()

    state._pool._slots.release()
    await state.check()


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_operation_costs_no_connection(
    cluster: Cluster, clock: FakeClock, turns: int
) -> None:
    state = await cluster.open("a", pool_size=1)
    upload = await create(state, clock)
    works: list[Callable[[], Awaitable[object]]] = [
        lambda: state.claim_upload(upload.id),
        lambda: state.observe_upload(upload.id),
        lambda: state.create_upload(make_upload(clock), claim=True),
    ]
    for work in works:
        task = asyncio.ensure_future(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

        await state.check()

    assert (await taken_over(state, upload)).upload_id == upload.id


async def test_a_closed_store_says_so(cluster: Cluster) -> None:
    state = await cluster.open("a")
    await cluster.close()

    with pytest.raises(StateUnavailable):
        await state.check()
    assert not state.hears
