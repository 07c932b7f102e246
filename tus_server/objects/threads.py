"""Threads for blocking file steps: one as long as it keeps up, more when the disk is slow.

Steps on tmpfs or in the page cache take microseconds, and a second thread then only fights for the
interpreter's lock: 16 threads made 55 futex calls for a small upload, one makes 14, at half the
CPU. An fsync on a real disk takes milliseconds, and a queue behind it must not wait for it. So
other threads help as soon as steps would wait for longer than HELP_AFTER_S. concurrent.futures is not used:
its locks and chained futures cost some 30 us a step, as much as a small write itself.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

HELP_AFTER_S = 0.002
T = TypeVar("T")

_Step = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class FileThreads:
    """Up to `most` threads; a context manager on the serving loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._steps: SimpleQueue[_Step | None] = SimpleQueue()
        # One item for each helper that shall look into _steps; None ends it.
        self._calls: SimpleQueue[bool | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._told = False  # the loop will look into _done
        self._watch: asyncio.TimerHandle | None = None
        self._begun = 0  # steps the first thread has taken
        self._begun_before = 0  # at the last look
        self._helpers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._first = self._start(self._work, "files-0")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Wait for the steps that were begun or queued."""
        if self._watch is not None:
            self._watch.cancel()
        self._steps.put(None)
        self._first.join()
        for _ in self._helpers:
            self._calls.put(None)
        for helper in self._helpers:
            helper.join()

    def run(self, step: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `step` in a thread; it runs to its end even if nobody awaits the future."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._steps.put((step, future))
        if self._watch is None and self._most > 1:
            self._watch = self._loop.call_later(HELP_AFTER_S, self._call_help)
        return future

    def _call_help(self) -> None:
        """Wake a helper for every step, if at the present pace the last one would wait too long."""
        self._watch = None
        waiting, begun = self._steps.qsize(), self._begun - self._begun_before
        self._begun_before = self._begun
        if not waiting:
            return
        wanted = min(waiting, self._most - 1) if waiting > begun else 0
        while len(self._helpers) < wanted:
            self._helpers.append(self._start(self._help, f"files-{len(self._helpers) + 1}"))
        for _ in range(wanted - self._calls.qsize()):
            self._calls.put(True)
        self._watch = self._loop.call_later(HELP_AFTER_S, self._call_help)

    def _start(self, target: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (waiting := self._steps.get()) is not None:
            self._begun += 1
            self._run(waiting)
            del waiting

    def _help(self) -> None:
        while self._calls.get() is not None:
            try:
                while (waiting := self._steps.get_nowait()) is not None:
                    self._run(waiting)
                    del waiting
            except Empty:
                continue
            self._steps.put(None)  # it was for the first thread
            return

    def _run(self, waiting: _Step) -> None:
        step, future = waiting
        result, error = None, None
        try:
            result = step()
        except BaseException as exc:
            error = exc
        # First the result, then the look at the flag; _deliver clears the flag first. So either
        # this thread wakes the loop or the loop has yet to see the result.
        self._done.append((future, result, error))
        if not self._told:
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
