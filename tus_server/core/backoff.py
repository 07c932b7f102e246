"""When a delivery that has failed is tried again, and when no more. Pure."""

FIRST_S = 2.0
MOST_S = 15 * 60.0
TRIED_FOR_S = 3 * 86400.0
SPREAD = 0.2  # of a pause, either way: what failed together shall not come back together


def pause_s(attempts: int, chance: float) -> float | None:
    """Give the seconds until the next attempt, after so many; None: give up.

    chance: from 0 to 1, drawn for each attempt.
    """
    if attempts >= MOST_ATTEMPTS:
        return None
    # The power has an end before the float has.
    pause = min(MOST_S, FIRST_S * 2.0 ** min(attempts - 1, 30))
    return pause * (1 - SPREAD + 2 * SPREAD * chance)


def _count_attempts() -> int:
    """Count how many attempts TRIED_FOR_S takes, without chance."""
    attempts, tried_for_s, pause = 1, 0.0, FIRST_S
    while tried_for_s < TRIED_FOR_S:
        attempts, tried_for_s, pause = attempts + 1, tried_for_s + pause, min(MOST_S, 2 * pause)
    return attempts


MOST_ATTEMPTS = _count_attempts()
