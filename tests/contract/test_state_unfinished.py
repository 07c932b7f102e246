"""The contract of ports.StateStore, sentence by sentence: what a crash may have left half-way."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.conftest import StateBackend
from tests.support.fakes import FakeClock
from tests.support.state import claim, create, is_held, row, walk
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.ports import SECOND_PASS_S, StateStore

S = UploadState


async def look(
    state: StateStore, limit: int, after: UploadId | None = None, *, receiving: bool
) -> list[Upload]:
    """Claim unfinished work, and let go of it again."""
    found = await state.claim_unfinished(limit, after, receiving=receiving)
    for _, lease in found:
        await state.release(lease)
    return [upload for upload, _ in found]


async def mark_unclean(state: StateStore, upload: Upload) -> Upload:
    await state.release(await claim(state, upload), clean=False)
    return replace(upload, unclean=True)


async def freed(
    backend: StateBackend, state: StateStore, clock: FakeClock, *, ago_s: float, unclean: bool
) -> Upload:
    """Give an upload that was canceled, and its bytes removed, `ago_s` seconds ago."""
    upload = await walk(state, clock, await create(state, clock), S.CANCELED)
    lease = await claim(state, upload)
    at = backend.now() - timedelta(seconds=ago_s)
    after = replace(upload, freed_at=at, unclean=unclean)
    await state.commit(lease, upload, after, release=True)
    return after


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
    unclean = [
        await mark_unclean(state, one)
        for one in (
            await make(S.RECEIVING),
            await make(S.COMPLETED),
            await make(S.COMPLETED, S.VERIFIED),
            await make(S.CANCELED),
        )
    ]

    without = await look(state, 100, receiving=False)
    with_receiving = await look(state, 100, receiving=True)

    assert without == [completed, *ended, *unclean]
    assert with_receiving == [new, receiving, completed, *ended, *unclean]


@pytest.mark.parametrize("receiving", [False, True])
async def test_what_was_freed_while_unclean_comes_again_after_a_while_and_not_before(
    state_backend: StateBackend, state: StateStore, clock: FakeClock, receiving: bool
) -> None:
    async def make(ago_s: float, *, unclean: bool) -> Upload:
        return await freed(state_backend, state, clock, ago_s=ago_s, unclean=unclean)

    await make(SECOND_PASS_S - 60, unclean=True)
    ripe = await make(SECOND_PASS_S + 1, unclean=True)
    await make(0, unclean=True)
    await make(SECOND_PASS_S + 1, unclean=False)
    await make(0, unclean=False)

    [(found, lease)] = await state.claim_unfinished(10, receiving=receiving)
    assert found == ripe
    again = replace(found, unclean=False, freed_at=state_backend.now())
    await state.commit(lease, found, again, release=True)

    assert await state.claim_unfinished(10, receiving=receiving) == []
    assert await row(state, ripe) == again


async def test_what_waits_to_be_freed_again_takes_no_place(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    for _ in range(3):
        await freed(state_backend, state, clock, ago_s=0, unclean=True)
    completed = await walk(state, clock, await create(state, clock), S.COMPLETED)

    assert await look(state, 1, receiving=False) == [completed]


async def test_what_one_who_died_held_after_it_was_freed_is_freed_again(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await freed(state_backend, state, clock, ago_s=0, unclean=False)
    await claim(state, upload, numbers=4)
    state = await state_backend.abandon(upload.id)

    [(found, lease)] = await state.claim_unfinished(10, receiving=False)

    assert (found.id, found.unclean, found.generation) == (upload.id, True, lease.epoch)


async def test_work_is_done_when_the_row_is_clean_again(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await walk(state, clock, await create(state, clock), S.COMPLETED, S.VERIFIED)
    await mark_unclean(state, upload)
    [(marked, lease)] = await state.claim_unfinished(10, receiving=False)

    await state.commit(lease, marked, replace(marked, unclean=False), release=True)

    assert await state.claim_unfinished(10, receiving=True) == []
    assert await row(state, upload) == upload


async def test_unfinished_work_is_claimed_by_who_gets_it(
    state: StateStore, clock: FakeClock
) -> None:
    uploads = [await create(state, clock, next_part_number=n) for n in (1, 5)]

    found = await state.claim_unfinished(10, receiving=True, numbers=4)

    for upload, (now, lease) in zip(uploads, found, strict=True):
        assert (
            now
            == await row(state, upload)
            == replace(upload, next_part_number=upload.next_part_number + 4)
        )
        assert lease.numbers == range(upload.next_part_number, upload.next_part_number + 4)
        assert (await state.claim_upload(upload.id)).held
        await state.commit(lease, now, now.with_bytes(3, 1), release=True)
        assert not await is_held(state, upload.id)


async def test_unfinished_work_without_numbers_leaves_the_rows_as_they_are(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)

    [(found, lease)] = await state.claim_unfinished(10, receiving=True)

    assert found == await row(state, upload) == upload
    assert not lease.numbers
    assert (await state.claim_upload(upload.id)).held


async def test_what_somebody_holds_is_no_unfinished_work_and_takes_no_place(
    state: StateStore, clock: FakeClock
) -> None:
    uploads = [await create(state, clock) for _ in range(7)]
    for upload in uploads[:5]:
        await claim(state, upload, numbers=2)

    assert await look(state, 1, receiving=True) == [uploads[5]]
    assert await look(state, 10, receiving=True) == uploads[5:]
    assert await look(state, 10, receiving=False) == []


async def test_what_one_who_died_held_is_unfinished_work_and_taken_over(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await walk(state, clock, await create(state, clock), S.COMPLETED, S.VERIFIED)
    died = await claim(state, upload, numbers=4)
    state = await state_backend.abandon(upload.id)

    [(found, lease)] = await state.claim_unfinished(10, receiving=False, numbers=4)

    assert lease.epoch > died.epoch
    assert lease.numbers == range(5, 9)
    assert (
        found
        == await row(state, upload)
        == replace(upload, next_part_number=9, generation=lease.epoch, unclean=True)
    )


async def test_what_is_looked_at_twice_at_once_is_given_once(
    state: StateStore, clock: FakeClock
) -> None:
    ids = [(await create(state, clock)).id for _ in range(12)]

    found = await asyncio.gather(
        *(state.claim_unfinished(5, receiving=True, numbers=2) for _ in range(4))
    )
    rest = await state.claim_unfinished(100, receiving=True, numbers=2)

    given = [upload.id for page in (*found, rest) for upload, _ in page]
    assert sorted(given) == sorted(ids)


async def test_unfinished_work_comes_in_pages_oldest_first(
    state: StateStore, clock: FakeClock
) -> None:
    ids = []
    for _ in range(7):
        ids.append((await create(state, clock)).id)
        await walk(state, clock, await create(state, clock), S.COMPLETED, S.VERIFIED)

    found: list[UploadId] = []
    page = await look(state, 3, receiving=True)
    while page:
        assert len(page) <= 3
        found += [upload.id for upload in page]
        page = await look(state, 3, page[-1].id, receiving=True)

    assert found == ids


async def test_a_page_of_unfinished_work_can_be_left_behind_while_it_is_worked_off(
    state: StateStore, clock: FakeClock
) -> None:
    uploads = [await create(state, clock) for _ in range(3)]
    page = await look(state, 2, receiving=True)
    for upload in page:
        await walk(state, clock, upload, S.COMPLETED, S.VERIFIED)

    rest = await look(state, 2, page[-1].id, receiving=True)

    assert rest == uploads[2:]
