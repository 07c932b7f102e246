"""Request bodies, pulled: the waiting they share, and the one that any ASGI server can feed."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tus_server.core.errors import BodyInterrupted, BodyStalled, BodyStopped, ClientGone

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

# A sender slower than one block in this time is slow: what it sent is given out.
LINGER_S = 1.0
# What AsgiBody holds ready while the engine is busy.
READ_AHEAD = 256 * 1024


class WaitingBody:
    """The part of ports.Body that is the same for every source of bytes.

    A source moves what has arrived into the view in `_pull`, asks for more in `_resume`, calls
    `_arrived` when there is something to pull, and says `_more` while bytes may still come.
    """

    def __init__(self, size: int | None, idle_timeout_s: float) -> None:
        self.size = size
        self._idle_timeout_s = idle_timeout_s
        self._loop = asyncio.get_running_loop()
        self._view = memoryview(b"")
        self._fill = 0
        self._waiter: asyncio.Future[None] | None = None
        self._idle_s = 0.0
        self._lingered = False
        self._stop: BodyStopped | None = None

    async def read_into(self, view: memoryview) -> int:
        """See ports.Body."""
        self._view, self._fill, self._lingered = view, 0, False
        while True:
            self._pull()
            if self._fill == len(view) or not self._more():
                break
            if self._fill and (self._lingered or self._stop):
                break
            if (stop := self._find_stop()) is not None:
                self._pause()
                raise stop
            await self._wait()
        self._pause()
        fill, self._view = self._fill, memoryview(b"")
        if fill:
            self._idle_s = 0.0
        elif self._gone():
            raise ClientGone
        return fill

    def interrupt(self) -> None:
        """See ports.Body."""
        if self._stop is None:
            self._stop = BodyInterrupted()
            self._arrived()

    def _find_stop(self) -> BodyStopped | None:
        if self._stop is None and self._idle_s >= self._idle_timeout_s:
            return BodyStalled(f"No byte for {self._idle_timeout_s:g} s.")
        return self._stop

    async def _wait(self) -> None:
        tick_s = min(LINGER_S, self._idle_timeout_s)
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(tick_s, self._tick, tick_s)
        self._resume()
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _tick(self, tick_s: float) -> None:
        self._lingered = True
        # A source that fills the view by itself may have moved; then the sender is not idle.
        if self._fill == 0:
            self._idle_s += tick_s
        self._arrived()

    def _arrived(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _pull(self) -> None:
        """Move what has arrived into the view, at most up to its end."""
        raise NotImplementedError

    def _resume(self) -> None:
        """Let more bytes arrive."""
        raise NotImplementedError

    def _pause(self) -> None:
        """Let nothing be put into the view any more."""

    def _more(self) -> bool:
        """Tell whether bytes may still arrive or be pulled."""
        raise NotImplementedError

    def _gone(self) -> bool:
        """Tell whether the sender went away before the end of the body."""
        raise NotImplementedError


class AsgiBody(WaitingBody):
    """A body over `receive()`, under any ASGI server.

    receive() runs in a task of its own and is never cancelled while a body is read: not every
    server survives that. Beyond READ_AHEAD it is not called, so the server's own flow control
    holds the client back.
    """

    def __init__(self, receive: Receive, size: int | None, idle_timeout_s: float) -> None:
        super().__init__(size, idle_timeout_s)
        self._receive = receive
        self._ready: deque[memoryview] = deque()
        self._ready_bytes = 0
        self._ended = size == 0
        self._disconnected = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pending(self) -> bool:
        """Tell whether some of the body has not arrived."""
        return not self._ended and not self._disconnected

    def close(self) -> None:
        """Stop receiving: the request has been answered."""
        if self._task is not None:
            self._task.cancel()

    def _pull(self) -> None:
        view = self._view
        while self._ready and self._fill < len(view):
            chunk = self._ready[0]
            count = min(len(chunk), len(view) - self._fill)
            view[self._fill : self._fill + count] = chunk[:count]
            self._fill += count
            self._ready_bytes -= count
            if count == len(chunk):
                self._ready.popleft()
            else:
                self._ready[0] = chunk[count:]

    def _resume(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._fetch())

    async def _fetch(self) -> None:
        while self._ready_bytes < READ_AHEAD and self.pending:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._disconnected = True
            else:
                if body := message.get("body", b""):
                    self._ready.append(memoryview(body))
                    self._ready_bytes += len(body)
                self._ended = not message.get("more_body", False)
            self._arrived()

    def _more(self) -> bool:
        return bool(self._ready) or self.pending

    def _gone(self) -> bool:
        return self._disconnected and not self._ended and not self._ready
