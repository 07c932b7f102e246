"""Several processes on one node: a supervisor binds the address, starts workers, restarts them.

The workers accept from one listening socket, which they inherit: a connection goes to whichever is
free, those that wait are not lost when a worker ends, and the address stays taken while one is
restarted. (With SO_REUSEPORT each would have a queue of its own, which dies with it.)
"""

import errno
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Final, Generic, TypeVar

import structlog

from tus_server.app.serving import url_of
from tus_server.core.errors import SettingsInvalid
from tus_server.datadir import DataDir
from tus_server.http.server import bind
from tus_server.settings import Settings
from tus_server.worker import RunWorker, Worker

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

# Workers of a supervisor that was killed need a moment to end.
BIND_WAIT_S: Final = 5.0
# What a worker may take beyond the time its requests get, to close what it has open.
STOP_MARGIN_S: Final = 10.0
# A worker that lived for less is started again after a pause, which doubles up to the longest.
SHORT_LIFE_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0


def supervise(
    settings: Settings, *, prepare: Callable[[Settings], _T], run_worker: RunWorker[_T]
) -> int:
    """Serve with settings.workers processes until a signal; give the exit status.

    prepare: run once, before the first worker; what it gives is pickled for each of them. Raises:
    DataDirInUse, DataDirUnusable, SettingsInvalid, and what prepare and, before all workers were
    ready once, run_worker raises.
    """
    with DataDir(settings.data_dir) as data_dir, _bind(settings) as listener:
        prepared = prepare(settings)
        url = url_of(settings, listener)

        def announce() -> None:
            data_dir.announce(url)
            log.info("supervisor.listening", url=url, workers=settings.workers)

        supervisor = Supervisor(
            lambda: Worker(run_worker, settings, listener, prepared),
            count=settings.workers,
            stop_timeout_s=settings.shutdown_timeout_s + STOP_MARGIN_S,
            announce=announce,
        )
        with _signals() as inbox:
            supervisor.run(inbox)
    return 0


class _Slot(Generic[_T]):
    """A place for a worker, which is empty while a restart is waited for."""

    def __init__(self) -> None:
        self.worker: Worker[_T] | None = None
        self.start_at_s = 0.0
        self.short_lives = 0


class Supervisor(Generic[_T]):
    """Keeps `count` workers running until it is told to stop. For the main thread."""

    def __init__(
        self,
        make_worker: Callable[[], Worker[_T]],
        *,
        count: int,
        stop_timeout_s: float,
        announce: Callable[[], None],
    ) -> None:
        self._make_worker = make_worker
        self._stop_timeout_s = stop_timeout_s
        self._announce = announce
        self._announced = False
        self._slots = [_Slot[_T]() for _ in range(count)]

    def run(self, inbox: socket.socket) -> None:
        """Run until a signal comes by `inbox`, then stop all workers.

        Raises what a worker raised at start, if no set of workers was ready before.
        """
        try:
            while True:
                self._start_due()
                self._wait(inbox, self._until_next_start_s())
                if _received(inbox):
                    self._stop(inbox)
                    return
                self._look_at_workers()
        finally:
            for worker in self._workers():
                worker.kill()

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.worker is None and time.monotonic() >= slot.start_at_s:
                slot.worker = self._make_worker()
                log.info("worker.started", worker_pid=slot.worker.pid)

    def _look_at_workers(self) -> None:
        for slot in self._slots:
            if slot.worker is None:
                continue
            slot.worker.listen()
            if slot.worker.failure is not None and not self._announced:
                raise slot.worker.failure
            if slot.worker.has_ended:
                self._note_end(slot, slot.worker)
        if not self._announced and all(slot.worker and slot.worker.ready for slot in self._slots):
            self._announced = True
            self._announce()

    def _note_end(self, slot: _Slot[_T], worker: Worker[_T]) -> None:
        short = worker.age_s < SHORT_LIFE_S
        slot.short_lives = slot.short_lives + 1 if short else 0
        pause_s = min(FIRST_PAUSE_S * 2 ** (slot.short_lives - 1), LONGEST_PAUSE_S) if short else 0
        slot.start_at_s = time.monotonic() + pause_s
        slot.worker = None
        log.error(
            "worker.ended",
            worker_pid=worker.pid,
            status=worker.status,
            why=str(worker.failure) if worker.failure else None,
            restart_in_s=pause_s,
        )
        worker.close()

    def _stop(self, inbox: socket.socket) -> None:
        """Let every worker store what has arrived; a second signal, or time, ends that."""
        log.info("supervisor.stopping", timeout_s=self._stop_timeout_s)
        for worker in self._workers():
            worker.terminate()
        deadline_s = time.monotonic() + self._stop_timeout_s
        while self._workers():
            self._wait(inbox, deadline_s - time.monotonic())
            for slot in self._slots:
                if slot.worker and slot.worker.has_ended:
                    slot.worker = None
            if _received(inbox) or time.monotonic() >= deadline_s:
                break
        for worker in self._workers():
            log.warning("worker.killed", worker_pid=worker.pid)
            worker.kill()
        log.info("supervisor.stopped")

    def _workers(self) -> list[Worker[_T]]:
        return [slot.worker for slot in self._slots if slot.worker]

    def _until_next_start_s(self) -> float | None:
        due = [slot.start_at_s for slot in self._slots if slot.worker is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _wait(self, inbox: socket.socket, timeout_s: float | None) -> None:
        # Those that have ended too: it was perhaps not seen yet.
        events = [event for worker in self._workers() for event in worker.events]
        connection.wait([inbox, *events], None if timeout_s is None else max(0.0, timeout_s))


def _bind(settings: Settings) -> socket.socket:
    deadline_s = time.monotonic() + BIND_WAIT_S
    while True:
        try:
            return bind(settings.host, settings.port)
        except SettingsInvalid as exc:
            taken = isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRINUSE
            if not taken or time.monotonic() > deadline_s:
                raise
        time.sleep(0.05)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Give a socket that has a byte to read for each SIGTERM and SIGINT."""
    inbox, outbox = socket.socketpair()
    with inbox, outbox:
        inbox.setblocking(False)
        outbox.setblocking(False)
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        old_fd = signal.set_wakeup_fd(outbox.fileno())
        try:
            yield inbox
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                signal.signal(number, handler)


def _received(inbox: socket.socket) -> bool:
    try:
        return bool(inbox.recv(64))
    except BlockingIOError:
        return False
