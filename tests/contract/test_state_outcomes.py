"""The contract of ports.StateStore, sentence by sentence: what is an event, and what it decides."""

from dataclasses import replace
from typing import Any

import pytest

from tests.contract.conftest import StateBackend
from tests.support.fakes import FakeClock, make_upload, planned_parts
from tests.support.state import claim, create, everything, row, walk
from tus_server.core.errors import LeaseLost
from tus_server.core.jobs import Instructions, Job, Outcome
from tus_server.core.states import EARLY_EVENTS, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.ports import Event, StateStore

S = UploadState
SUCCESS, FAILURE = Job("yes", {"a": 1}), Job("no", {"b": [None]})
JOBS = Instructions(SUCCESS, FAILURE)
JUDGED = replace(JOBS, require_acceptance=True)

# The states a life goes through, with what entering one of them decides.
Life = list[tuple[UploadState, Outcome | None]]
YES, NO = Outcome.SUCCESS, Outcome.FAILURE
START: Life = [(S.RECEIVING, None), (S.COMPLETED, None)]
LIVES: dict[str, tuple[Instructions, Life]] = {
    "verified": (JOBS, [*START, (S.VERIFIED, YES)]),
    "verified, judged later": (JUDGED, [*START, (S.VERIFIED, None)]),
    "accepted": (JUDGED, [*START, (S.VERIFIED, None), (S.ACCEPTED, YES)]),
    "rejected": (JUDGED, [*START, (S.VERIFIED, None), (S.REJECTED, NO)]),
    "accepted, deleted": (
        JUDGED,
        [*START, (S.VERIFIED, None), (S.ACCEPTED, YES), (S.DELETED, None)],
    ),
    "rejected, deleted": (
        JUDGED,
        [*START, (S.VERIFIED, None), (S.REJECTED, NO), (S.DELETED, None)],
    ),
    "deleted before a verdict": (JUDGED, [*START, (S.VERIFIED, None), (S.DELETED, NO)]),
    "lost before a verdict": (JUDGED, [*START, (S.VERIFIED, None), (S.ERROR, NO)]),
    "deleted": (JOBS, [*START, (S.VERIFIED, YES), (S.DELETED, None)]),
    "lost": (JOBS, [*START, (S.VERIFIED, YES), (S.ERROR, None)]),
    "judged without having to be": (JOBS, [*START, (S.VERIFIED, YES), (S.REJECTED, None)]),
    "failed": (JOBS, [*START, (S.ERROR, NO)]),
    "failed early": (JUDGED, [(S.ERROR, NO)]),
    "canceled": (JOBS, [(S.RECEIVING, None), (S.CANCELED, NO)]),
    "canceled while completed": (JUDGED, [*START, (S.CANCELED, NO)]),
    "expired": (JOBS, [(S.RECEIVING, None), (S.EXPIRED, NO)]),
    "completed": (JOBS, START),
}
lives = pytest.mark.parametrize(("wishes", "life"), LIVES.values(), ids=LIVES.keys())


def told(event: Event) -> tuple[UploadState, Outcome | None, Job | None]:
    return event.kind, event.outcome, event.job


def expected(life: Life) -> list[tuple[UploadState, Outcome | None, Job | None]]:
    """Give what the outbox has to have of a life."""
    jobs = {YES: SUCCESS, NO: FAILURE, None: None}
    return [
        (state, outcome, jobs[outcome])
        for state, outcome in life
        if state not in (S.INITIATED, S.RECEIVING, S.COMPLETED)
    ]


async def commit(
    state: StateStore, clock: FakeClock, before: Upload, *steps: UploadState
) -> Upload:
    """Go through `steps` in one commit."""
    lease = await claim(state, before)
    after = before.stepped(*steps, on=clock.now())
    if after.state is S.ERROR:
        after = replace(after, error_code="x", error_message="y")
    await state.commit(lease, before, after, steps=steps, release=True)
    return after


