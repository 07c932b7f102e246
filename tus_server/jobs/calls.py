"""Python callables: found by their dotted path, called beside the loop unless they are async."""

import asyncio
import inspect
import pkgutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from tus_server.core.errors import DeliveryFailed, JobRefused
from tus_server.jobs.message import Message
from tus_server.jobs.names import JobRules
from tus_server.printable import printable

log = structlog.get_logger(__name__)

THREADS = 16

Called = Callable[..., Any]


class Calls:
    """The callables of this process, each found once, and the threads of those that block.

    A thread that hangs cannot be ended: it is given up, lives until the process ends, and counts.
    """

    def __init__(self, rules: JobRules, *, timeout_s: float) -> None:
        """rules: which may be called; timeout_s: of one call."""
        self._rules = rules
        self._timeout_s = timeout_s
        self._found: dict[str, Called] = {}
        self._threads = asyncio.Semaphore(THREADS)

    def find(self, path: str) -> Called:
        """Give what a dotted path names, importing it. Raises: JobRefused."""
        found = self._found.get(path)
        if found is None:
            found = find_callable(path)
            self._check_home(path, found)
            self._found[path] = found
        return found

    def _check_home(self, path: str, called: Called) -> None:
        """Raise JobRefused unless it was made where callables may be.

        A module has whatever it imports: `myapp.jobs.os.system` is below `myapp.jobs`, too.
        """
        home = find_home(called)
        if not (self._rules.names(path) or self._rules.allows_path(home)):
            raise JobRefused(f"{path} is {home}, which is not in what TUS_JOB_PREFIXES allows.")

    async def call(self, path: str, message: Message, **kwargs: Any) -> None:
        """Call with the message and the kwargs of the job; returning is success.

        Raises: DeliveryFailed.
        """
        try:
            called = self.find(path)
        except JobRefused as exc:
            # Not final: the next deployment may bring it.
            raise DeliveryFailed(exc.detail) from exc
        async with answering(self._timeout_s, path):
            if is_async(called):
                await called(message, **kwargs)
            else:
                await self._call_in_thread(lambda: called(message, **kwargs))

    async def _call_in_thread(self, step: Callable[[], Any]) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def end(error: BaseException | None) -> None:
            self._threads.release()
            if future.done():
                return  # given up
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        def run() -> None:
            error: BaseException | None = None
            try:
                step()
            except Exception as exc:
                error = exc
            except BaseException as exc:  # SystemExit, which no future takes
                error = RuntimeError(f"it ended with {type(exc).__name__}")
            try:
                loop.call_soon_threadsafe(end, error)
            except RuntimeError:
                pass  # the loop is closed: nobody waits

        await self._threads.acquire()
        # A thread of its own, and a daemon: those of a pool are waited for when the process ends.
        threading.Thread(target=run, name="job", daemon=True).start()
        await future


@asynccontextmanager
async def answering(timeout_s: float, name: str) -> AsyncIterator[None]:
    """Run what is the application's: whatever it raises, or no end of it, is DeliveryFailed."""
    try:
        async with asyncio.timeout(timeout_s) as timer:
            yield
    except Exception as exc:
        if isinstance(exc, TimeoutError) and timer.expired():
            raise DeliveryFailed(f"{name} has no end after {timeout_s:g} s.") from exc
        log.warning("job.failed", job=name, exc_info=True)
        said = printable(str(exc))
        raise DeliveryFailed(
            f"{name} raised {type(exc).__name__}{': ' if said else ''}{said}."
        ) from exc


def find_callable(path: str) -> Called:
    """Import what a dotted path names. Raises: JobRefused."""
    try:
        found = pkgutil.resolve_name(path)
    except Exception as exc:  # whatever a module does when it is imported
        raise JobRefused(f"{path} cannot be imported: {type(exc).__name__}: {exc}.") from exc
    if not callable(found):
        raise JobRefused(f"{path} is not callable.")
    called: Called = found
    return called


def find_home(called: Called) -> str:
    """Give the dotted path of where something callable was made."""
    made = _inner(called)
    name = getattr(made, "__qualname__", type(made).__qualname__)
    return f"{getattr(made, '__module__', None) or 'builtins'}.{name}"


def is_async(called: Called) -> bool:
    """Tell whether calling it gives something to await."""
    unwrapped = _inner(called)
    return inspect.iscoroutinefunction(unwrapped) or inspect.iscoroutinefunction(
        type(unwrapped).__call__
    )


def _inner(called: Called) -> Any:
    """Give what runs in the end: without decorators and functools.partial."""
    unwrapped = inspect.unwrap(called)
    while hasattr(unwrapped, "func"):
        unwrapped = unwrapped.func
    return unwrapped
