"""How often what failed is tried again, and after how long."""

import threading

import pytest

from tus_server.cli.patience import Patience
from tus_server.cli.replies import TransferFailed

PASSING = TransferFailed("busy", may_pass=True)


class Watching:
    """Keeps what it is told of waits, as (delay_s, attempt)."""

    def __init__(self) -> None:
        self.waits: list[tuple[float, int]] = []

    def started(self, offset: int, *, resumed: bool) -> None:
        raise AssertionError("not of a patience")

    def moved(self, offset: int) -> None:
        raise AssertionError("not of a patience")

    def waiting(self, failure: TransferFailed, delay_s: float, attempt: int) -> None:
        self.waits.append((delay_s, attempt))


@pytest.fixture
def watching() -> Watching:
    return Watching()


@pytest.fixture
def slept() -> list[float]:
    return []


def make(watching: Watching, slept: list[float], retries: int = 5) -> Patience:
    return Patience(retries, watching, sleep=slept.append)


def test_pauses_grow_and_end_with_the_failure(watching: Watching, slept: list[float]) -> None:
    patience = make(watching, slept, retries=8)
    for _ in range(8):
        patience.wait(PASSING)

    with pytest.raises(TransferFailed, match="busy"):
        patience.wait(PASSING)

    assert slept == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert watching.waits == list(zip(slept, range(1, 9), strict=True))


def test_a_server_that_says_when_is_believed_up_to_a_limit(
    watching: Watching, slept: list[float]
) -> None:
    patience = make(watching, slept)

    patience.wait(TransferFailed("busy", may_pass=True, retry_after_s=7))
    patience.wait(TransferFailed("busy", may_pass=True, retry_after_s=700))

    assert slept == [7, 30]


def test_what_cannot_pass_is_raised_at_once(watching: Watching, slept: list[float]) -> None:
    final = TransferFailed("refused")

    with pytest.raises(TransferFailed, match="refused"):
        make(watching, slept).wait(final)

    assert slept == []


def test_bytes_that_arrive_begin_the_count_anew(watching: Watching, slept: list[float]) -> None:
    patience = make(watching, slept, retries=2)
    patience.wait(PASSING)
    patience.wait(PASSING)

    patience.reached(10)
    patience.wait(PASSING)

    assert slept == [0.5, 1, 0.5]


def test_bytes_that_had_arrived_before_do_not(watching: Watching, slept: list[float]) -> None:
    patience = make(watching, slept, retries=1)
    patience.reached(10)
    patience.wait(PASSING)
    patience.reached(10)

    with pytest.raises(TransferFailed):
        patience.wait(PASSING)


def test_attempts_that_fail_together_count_once(watching: Watching, slept: list[float]) -> None:
    patience = make(watching, slept, retries=1)
    begun = patience.outages

    for _ in range(4):
        patience.wait(PASSING, begun)

    assert watching.waits == [(0.5, 1)]
    assert len(slept) == 4
    assert all(0 <= each <= 0.5 for each in slept)
    with pytest.raises(TransferFailed):
        patience.wait(PASSING, patience.outages)


def test_threads_share_one_count(watching: Watching) -> None:
    patience = Patience(3, watching, sleep=lambda seconds: None)
    failures: list[TransferFailed] = []

    def work() -> None:
        try:
            while True:
                patience.wait(PASSING, patience.outages)
        except TransferFailed as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [attempt for _, attempt in watching.waits] == [1, 2, 3]
    assert len(failures) == 8
