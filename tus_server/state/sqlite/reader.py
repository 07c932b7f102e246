"""Reading the file: what server and onlooker share, and the look from outside."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tus_server.core.errors import DataDirUnusable, SchemaMismatch
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports import Event, Letters, NodeSeen, StatusChange
from tus_server.state.sqlite import lookups, rows
from tus_server.state.sqlite.schema import connect

T = TypeVar("T")


class Reads:
    """The reading that needs nothing but a connection to run on."""

    async def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    def now(self) -> datetime:
        """Give the time that decides what has expired."""
        raise NotImplementedError

    async def find_uploads(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, Upload]:
        return await self._run(lambda db: lookups.find_all(db, upload_ids))

    async def find_partials(self, upload_id: UploadId) -> list[Upload]:
        return await self._run(lambda db: lookups.partials(db, upload_id))

    async def find_expired(
        self, limit: int, after: UploadId | None = None, *, ahead_s: float = 0.0
    ) -> list[Upload]:
        now = rows.microseconds(self.now() + timedelta(seconds=ahead_s))
        return await self._run(lambda db: lookups.expired(db, limit, after, now=now))

    async def find_kept_longer(
        self, limit: int, after: UploadId | None = None, *, kept_s: float
    ) -> list[Upload]:
        before = rows.microseconds(self.now() - timedelta(seconds=kept_s))
        return await self._run(
            lambda db: lookups.kept_longer(db, limit, after, finished_before=before)
        )

    async def find_parts(self, upload_id: UploadId) -> list[Part]:
        return await self._run(lambda db: rows.find_parts(db, upload_id))

    async def list_uploads(
        self,
        states: frozenset[UploadState] | None,
        limit: int,
        before: UploadId | None = None,
    ) -> list[Upload]:
        return await self._run(lambda db: lookups.select(db, states, limit, before))

    async def history(self, upload_id: UploadId) -> list[StatusChange]:
        return await self._run(lambda db: lookups.history(db, upload_id))

    async def histories(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, list[StatusChange]]:
        return await self._run(lambda db: lookups.histories(db, upload_ids))

    async def find_by_file_id(
        self, file_id: str, limit: int, before: UploadId | None = None
    ) -> list[Upload]:
        return await self._run(lambda db: lookups.by_file_id(db, file_id, limit, before))

    async def find_active(self, file_id: str) -> Upload | None:
        return await self._run(lambda db: lookups.one(db, "find_active", file_id))

    async def find_requested(self, request_key: str) -> Upload | None:
        return await self._run(lambda db: lookups.one(db, "find_requested", request_key))

    async def find_auto_complete(self, limit: int, after: UploadId | None = None) -> list[Upload]:
        return await self._run(lambda db: lookups.auto_complete(db, limit, after))

    async def list_events(
        self,
        kind: Letters,
        limit: int,
        before: int | None = None,
        *,
        upload_id: UploadId | None = None,
    ) -> list[Event]:
        return await self._run(lambda db: lookups.list_events(db, kind, limit, before, upload_id))

    async def find_event(self, event_id: int) -> Event | None:
        return await self._run(lambda db: lookups.find_event(db, event_id))

    async def pending_events(self, limit: int) -> list[Event]:
        return await self._run(lambda db: lookups.pending_events(db, limit))

    async def find_node(self, node_id: str) -> NodeSeen | None:
        return None  # there is one alone, and it knows itself

    async def find_stale_nodes(self, silent_s: float) -> list[NodeSeen]:
        return []


class SqliteReader(Reads):
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

    def now(self) -> datetime:
        return datetime.now(UTC)

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
