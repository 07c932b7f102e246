"""The contract of ports.StateStore, sentence by sentence: final uploads, and their parts."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.conftest import StateBackend
from tests.support.fakes import FakeClock, make_upload
from tests.support.state import NOBODY, claim, create, everything, row, walk
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.ports import StateStore

S = UploadState
FINISH = (S.COMPLETED, S.VERIFIED)


async def partial(state: StateStore, clock: FakeClock, *steps: UploadState) -> Upload:
    """Create a partial upload, and take it through `steps`."""
    return await walk(state, clock, await create(state, clock, concat="partial"), *steps)


async def final(state: StateStore, clock: FakeClock, *partials: Upload) -> Upload:
    upload = make_upload(clock, concat="final;" + " ".join(f"/{one.id}" for one in partials))
    await state.create_upload(upload, claim=False, partials=[one.id for one in partials])
    return upload


# --- what it consists of


async def test_a_final_upload_consists_of_its_partials_in_order_also_twice_of_one(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    first = await partial(state, clock, *FINISH)
    second = await partial(state, clock)
    upload = await final(state, clock, second, first, second)

    assert await row(state, upload) == upload
    assert await state.find_partials(upload.id) == [second, first, second]
    second = await walk(state, clock, second, *FINISH)
    await state_backend.close()
    again = await state_backend.open()
    assert await row(again, upload) == upload
    assert await again.find_partials(upload.id) == [second, first, second]


async def test_any_other_upload_consists_of_nothing(state: StateStore, clock: FakeClock) -> None:
    one = await partial(state, clock)
    await final(state, clock, one)

    assert await state.find_partials(one.id) == []
    assert await state.find_partials((await create(state, clock)).id) == []
    assert await state.find_partials(NOBODY) == []


async def test_a_final_upload_may_consist_of_a_thousand(
    state: StateStore, clock: FakeClock
) -> None:
    ones = [await partial(state, clock) for _ in range(10)]
    upload = await final(state, clock, *ones * 100)

    assert await state.find_partials(upload.id) == ones * 100


async def test_a_final_upload_can_be_claimed_with_its_creation(
    state: StateStore, clock: FakeClock
) -> None:
    one = await partial(state, clock, *FINISH)
    upload = make_upload(clock, concat=f"final;/{one.id}", length=0)

    lease = await state.create_upload(upload, claim=True, numbers=4, partials=[one.id])

    assert lease is not None
    assert lease.numbers == range(1, 5)
    before = await row(state, upload)
    after = before.stepped(*FINISH, on=clock.now())
    await state.commit(lease, before, after, steps=FINISH, release=True)
    assert await row(state, upload) == after


async def test_the_rows_of_several_uploads_are_found_at_once(
    state: StateStore, clock: FakeClock
) -> None:
    ones = [await create(state, clock, length=n) for n in range(3)]
    await create(state, clock)

    found = await state.find_uploads([ones[2].id, NOBODY, ones[0].id, ones[2].id])

    assert found == {one.id: one for one in (ones[0], ones[2])}
    assert await state.find_uploads([]) == {}


# --- events


@pytest.mark.parametrize(
    "life",
    [(*FINISH, S.EXPIRED), (S.CANCELED,), (S.EXPIRED,), (S.ERROR,), (*FINISH, S.DELETED)],
    ids="-".join,
)
async def test_a_partial_upload_is_no_event_but_has_a_history(
    state: StateStore, clock: FakeClock, life: tuple[UploadState, ...]
) -> None:
    upload = await partial(state, clock, *life)

    assert await state.pending_events(10) == []
    assert [one.state for one in await state.history(upload.id)] == [*life[::-1], S.INITIATED]


async def test_a_final_upload_is_an_event_like_any_other(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await final(state, clock, await partial(state, clock, *FINISH))
    await walk(state, clock, upload, *FINISH)

    events = await state.pending_events(10)

    assert [(event.upload_id, event.kind) for event in events] == [(upload.id, S.VERIFIED)]


# --- ready ones

UNREADY = [(), (S.RECEIVING,), (S.COMPLETED,)]
READY = [FINISH, (*FINISH, S.ACCEPTED)]
LOST = [(S.CANCELED,), (S.EXPIRED,), (S.ERROR,), (*FINISH, S.DELETED)]


@pytest.mark.parametrize("life", [*UNREADY, *READY, *LOST], ids=lambda life: "-".join(life) or "-")
async def test_a_final_upload_is_ready_when_nothing_of_it_can_still_arrive(
    state: StateStore, clock: FakeClock, life: tuple[UploadState, ...]
) -> None:
    done, other = await partial(state, clock, *FINISH), await partial(state, clock, *life)
    upload = await final(state, clock, done, other, done)

    expected = [] if life in UNREADY else [upload.id]
    assert await state.find_ready_finals(10) == expected
    assert await state.find_ready_finals(10, of=other.id) == expected
    assert await state.find_ready_finals(10, of=done.id) == expected


async def test_a_final_upload_that_has_lost_a_partial_waits_for_no_other(
    state: StateStore, clock: FakeClock
) -> None:
    waiting = await partial(state, clock)
    upload = await final(state, clock, waiting, await partial(state, clock, S.CANCELED))

    assert await state.find_ready_finals(10) == [upload.id]
    assert await state.find_ready_finals(10, of=waiting.id) == [upload.id]


async def test_what_becomes_ready_is_found_when_it_does(
    state: StateStore, clock: FakeClock
) -> None:
    first, second = await partial(state, clock), await partial(state, clock)
    upload = await final(state, clock, first, second)

    await walk(state, clock, second, *FINISH)
    assert await state.find_ready_finals(10, of=second.id) == []
    await walk(state, clock, first, *FINISH)

    assert await state.find_ready_finals(10, of=first.id) == [upload.id]


async def test_a_final_upload_that_has_gone_on_is_not_ready_again(
    state: StateStore, clock: FakeClock
) -> None:
    one = await partial(state, clock, *FINISH)
    for steps in ((S.COMPLETED,), FINISH, (S.ERROR,), (S.CANCELED,)):
        await walk(state, clock, await final(state, clock, one), *steps)

    assert await state.find_ready_finals(10) == []
    assert await state.find_ready_finals(10, of=one.id) == []


async def test_ready_finals_come_oldest_first_up_to_the_limit_and_by_partial(
    state: StateStore, clock: FakeClock
) -> None:
    ones = [await partial(state, clock, *FINISH) for _ in range(2)]
    finals = [await final(state, clock, ones[n % 2]) for n in range(5)]
    await create(state, clock)  # an ordinary one waits for bytes alone

    assert await state.find_ready_finals(10) == [one.id for one in finals]
    assert await state.find_ready_finals(2) == [one.id for one in finals[:2]]
    assert await state.find_ready_finals(10, of=ones[1].id) == [finals[1].id, finals[3].id]
    assert await state.find_ready_finals(10, of=NOBODY) == []


# --- used partials


async def test_used_partials_expire_a_while_later_if_not_sooner(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    now = state_backend.now()
    soon, late = now + timedelta(seconds=100), now + timedelta(days=7)
    never = await create(state, clock, concat="partial")
    sooner = await create(state, clock, concat="partial", expires_at=soon)
    later = await create(state, clock, concat="partial", expires_at=late)
    ended = await walk(state, clock, await create(state, clock, concat="partial"), S.CANCELED)
    other = await create(state, clock, concat="partial", expires_at=late)
    never, sooner, later = [await walk(state, clock, o, *FINISH) for o in (never, sooner, later)]
    upload = await final(state, clock, never, sooner, later, ended, never)

    await state.let_partials_expire(upload.id, 3600)

    found = [await row(state, one) for one in (never, sooner, later, ended, other, upload)]
    at = found[0].expires_at
    assert at is not None
    assert timedelta(seconds=3590) < at - state_backend.now() <= timedelta(seconds=3600)
    assert found == [
        replace(never, expires_at=at),
        sooner,
        replace(later, expires_at=at),
        ended,
        other,
        upload,
    ]
    # Again, for a while that ends later.
    await state.let_partials_expire(upload.id, 7200)
    assert [await row(state, one) for one in (never, sooner, later)] == found[:3]
    # What was read before is not put back by the next commit.
    lease = await claim(state, later)
    await state.commit(lease, found[2], replace(found[2], unclean=False), release=True)
    await state_backend.close()
    again = await state_backend.open()
    assert [await row(again, one) for one in (never, sooner, later)] == found[:3]


async def test_letting_the_partials_of_an_ordinary_upload_expire_changes_nothing(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock)
    known = await everything(state, upload.id)

    await state.let_partials_expire(upload.id, 1)
    await state.let_partials_expire(NOBODY, 1)

    assert await everything(state, upload.id) == known


async def test_a_row_of_every_kind_keeps_its_new_fields(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    digests = {"sha256": bytes(range(32)), "md5": None, "crc32": b""}
    at = clock.now()
    rows = [
        await create(state, clock, concat="partial", expires_at=at, digests=digests),
        await create(state, clock, digests={"sha1": None}, max_size=2**53 - 1),
    ]
    odd = make_upload(clock, concat="final;/Ü\0 ␛", max_size=1)
    await state.create_upload(odd, claim=False, partials=[rows[0].id])
    lease = await claim(state, rows[0])
    after = replace(rows[0], expires_at=at + timedelta(microseconds=1), digests={"md5": b"x"})
    await state.commit(lease, rows[0], after)
    cleared = replace(after, expires_at=None, digests={})
    assert await row(state, after) == after
    await state.commit(lease, after, cleared, release=True)

    await state_backend.close()
    again = await state_backend.open()
    assert [await row(again, one) for one in (*rows, odd)] == [cleared, rows[1], odd]
