"""Cuts at every await: a saw that counts suspensions, and the tasks that it watches."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Saw:
    """Calls `cut` at the nth suspension, counted from 0, of everything it watches."""

    def __init__(self) -> None:
        self.seen = 0
        self.tasks: set[asyncio.Task[Any]] = set()  # of the engine
        self._at = -1
        self._cut: Callable[[], None] = lambda: None

    def set(self, at: int, cut: Callable[[], None]) -> None:
        self.seen, self._at, self._cut = 0, at, cut

    def disarm(self) -> bool:
        """Cut nothing any more; tell whether something was cut."""
        has_cut = self.seen > self._at
        self._cut = lambda: None
        return has_cut

    def suspended(self) -> None:
        self.seen += 1
        if self.seen == self._at + 1:
            self._cut()

    def watch(self, coroutine: Coroutine[Any, Any, Any]) -> "Watched":
        return Watched(coroutine, self)

    def make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any
    ) -> "asyncio.Task[Any]":
        """Watch each task that the engine makes: a task factory."""
        code = getattr(coroutine, "cr_code", None)
        if code is None or "tus_server/engine/" not in code.co_filename:
            return asyncio.Task(coroutine, loop=loop, **named)
        task = asyncio.Task(self.watch(coroutine), loop=loop, **named)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class Watched(Coroutine[Any, Any, Any]):
    """A coroutine that tells a saw of each of its suspensions."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], saw: Saw) -> None:
        self._coroutine = coroutine
        self._saw = saw

    def send(self, value: Any) -> Any:
        awaited = self._coroutine.send(value)
        self._saw.suspended()
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._coroutine.throw(*error)
        self._saw.suspended()
        return awaited

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        raise NotImplementedError("made for tasks")
