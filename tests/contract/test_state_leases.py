"""The contract of ports.StateStore, sentence by sentence: leases, and who has died with one."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.contract.conftest import SHARED_STATES, StateBackend
from tests.support.fakes import FakeClock, make_upload
from tests.support.state import NOBODY, claim, create, everything, is_held, row, walk
from tus_server.core.checksums import crc64
from tus_server.core.errors import LeaseLost
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Tail
from tus_server.ports import Beat, Lease, StateStore

S = UploadState
shared = pytest.mark.parametrize("state_backend", SHARED_STATES, indirect=True)


# --- claim and release


async def test_a_claim_of_an_unknown_upload_finds_nothing(state: StateStore) -> None:
    found = await state.claim_upload(NOBODY)

    assert (found.upload, found.lease, found.held) == (None, None, False)
    assert not await is_held(state, NOBODY)


async def test_a_claim_gives_the_row_and_the_lease(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock)

    found = await state.claim_upload(upload.id)

    assert found.upload == upload
    assert found.lease is not None
    assert found.lease.upload_id == upload.id
    assert not found.held
    assert await is_held(state, upload.id)


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

    assert not await is_held(state, second.id)
    await claim(state, second)


async def test_a_released_upload_can_be_claimed_with_a_higher_epoch(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    first = await claim(state, upload)

    await state.release(first)

    assert not await is_held(state, upload.id)
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

    assert await is_held(state, upload.id)


async def test_a_claim_gives_the_row_as_last_committed(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after = upload.with_bytes(3, crc64(b"abc")).stepped(S.RECEIVING, on=clock.now())
    await state.commit(lease, upload, after, steps=(S.RECEIVING,), release=True)

    assert (await state.claim_upload(upload.id)).upload == after


async def test_epochs_only_grow(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload, other = await create(state, clock), await create(state, clock)
    epochs = []
    for _ in range(3):
        for _ in range(3):
            lease = await claim(state, upload)
            epochs.append(lease.epoch)
            await state.release(lease)
            await state.release(await claim(state, other))
        await state_backend.close()
        state = await state_backend.open()

    assert all(first < second for first, second in pairwise(epochs))


async def test_a_cancelled_claim_locks_nobody_out(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    await state_backend.close()
    state = await state_backend.open()
    attempt = asyncio.ensure_future(state.claim_upload(upload.id, numbers=4))
    await asyncio.sleep(0)

    attempt.cancel()
    await asyncio.wait({attempt})
    await state.check()
    found = await state.claim_upload(upload.id, numbers=4)
    if found.held:  # until it has run out
        state = await state_backend.abandon(upload.id)
        found = await state.claim_upload(upload.id, numbers=4)

    assert attempt.cancelled()
    assert found.lease is not None
    assert found.lease.numbers.start in (1, 5)


async def test_the_lease_of_a_committed_release_is_left_alone(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload, numbers=4)
    before = await row(state, upload)
    after = replace(before.with_bytes(3, 1), next_part_number=2)
    await state.commit(lease, before, after, release=True)

    await state.release(lease, next_part_number=1, clean=False)

    assert await row(state, upload) == after
    assert not await is_held(state, upload.id)


# --- a claim for an offset


async def test_a_claim_for_an_offset_is_granted_only_there(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload)
    after = replace(upload.with_bytes(3, 1), tail=Tail(4, 1, "node", 0))
    await state.commit(lease, upload, after, release=True)

    for offset in (0, 3, 4, 6, 8, 2**53 - 1):
        found = await state.claim_upload(upload.id, offset=offset, numbers=4)
        assert (found.upload, found.lease, found.held) == (after, None, False)
        assert not await is_held(state, upload.id)
    found = await state.claim_upload(upload.id, offset=7, numbers=4)

    assert found.lease is not None
    assert found.lease.numbers == range(1, 5)
    assert found.upload == replace(after, next_part_number=5)


async def test_a_claim_for_an_offset_of_an_upload_that_takes_no_more_is_not_granted(
    state: StateStore, clock: FakeClock
) -> None:
    for steps in ([S.COMPLETED], [S.COMPLETED, S.VERIFIED], [S.CANCELED], [S.EXPIRED], [S.ERROR]):
        upload = await walk(state, clock, await create(state, clock), *steps)

        found = await state.claim_upload(upload.id, offset=0)

        assert (found.upload, found.lease, found.held) == (upload, None, False)
        await claim(state, upload)


async def test_a_claim_for_an_offset_of_a_held_upload_says_that_it_is_held(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    await claim(state, upload)

    for offset in (0, 5):  # the holder may yet move it
        found = await state.claim_upload(upload.id, offset=offset)
        assert (found.upload, found.lease, found.held) == (upload, None, True)


async def test_a_claim_for_an_offset_of_an_unknown_upload_finds_nothing(state: StateStore) -> None:
    found = await state.claim_upload(NOBODY, offset=0, numbers=4)

    assert (found.upload, found.lease, found.held) == (None, None, False)


# --- part numbers


async def test_a_claim_without_numbers_sets_none_aside(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock, next_part_number=5)

    lease = await claim(state, upload)
    await state.release(lease, next_part_number=lease.numbers.start)

    assert not lease.numbers
    assert await row(state, upload) == upload


async def test_numbers_are_set_aside_in_the_row_with_the_claim(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock, next_part_number=5)

    found = await state.claim_upload(upload.id, numbers=16)

    assert found.lease is not None
    assert found.lease.numbers == range(5, 21)
    assert found.upload == await row(state, upload) == replace(upload, next_part_number=21)


async def test_a_claim_that_is_not_granted_sets_no_numbers_aside(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    await state.claim_upload(upload.id, offset=3, numbers=4)
    assert await row(state, upload) == upload

    await claim(state, upload, numbers=4)
    held = await row(state, upload)
    await state.claim_upload(upload.id, numbers=4)

    assert await row(state, upload) == held


async def spend(state: StateStore, lease: Lease) -> None:
    await state.release(lease)


async def give_back(state: StateStore, lease: Lease) -> None:
    await state.release(lease, next_part_number=lease.numbers.start + 1)


async def commit_some(state: StateStore, lease: Lease) -> None:
    before = await state.find_upload(lease.upload_id)
    assert before is not None
    after = replace(before, next_part_number=lease.numbers.start + 1)
    await state.commit(lease, before, after, release=True)


async def commit_more(state: StateStore, lease: Lease) -> None:
    before = await state.find_upload(lease.upload_id)
    assert before is not None
    after = replace(before, next_part_number=before.next_part_number + 10)
    await state.commit(lease, before, after)
    await state.release(lease)


@pytest.mark.parametrize(
    ("end", "expected"), [(spend, 9), (give_back, 6), (commit_some, 6), (commit_more, 19)]
)
async def test_a_clean_end_gives_back_what_it_says_and_leaves_the_rest_of_the_row(
    state_backend: StateBackend,
    state: StateStore,
    clock: FakeClock,
    end: Callable[[StateStore, Lease], Awaitable[None]],
    expected: int,
) -> None:
    upload = await create(state, clock, next_part_number=5)

    await end(state, await claim(state, upload, numbers=4))

    assert await row(state, upload) == replace(upload, next_part_number=expected)
    assert not await is_held(state, upload.id)
    await state_backend.close()
    again = await state_backend.open()
    found = await again.claim_upload(upload.id, numbers=2)
    assert found.upload == replace(upload, next_part_number=expected + 2)
    assert found.lease is not None
    assert found.lease.numbers == range(expected, expected + 2)


async def test_numbers_of_one_who_died_are_never_given_again(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = make_upload(clock)
    first = await state.create_upload(upload, claim=True, numbers=4)
    assert first is not None
    given = list(first.numbers)

    for _ in range(3):
        state = await state_backend.abandon(upload.id)
        given += (await claim(state, upload, numbers=3)).numbers
    await state_backend.close()
    state = await state_backend.open()
    given += (await claim(state, upload, numbers=3)).numbers

    assert given == list(range(1, 17))


# --- whether an end was clean


async def test_an_end_that_was_not_clean_is_marked_in_the_row_until_a_commit_clears_it(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(state, upload, numbers=4)

    await state.release(lease, next_part_number=1, clean=False)

    marked = replace(upload, unclean=True)
    assert await row(state, upload) == marked
    assert not await is_held(state, upload.id)
    await state.release(await claim(state, upload, numbers=4), next_part_number=1)
    await state_backend.close()
    again = await state_backend.open()
    lease = await claim(again, upload, numbers=4)
    before = await row(again, upload)
    assert before == replace(marked, next_part_number=5)
    await again.commit(lease, before, upload, release=True)
    assert await row(again, upload) == upload


async def test_an_end_without_numbers_may_be_unclean_too(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)

    await state.release(await claim(state, upload), clean=False)

    found = await state.claim_upload(upload.id)
    assert found.upload == replace(upload, unclean=True)
    assert found.lease is not None


# --- a holder that has died


async def test_leases_end_with_the_process(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    await claim(state, upload)

    await state_backend.close()
    again = await state_backend.open()

    await claim(again, upload)


async def test_taking_over_from_one_who_died_begins_a_generation_and_marks_the_row(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    clean = await claim(state, upload, numbers=4)
    await state.release(clean, next_part_number=1)
    assert (await row(state, upload)).generation == 0
    died = await claim(state, upload, numbers=4)
    assert (await row(state, upload)).generation == 0

    state = await state_backend.abandon(upload.id)
    found = await state.claim_upload(upload.id, numbers=4)

    assert found.lease is not None
    assert found.lease.epoch > died.epoch
    expected = replace(upload, generation=found.lease.epoch, unclean=True, next_part_number=9)
    assert found.upload == await row(state, upload) == expected
    await state.release(found.lease)
    later = await state.claim_upload(upload.id)  # from one who had let go
    assert later.upload == expected
    await state_backend.close()
    assert await row(await state_backend.open(), upload) == expected


async def test_a_lease_can_be_taken_over_from_its_creator(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = make_upload(clock)
    await state.create_upload(upload, claim=True, numbers=4)

    state = await state_backend.abandon(upload.id)
    found = await state.claim_upload(upload.id, offset=0)

    assert found.lease is not None
    assert found.upload is not None
    assert found.upload.unclean
    assert found.upload.generation == found.lease.epoch


async def test_one_who_died_still_counts_as_holder_until_the_lease_is_taken(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    await claim(state, upload, numbers=4)
    known = await row(state, upload)

    state = await state_backend.abandon(upload.id)
    found = await state.observe_upload(upload.id)

    # The row is not final: a process that was only stopped may yet commit.
    assert (found.upload, found.lease, found.held) == (known, None, True)
    await state.release(await claim(state, upload))
    assert not await is_held(state, upload.id)


async def test_a_claim_for_another_offset_does_not_take_over_from_one_who_died(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    await claim(state, upload, numbers=4)
    known = await row(state, upload)
    state = await state_backend.abandon(upload.id)

    found = await state.claim_upload(upload.id, offset=3, numbers=4)

    assert found.lease is None
    assert await row(state, upload) == known


async def test_one_who_wakes_up_after_the_lease_was_taken_changes_nothing(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    old = await claim(state, upload, numbers=4)
    before = await row(state, upload)
    state = await state_backend.abandon(upload.id)
    await claim(state, upload, numbers=4)
    known = await everything(state, upload.id)

    with pytest.raises(LeaseLost):
        await state.commit(old, before, before.with_bytes(3, crc64(b"abc")), release=True)
    await state.release(old, next_part_number=1, clean=False)

    assert await everything(state, upload.id) == known
    assert await is_held(state, upload.id)


# --- signs of life


async def test_a_beat_of_one_who_holds_what_nobody_wants_tells_nothing(
    state: StateStore, clock: FakeClock
) -> None:
    leases = [await claim(state, await create(state, clock)) for _ in range(3)]

    assert await state.beat([]) == Beat()
    assert await state.beat(leases) == Beat()
    for lease in leases:
        assert await is_held(state, lease.upload_id)


async def test_an_unknown_node_is_not_found(state: StateStore) -> None:
    assert await state.find_node("nobody") is None


# --- several processes


class Heard:
    """What a process was called for."""

    def __init__(self, state: StateStore) -> None:
        self.wanted: asyncio.Queue[UploadId] = asyncio.Queue()
        self.freed: asyncio.Queue[UploadId] = asyncio.Queue()
        state.watch(wanted=self.wanted.put_nowait, freed=self.freed.put_nowait)


async def soon(queue: "asyncio.Queue[UploadId]") -> UploadId:
    async with asyncio.timeout(20):
        return await queue.get()


@shared
async def test_processes_see_each_others_rows_and_leases(
    state: StateStore, other_state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    lease = await claim(other_state, upload, numbers=4)
    known = await row(other_state, upload)

    found = await state.claim_upload(upload.id, numbers=4)
    assert (found.upload, found.lease, found.held) == (known, None, True)
    assert (await state.observe_upload(upload.id)).held
    after = known.with_bytes(3, crc64(b"abc"))
    await other_state.commit(lease, known, after, release=True)

    assert await row(state, upload) == after
    await claim(state, upload)


@shared
async def test_of_the_claims_of_processes_one_gets_the_lease(
    state: StateStore, other_state: StateStore, clock: FakeClock
) -> None:
    for _ in range(10):
        upload = await create(state, clock)

        found = await asyncio.gather(
            *(one.claim_upload(upload.id, numbers=2) for one in (state, other_state) * 5)
        )

        assert sum(one.lease is not None for one in found) == 1
        assert sum(one.held for one in found) == 9
        assert (await row(state, upload)).next_part_number == 3


@shared
async def test_a_beat_tells_which_leases_another_process_has_now(
    state_backend: StateBackend, state: StateStore, other_state: StateStore, clock: FakeClock
) -> None:
    lost, kept = await create(state, clock), await create(state, clock)
    leases = [await claim(state, lost, numbers=4), await claim(state, kept, numbers=4)]
    await state_backend.abandon(lost.id)
    await claim(other_state, lost, numbers=4)

    assert await state.beat(leases) == Beat(lost=frozenset({lost.id}))
    assert (await other_state.claim_upload(kept.id)).held


@shared
async def test_a_holder_hears_that_its_lease_is_wanted_and_who_asked_that_it_is_free(
    state: StateStore, other_state: StateStore, clock: FakeClock
) -> None:
    holder, waiter = Heard(state), Heard(other_state)
    for release in ("release", "commit"):
        upload = await create(state, clock)
        lease = await claim(state, upload, numbers=4)
        await other_state.ask_release(upload.id)

        assert await soon(holder.wanted) == upload.id
        assert await state.beat([lease]) == Beat(wanted=frozenset({upload.id}))
        if release == "release":
            await state.release(lease)
        else:
            before = await row(state, upload)
            await state.commit(lease, before, before.with_bytes(1, 1), release=True)
        assert await soon(waiter.freed) == upload.id

        # The next lease is not wanted any more, and nobody is told of its end.
        lease = await claim(state, upload, numbers=4)
        assert await state.beat([lease]) == Beat()
        await state.release(lease)
    assert waiter.freed.empty()
    assert waiter.wanted.empty()
    assert holder.freed.empty()


@shared
async def test_asking_for_what_nobody_holds_tells_nobody(
    state: StateStore, other_state: StateStore, clock: FakeClock
) -> None:
    holder = Heard(state)
    upload = await create(state, clock)
    await other_state.ask_release(upload.id)
    await other_state.ask_release(NOBODY)

    lease = await claim(state, upload)

    assert await state.beat([lease]) == Beat()
    assert holder.wanted.empty()
