"""Waiting for something to become true: polled, with a deadline, never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 30.0  # generous: it only bounds how long a failing test takes
POLL_S = 0.005


def wait_until(probe: Callable[[], T], what: str, *, timeout_s: float = DEADLINE_S) -> T:
    """Call `probe` until it gives something true, and give that. Raises AssertionError."""
    deadline = time.monotonic() + timeout_s
    while not (found := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s:g} s it is still not so that {what}")
        time.sleep(POLL_S)
    return found
