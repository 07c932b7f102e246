"""One worker process of a supervisor: how it is started, watched and ended."""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import connection, get_context, parent_process, resource_tracker
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from tus_server.core.errors import TusServerError
from tus_server.logs import configure_logging
from tus_server.settings import Settings

_P_contra = TypeVar("_P_contra", contravariant=True)
_P = TypeVar("_P")
_PR_SET_PDEATHSIG: Final = 1


class RunWorker(Protocol[_P_contra]):
    """What a worker does, as app.run_worker does it; a function of a module, to be pickled."""

    def __call__(
        self,
        settings: Settings,
        listener: socket.socket,
        prepared: _P_contra,
        ready: Callable[[], None],
    ) -> int:
        """Serve until SIGTERM; call `ready` once requests are answered."""


class Worker(Generic[_P]):
    """A worker process, from its start to its end. Seen from the supervisor."""

    def __init__(
        self,
        run_worker: RunWorker[_P],
        settings: Settings,
        listener: socket.socket,
        prepared: _P,
    ) -> None:
        """Start it. For the main thread: Linux ends a worker with the thread that started it."""
        # Not forked: threads, locks and the loop of this process are no start for another one.
        spawn = get_context("spawn")
        self._channel, theirs = spawn.Pipe(duplex=False)
        self._started_at_s = time.monotonic()
        self.ready = False
        self.failure: TusServerError | None = None
        self._heard = False
        self._process = spawn.Process(
            target=_work,
            args=(run_worker, settings, listener, prepared, theirs, os.getpid()),
            daemon=True,
        )
        # A Ctrl-C reaches every process of the terminal. Blocked here, and so in the child from
        # its first instruction on; the supervisor says SIGTERM instead. The resource tracker is
        # multiprocessing's; as the first start also starts it, it would unblock the signal.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._started_at_s

    @property
    def has_ended(self) -> bool:
        return self._process.exitcode is not None

    @property
    def status(self) -> int | str | None:
        """The exit status, or the name of the signal that ended it."""
        code = self._process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else code

    @property
    def events(self) -> list[Any]:
        """What to wait for: its end, and until it has said something that."""
        return [self._process.sentinel] + ([] if self._heard else [self._channel])

    def listen(self) -> None:
        """Hear, without waiting, whether it is ready, or what keeps it from that (`failure`)."""
        if self._heard or not self._channel.poll():
            return
        self._heard = True
        try:
            said = self._channel.recv()
        except EOFError:  # it ended without a word
            return
        self.ready = said is True
        self.failure = said if isinstance(said, TusServerError) else None

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Free what this process has of one that has ended."""
        self._channel.close()
        self._process.close()


def _work(
    run_worker: RunWorker[_P],
    settings: Settings,
    listener: socket.socket,
    prepared: _P,
    channel: "connection.Connection",
    supervisor_pid: int,
) -> None:
    """Be a worker."""
    _die_with(supervisor_pid)
    configure_logging(settings.log_format, settings.log_level)
    structlog.contextvars.bind_contextvars(pid=os.getpid())
    try:
        status = run_worker(settings, listener, prepared, lambda: channel.send(True))
    except TusServerError as exc:
        channel.send(exc)
        status = 1
    sys.exit(status)


def _die_with(supervisor_pid: int) -> None:
    """Let this process be killed when its supervisor ends, however that ends.

    Nobody would stop such a worker, and it would keep the address.
    """
    if sys.platform == "linux":
        # Also ends a process that is stopped, or whose threads all wait.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor_pid:  # it ended before the line above
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        threading.Thread(target=_watch_supervisor, daemon=True).start()


def _watch_supervisor() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
