"""Digests of a body, computed in a thread while the next bytes arrive."""

import asyncio
from collections import deque
from collections.abc import Iterable

from tus_server.core.digests import new_hasher
from tus_server.ports import Threads

# Less than handing it to a thread costs.
INLINE_BYTES = 16 * 1024
# How many blocks of one body a thread takes before it is another one's turn.
TURN_BLOCKS = 8


class Hashing:
    """Takes blocks in order. A block must not change before it was taken.

    fed: bytes given to it so far.
    """

    def __init__(self, threads: Threads, algorithms: Iterable[str]) -> None:
        self.fed = 0
        self._threads = threads
        self._hashers = {algorithm: new_hasher(algorithm) for algorithm in algorithms}
        self._waiting: deque[memoryview] = deque()
        self._taken = 0
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Event()
        self._wanted: int | None = None  # somebody waits until so many bytes are taken
        self._running: asyncio.Future[None] | None = None

    def feed(self, block: memoryview) -> None:
        """Begin to take `block`, behind those before it."""
        self.fed += len(block)
        if self._running is None and len(block) <= INLINE_BYTES:
            self._take(block)
            self._taken = self.fed
            return
        self._waiting.append(block)
        if self._running is None:
            self._start()

    def has_taken(self, until: int) -> bool:
        """Tell whether the first `until` bytes are taken: their memory may be used again."""
        return self._taken >= until

    async def taken(self, until: int) -> None:
        """Wait until that is so."""
        while self._taken < until and self._running is not None:
            # Cleared first: the thread looks at _wanted after it has counted a block.
            self._heard.clear()
            self._wanted = until
            if self._taken < until:
                await self._heard.wait()
            self._wanted = None

    async def settle(self) -> None:
        """Wait until all is taken."""
        await self.taken(self.fed)

    def digests(self) -> dict[str, bytes]:
        """Give the digest of all that was fed, by algorithm; once it is settled."""
        assert self._taken == self.fed
        return {name: hasher.digest() for name, hasher in self._hashers.items()}

    def _start(self) -> None:
        self._running = self._threads.run(self._take_waiting)
        self._running.add_done_callback(self._ended)

    def _take_waiting(self) -> None:
        """Take what there is, and what comes meanwhile, with no turn of the loop between blocks.

        Not for ever: other bodies wait for the thread.
        """
        for _ in range(TURN_BLOCKS):
            if not self._waiting:
                break
            block = self._waiting[0]
            self._take(block)
            self._waiting.popleft()
            self._taken += len(block)
            wanted = self._wanted
            if wanted is not None and self._taken >= wanted:
                self._loop.call_soon_threadsafe(self._heard.set)

    def _take(self, block: memoryview) -> None:
        for hasher in self._hashers.values():
            hasher.update(block)

    def _ended(self, step: "asyncio.Future[None]") -> None:
        self._running = None
        self._heard.set()
        # Cancelled: the threads have ended, and with them the server.
        if self._waiting and not step.cancelled():
            step.result()
            self._start()