@lives
async def test_the_event_that_decides_has_the_outcome_and_its_job(
    state_backend: StateBackend,
    state: StateStore,
    clock: FakeClock,
    wishes: Instructions,
    life: Life,
) -> None:
    upload = await create(state, clock, length=0, instructions=wishes)
    decided_at = None
    for step, outcome in life:
        upload = await commit(state, clock, upload, step)
        if outcome is not None:
            decided_at = upload.state_on

    assert [told(event) for event in await state.pending_events(10)] == expected(life)
    assert (await row(state, upload)).completed_at == upload.completed_at == decided_at
    known = await everything(state, upload.id)
    await state_backend.close()
    again = await state_backend.open()
    assert await everything(again, upload.id) == known
    for event in await again.pending_events(10):
        assert await again.find_event(event.id) == event


@lives
async def test_a_chain_of_steps_in_one_commit_decides_by_its_last(
    state: StateStore, clock: FakeClock, wishes: Instructions, life: Life
) -> None:
    upload = await create(state, clock, length=0, instructions=wishes)
    steps = [step for step, _ in life]
    is_chain = [outcome for _, outcome in life[:-1] if outcome is not None] == []

    if is_chain:
        upload = await commit(state, clock, upload, *steps)
    else:  # nobody commits what was decided together with what follows it
        upload = await commit(state, clock, upload, *steps[:-1])
        upload = await commit(state, clock, upload, steps[-1])

    assert [told(event) for event in await state.pending_events(10)] == expected(life)
    history = [change.state for change in await state.history(upload.id)]
    assert history == [*steps[::-1], S.INITIATED]


@pytest.mark.parametrize(
    ("wishes", "step"),
    [(Instructions(), S.CANCELED), (Instructions(success_job=SUCCESS), S.CANCELED)],
)
async def test_an_outcome_without_a_job_of_its_own_is_the_servers_to_tell(
    state: StateStore, clock: FakeClock, wishes: Instructions, step: UploadState
) -> None:
    await commit(state, clock, await create(state, clock, instructions=wishes), step)

    assert [told(event) for event in await state.pending_events(10)] == [(step, NO, None)]


