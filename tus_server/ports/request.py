"""What a request brings, and what it borrows: its body, memory, threads, the time."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Protocol as Port
from typing import TypeVar

T = TypeVar("T")


class Body(Port):
    """The body of one request, pulled."""

    @property
    def size(self) -> int | None:
        """Content-Length in bytes; None for a chunked body."""

    async def read_into(self, view: memoryview) -> int:
        """Fill `view` from its start; give the number of bytes, 0 only at the end of the body.

        Gives fewer bytes than fit at the end of the body, when the sender is slow, or before it
        raises. Bytes that arrived are always given out before: ClientGone, BodyStalled,
        BodyInterrupted.
        """

    def interrupt(self) -> None:
        """Make the pending or next read_into raise BodyInterrupted, after what has arrived."""


class Blocks(Port):
    """Lends memory for bodies; see engine.buffers."""

    def take(self, wanted_bytes: int) -> bytearray:
        """Give a block of at least `wanted_bytes`, or a smaller one beyond the budget."""

    def give(self, block: bytearray) -> None:
        """Take a block back, when no thread and no connection uses it any more."""


class Threads(Port):
    """Runs blocking steps beside the loop."""

    def run(self, step: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `step` in a thread; it runs to its end even if nobody awaits the future."""


class Clock(Port):
    """In-process time, so that tests own it."""

    def now(self) -> datetime:
        """Aware UTC."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
