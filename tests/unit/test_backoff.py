"""When a delivery that has failed is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.backoff import MOST_ATTEMPTS, pause_s

DAY_S = 86400.0


def test_pauses_double_from_two_seconds_to_a_quarter_of_an_hour() -> None:
    pauses = [pause_s(attempts, 0.5) for attempts in range(1, 12)]

    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_it_is_given_up_after_three_days() -> None:
    tried_for_s, attempts = 0.0, 1
    while (pause := pause_s(attempts, 0.5)) is not None:
        tried_for_s, attempts = tried_for_s + pause, attempts + 1

    assert 3 * DAY_S <= tried_for_s < 3 * DAY_S + 900
    assert attempts == MOST_ATTEMPTS


@given(st.integers(1, MOST_ATTEMPTS - 1), st.floats(0, 1))
def test_chance_moves_a_pause_by_a_fifth_at_most(attempts: int, chance: float) -> None:
    middle, pause = pause_s(attempts, 0.5), pause_s(attempts, chance)

    assert middle is not None
    assert pause is not None
    assert 0.79 * middle <= pause <= 1.21 * middle


def test_what_was_retried_far_too_often_is_given_up_too() -> None:
    assert pause_s(10**9, 0.5) is None
