"""Threads for blocking file steps: one as long as it keeps up, more when the disk is slow.

Steps on tmpfs or in the page cache take microseconds, and what costs is the interpreter's lock
going back and forth: 16 threads made 55 futex calls for a small upload. So steps are handed over
once per turn of the loop, one thread runs them, and results that come close together wake the loop
once. An fsync on a real disk takes milliseconds, and nothing must queue behind it: as soon as
steps would wait for longer than HELP_AFTER_S, other threads help.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

HELP_AFTER_S = 0.002
TELL_AFTER_S = 0.0005  # how long a result may wait for the next one
T = TypeVar("T")

_Step = tuple[Callable[[], Any], "asyncio.Future[Any]"]


async def ended(step: "asyncio.Future[T]") -> T:
    """Await what FileThreads.run gave; a cancellation is passed on once the thread has ended.

    For steps that use memory or a descriptor of the caller: a future that is cancelled tells
    nothing of the thread that works for it (P9).
    """
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        while not step.done():
            try:
                await asyncio.wait({step})
            except asyncio.CancelledError:
                continue  # the first one is on its way already
        if not step.cancelled():
            step.exception()  # seen: nobody else will ask
        raise


class FileThreads:
    """Up to `most` threads; a context manager on the serving loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._steps: deque[_Step] = deque()
        self._gathered: list[_Step] = []  # steps of this turn of the loop
        # One item for each thread that shall look into _steps; False ends it.
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._idle = 0  # threads that wait for a call; changed under the lock
        self._lock = threading.Lock()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._told = False  # the loop will look into _done
        self._begun = 0  # steps the threads have taken
        self._begun_before = 0  # at the last look
        self._watch: asyncio.TimerHandle | None = None
        self._ended = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._start_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Wait for the steps that were begun or queued."""
        if self._watch is not None:
            self._watch.cancel()
        self._ended = True
        self._steps.extend(self._gathered)
        self._gathered.clear()
        for _ in self._threads:
            self._calls.put(True)
            self._calls.put(False)
        for thread in self._threads:
            thread.join()

    def run(self, step: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `step` in a thread; it runs to its end even if nobody awaits the future.

        Once the threads have ended nothing runs, and the future is cancelled.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._ended:
            future.cancel()
            return future
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append((step, future))
        return future

    def _hand_over(self) -> None:
        self._steps.extend(self._gathered)
        self._gathered.clear()
        if self._idle == len(self._threads):
            self._calls.put(True)
        if self._watch is None and self._most > 1:
            self._watch = self._loop.call_later(HELP_AFTER_S, self._call_help)

    def _call_help(self) -> None:
        """Call a thread for every step, if at the present pace the last one would wait too long."""
        self._watch = None
        waiting, begun = len(self._steps), self._begun - self._begun_before
        self._begun_before = self._begun
        if not waiting:
            return
        if waiting > begun:
            while len(self._threads) < min(waiting + 1, self._most):
                self._start_thread()
            for _ in range(min(waiting, self._idle) - self._calls.qsize()):
                self._calls.put(True)
        self._watch = self._loop.call_later(HELP_AFTER_S, self._call_help)

    def _start_thread(self) -> None:
        thread = threading.Thread(
            target=self._work, name=f"files-{len(self._threads)}", daemon=True
        )
        self._threads.append(thread)
        with self._lock:
            self._idle += 1
        thread.start()

    def _work(self) -> None:
        while self._calls.get():
            with self._lock:
                self._idle -= 1
            self._run_waiting()
            with self._lock:
                self._idle += 1
            # A step handed over before this thread was idle called nobody.
            if self._steps and self._idle == len(self._threads):
                self._calls.put(True)

    def _run_waiting(self) -> None:
        """Run steps until none waits."""
        tell_at_s = 0.0
        while True:
            try:
                step, future = self._steps.popleft()
            except IndexError:
                break
            self._begun += 1
            result, error = None, None
            try:
                result = step()
            except BaseException as exc:
                error = exc
            self._done.append((future, result, error))
            now_s = time.monotonic()
            if not self._steps or now_s >= tell_at_s > 0:
                self._tell()
                tell_at_s = 0.0
            elif tell_at_s == 0:
                tell_at_s = now_s + TELL_AFTER_S
        self._tell()

    def _tell(self) -> None:
        # The results are in _done before this look at the flag, and _deliver clears the flag
        # first: either we wake the loop, or it has yet to look.
        if self._done and not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._told = False
        while self._done:
            future, result, error = self._done.popleft()
            if future.done():
                continue  # cancelled
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
