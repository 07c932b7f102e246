"""How often, and after how long, what failed is tried again: one rule for every kind of upload."""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from tus_server.cli.replies import TransferFailed

_MAX_DELAY_S: Final = 30.0


class Watcher(Protocol):
    """Who is told how it goes; offsets are in bytes."""

    def started(self, offset: int, *, resumed: bool) -> None: ...

    def moved(self, offset: int) -> None: ...

    def waiting(self, failure: TransferFailed, delay_s: float, attempt: int) -> None: ...


class Patience:
    """Ends after `retries` attempts in a row without a byte arriving. Threads may share one."""

    def __init__(
        self, retries: int, watcher: Watcher, *, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._retries = retries
        self._watcher = watcher
        self._sleep = sleep
        self._lock = threading.Lock()
        self._attempt = 0
        self._furthest = 0
        self._outages = 0
        self._until_s = 0.0

    @property
    def outages(self) -> int:
        """How many there were; to be read before an attempt, for the wait after it."""
        return self._outages

    def reached(self, offset: int) -> None:
        """Take note of how many bytes have arrived: more than ever before begins the count anew."""
        with self._lock:
            if offset > self._furthest:
                self._attempt, self._furthest = 0, offset

    def check(self, failure: TransferFailed) -> None:
        """Raise the failure unless it may pass and another attempt is left."""
        if not failure.may_pass or self._attempt >= self._retries:
            raise failure

    def wait(self, failure: TransferFailed, outages: int | None = None) -> None:
        """Wait until the next attempt is due. Raises: as check.

        outages: when the attempt began. What was under way when another attempt failed has failed
        with it: it waits as long, and does not count once more.
        """
        with self._lock:
            if outages is None or outages == self._outages:
                self.check(failure)
                delay_s = min(max(2.0**self._attempt / 2, failure.retry_after_s), _MAX_DELAY_S)
                self._attempt += 1
                self._outages += 1
                self._until_s = time.monotonic() + delay_s
                self._watcher.waiting(failure, delay_s, self._attempt)
            elif not failure.may_pass:
                raise failure
            else:
                delay_s = max(0.0, self._until_s - time.monotonic())
        self._sleep(delay_s)
