"""The contract of ports.StateStore, sentence by sentence: delivering the events of the outbox."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.conftest import SHARED_STATES, StateBackend
from tests.support.fakes import FakeClock
from tests.support.state import create, walk
from tus_server.core.jobs import Instructions, Job, Outcome
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.ports import Attempt, Event, Letters, StateStore

S = UploadState
shared = pytest.mark.parametrize("state_backend", SHARED_STATES, indirect=True)
DELETED = (S.COMPLETED, S.VERIFIED, S.DELETED)  # two events
JOB = Job("job", {"n": 1})


async def ended(state: StateStore, clock: FakeClock, number: int) -> list[Upload]:
    """Cancel some uploads: one event each."""
    wishes = Instructions(failure_job=JOB)
    return [
        await walk(state, clock, await create(state, clock, instructions=wishes), S.CANCELED)
        for _ in range(number)
    ]


def of(events: list[Event]) -> list[str]:
    """Give whose events those are."""
    return [event.upload_id for event in events]


def delivered(event: Event, *targets: str) -> Attempt:
    return Attempt(event, event.done | set(targets))


def again(event: Event, retry_in_s: float, error: str = "500") -> Attempt:
    return Attempt(event, event.done, error, retry_in_s)


def dead(event: Event, error: str = "410 Gone") -> Attempt:
    return Attempt(event, event.done, error)


async def one(state: StateStore, lasts_s: float = 60) -> Event:
    """Claim what must be the only event to claim."""
    [event] = await state.claim_events(10, lasts_s)
    return event


async def now(state: StateStore, event: Event) -> Event:
    found = await state.find_event(event.id)
    assert found is not None
    return found


async def ids(state: StateStore, kind: Letters) -> list[int]:
    return [event.id for event in await state.list_events(kind, 100)]


# --- claiming


async def test_events_are_claimed_oldest_first_up_to_the_limit(
    state: StateStore, clock: FakeClock
) -> None:
    uploads = [upload.id for upload in await ended(state, clock, 5)]

    first = await state.claim_events(3, 60)
    rest = await state.claim_events(3, 60)

    assert (of(first), of(rest)) == (uploads[:3], uploads[3:])
    assert [event.id for event in first] == sorted(event.id for event in first)
    assert await state.claim_events(3, 60) == []
    assert len(await state.pending_events(10)) == 5


async def test_what_is_due_again_does_not_hold_up_what_came_later(
    state: StateStore, clock: FakeClock
) -> None:
    [first, second] = [upload.id for upload in await ended(state, clock, 2)]
    [event] = await state.claim_events(1, 60)
    await state.settle_events([again(event, 0.0)])

    assert of(await state.claim_events(1, 60)) == [second]
    assert of(await state.claim_events(1, 60)) == [first]


async def test_where_there_is_nothing_nothing_is_claimed(
    state: StateStore, clock: FakeClock
) -> None:
    await create(state, clock)

    assert await state.claim_events(10, 60) == []


async def test_a_claim_gives_the_event_and_counts_the_attempt(
    state: StateStore, clock: FakeClock
) -> None:
    [upload] = await ended(state, clock, 1)
    [pending] = await state.pending_events(1)

    event = await one(state)

    assert event == replace(pending, attempts=1)
    assert (event.kind, event.at) == (S.CANCELED, upload.state_on)
    assert (event.outcome, event.job) == (Outcome.FAILURE, JOB)
    assert await now(state, event) == event


async def test_a_claim_that_has_run_out_is_anybodys(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 1)
    event = await one(state, lasts_s=60)
    await state_backend.let_outbox_wait(50)
    assert await state.claim_events(10, 60) == []
    await state_backend.let_outbox_wait(10.1)

    second = await one(state, lasts_s=60)

    assert second == replace(event, attempts=2)
    assert await state.claim_events(10, 60) == []


async def test_the_events_of_an_upload_come_one_after_the_other(
    state: StateStore, clock: FakeClock
) -> None:
    first, second = [
        await walk(state, clock, await create(state, clock), *DELETED) for _ in range(2)
    ]

    events = await state.claim_events(10, 60)
    assert of(events) == [first.id, second.id]
    assert {event.kind for event in events} == {S.VERIFIED}
    assert await state.claim_events(10, 60) == []
    await state.settle_events([delivered(events[1])])

    event = await one(state)
    assert (event.upload_id, event.kind) == (second.id, S.DELETED)


async def test_what_waits_for_another_attempt_holds_up_what_follows_of_its_upload(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await walk(state, clock, await create(state, clock), *DELETED)
    await state.settle_events([again(await one(state), 30)])
    assert await state.claim_events(10, 60) == []
    await state_backend.let_outbox_wait(31)

    event = await one(state)
    assert event.kind == S.VERIFIED
    await state.settle_events([delivered(event)])

    event = await one(state)
    assert (event.upload_id, event.kind) == (upload.id, S.DELETED)


# --- what nobody wants


async def test_events_that_nobody_wants_are_delivered_without_an_attempt(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await walk(state, clock, await create(state, clock), *DELETED)
    both = [(S.VERIFIED, Outcome.SUCCESS), (S.DELETED, None)]

    assert await state.settle_unwanted(10, both) == 2

    events = await state.list_events(Letters.DELIVERED, 10)
    assert of(events) == [upload.id] * 2
    assert {(event.attempts, event.done, event.error) for event in events} == {
        (0, frozenset(), None)
    }
    assert await state.claim_events(10, 60) == []
    assert await state.settle_unwanted(10, both) == 0


async def test_events_of_other_kinds_or_outcomes_or_with_a_job_stay(
    state: StateStore, clock: FakeClock
) -> None:
    await walk(state, clock, await create(state, clock), *DELETED)
    await ended(state, clock, 1)
    canceled = (S.CANCELED, Outcome.FAILURE)  # with a job
    others = [(S.VERIFIED, None), (S.VERIFIED, Outcome.FAILURE), (S.DELETED, Outcome.FAILURE)]

    assert await state.settle_unwanted(10, [canceled, *others]) == 0
    assert await state.settle_unwanted(10, []) == 0
    assert await state.settle_unwanted(10, [(S.DELETED, None)]) == 1

    assert {event.kind for event in await state.pending_events(10)} == {S.VERIFIED, S.CANCELED}


async def test_what_is_claimed_or_not_due_or_beyond_the_limit_is_not_settled(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    for _ in range(4):
        await walk(state, clock, await create(state, clock), S.CANCELED)
    canceled = [(S.CANCELED, Outcome.FAILURE)]
    claimed, put_off = await state.claim_events(2, 60)
    await state.settle_events([again(put_off, 30)])

    assert await state.settle_unwanted(1, canceled) == 1
    assert await state.settle_unwanted(10, canceled) == 1
    assert {event.id for event in await state.pending_events(10)} == {claimed.id, put_off.id}
    await state_backend.let_outbox_wait(40)
    assert await state.settle_unwanted(10, canceled) == 1
    await state.settle_events([again(claimed, 0.0)])
    assert await state.settle_unwanted(10, canceled) == 1


async def test_a_dead_letter_holds_nothing_up(state: StateStore, clock: FakeClock) -> None:
    await walk(state, clock, await create(state, clock), *DELETED)
    first = await one(state)
    await state.settle_events([dead(first)])

    second = await one(state)

    assert second.kind == S.DELETED
    # And once it is tried again, it comes without regard to what has been delivered since.
    await state.settle_events([delivered(second)])
    assert await state.retry_event(first.id)
    assert (await one(state)).id == first.id


async def test_an_event_that_is_retried_comes_before_those_that_follow_it(
    state: StateStore, clock: FakeClock
) -> None:
    await walk(state, clock, await create(state, clock), *DELETED)
    first = await one(state)
    await state.settle_events([dead(first)])

    await state.retry_event(first.id)

    assert (await one(state)).id == first.id


@shared
async def test_what_one_process_has_claimed_another_does_not_get(
    state: StateStore, other_state: StateStore, clock: FakeClock
) -> None:
    await walk(state, clock, await create(state, clock), *DELETED)
    event = await one(state)

    assert await other_state.claim_events(10, 60) == []

    await state.settle_events([delivered(event)])
    assert (await one(other_state)).kind == S.DELETED


@shared
async def test_two_processes_never_claim_the_same(
    state: StateStore, other_state: StateStore, clock: FakeClock
) -> None:
    uploads = [upload.id for upload in await ended(state, clock, 40)]

    pages = await asyncio.gather(
        *((state, other_state)[turn % 2].claim_events(7, 60) for turn in range(12))
    )

    claimed = [event.upload_id for page in pages for event in page]
    assert len(claimed) == len(set(claimed))
    while page := await state.claim_events(100, 60):
        claimed += of(page)
    assert sorted(claimed) == sorted(uploads)


# --- how it went


async def test_what_is_delivered_is_claimed_no_more(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 1)
    event = await one(state)

    await state.settle_events([delivered(event, "job", "hook")])

    found = await now(state, event)
    assert found.delivered_at is not None
    assert found == replace(event, done=frozenset({"job", "hook"}), delivered_at=found.delivered_at)
    assert abs(found.delivered_at - state_backend.now()) < timedelta(seconds=60)
    assert await state.pending_events(10) == []
    await state_backend.let_outbox_wait(86400)
    assert await state.claim_events(10, 60) == []


async def test_what_failed_is_tried_again_when_it_is_due(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 1)
    event = await one(state)

    await state.settle_events([Attempt(event, frozenset({"hook"}), "503: é\0␛", 30)])

    found = await now(state, event)
    assert (found.done, found.error) == (frozenset({"hook"}), "503: é\0␛")
    assert (found.delivered_at, found.given_up_at) == (None, None)
    await state_backend.let_outbox_wait(29)
    assert await state.claim_events(10, 60) == []
    await state_backend.let_outbox_wait(2)
    second = await one(state)
    assert (second.attempts, second.done, second.error) == (2, {"hook"}, "503: é\0␛")
    assert (second.outcome, second.job) == (event.outcome, event.job)
    await state.settle_events([delivered(second, "job")])
    found = await now(state, event)
    assert (found.done, found.error) == (frozenset({"hook", "job"}), None)


async def test_a_target_that_has_an_event_keeps_it(state: StateStore, clock: FakeClock) -> None:
    await ended(state, clock, 1)
    for done in ({"b"}, set(), {"ü", "a"}, {"b"}):
        event = await one(state)
        await state.settle_events([Attempt(event, frozenset(done), "no", 0.0)])

    event = await one(state)

    assert event.done == {"a", "b", "ü"}


async def test_what_is_to_be_tried_again_at_once_is(state: StateStore, clock: FakeClock) -> None:
    await ended(state, clock, 1)

    await state.settle_events([again(await one(state), 0.0)])

    assert (await one(state)).attempts == 2


async def test_what_is_given_up_is_a_dead_letter(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 1)
    event = await one(state)

    await state.settle_events([dead(event, "no such callable")])

    found = await now(state, event)
    assert found.given_up_at is not None
    assert found == replace(event, error="no such callable", given_up_at=found.given_up_at)
    assert await state.pending_events(10) == []
    await state_backend.let_outbox_wait(86400)
    assert await state.claim_events(10, 60) == []


async def test_many_attempts_are_settled_at_once(state: StateStore, clock: FakeClock) -> None:
    await ended(state, clock, 30)
    events = await state.claim_events(30, 60)

    kinds = (delivered, lambda event: again(event, 30.0), dead)
    await state.settle_events([kinds[n % 3](event) for n, event in enumerate(events)])
    await state.settle_events([])

    numbers = [event.id for event in events][::-1]
    assert await ids(state, Letters.DELIVERED) == numbers[2::3]
    assert await ids(state, Letters.PENDING) == numbers[1::3]
    assert await ids(state, Letters.DEAD) == numbers[::3]


async def test_an_attempt_that_was_overtaken_settles_nothing(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 1)
    first = await one(state, lasts_s=60)
    await state_backend.let_outbox_wait(61)
    second = await one(state)

    for attempt in (delivered(first, "x"), again(first, 5), dead(first)):
        await state.settle_events([attempt])
        assert await now(state, second) == second
    assert await state.claim_events(10, 60) == []

    await state.settle_events([delivered(second)])
    assert await ids(state, Letters.DELIVERED) == [second.id]


async def test_an_attempt_from_before_it_was_a_dead_letter_settles_nothing(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 1)
    first = await one(state, lasts_s=60)
    await state_backend.let_outbox_wait(61)
    await state.settle_events([dead(await one(state))])
    await state.retry_event(first.id)
    third = await one(state)
    assert third.attempts == first.attempts

    for attempt in (delivered(first, "x"), again(first, 5), dead(first)):
        await state.settle_events([attempt])

    assert await now(state, third) == third
    await state.settle_events([delivered(third)])
    assert await ids(state, Letters.DELIVERED) == [third.id]


async def test_a_late_attempt_counts_as_long_as_nobody_has_claimed_it_again(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 1)
    event = await one(state, lasts_s=60)
    await state_backend.let_outbox_wait(600)

    await state.settle_events([delivered(event)])

    assert await state.claim_events(10, 60) == []
    assert await ids(state, Letters.DELIVERED) == [event.id]


async def test_settling_again_changes_nothing(state: StateStore, clock: FakeClock) -> None:
    await ended(state, clock, 3)
    events = await state.claim_events(3, 60)
    attempts = [delivered(events[0], "job"), again(events[1], 30), dead(events[2])]
    await state.settle_events(attempts)
    known = [await now(state, event) for event in (events[0], events[2])]

    await state.settle_events(attempts)
    await state.settle_events([again(events[0], 0.0), delivered(events[2])])

    assert [await now(state, event) for event in (events[0], events[2])] == known
    assert (await now(state, events[1])).attempts == 1
    assert await state.claim_events(10, 60) == []


# --- dead letters


async def test_a_dead_letter_can_be_tried_again_as_if_it_were_new(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 1)
    for _ in range(3):
        await state.settle_events([again(await one(state), 10)])
        await state_backend.let_outbox_wait(11)
    event = await one(state)
    assert event.attempts == 4
    await state.settle_events([Attempt(event, frozenset({"hook"}), "gone")])

    assert await state.retry_event(event.id)

    assert await ids(state, Letters.DEAD) == []
    fresh = await one(state)
    assert (fresh.attempts, fresh.given_up_at, fresh.done) == (1, None, {"hook"})
    assert (fresh.outcome, fresh.job) == (event.outcome, event.job)


async def test_nothing_but_a_dead_letter_is_retried(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 2)
    events = await state.claim_events(2, 60)
    await state.settle_events([delivered(events[0]), again(events[1], 1000)])

    for event_id in (events[0].id, events[1].id, 0, -1, 10**9):
        assert not await state.retry_event(event_id)

    await state_backend.let_outbox_wait(500)
    assert await state.claim_events(10, 60) == []


# --- what was delivered


async def test_what_was_delivered_long_ago_is_removed(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 6)
    events = await state.claim_events(6, 60)
    await state.settle_events(
        [*map(delivered, events[:3]), dead(events[3]), again(events[4], 10**6)]
    )
    await state_backend.let_outbox_wait(3600)
    await state.settle_events([delivered(events[5])])

    assert await state.purge_events(10, delivered_s=4000) == 0
    assert await state.purge_events(2, delivered_s=3000) == 2
    assert await state.purge_events(10, delivered_s=3000) == 1
    assert await state.purge_events(10, delivered_s=3000) == 0

    found = [await state.find_event(event.id) for event in events]
    assert [event is None for event in found] == [True, True, True, False, False, False]
    assert await ids(state, Letters.DELIVERED) == [events[5].id]
    assert await ids(state, Letters.DEAD) == [events[3].id]
    assert await ids(state, Letters.PENDING) == [events[4].id]


async def test_an_event_outlives_the_upload_it_speaks_of(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock, instructions=Instructions(failure_job=JOB))
    lease = (await state.claim_upload(upload.id)).lease
    assert lease is not None
    at = state_backend.now() - timedelta(days=1)
    gone = replace(upload.stepped(S.CANCELED, on=at), freed_at=at)
    await state.commit(lease, upload, gone, steps=(S.CANCELED,), release=True)

    assert await state.purge(10, ended_s=3600) == 1

    event = await one(state)
    assert (event.upload_id, event.outcome, event.job) == (upload.id, Outcome.FAILURE, JOB)
    # Nor does it hold up what comes after it of others.
    later = await walk(state, clock, await create(state, clock), S.CANCELED)
    assert (await one(state)).upload_id == later.id


# --- lists


async def test_events_are_listed_by_what_became_of_them_newest_first_in_pages(
    state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 9)
    events = await state.claim_events(9, 60)
    await state.settle_events([*map(delivered, events[:3]), *map(dead, events[3:6])])
    numbers = [event.id for event in events]
    kinds = {
        Letters.DELIVERED: numbers[:3],
        Letters.DEAD: numbers[3:6],
        Letters.PENDING: numbers[6:],
    }

    for kind, expected in kinds.items():
        listed: list[int] = []
        page = await state.list_events(kind, 2)
        while page:
            assert len(page) <= 2
            assert [await now(state, event) for event in page] == page
            listed += [event.id for event in page]
            page = await state.list_events(kind, 2, page[-1].id)
        assert listed == expected[::-1]


async def test_events_are_listed_of_one_upload(state: StateStore, clock: FakeClock) -> None:
    first = await walk(state, clock, await create(state, clock), *DELETED)
    await ended(state, clock, 2)
    [event, *_] = await state.claim_events(1, 60)
    await state.settle_events([delivered(event)])

    async def kinds(letters: Letters, before: int | None = None) -> list[UploadState]:
        found = await state.list_events(letters, 10, before, upload_id=first.id)
        return [event.kind for event in found]

    assert await kinds(Letters.DELIVERED) == [S.VERIFIED]
    assert await kinds(Letters.PENDING) == [S.DELETED]
    assert await kinds(Letters.PENDING, event.id) == []
    assert await kinds(Letters.DEAD) == []
    assert len(await state.list_events(Letters.PENDING, 10)) == 3


async def test_an_unknown_event_is_not_found(state: StateStore, clock: FakeClock) -> None:
    await ended(state, clock, 1)
    [event] = await state.pending_events(1)

    assert await state.find_event(event.id) == event
    for event_id in (event.id + 1, 0, -1):
        assert await state.find_event(event_id) is None


async def test_what_became_of_events_lasts(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    await ended(state, clock, 4)
    events = await state.claim_events(3, 60)
    await state.settle_events([delivered(events[0], "job"), again(events[1], 9), dead(events[2])])
    known = [await state.list_events(kind, 10) for kind in Letters]

    await state_backend.close()
    reopened = await state_backend.open()

    assert [await reopened.list_events(kind, 10) for kind in Letters] == known
    assert len(await reopened.claim_events(10, 60)) == 1
