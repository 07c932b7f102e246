"""A target of events that does as it is told, and remembers what it was given."""

import asyncio
from collections import deque
from collections.abc import Callable

from tus_server.core.errors import DeliveryFailed
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.ports import Event, StatusChange


class FakeTarget:
    """See ports.JobTarget.

    told: the events that were delivered; tried: those that it was asked to deliver. Each attempt
    takes its turn from `script`: an exception to raise, something to await, None to succeed; at
    the end of it it succeeds.
    """

    def __init__(
        self,
        name: str = "target",
        *script: BaseException | asyncio.Event | None,
        wants: Callable[[Event], bool] = lambda event: True,
    ) -> None:
        self._name = name
        self.script = deque(script)
        self.told: list[tuple[str, UploadState]] = []
        self.tried: list[Event] = []
        self.given: list[tuple[Upload | None, list[StatusChange]]] = []
        self.at_once = self.most_at_once = 0
        self._wants = wants

    @property
    def name(self) -> str:
        return self._name

    def wants(self, event: Event) -> bool:
        return self._wants(event)

    async def deliver(
        self, event: Event, upload: Upload | None, history: list[StatusChange]
    ) -> None:
        self.tried.append(event)
        self.given.append((upload, history))
        turn = self.script.popleft() if self.script else None
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if isinstance(turn, asyncio.Event):
                await turn.wait()
            elif turn is not None:
                raise turn
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        self.told.append((event.upload_id, event.kind))

    def fail(self, times: int) -> None:
        """Let the next attempts fail."""
        self.script.extend(DeliveryFailed("it is away.") for _ in range(times))
