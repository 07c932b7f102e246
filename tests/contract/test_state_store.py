"""The contract of ports.StateStore, sentence by sentence, over every implementation: the rows.

Who may write them is in test_state_leases.py, what a crash leaves in test_state_unfinished.py.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.contract.conftest import StateBackend
from tests.support.fakes import FakeClock, make_upload, settle
from tests.support.state import NOBODY, claim, create, everything, is_held, row, walk
from tus_server.core.checksums import crc64
from tus_server.core.errors import LeaseLost
from tus_server.core.ids import UploadId, new_upload_id
from tus_server.core.states import EVENTS, UploadState
from tus_server.core.upload import Part, Protocol, Tail, Upload
from tus_server.ports import Lease, StateStore

S = UploadState


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
    assert not await is_held(state, upload.id)


async def test_a_creation_with_a_claim_gives_a_lease_that_commits(
    state: StateStore, clock: FakeClock
) -> None:
    upload = make_upload(clock)

    lease = await state.create_upload(upload, claim=True)

    assert lease is not None
    assert lease.upload_id == upload.id
    assert not lease.numbers
    assert await is_held(state, upload.id)
    assert (await state.claim_upload(upload.id)).held
    await state.commit(lease, upload, upload.with_length(3))


async def test_a_creation_with_a_claim_can_set_part_numbers_aside(
    state: StateStore, clock: FakeClock
) -> None:
    upload = make_upload(clock, next_part_number=1)

    lease = await state.create_upload(upload, claim=True, numbers=16)

    assert lease is not None
    assert lease.numbers == range(1, 17)
    assert await row(state, upload) == replace(upload, next_part_number=17)


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
    assert await is_held(state, upload.id)


async def test_a_commit_without_release_keeps_the_lease_and_one_with_it_ends_it(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)

    await state.commit(lease, upload, upload.with_length(5))
    assert await is_held(state, upload.id)

    await state.commit(lease, upload, upload.with_length(5), release=True)
    assert not await is_held(state, upload.id)


async def refused(
    state: StateStore, clock: FakeClock, lease: Lease, before: Upload, current: Upload
) -> None:
    """Try a commit that has all kinds of effects, and check that none of them took place."""
    known = await everything(state, current.id)
    held = await is_held(state, current.id)
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
    assert await is_held(state, current.id) == held


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


@pytest.mark.parametrize("release", [False, True])
async def test_a_commit_that_took_effect_can_be_repeated_and_changes_nothing_more(
    state: StateStore, clock: FakeClock, release: bool
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload, numbers=4)
    before = await row(state, upload)
    steps = (S.RECEIVING, S.COMPLETED, S.VERIFIED)
    after = replace(before.with_bytes(3, 1), length=3).stepped(*steps, on=clock.now())

    async def commit() -> None:
        parts = [Part(1, 0, 3, 1, "etag")]
        await state.commit(lease, before, after, steps=steps, parts=parts, release=release)

    await commit()
    known = await everything(state, upload.id)

    await commit()
    await commit()

    assert await everything(state, upload.id) == known
    assert await is_held(state, upload.id) is not release


async def test_part_numbers_of_a_lease_that_goes_on_are_not_taken_back(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload, numbers=8)
    before = await row(state, upload)
    steps = (S.RECEIVING,)
    after = replace(before.with_bytes(3, 1), next_part_number=2).stepped(*steps, on=clock.now())

    for _ in range(3):
        parts = [Part(1, 0, 3, 1, "etag")]
        await state.commit(lease, before, after, steps=steps, parts=parts)

    kept = replace(after, next_part_number=9)
    assert await row(state, upload) == kept
    assert len(await state.find_parts(upload.id)) == 1
    assert len(await state.history(upload.id)) == 2
    state = await state_backend.abandon(upload.id)
    assert await row(state, upload) == kept


@pytest.mark.parametrize("moves_offset", [False, True])
async def test_the_end_of_a_lease_gives_back_what_a_commit_before_could_not(
    state: StateStore, clock: FakeClock, moves_offset: bool
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload, numbers=8)
    before = await row(state, upload)
    after = replace(before.with_bytes(3, 1), next_part_number=2)
    await state.commit(lease, before, after, parts=[Part(1, 0, 3, 1, "etag")])
    last = after.with_bytes(1, 1) if moves_offset else after.with_length(5)

    for _ in range(2):
        await state.commit(lease, after, last, release=True)

    assert await row(state, upload) == last
    assert (await claim(state, upload, numbers=1)).numbers == range(2, 3)


async def test_part_numbers_are_set_aside_by_no_commit_under_an_ended_lease(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload, numbers=2)
    before = await row(state, upload)
    await state.release(lease)

    with pytest.raises(LeaseLost):
        await state.commit(lease, before, replace(before, next_part_number=9))

    assert await row(state, upload) == before


async def test_a_commit_that_moved_no_offset_can_be_repeated(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after = upload.with_length(5).stepped(S.CANCELED, on=clock.now())
    for _ in range(3):
        await state.commit(
            lease, upload, after, steps=(S.CANCELED,), note="by an operator", release=True
        )

    assert await row(state, upload) == after
    assert len(await state.history(upload.id)) == 2
    assert len(await state.pending_events(10)) == 1


async def test_a_commit_may_be_repeated_while_it_is_under_way(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after = upload.with_bytes(3, crc64(b"abc"))
    parts = [Part(1, 0, 3, crc64(b"abc"), None)]

    await asyncio.gather(
        *(state.commit(lease, upload, after, parts=parts, release=True) for _ in range(3))
    )

    assert await row(state, upload) == after
    assert await state.find_parts(upload.id) == parts
    assert not await is_held(state, upload.id)


async def test_a_commit_is_not_repeated_once_somebody_else_has_the_lease(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after = upload.with_bytes(3, crc64(b"abc"))
    await state.commit(lease, upload, after, release=True)
    later = await claim(state, upload)

    for release in (False, True):
        with pytest.raises(LeaseLost):
            await state.commit(lease, upload, after, release=release)

    assert await is_held(state, upload.id)
    await state.commit(later, after, after.with_bytes(1, 1))


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


async def test_a_note_without_a_step_is_a_row_of_the_history(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    with_tail = replace(upload, tail=Tail(4, 1, "node", 0)).stepped(S.RECEIVING, on=clock.now())
    await state.commit(lease, upload, with_tail, steps=(S.RECEIVING,))

    await state.commit(lease, with_tail, replace(with_tail, tail=None), note="é: 4 bytes given up")

    history = await state.history(upload.id)
    assert [(change.state, change.note) for change in history] == [
        (S.RECEIVING, "é: 4 bytes given up"),
        (S.RECEIVING, None),
        (S.INITIATED, None),
    ]
    assert history[0].at.tzinfo is not None


async def test_a_note_with_a_step_is_in_the_row_of_that_step(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    ended = upload.stepped(S.CANCELED, on=clock.now())

    await state.commit(lease, upload, ended, steps=(S.CANCELED,), note="")

    history = await state.history(upload.id)
    assert [(change.state, change.note) for change in history] == [
        (S.CANCELED, ""),
        (S.INITIATED, None),
    ]
    assert history[0].at == ended.state_on
    assert [event.kind for event in await state.pending_events(10)] == [S.CANCELED]


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
        object_key="a/'b'/é",
        multipart_id="2~x" * 400,
        part_size=5 * 2**30,
        tail=Tail(5, 2**63, "node-1", 3),
        generation=2**40,
        unclean=True,
        state=S.RECEIVING,
    )
    parked = make_upload(clock, tail=Tail(1, 0, None, 2**40), state=S.RECEIVING)
    failed = make_upload(
        clock, state=S.ERROR, error_code="x", error_message="é", freed_at=clock.now()
    )
    empty = make_upload(clock, owner="", metadata="", length=0)
    rows = [upload, parked, failed, empty]
    for one in rows:
        await state.create_upload(one, claim=False)

    await state_backend.close()
    again = await state_backend.open()

    for one in rows:
        assert await again.find_upload(one.id) == one


async def test_every_field_that_may_change_is_replaced_by_a_commit(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock, object_key="key")
    lease = await claim(state, upload, numbers=3)
    before = await row(state, upload)
    after = replace(
        before.with_length(2**53 - 1).with_bytes(2**52, 2**64 - 1),
        multipart_id="multipart",
        part_size=5 * 2**20,
        next_part_number=7,
        tail=Tail(2, 2**63, "node", 5),
        unclean=True,
    ).stepped(S.RECEIVING, on=clock.now())
    parked = replace(after, tail=Tail(3, 2**64 - 1, None, 6), unclean=False)

    await state.commit(lease, before, after, steps=(S.RECEIVING,))
    assert await row(state, upload) == after
    await state.commit(lease, after, parked, release=True)

    assert await row(state, upload) == parked
    assert (await state.claim_upload(upload.id, offset=parked.offset)).upload == parked
    await state_backend.close()
    again = await state_backend.open()
    assert await row(again, upload) == parked


async def test_a_tail_that_became_a_part_is_gone(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock, tail=Tail(4, 1, "node", 0), state=S.RECEIVING)
    lease = await claim(state, upload)
    after = upload.with_bytes(6, 2)

    await state.commit(lease, upload, after, parts=[Part(1, 0, 6, 2, None)])

    assert await row(state, upload) == after
    assert after.tail is None


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

    for one in rows:
        assert await again.find_upload(one.id) == one
        assert not await is_held(again, one.id)
    assert len(await again.pending_events(1000)) == 50


async def test_of_commits_from_one_offset_only_one_takes_effect(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    rows = [upload.with_bytes(size, size) for size in (1, 2, 3)]

    outcomes = await asyncio.gather(
        *(state.commit(lease, upload, one) for one in rows), return_exceptions=True
    )

    assert sorted(map(type, outcomes), key=str) == [type(None), LeaseLost, LeaseLost]
    assert await state.find_upload(upload.id) == rows[outcomes.index(None)]


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
    held = await is_held(state, upload.id)
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
    for one in found:
        assert len(await again.history(one.id)) == 1
