"""Threads for blocking file steps, with less between a step and the loop than an executor has.

concurrent.futures costs some 30 us a step in locks and chained futures, as much as a small write
itself. Here a step is one put into a C queue, and steps that end close together wake the loop once.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class FileThreads:
    """Up to `most` threads, started as they are needed; a context manager on the serving loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._told = False  # the loop will look into _done
        self._under_way = 0
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Wait for the steps under way."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def run(self, step: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `step` in a thread; it is begun even if nobody awaits the future, and never cut."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._under_way += 1
        if self._under_way > len(self._threads) and len(self._threads) < self._most:
            name = f"files-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((step, future))
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            step, future = job
            result, error = None, None
            try:
                result = step()
            except BaseException as exc:
                error = exc
            # First the result, then the look at the flag; _deliver clears the flag first. So
            # either this thread wakes the loop or the loop has yet to see the result.
            self._done.append((future, result, error))
            if not self._told:
                self._told = True
                self._loop.call_soon_threadsafe(self._deliver)
            del job, step, future, result, error

    def _deliver(self) -> None:
        self._told = False
        while self._done:
            future, result, error = self._done.popleft()
            self._under_way -= 1
            if future.done():
                continue  # cancelled
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
