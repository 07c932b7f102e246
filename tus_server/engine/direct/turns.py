"""Whose turn it is to send a part of a direct upload to this server: one sender at a time.

Two bodies written to one place would mix. The latest sender wins: who sends a part again has given
the first try up, and so has who cancels the upload. Parts sent elsewhere are the store's to keep
apart.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tus_server.core.errors import BodyInterrupted, PartBusy
from tus_server.core.ids import UploadId


@dataclass(slots=True, eq=False)
class _Sender:
    number: int
    let_go: Callable[[], None]
    ended: "asyncio.Future[None]"
    asked: bool = False

    def ask(self) -> None:
        self.asked = True
        self.let_go()


class Turns:
    """The senders of parts in this process, those that wait included, in the order they came."""

    def __init__(self) -> None:
        self._senders: dict[UploadId, list[_Sender]] = {}

    @asynccontextmanager
    async def of(
        self, upload_id: UploadId, number: int, let_go: Callable[[], None], *, wait_s: float
    ) -> AsyncIterator[None]:
        """Take a part over from earlier senders; wait until they have ended.

        `let_go` is called, from the loop, when a later one wants it: it must return at once and
        bring this one to its end soon. Raises: PartBusy (not within wait_s), BodyInterrupted (a
        later one came before it was this one's turn).
        """
        mine = _Sender(number, let_go, asyncio.get_running_loop().create_future())
        senders = self._senders.setdefault(upload_id, [])
        earlier = [sender for sender in senders if sender.number == number]
        senders.append(mine)
        try:
            await _end(earlier, wait_s)
            if not all(sender.ended.done() for sender in earlier):
                raise PartBusy("Another request that sends the part does not let go of it.")
            if mine.asked:
                raise BodyInterrupted
            yield
        finally:
            mine.ended.set_result(None)
            senders.remove(mine)
            if not senders:
                del self._senders[upload_id]

    async def end_all(self, upload_id: UploadId, *, wait_s: float) -> None:
        """Ask all senders of an upload to let go, and wait for them, no longer than wait_s."""
        await _end(list(self._senders.get(upload_id, ())), wait_s)

    def ask_all(self) -> None:
        """Ask every sender to let go: shutdown."""
        for sender in [each for senders in self._senders.values() for each in senders]:
            sender.ask()


async def _end(senders: list[_Sender], wait_s: float) -> None:
    for sender in senders:
        sender.ask()
    if senders:
        await asyncio.wait({sender.ended for sender in senders}, timeout=wait_s)
