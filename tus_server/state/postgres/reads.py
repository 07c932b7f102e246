"""The reading half of the store, for the server and for those who look on."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.ports import Event, Node, NodeSeen, StatusChange
from tus_server.state.postgres import rows
from tus_server.state.postgres.options import PostgresOptions
from tus_server.state.postgres.pool import Pool
from tus_server.state.postgres.rows import SQL
from tus_server.state.postgres.start import open_checked


class Reads:
    """The methods that only read, over a pool."""

    _pool: Pool

    async def find_upload(self, upload_id: UploadId) -> Upload | None:
        found = await self._pool.fetch(SQL["observe_upload"], upload_id, repeatable=True)
        return rows.upload(found[0]) if found else None

    async def list_uploads(
        self,
        states: frozenset[UploadState] | None,
        limit: int,
        before: UploadId | None = None,
    ) -> list[Upload]:
        wanted = None if states is None else ",".join(states)
        found = await self._pool.fetch(SQL["list_uploads"], wanted, before, limit, repeatable=True)
        return [rows.upload(row) for row in found]

    async def history(self, upload_id: UploadId) -> list[StatusChange]:
        found = await self._pool.fetch(SQL["history"], upload_id, repeatable=True)
        return [rows.change(row) for row in found]

    async def pending_events(self, limit: int) -> list[Event]:
        found = await self._pool.fetch(SQL["pending_events"], limit, repeatable=True)
        return [rows.event(row) for row in found]

    async def find_node(self, node_id: str) -> NodeSeen | None:
        found = await self._pool.fetch(SQL["find_node"], node_id, repeatable=True)
        return NodeSeen(Node(found[0][0], found[0][1]), found[0][2]) if found else None


class PostgresReader(Reads):
    """See ports.StateReader: a look from outside, which changes nothing."""

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises: SettingsInvalid, SchemaMismatch."""
        async with AsyncExitStack() as stack:
            connection = await open_checked(self._options)
            self._pool = await stack.enter_async_context(Pool(self._options))
            self._pool.adopt(connection)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stack.aclose()
