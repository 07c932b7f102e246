"""Progress in 104 replies: durable offsets, told while the body is still coming (RUFH)."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tus_server.http.exchange import Exchange, Header

# More often than this nobody needs to know.
INTERVAL_S = 1.0


class Progress:
    """Tells the client of offsets, as an acknowledgement: it may free what is before them.

    At most one reply in INTERVAL_S, and only of a larger offset. `tell` is for commits; nothing is
    sent once the context is left, which waits for a reply under way.
    """

    def __init__(self, exchange: Exchange, common: Sequence[Header]) -> None:
        """common: the fields of every 104."""
        self._exchange = exchange
        self._common = common
        self._offset = 0
        self._told = 0
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._ended = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def tell(self, offset: int) -> None:
        """Take note of an offset that is durable."""
        self._offset = max(self._offset, offset)
        if not self._ended and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._inform())

    async def _inform(self) -> None:
        while self._offset > self._told:
            offset = self._offset
            headers = [*self._common, (b"upload-offset", b"%d" % offset)]
            await self._exchange.inform(104, headers)
            self._told = offset
            await asyncio.sleep(INTERVAL_S)
