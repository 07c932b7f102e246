"""The one thread that touches the database: takes all waiting operations and commits once.

Group commit: under load the fsync of one COMMIT is shared by everything that queued up during the
last one. Results are delivered on the event loop in the order of submission, after the COMMIT.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from tus_server.core.errors import StateUnavailable, StorageFull, TusServerError

MAX_BATCH = 512

Operation = Callable[[sqlite3.Connection], Any]


class _Job:
    __slots__ = ("error", "future", "operation", "result", "then")

    def __init__(
        self,
        operation: Operation,
        future: "asyncio.Future[Any]",
        then: Callable[[Any, BaseException | None], None] | None,
    ) -> None:
        self.operation = operation
        self.future = future
        self.then = then
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Runs operations on a connection in a thread of its own, in order, in shared transactions.

    An operation raises a TusServerError only before its first change. After any other exception
    the batch is rolled back and each operation runs again alone.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._jobs: SimpleQueue[list[_Job] | None] = SimpleQueue()
        self._gathered: list[_Job] = []
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)

    async def start(self) -> None:
        """Open the connection. Raises what `connect` raises."""
        opened: asyncio.Future[None] = self._loop.create_future()
        self._opened = opened
        self._thread.start()
        await opened

    async def close(self) -> None:
        """Run what was submitted, then close the connection."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def submit(
        self,
        operation: Operation,
        then: Callable[[Any, BaseException | None], None] | None = None,
    ) -> "asyncio.Future[Any]":
        """Queue `operation`; the future has its result once it is durable.

        `then(result, error)` runs on the loop at that moment whether or not anybody still awaits
        the future: bookkeeping in memory must follow the row, not the request.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StateUnavailable("The state store is closed."))
        else:
            if not self._gathered:
                self._loop.call_soon(self._hand_over)
            self._gathered.append(_Job(operation, future, then))
        return future

    def _hand_over(self) -> None:
        """Wake the thread once for all that this turn of the loop has submitted."""
        if self._gathered:
            self._jobs.put(self._gathered)
            self._gathered = []

    def _run(self) -> None:
        try:
            db = self._connect()
        except BaseException as exc:
            self._loop.call_soon_threadsafe(self._opened.set_exception, exc)
            return
        self._loop.call_soon_threadsafe(self._opened.set_result, None)
        last = False
        while not last:
            batch, last = self._take_batch()
            if batch:
                self._execute(db, batch)
                # Raises only when the loop is closed: nobody is left to be told.
                self._loop.call_soon_threadsafe(_deliver, batch)
        db.close()

    def _take_batch(self) -> tuple[list[_Job], bool]:
        batch: list[_Job] = []
        jobs = self._jobs.get()
        while jobs is not None:
            batch += jobs
            if len(batch) >= MAX_BATCH or self._jobs.empty():
                return batch, False
            jobs = self._jobs.get()
        return batch, True

    def _execute(self, db: sqlite3.Connection, batch: list[_Job]) -> None:
        try:
            self._transact(db, batch)
        except _OneRefused:
            for job in batch:
                try:
                    self._transact(db, [job])
                except _OneRefused as refused:
                    job.error = _translated(refused.error)

    def _transact(self, db: sqlite3.Connection, batch: list[_Job]) -> None:
        try:
            db.execute("BEGIN IMMEDIATE")
            for job in batch:
                job.result, job.error = None, None
                try:
                    job.result = job.operation(db)
                except TusServerError as exc:
                    job.error = exc
                except Exception as exc:
                    raise _OneRefused(exc) from exc
            db.execute("COMMIT")
        except _OneRefused:
            _roll_back(db)
            raise
        except sqlite3.Error as exc:
            # The outcome may be unknown (a failed fsync): no second try here, the caller re-reads.
            _roll_back(db)
            for job in batch:
                job.error = _translated(exc)


class _OneRefused(Exception):
    def __init__(self, error: Exception) -> None:
        self.error = error


def _roll_back(db: sqlite3.Connection) -> None:
    try:
        db.execute("ROLLBACK")
    except sqlite3.Error:
        pass  # SQLite has already rolled back by itself


def _translated(error: Exception) -> Exception:
    if not isinstance(error, sqlite3.Error):
        return error  # a defect: the caller's to show
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_FULL:
        return StorageFull("The disk of the state database is full.")
    return StateUnavailable(f"SQLite: {error}")


def _deliver(batch: list[_Job]) -> None:
    for job in batch:
        if job.then is not None:
            job.then(job.result, job.error)
        if job.future.done():
            continue  # cancelled
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
