"""Reading the file: what server and onlooker share, and the look from outside."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tus_server.core.errors import DataDirUnusable, SchemaMismatch
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.ports import Event, NodeSeen, StatusChange
from tus_server.state.sqlite import rows
from tus_server.state.sqlite.schema import connect

T = TypeVar("T")


class Reads:
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

    async def find_node(self, node_id: str) -> NodeSeen | None:
        return None  # there is one alone, and it knows itself


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
