"""StateStore in one SQLite file: leases and hot rows in memory, everything else durable.

One process owns the file (the data dir's lock), so a claim writes nothing and a row that was read
or written is served from memory until it is pushed out.
"""

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tus_server.core.errors import DataDirUnusable, LeaseLost, SchemaMismatch
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports import Claim, Clock, Event, Lease, StatusChange
from tus_server.state.sqlite import rows
from tus_server.state.sqlite.schema import connect
from tus_server.state.sqlite.writer import Writer

CACHED_ROWS = 4096
T = TypeVar("T")


class _Reads:
    """The reading that needs nothing but a connection to run on."""

    async def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def list_uploads(
        self,
        states: frozenset[UploadState] | None,
        limit: int,
        before: UploadId | None = None,
    ) -> list[Upload]:
        return await self._run(lambda db: rows.select(db, states, limit, before))

    async def history(self, upload_id: UploadId) -> list[StatusChange]:
        return await self._run(lambda db: rows.history(db, upload_id))

    async def pending_events(self, limit: int) -> list[Event]:
        return await self._run(lambda db: rows.pending_events(db, limit))


class SqliteState(_Reads):
    """See ports.StateStore. Use as an async context manager on the loop that serves."""

    def __init__(self, path: Path, clock: Clock, *, durable: bool = True) -> None:
        self._path = path
        self._clock = clock
        self._durable = durable
        self._epochs: dict[UploadId, int] = {}  # current leases
        self._last_epoch = 0
        self._cache: OrderedDict[UploadId, Upload] = OrderedDict()

    async def __aenter__(self) -> Self:
        self._writer = Writer(lambda: connect(self._path, durable=self._durable))
        await self._writer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._writer.close()

    # --- reading

    async def find_upload(self, upload_id: UploadId) -> Upload | None:
        if (cached := self._cache.get(upload_id)) is not None:
            self._cache.move_to_end(upload_id)
            return cached

        # Through the writer's queue: a read that overtook a commit would put an old row in memory.
        def remember(found: Upload | None, error: BaseException | None) -> None:
            if found is not None:
                self._remember(found)

        found: Upload | None = await self._writer.submit(
            lambda db: rows.find(db, upload_id), remember
        )
        # What was delivered together with it may have replaced the row already.
        return self._cache.get(upload_id, found)

    async def find_parts(self, upload_id: UploadId) -> list[Part]:
        return await self._run(lambda db: rows.find_parts(db, upload_id))

    async def unfinished_work(
        self, limit: int, after: UploadId | None = None, *, receiving: bool
    ) -> list[Upload]:
        return await self._run(lambda db: rows.unfinished(db, limit, after, receiving=receiving))

    # --- leases

    async def claim_upload(self, upload_id: UploadId) -> Claim:
        upload = await self.find_upload(upload_id)
        if upload is None:
            return Claim(None)
        if upload_id in self._epochs:
            return Claim(upload, held=True)
        # No await between the look and the grant, and the row is the cached one: still current.
        return Claim(upload, self._grant(upload_id))

    async def is_held(self, upload_id: UploadId) -> bool:
        return upload_id in self._epochs

    async def release(self, lease: Lease) -> None:
        if self._epochs.get(lease.upload_id) == lease.epoch:
            del self._epochs[lease.upload_id]

    def _grant(self, upload_id: UploadId) -> Lease:
        self._last_epoch += 1
        self._epochs[upload_id] = self._last_epoch
        return Lease(upload_id, self._last_epoch)

    # --- writing

    async def create_upload(self, upload: Upload, *, claim: bool) -> Lease | None:
        lease = self._grant(upload.id) if claim else None

        def settle(result: None, error: BaseException | None) -> None:
            if error is None:
                self._remember(upload)
            elif lease is not None:
                del self._epochs[upload.id]

        await self._writer.submit(lambda db: rows.insert(db, upload), settle)
        return lease

    async def commit(
        self,
        lease: Lease,
        before: Upload,
        after: Upload,
        *,
        steps: tuple[UploadState, ...] = (),
        parts: Sequence[Part] = (),
        release: bool = False,
    ) -> None:
        if self._epochs.get(lease.upload_id) != lease.epoch:
            raise LeaseLost

        def settle(result: None, error: BaseException | None) -> None:
            if error is None:
                self._remember(after)
                if release and self._epochs.get(lease.upload_id) == lease.epoch:
                    del self._epochs[lease.upload_id]
            else:
                self._cache.pop(lease.upload_id, None)  # outcome unknown: the file knows

        await self._writer.submit(lambda db: rows.update(db, before, after, steps, parts), settle)

    async def check(self) -> None:
        now = rows.microseconds(self._clock.now())
        await self._run(lambda db: db.execute(rows.SQL["probe"], (now,)).rowcount)

    async def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        result: T = await self._writer.submit(query)
        return result

    def _remember(self, upload: Upload) -> None:
        self._cache[upload.id] = upload
        self._cache.move_to_end(upload.id)
        if len(self._cache) > CACHED_ROWS:
            self._cache.popitem(last=False)


class SqliteReader(_Reads):
    """See ports.StateReader: a look into the file from outside, also while a server owns it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> Self:
        if not self._path.exists():
            raise DataDirUnusable(f"There is no state database at {self._path}.")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        return None

    async def find_upload(self, upload_id: UploadId) -> Upload | None:
        return await self._run(lambda db: rows.find(db, upload_id))

    async def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            try:
                db = connect(self._path, durable=True, read_only=True)
            except sqlite3.Error as exc:
                raise SchemaMismatch(f"{self._path}: {exc}.") from exc
            try:
                return query(db)
            finally:
                db.close()

        return await asyncio.to_thread(run)
