"""Exactly one outcome of an upload, once, and the job that goes with it."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import FakeClock, make_upload
from tus_server.core.jobs import Instructions, Job, Outcome
from tus_server.core.states import TERMINAL, TRANSITIONS, UploadState
from tus_server.core.upload import Upload

S = UploadState
SUCCESS, FAILURE = Job("yes"), Job("no", {"why": 1})


def made(*, require_acceptance: bool = False, **fields: object) -> Upload:
    instructions = Instructions(SUCCESS, FAILURE, require_acceptance=require_acceptance)
    return make_upload(FakeClock(), instructions=instructions, **fields)


def walked(upload: Upload, *states: UploadState) -> list[tuple[UploadState, Outcome, Job | None]]:
    """Give what each step through `states` decides."""
    clock, decided = FakeClock(), []
    for state in states:
        after = upload.stepped(state, on=clock.now())
        outcome, job = after.decides(upload)
        if outcome is not None:
            decided.append((state, outcome, job))
        upload = after
    return decided


YES, NO = (Outcome.SUCCESS, SUCCESS), (Outcome.FAILURE, FAILURE)


@pytest.mark.parametrize(
    ("states", "decided"),
    [
        ((S.COMPLETED, S.VERIFIED, S.ACCEPTED, S.DELETED), (S.VERIFIED, *YES)),
        ((S.COMPLETED, S.VERIFIED, S.REJECTED), (S.VERIFIED, *YES)),
        ((S.COMPLETED, S.VERIFIED, S.ERROR), (S.VERIFIED, *YES)),
        ((S.COMPLETED, S.ERROR), (S.ERROR, *NO)),
        ((S.CANCELED,), (S.CANCELED, *NO)),
        ((S.RECEIVING, S.EXPIRED), (S.EXPIRED, *NO)),
    ],
)
def test_without_a_verdict_to_wait_for_verification_decides(
    states: tuple[UploadState, ...], decided: tuple[object, ...]
) -> None:
    assert walked(made(), *states) == [decided]


@pytest.mark.parametrize(
    ("states", "decided"),
    [
        ((S.COMPLETED, S.VERIFIED, S.ACCEPTED, S.DELETED), (S.ACCEPTED, *YES)),
        ((S.COMPLETED, S.VERIFIED, S.REJECTED, S.DELETED), (S.REJECTED, *NO)),
        ((S.COMPLETED, S.VERIFIED, S.DELETED), (S.DELETED, *NO)),
        ((S.COMPLETED, S.VERIFIED, S.ERROR), (S.ERROR, *NO)),
        ((S.COMPLETED, S.ERROR), (S.ERROR, *NO)),
        ((S.CANCELED,), (S.CANCELED, *NO)),
    ],
)
def test_where_a_verdict_is_required_it_decides(
    states: tuple[UploadState, ...], decided: tuple[object, ...]
) -> None:
    assert walked(made(require_acceptance=True), *states) == [decided]


def test_verified_and_waiting_for_a_verdict_nothing_is_decided() -> None:
    assert walked(made(require_acceptance=True), S.COMPLETED, S.VERIFIED) == []


def test_several_steps_at_once_decide_by_the_last() -> None:
    clock, upload = FakeClock(), made()
    now = clock.now()

    after = upload.stepped(S.RECEIVING, S.COMPLETED, S.VERIFIED, on=now)

    assert after.completed_at == now
    assert after.decides(upload) == YES


def test_a_partial_upload_has_no_outcome_of_its_own() -> None:
    upload = made(concat="partial")

    assert walked(upload, S.COMPLETED, S.VERIFIED, S.EXPIRED) == []


def test_without_instructions_there_is_an_outcome_and_no_job() -> None:
    upload = replace(made(), instructions=Instructions())

    assert walked(upload, S.COMPLETED, S.VERIFIED) == [(S.VERIFIED, Outcome.SUCCESS, None)]


@given(data=st.data(), require_acceptance=st.booleans())
def test_every_way_to_an_end_decides_exactly_once(
    data: st.DataObject, require_acceptance: bool
) -> None:
    states = [S.INITIATED]
    while TRANSITIONS[states[-1]]:
        states.append(data.draw(st.sampled_from(sorted(TRANSITIONS[states[-1]]))))

    decided = walked(made(require_acceptance=require_acceptance), *states[1:])

    assert states[-1] in TERMINAL
    assert all(after in TRANSITIONS[before] for before, after in pairwise(states))
    assert len(decided) == 1
