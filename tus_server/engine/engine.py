"""The engine: the ports it works on, and the tasks that no request may cancel."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tus_server.core.errors import ShuttingDown
from tus_server.engine.buffers import BlockPool
from tus_server.engine.leases import Leases
from tus_server.engine.tails import Tails
from tus_server.ports import Authorizer, Clock, ObjectStore, StateStore

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Engine:
    """What every verb works with. max_size: bytes of the largest upload taken."""

    state: StateStore
    objects: ObjectStore
    leases: Leases
    authorizer: Authorizer
    clock: Clock
    blocks: BlockPool
    max_size: int
    tails: Tails | None = None  # None: the store takes parts of any size, so there are none
    node_label: str | None = None
    closing: bool = False
    _tasks: set["asyncio.Task[Any]"] = field(default_factory=set)

    async def undisturbed(self, verb: Coroutine[Any, Any, T], let_go: Callable[[], None]) -> T:
        """Run `verb` to its end in a task of the engine, whatever becomes of the caller.

        A cancelled caller (a server that shuts down) asks the verb to let go and is cancelled
        when it has: what arrived is stored, committed, and its lease released, in the same way
        as after any other interruption.
        """
        task = asyncio.create_task(verb)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            let_go()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # retrieved: nobody is left to answer
            raise

    def let_go(self) -> None:
        """Refuse new bodies, and ask every holder to store what has arrived and let go."""
        self.closing = True
        self.leases.ask_all()

    def check_open(self) -> None:
        """Raise ShuttingDown once let_go() was called."""
        if self.closing:
            raise ShuttingDown

    async def drain(self, timeout_s: float) -> bool:
        """Wait for the tasks under way; tell whether all ended in time."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(self._tasks, timeout=timeout_s)
        return not pending
