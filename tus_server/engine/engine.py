"""The engine: the ports it works on, and the tasks that no request may cancel."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog

from tus_server.core.errors import ShuttingDown, TusServerError, UploadTooLarge
from tus_server.core.expiry import NEVER, Expiry
from tus_server.core.jobs import Job
from tus_server.core.parts import MIB
from tus_server.core.upload import Upload
from tus_server.engine.buffers import BlockPool
from tus_server.engine.direct.books import Books
from tus_server.engine.direct.seldom import Seldom
from tus_server.engine.direct.turns import Turns
from tus_server.engine.leases import Leases
from tus_server.engine.tails import Tails
from tus_server.ports import (
    Authorizer,
    Clock,
    DirectParts,
    Gate,
    ObjectStore,
    PartFiles,
    StateStore,
    StoreLimits,
    Threads,
    Verifier,
)

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Engine:
    """What every verb works with.

    max_size: bytes of the largest upload created now. max_append_size: of the largest body that a
    request of RUFH may have. direct: where parts of direct uploads are sent, part_files: where this
    server itself receives them; direct_part_size: bytes of each, unless they would be too many.
    sniff: tells the content type by the first bytes, of uploads that the application has created,
    or with sniffs_all of every one. check_job: raises JobRefused for a job that leads nowhere.
    """

    state: StateStore
    objects: ObjectStore
    leases: Leases
    authorizer: Authorizer
    clock: Clock
    blocks: BlockPool
    max_size: int
    threads: Threads
    expiry: Expiry = NEVER
    keep_partials: bool = False
    max_append_size: int | None = None
    tails: Tails | None = None  # None: the store takes parts of any size, so there are none
    node_label: str | None = None
    direct: DirectParts | None = None
    part_files: PartFiles | None = None
    direct_part_size: int = 16 * MIB
    sign_expires_s: float = 3600.0
    verifiers: tuple[Verifier, ...] = ()
    sniff: Callable[[bytes], str | None] | None = None
    sniffs_all: bool = False
    gate: Gate | None = None
    check_job: Callable[[Job], None] = lambda job: None
    books: Books = field(default_factory=Books)
    turns: Turns = field(default_factory=Turns)
    seldom: Seldom = field(default_factory=Seldom)
    closing: bool = False
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
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

    def max_size_of(self, upload: Upload) -> int:
        """Give how many bytes an upload may have: what its creation was told holds (R15)."""
        return self.max_size if upload.max_size is None else upload.max_size

    def limits_for(self, upload: Upload) -> StoreLimits:
        """Give the limits to plan the parts of an upload by, which may be larger than new ones."""
        limits, max_size = self.objects.limits, self.max_size_of(upload)
        if max_size <= limits.max_object_size:
            return limits
        return replace(limits, max_object_size=max_size)

    def must_look_at(self, upload: Upload) -> bool:
        """Tell whether the content is looked at before an upload is verified."""
        return bool(self.verifiers) or self.must_sniff(upload)

    def must_sniff(self, upload: Upload) -> bool:
        """Tell whether the content type of an upload is still to be told by its first bytes."""
        if self.sniff is None or upload.content_type is not None:
            return False
        return self.sniffs_all or upload.instructions.by_application

    def check_length(self, length: int, upload: Upload | None = None) -> None:
        """Raise UploadTooLarge for more than the server takes (T44, T62); upload: one it has."""
        largest = self.max_size if upload is None else self.max_size_of(upload)
        if length > largest:
            raise UploadTooLarge(f"The largest upload taken has {largest} bytes.")

    def behind(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run `work` behind the request that began it; what it raises is logged."""
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def let_go(self) -> None:
        """Refuse new bodies, and ask every holder to store what has arrived and let go."""
        self.closing = True
        self._closing.set()
        self.leases.ask_all()
        self.turns.ask_all()

    @asynccontextmanager
    async def until_closing(self) -> AsyncIterator["asyncio.Task[bool]"]:
        """Give a task that ends when let_go() is called, to wait for beside something else."""
        task = asyncio.create_task(self._closing.wait())
        try:
            yield task
        finally:
            task.cancel()

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


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except TusServerError as exc:
        log.warning("engine.postponed", code=exc.code, detail=exc.detail)
    except Exception:  # a defect; nobody awaits this task
        log.exception("engine.failed")