async def test_a_partial_upload_has_no_event_and_no_outcome(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await create(state, clock, length=0, concat="partial", instructions=JOBS)

    upload = await commit(state, clock, upload, S.COMPLETED, S.VERIFIED)
    assert upload.completed_at is None
    upload = await commit(state, clock, upload, S.EXPIRED)

    assert await state.pending_events(10) == []
    assert (await row(state, upload)).completed_at is None


@pytest.mark.parametrize("release", [False, True])
async def test_a_commit_that_is_repeated_decides_once(
    state: StateStore, clock: FakeClock, release: bool
) -> None:
    upload = await create(state, clock, length=0, instructions=JOBS)
    lease = await claim(state, upload)
    steps = (S.RECEIVING, S.COMPLETED, S.VERIFIED)
    after = upload.stepped(*steps, on=clock.now())

    for _ in range(3):
        await state.commit(lease, upload, after, steps=steps, release=release)

    events = await state.pending_events(10)
    assert [told(event) for event in events] == [(S.VERIFIED, YES, SUCCESS)]


async def test_a_commit_that_loses_decides_nothing(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock, length=0, instructions=JOBS)
    old = await claim(state, upload)
    await state.release(old)
    await claim(state, upload)

    steps = (S.RECEIVING, S.COMPLETED, S.VERIFIED)
    after = upload.stepped(*steps, on=clock.now())
    with pytest.raises(LeaseLost):
        await state.commit(old, upload, after, steps=steps)

    assert await state.pending_events(10) == []
    assert await row(state, upload) == upload


async def test_an_event_begins_undelivered_and_due(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await commit(state, clock, await create(state, clock), S.CANCELED)

    [event] = await state.pending_events(10)

    assert (event.upload_id, event.at) == (upload.id, upload.state_on)
    assert (event.attempts, event.done, event.error) == (0, frozenset(), None)
    assert (event.delivered_at, event.given_up_at) == (None, None)
    assert event.due_at is not None
    assert event.due_at <= state_backend.now()


# --- early events


async def lifes(state: StateStore, clock: FakeClock) -> list[tuple[str, UploadState]]:
    """Lead uploads of all kinds through a life; give their events as name and kind."""
    direct: dict[str, Any] = {"protocol": Protocol.MULTIPART, "length": 3, "part_size": 3}
    uploads = {
        "chain": await create(state, clock, length=0),
        "steps": await create(state, clock, length=0),
        "partial": await create(state, clock, length=0, concat="partial"),
        "direct": await create(state, clock, **direct),
        "claimed": make_upload(clock, length=0),
        "whole": make_upload(clock, length=0, state=S.RECEIVING),
    }
    for name in ("claimed", "whole"):
        lease = await state.create_upload(uploads[name], claim=True)
        assert lease is not None
        await state.release(lease)
    parts = [replace(part, etag='"e"', crc64=1) for part in planned_parts(uploads["direct"])]
    for _ in range(2):
        recorded = await state.record_parts(uploads["direct"].id, parts)
        assert recorded is not None
    await commit(state, clock, recorded, S.COMPLETED, S.VERIFIED)
    for name in ("chain", "claimed", "partial"):
        await commit(state, clock, uploads[name], S.RECEIVING, S.COMPLETED, S.VERIFIED)
    await walk(state, clock, uploads["steps"], S.RECEIVING, S.COMPLETED, S.VERIFIED)
    names = {upload.id: name for name, upload in uploads.items()}
    return [(names[event.upload_id], event.kind) for event in await state.pending_events(100)]


@pytest.mark.parametrize(
    "early", [frozenset(), frozenset({S.INITIATED}), frozenset({S.RECEIVING}), EARLY_EVENTS]
)
async def test_early_events_are_told_where_they_are_asked_for(
    state_backend: StateBackend, clock: FakeClock, early: frozenset[UploadState]
) -> None:
    state = await state_backend.open(early_events=early)

    events = await lifes(state, clock)

    of = {name: [kind for one, kind in events if one == name] for name, _ in events}
    full = [kind for kind in (S.INITIATED, S.RECEIVING) if kind in early]
    whole = [S.RECEIVING] if S.RECEIVING in early else []
    lives = {name: [*full, S.VERIFIED] for name in ("chain", "steps", "direct", "claimed")}
    assert of == lives | ({"whole": whole} if whole else {})
    for event in await state.pending_events(100):
        if event.kind in EARLY_EVENTS:
            assert (event.outcome, event.job) == (None, None)
        history = await state.history(event.upload_id)
        assert event.at in [change.at for change in history if change.state is event.kind]


@pytest.mark.parametrize("steps", [(S.RECEIVING,), (S.RECEIVING, S.COMPLETED)])
async def test_an_early_event_is_neither_told_of_a_lost_commit_nor_twice(
    state_backend: StateBackend, clock: FakeClock, steps: tuple[UploadState, ...]
) -> None:
    state = await state_backend.open(early_events=frozenset({S.RECEIVING}))
    upload = await create(state, clock, length=0)
    old = await claim(state, upload)
    await state.release(old)
    lease = await claim(state, upload)
    after = upload.stepped(*steps, on=clock.now())

    for wrong, before in ((old, upload), (lease, replace(upload, generation=9))):
        with pytest.raises(LeaseLost):
            await state.commit(wrong, before, replace(after, metadata="x"), steps=steps)
    assert await state.pending_events(10) == []

    for _ in range(2):
        await state.commit(lease, upload, after, steps=steps)
    assert [event.kind for event in await state.pending_events(10)] == [S.RECEIVING]
