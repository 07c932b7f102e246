from itertools import product

import pytest

from tus_server.core.states import (
    EVENTS,
    FINISHED,
    TERMINAL,
    TRANSITIONS,
    UNFINISHED,
    IllegalTransition,
    UploadState,
    check_steps,
)

S = UploadState


def test_every_state_has_a_row_in_the_table() -> None:
    assert set(TRANSITIONS) == set(UploadState)


def test_terminal_states_are_those_that_lead_nowhere() -> None:
    assert {state for state, following in TRANSITIONS.items() if not following} == TERMINAL


def test_no_state_follows_itself_and_none_leads_back_to_the_first() -> None:
    for state, following in TRANSITIONS.items():
        assert state not in following
        assert S.INITIATED not in following


def test_every_state_can_be_reached_and_can_end() -> None:
    def reachable(state: UploadState) -> set[UploadState]:
        found = {state}
        for following in TRANSITIONS[state]:
            found |= reachable(following)
        return found

    assert reachable(S.INITIATED) == set(UploadState)
    for state in UploadState:
        assert reachable(state) & TERMINAL


def test_every_state_is_unfinished_completed_finished_or_terminal() -> None:
    groups = [UNFINISHED, frozenset({S.COMPLETED}), FINISHED, TERMINAL]

    assert sorted(state for group in groups for state in group) == sorted(UploadState)


def test_only_a_finished_upload_can_be_deleted_and_only_an_unfinished_one_canceled() -> None:
    before_deleted = {state for state, to in TRANSITIONS.items() if S.DELETED in to}
    before_canceled = {state for state, to in TRANSITIONS.items() if S.CANCELED in to}

    assert before_deleted == FINISHED
    assert before_canceled == UNFINISHED | {S.COMPLETED}


def test_being_finished_in_any_way_and_every_end_are_events() -> None:
    ended = {S.DELETED, S.ERROR, S.CANCELED, S.EXPIRED}
    assert {S.VERIFIED, S.ACCEPTED, S.REJECTED} | ended == EVENTS


def test_the_way_of_an_upload_sent_at_once_is_legal() -> None:
    check_steps(S.INITIATED, (S.RECEIVING, S.COMPLETED, S.VERIFIED, S.ACCEPTED, S.DELETED))
    check_steps(S.INITIATED, (S.COMPLETED, S.VERIFIED, S.REJECTED, S.DELETED))


def test_no_step_is_legal_from_anywhere() -> None:
    for state in UploadState:
        check_steps(state, ())


@pytest.mark.parametrize(("before", "after"), list(product(UploadState, UploadState)))
def test_a_step_is_legal_exactly_when_the_table_has_it(
    before: UploadState, after: UploadState
) -> None:
    if after in TRANSITIONS[before]:
        check_steps(before, (after,))
    else:
        with pytest.raises(IllegalTransition, match=f"{before} -> {after}"):
            check_steps(before, (after,))


def test_a_wrong_step_in_the_middle_is_found() -> None:
    with pytest.raises(IllegalTransition, match="receiving -> verified"):
        check_steps(S.INITIATED, (S.RECEIVING, S.VERIFIED, S.DELETED))
