"""The contract of ports.StateStore, sentence by sentence, over every implementation."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tests.contract.conftest import StateBackend
from tests.support.fakes import FakeClock, make_upload, settle
from tus_server.core.checksums import crc64
from tus_server.core.errors import LeaseLost
from tus_server.core.ids import UploadId, new_upload_id
from tus_server.core.states import EVENTS, UploadState
from tus_server.core.upload import Part, Protocol, Tail, Upload
from tus_server.ports import Lease, StateStore

S = UploadState
NOBODY = UploadId("f" * 32)


async def create(state: StateStore, clock: FakeClock, **fields: object) -> Upload:
    upload = make_upload(clock, **fields)
    await state.create_upload(upload, claim=False)
    return upload


async def claim(state: StateStore, upload: Upload) -> Lease:
    lease = (await state.claim_upload(upload.id)).lease
    assert lease is not None
    return lease


async def walk(state: StateStore, clock: FakeClock, upload: Upload, *steps: UploadState) -> Upload:
    """Take an upload through `steps`, one commit each."""
    lease = await claim(state, upload)
    for step in steps:
        after = upload.stepped(step, on=clock.now())
        if step is S.COMPLETED:
            after = replace(after, length=after.committed_bytes)
        if step is S.ERROR:
            after = replace(after, error_code="bytes_missing", error_message="gone")
        await state.commit(lease, upload, after, steps=(step,))
        upload = after
    await state.release(lease)
    return upload


async def everything(state: StateStore, upload_id: UploadId) -> tuple[object, ...]:
    """Give all that is durable about one upload."""
    return (
        await state.find_upload(upload_id),
        await state.history(upload_id),
        await state.find_parts(upload_id),
        [event for event in await state.pending_events(1000) if event.upload_id == upload_id],
    )


# --- create


async def test_a_created_upload_is_found_as_it_was_given(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock, length=7, owner="ann", metadata="name YQ==")

    assert await state.find_upload(upload.id) == upload


async def test_an_unknown_upload_is_not_found(state: StateStore) -> None:
    assert await state.find_upload(NOBODY) is None
    assert await state.history(NOBODY) == []
    assert await state.find_parts(NOBODY) == []


async def test_a_creation_is_the_first_row_of_the_history(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)

    history = await state.history(upload.id)

    assert [(change.state, change.at) for change in history] == [(S.INITIATED, upload.created_at)]


async def test_a_creation_is_no_event(state: StateStore, clock: FakeClock) -> None:
    await create(state, clock)

    assert await state.pending_events(10) == []


async def test_a_creation_without_a_claim_leaves_the_upload_free(
    state: StateStore, clock: FakeClock
) -> None:
    upload = make_upload(clock)

    assert await state.create_upload(upload, claim=False) is None
    assert not await state.is_held(upload.id)


async def test_a_creation_with_a_claim_gives_a_lease_that_commits(
    state: StateStore, clock: FakeClock
) -> None:
    upload = make_upload(clock)

    lease = await state.create_upload(upload, claim=True)

    assert lease is not None
    assert await state.is_held(upload.id)
    assert (await state.claim_upload(upload.id)).held
    await state.commit(lease, upload, upload.with_length(3))


# --- leases


async def test_a_claim_of_an_unknown_upload_finds_nothing(state: StateStore) -> None:
    found = await state.claim_upload(NOBODY)

    assert (found.upload, found.lease, found.held) == (None, None, False)
    assert not await state.is_held(NOBODY)


async def test_a_claim_gives_the_row_and_the_lease(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock)

    found = await state.claim_upload(upload.id)

    assert found.upload == upload
    assert found.lease is not None
    assert found.lease.upload_id == upload.id
    assert not found.held
    assert await state.is_held(upload.id)


async def test_a_claim_of_a_held_upload_gives_the_row_and_says_so(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    await claim(state, upload)

    found = await state.claim_upload(upload.id)

    assert (found.upload, found.lease, found.held) == (upload, None, True)


async def test_of_many_claims_at_once_one_gets_the_lease(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)

    found = await asyncio.gather(*(state.claim_upload(upload.id) for _ in range(20)))

    assert sum(one.lease is not None for one in found) == 1
    assert sum(one.held for one in found) == 19


async def test_leases_of_different_uploads_do_not_meet(state: StateStore, clock: FakeClock) -> None:
    first, second = await create(state, clock), await create(state, clock)

    await claim(state, first)

    assert not await state.is_held(second.id)
    await claim(state, second)


async def test_a_released_upload_can_be_claimed_with_a_higher_epoch(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    first = await claim(state, upload)

    await state.release(first)

    assert not await state.is_held(upload.id)
    assert (await claim(state, upload)).epoch > first.epoch


async def test_releasing_a_lease_that_is_not_current_leaves_the_current_one(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    old = await claim(state, upload)
    await state.release(old)
    await claim(state, upload)

    await state.release(old)
    await state.release(Lease(NOBODY, 1))

    assert await state.is_held(upload.id)


async def test_a_claim_gives_the_row_as_last_committed(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after = upload.with_bytes(3, crc64(b"abc")).stepped(S.RECEIVING, on=clock.now())
    await state.commit(lease, upload, after, steps=(S.RECEIVING,), release=True)

    assert (await state.claim_upload(upload.id)).upload == after


async def test_leases_end_with_the_process(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    await claim(state, upload)

    await state_backend.close()
    again = await state_backend.open()

    assert not await again.is_held(upload.id)
    await claim(again, upload)


# --- commit


async def test_a_commit_replaces_the_row(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after = upload.with_length(10).with_bytes(3, crc64(b"abc")).stepped(S.RECEIVING, on=clock.now())

    await state.commit(lease, upload, after, steps=(S.RECEIVING,))

    assert await state.find_upload(upload.id) == after


async def test_commits_follow_each_other_under_one_lease(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    for block in (b"a", b"bc", b"def"):
        after = upload.with_bytes(len(block), crc64(block))
        await state.commit(lease, upload, after)
        upload = after

    assert (await state.find_upload(upload.id)).offset == 6
    assert await state.is_held(upload.id)


async def test_a_commit_without_release_keeps_the_lease_and_one_with_it_ends_it(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)

    await state.commit(lease, upload, upload.with_length(5))
    assert await state.is_held(upload.id)

    await state.commit(lease, upload, upload.with_length(5), release=True)
    assert not await state.is_held(upload.id)


async def refused(
    state: StateStore, clock: FakeClock, lease: Lease, before: Upload, current: Upload
) -> None:
    """Try a commit that has all kinds of effects, and check that none of them took place."""
    known = await everything(state, current.id)
    held = await state.is_held(current.id)
    after = replace(before, length=None).with_bytes(9, 99)
    after = replace(after, length=after.committed_bytes).stepped(
        S.RECEIVING, S.COMPLETED, S.VERIFIED, on=clock.now()
    )

    with pytest.raises(LeaseLost):
        await state.commit(
            lease,
            before,
            after,
            steps=(S.RECEIVING, S.COMPLETED, S.VERIFIED),
            parts=[Part(1, before.committed_bytes, 9, 99, None)],
            release=True,
        )

    assert await everything(state, current.id) == known
    assert await state.is_held(current.id) == held


async def test_a_commit_under_an_ended_lease_changes_nothing(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    await state.release(lease)

    await refused(state, clock, lease, upload, upload)


async def test_a_commit_under_a_lease_that_was_taken_over_changes_nothing(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    old = await claim(state, upload)
    await state.release(old)
    await claim(state, upload)

    await refused(state, clock, old, upload, upload)


async def test_a_commit_under_a_lease_nobody_ever_had_changes_nothing(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    held = await create(state, clock)
    lease = await claim(state, held)

    await refused(state, clock, Lease(upload.id, lease.epoch), upload, upload)
    await refused(state, clock, Lease(held.id, lease.epoch + 1), held, held)


async def test_a_commit_from_another_offset_than_the_rows_changes_nothing(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    moved = upload.with_bytes(3, crc64(b"abc"))
    await state.commit(lease, upload, moved)

    await refused(state, clock, lease, upload, moved)


async def test_a_commit_counts_the_tail_in_the_offset_it_starts_from(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    with_tail = replace(upload, tail=Tail(4, 2**64 - 1, "node", 2))
    await state.commit(lease, upload, with_tail)

    await refused(state, clock, lease, upload, with_tail)
    assert (await state.find_upload(upload.id)).offset == 4


async def test_a_commit_to_an_upload_that_is_not_there_is_refused(
    state: StateStore, clock: FakeClock
) -> None:
    ghost = make_upload(clock)

    with pytest.raises(LeaseLost):
        await state.commit(Lease(ghost.id, 1), ghost, ghost.with_length(3))

    assert await state.find_upload(ghost.id) is None


# --- history, events, parts


async def test_the_history_has_every_step_newest_first(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    on = clock.now()
    steps = (S.RECEIVING, S.COMPLETED, S.VERIFIED)
    after = replace(upload.with_bytes(3, 1), length=3).stepped(*steps, on=on)
    await state.commit(lease, upload, after, steps=steps)
    later = clock.now()
    gone = after.stepped(S.DELETED, on=later)
    await state.commit(lease, after, gone, steps=(S.DELETED,))

    history = await state.history(upload.id)

    assert [(change.state, change.at) for change in history] == [
        (S.DELETED, later),
        (S.VERIFIED, on),
        (S.COMPLETED, on),
        (S.RECEIVING, on),
        (S.INITIATED, upload.created_at),
    ]


async def test_a_commit_without_steps_adds_nothing_to_the_history(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)

    await state.commit(lease, upload, upload.with_bytes(3, 1))

    assert len(await state.history(upload.id)) == 1


LIVES = [
    (S.RECEIVING, S.COMPLETED, S.VERIFIED, S.ACCEPTED, S.DELETED),
    (S.COMPLETED, S.VERIFIED, S.REJECTED, S.DELETED),
    (S.COMPLETED, S.VERIFIED, S.DELETED),
    (S.COMPLETED, S.VERIFIED, S.ERROR),
    (S.COMPLETED, S.ERROR),
    (S.RECEIVING, S.ERROR),
    (S.RECEIVING, S.CANCELED),
    (S.RECEIVING, S.EXPIRED),
    (S.COMPLETED, S.CANCELED),
]


@pytest.mark.parametrize("steps", LIVES, ids=["-".join(life) for life in LIVES])
async def test_the_outbox_has_an_event_for_each_step_that_is_one_and_for_no_other(
    state: StateStore, clock: FakeClock, steps: tuple[UploadState, ...]
) -> None:
    upload = await walk(state, clock, await create(state, clock), *steps)

    events = await state.pending_events(10)
    history = {change.state: change.at for change in await state.history(upload.id)}

    expected = [(upload.id, step, history[step]) for step in steps if step in EVENTS]
    assert [(event.upload_id, event.kind, event.at) for event in events] == expected


async def test_several_events_of_one_commit_keep_the_order_of_the_steps(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock, length=0)
    lease = await claim(state, upload)
    steps = (S.COMPLETED, S.VERIFIED, S.DELETED)

    await state.commit(lease, upload, upload.stepped(*steps, on=clock.now()), steps=steps)

    assert [event.kind for event in await state.pending_events(10)] == [S.VERIFIED, S.DELETED]


async def test_pending_events_are_the_oldest_up_to_the_limit(
    state: StateStore, clock: FakeClock
) -> None:
    ids = []
    for _ in range(5):
        ids.append((await walk(state, clock, await create(state, clock), S.CANCELED)).id)

    assert [event.upload_id for event in await state.pending_events(3)] == ids[:3]
    assert len(await state.pending_events(100)) == 5


async def test_receipts_are_given_by_start(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    second, third = Part(7, 3, 4, 2**64 - 1, "etag"), Part(5, 7, 1, 2**63, None)
    first = Part(9, 0, 3, 0, "other")
    after = upload.with_bytes(3, 0).with_bytes(4, 0)
    await state.commit(lease, upload, after, parts=[second, first])
    await state.commit(lease, after, after.with_bytes(1, 0), parts=[third])

    assert await state.find_parts(upload.id) == [first, second, third]


async def test_receipts_of_uploads_do_not_mix(state: StateStore, clock: FakeClock) -> None:
    first, second = await create(state, clock), await create(state, clock)
    lease = await claim(state, first)
    await state.commit(lease, first, first.with_bytes(1, 0), parts=[Part(1, 0, 1, 5, None)])

    assert await state.find_parts(second.id) == []


# --- lists


async def test_uploads_are_listed_newest_first_in_pages(
    state: StateStore, clock: FakeClock
) -> None:
    ids = [(await create(state, clock)).id for _ in range(7)]

    listed: list[UploadId] = []
    page = await state.list_uploads(None, 3)
    while page:
        assert len(page) <= 3
        listed += [upload.id for upload in page]
        page = await state.list_uploads(None, 3, before=page[-1].id)

    assert listed == ids[::-1]


async def test_uploads_created_in_the_same_moment_are_each_listed_once(
    state: StateStore, clock: FakeClock
) -> None:
    now = clock.now()
    ids = {(await create(state, clock, created_at=now, state_on=now)).id for _ in range(5)}

    listed: list[UploadId] = []
    page = await state.list_uploads(None, 2)
    while page:
        listed += [upload.id for upload in page]
        page = await state.list_uploads(None, 2, before=page[-1].id)

    assert len(listed) == 5
    assert set(listed) == ids


async def test_a_list_may_be_of_some_states_only(state: StateStore, clock: FakeClock) -> None:
    new = await create(state, clock)
    ended = await walk(state, clock, await create(state, clock), S.CANCELED)
    receiving = await walk(state, clock, await create(state, clock), S.RECEIVING)

    async def listed(*states: UploadState, before: UploadId | None = None) -> list[UploadId]:
        found = await state.list_uploads(frozenset(states), 10, before=before)
        return [upload.id for upload in found]

    assert await listed(S.RECEIVING, S.INITIATED) == [receiving.id, new.id]
    assert await listed(S.CANCELED) == [ended.id]
    assert await listed(S.VERIFIED) == []
    assert await listed() == []
    assert await listed(S.RECEIVING, S.INITIATED, before=receiving.id) == [new.id]


async def test_unfinished_work_is_what_a_crash_may_have_left(
    state: StateStore, clock: FakeClock
) -> None:
    async def make(*steps: UploadState) -> Upload:
        return await walk(state, clock, await create(state, clock), *steps)

    new, receiving = await make(), await make(S.RECEIVING)
    completed = await make(S.COMPLETED)
    for life in ((S.VERIFIED,), (S.VERIFIED, S.ACCEPTED), (S.VERIFIED, S.REJECTED)):
        await make(S.COMPLETED, *life)
    ended = [
        await make(S.COMPLETED, S.VERIFIED, S.DELETED),
        await make(S.ERROR),
        await make(S.CANCELED),
        await make(S.EXPIRED),
    ]
    freed = await make(S.CANCELED)
    lease = await claim(state, freed)
    await state.commit(lease, freed, replace(freed, freed_at=clock.now()), release=True)

    without = await state.unfinished_work(100, receiving=False)
    with_receiving = await state.unfinished_work(100, receiving=True)

    assert without == [completed, *ended]
    assert with_receiving == [new, receiving, completed, *ended]


async def test_unfinished_work_comes_in_pages_oldest_first(
    state: StateStore, clock: FakeClock
) -> None:
    ids = []
    for _ in range(7):
        ids.append((await create(state, clock)).id)
        await walk(state, clock, await create(state, clock), S.COMPLETED, S.VERIFIED)

    found: list[UploadId] = []
    page = await state.unfinished_work(3, receiving=True)
    while page:
        assert len(page) <= 3
        found += [upload.id for upload in page]
        page = await state.unfinished_work(3, page[-1].id, receiving=True)

    assert found == ids


async def test_a_page_of_unfinished_work_can_be_left_behind_while_it_is_worked_off(
    state: StateStore, clock: FakeClock
) -> None:
    uploads = [await create(state, clock) for _ in range(3)]
    page = await state.unfinished_work(2, receiving=True)
    for upload in page:
        await walk(state, clock, upload, S.COMPLETED, S.VERIFIED)

    rest = await state.unfinished_work(2, page[-1].id, receiving=True)

    assert rest == uploads[2:]


# --- what lasts


async def test_everything_survives_close_and_reopen(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock, owner="ann")
    lease = await claim(state, upload)
    parts = [Part(1, 0, 3, crc64(b"abc"), "e1"), Part(2, 3, 1, crc64(b"d"), None)]
    after = upload.with_bytes(3, crc64(b"abc")).with_bytes(1, crc64(b"d"))
    after = after.stepped(S.RECEIVING, on=clock.now())
    await state.commit(lease, upload, after, steps=(S.RECEIVING,), parts=parts)
    ended = await walk(state, clock, await create(state, clock), S.CANCELED)
    known = [await everything(state, one.id) for one in (upload, ended)]
    listed = await state.list_uploads(None, 10)

    await state_backend.close()
    again = await state_backend.open()

    assert [await everything(again, one.id) for one in (upload, ended)] == known
    assert known[0][0] == after
    assert await again.list_uploads(None, 10) == listed


async def test_every_field_survives(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = make_upload(
        clock,
        id=new_upload_id("node-1"),
        protocol=Protocol.RUFH,
        owner="Åsa\n\0'\";--",
        metadata=bytes(range(256)).decode("latin-1"),
        length=2**53 - 1,
        committed_bytes=2**52,
        crc64=2**64 - 1,
        next_part_number=10_000,
        tail=Tail(5, 2**63, "node-1", 3),
        state=S.RECEIVING,
    )
    failed = make_upload(
        clock, state=S.ERROR, error_code="x", error_message="é", freed_at=clock.now()
    )
    empty = make_upload(clock, owner="", metadata="", length=0)
    for row in (upload, failed, empty):
        await state.create_upload(row, claim=False)

    await state_backend.close()
    again = await state_backend.open()

    for row in (upload, failed, empty):
        assert await again.find_upload(row.id) == row


@pytest.mark.parametrize("crc", [0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1])
async def test_checksums_have_all_64_bits(
    state_backend: StateBackend, state: StateStore, clock: FakeClock, crc: int
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    part = Part(1, 0, 1, crc, None)
    await state.commit(lease, upload, upload.with_bytes(1, crc), parts=[part])

    await state_backend.close()
    again = await state_backend.open()

    assert (await again.find_upload(upload.id)).crc64 == crc
    assert await again.find_parts(upload.id) == [part]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2024, 2, 29, 1, 2, 3, 1, tzinfo=UTC),
        datetime(2026, 6, 1, 1, 2, 3, 123_457, tzinfo=UTC),
        datetime(2099, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
async def test_times_keep_their_microseconds(
    state_backend: StateBackend, state: StateStore, clock: FakeClock, moment: datetime
) -> None:
    later = moment + timedelta(microseconds=1)
    upload = await create(state, clock, created_at=moment, state_on=moment)
    lease = await claim(state, upload)
    ended = replace(upload.stepped(S.CANCELED, on=later), freed_at=later)
    await state.commit(lease, upload, ended, steps=(S.CANCELED,))

    await state_backend.close()
    again = await state_backend.open()

    found = await again.find_upload(upload.id)
    assert (found.created_at, found.state_on, found.freed_at) == (moment, later, later)
    assert [change.at for change in await again.history(upload.id)] == [later, moment]
    assert [event.at for event in await again.pending_events(1)] == [later]


async def test_a_store_that_can_be_written_passes_the_check(state: StateStore) -> None:
    await state.check()


# --- many at once, and callers that go away


async def test_many_uploads_at_once_keep_apart(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    async def life(index: int) -> Upload:
        upload = make_upload(clock, length=index + 1)
        lease = await state.create_upload(upload, claim=True)
        assert lease is not None
        for _ in range(index % 5):
            after = upload.with_bytes(0, 0)
            await state.commit(lease, upload, after)
            upload = after
        after = upload.with_bytes(index + 1, index)
        steps = (S.RECEIVING, S.COMPLETED, S.VERIFIED)
        after = after.stepped(*steps, on=clock.now())
        await state.commit(lease, upload, after, steps=steps, release=True)
        return after

    rows = await asyncio.gather(*(life(index) for index in range(50)))
    await state_backend.close()
    again = await state_backend.open()

    for row in rows:
        assert await again.find_upload(row.id) == row
        assert not await again.is_held(row.id)
    assert len(await again.pending_events(1000)) == 50


async def test_of_commits_from_one_offset_only_the_first_takes_effect(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    rows = [upload.with_bytes(size, size) for size in (1, 2, 3)]

    outcomes = await asyncio.gather(
        *(state.commit(lease, upload, row) for row in rows), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), LeaseLost, LeaseLost]
    assert await state.find_upload(upload.id) == rows[0]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_after_a_cancelled_commit_the_row_and_the_lease_agree(
    state_backend: StateBackend, state: StateStore, clock: FakeClock, turns: int
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after = upload.with_bytes(3, crc64(b"abc")).stepped(S.RECEIVING, on=clock.now())
    commit = asyncio.ensure_future(
        state.commit(lease, upload, after, steps=(S.RECEIVING,), release=True)
    )
    for _ in range(turns):
        await asyncio.sleep(0)

    commit.cancel()
    await asyncio.wait({commit})
    await state.check()  # whatever was under way has ended
    await settle()

    found = await state.find_upload(upload.id)
    held = await state.is_held(upload.id)
    assert (found, held) in [(upload, True), (after, False)]
    assert len(await state.history(upload.id)) == (1 if held else 2)
    await state_backend.close()
    again = await state_backend.open()
    assert await again.find_upload(upload.id) == found


async def test_after_a_cancelled_creation_the_row_is_whole_or_absent(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    for turns in range(3):
        upload = make_upload(clock)
        creation = asyncio.ensure_future(state.create_upload(upload, claim=False))
        for _ in range(turns):
            await asyncio.sleep(0)
        creation.cancel()
        await asyncio.wait({creation})
    await state.check()
    found = await state.list_uploads(None, 10)

    await state_backend.close()
    again = await state_backend.open()

    assert await again.list_uploads(None, 10) == found
    for row in found:
        assert len(await again.history(row.id)) == 1


async def test_a_cancelled_claim_leaves_no_lease_behind(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    await state_backend.close()
    again = await state_backend.open()  # nothing is in memory, so the claim has to read
    attempt = asyncio.ensure_future(again.claim_upload(upload.id))
    await asyncio.sleep(0)

    attempt.cancel()
    await asyncio.wait({attempt})
    await again.check()
    await settle()

    assert attempt.cancelled()
    await claim(again, upload)


async def test_epochs_only_grow(state: StateStore, clock: FakeClock) -> None:
    upload, other = await create(state, clock), await create(state, clock)
    epochs = []
    for _ in range(5):
        lease = await claim(state, upload)
        epochs.append(lease.epoch)
        await state.release(lease)
        await state.release(await claim(state, other))

    assert all(first < second for first, second in pairwise(epochs))
