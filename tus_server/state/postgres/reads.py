"""The reading half of the store, for the server and for those who look on."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports import Event, Letters, NodeSeen, StatusChange
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

    async def find_uploads(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, Upload]:
        found = await self._uploads("find_uploads", ",".join(upload_ids))
        return {one.id: one for one in found}

    async def find_partials(self, upload_id: UploadId) -> list[Upload]:
        return await self._uploads("find_partials", upload_id)

    async def find_expired(
        self, limit: int, after: UploadId | None = None, *, ahead_s: float = 0.0
    ) -> list[Upload]:
        return await self._uploads("find_expired", limit, after, ahead_s)

    async def find_kept_longer(
        self, limit: int, after: UploadId | None = None, *, kept_s: float
    ) -> list[Upload]:
        return await self._uploads("find_kept_longer", limit, after, kept_s)

    async def list_uploads(
        self,
        states: frozenset[UploadState] | None,
        limit: int,
        before: UploadId | None = None,
    ) -> list[Upload]:
        wanted = None if states is None else ",".join(states)
        return await self._uploads("list_uploads", wanted, before, limit)

    async def find_parts(self, upload_id: UploadId) -> list[Part]:
        found = await self._pool.fetch(SQL["find_parts"], upload_id, repeatable=True)
        return [rows.part(row) for row in found]

    async def history(self, upload_id: UploadId) -> list[StatusChange]:
        found = await self._pool.fetch(SQL["history"], upload_id, repeatable=True)
        return [rows.change(tuple(row)) for row in found]

    async def histories(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, list[StatusChange]]:
        found = await self._pool.fetch(SQL["histories"], ",".join(upload_ids), repeatable=True)
        histories: dict[UploadId, list[StatusChange]] = {}
        for upload_id, *change in found:
            histories.setdefault(UploadId(upload_id), []).append(rows.change(change))
        return histories

    async def find_by_file_id(
        self, file_id: str, limit: int, before: UploadId | None = None
    ) -> list[Upload]:
        return await self._uploads("find_by_file_id", rows.stored_text(file_id), before, limit)

    async def find_active(self, file_id: str) -> Upload | None:
        found = await self._uploads("find_active", rows.stored_text(file_id))
        return found[0] if found else None

    async def find_requested(self, request_key: str) -> Upload | None:
        found = await self._uploads("find_requested", rows.stored_text(request_key))
        return found[0] if found else None

    async def find_auto_complete(self, limit: int, after: UploadId | None = None) -> list[Upload]:
        return await self._uploads("find_auto_complete", limit, after)

    async def pending_events(self, limit: int) -> list[Event]:
        return await self._events("pending_events", limit)

    async def list_events(
        self,
        kind: Letters,
        limit: int,
        before: int | None = None,
        *,
        upload_id: UploadId | None = None,
    ) -> list[Event]:
        return await self._events("list_events", kind, limit, before, upload_id)

    async def find_event(self, event_id: int) -> Event | None:
        found = await self._events("find_event", event_id)
        return found[0] if found else None

    async def find_node(self, node_id: str) -> NodeSeen | None:
        found = await self._pool.fetch(SQL["find_node"], node_id, repeatable=True)
        return rows.node(found[0]) if found else None

    async def find_stale_nodes(self, silent_s: float) -> list[NodeSeen]:
        found = await self._pool.fetch(SQL["find_stale_nodes"], silent_s, repeatable=True)
        return [rows.node(row) for row in found]

    async def _uploads(self, query: str, *values: object) -> list[Upload]:
        found = await self._pool.fetch(SQL[query], *values, repeatable=True)
        return [rows.upload(row) for row in found]

    async def _events(self, query: str, *values: object) -> list[Event]:
        found = await self._pool.fetch(SQL[query], *values, repeatable=True)
        return [rows.event(row) for row in found]


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
