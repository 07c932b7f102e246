"""An application that is made when somebody first asks for it."""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp

from tus_server.http.body import Receive
from tus_server.http.exchange import Scope, Send


class Lazily:
    """Makes the application for its first request, on a thread: others are answered meanwhile.

    For what takes long to import, and what many servers are never asked for. If it cannot be
    made, the request fails with the reason, and the next one tries again.
    """

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: ASGIApp | None = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._made is None:
            async with self._making:
                if self._made is None:
                    self._made = await asyncio.to_thread(self._make)
        await self._made(scope, receive, send)
