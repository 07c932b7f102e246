"""What is done about uploads that nobody sends to: those that others wait for, and the old."""

from tus_server.core.ids import UploadId
from tus_server.ports import NodeSeen
from tus_server.state.postgres import rows
from tus_server.state.postgres.reads import Reads
from tus_server.state.postgres.rows import SQL


class Upkeep(Reads):
    """The methods of recovery and reaper that need no lease, over a pool."""

    _holder: str

    async def find_ready_finals(
        self, limit: int, after: UploadId | None = None, *, of: UploadId | None = None
    ) -> list[UploadId]:
        if of is None:
            query, values = SQL["ready_finals"], [limit, after]
        else:
            query, values = SQL["ready_finals_of"], [limit, after, of]
        found = await self._pool.fetch(query, *values, repeatable=True)
        return [UploadId(row[0]) for row in found]

    async def is_needed(self, upload_id: UploadId) -> bool:
        found = await self._pool.fetch(SQL["is_needed"], upload_id, repeatable=True)
        return bool(found[0][0])

    async def let_partials_expire(self, upload_id: UploadId, after_s: float) -> None:
        await self._pool.fetch(SQL["let_partials_expire"], upload_id, after_s, repeatable=True)

    async def purge(self, limit: int, *, ended_s: float) -> int:
        # Not repeatable: of a first attempt that took effect nobody would tell the number.
        found = await self._pool.fetch(SQL["purge"], limit, ended_s, repeatable=False)
        number: int = found[0][0]
        return number

    async def forget_nodes(self, silent_s: float) -> list[NodeSeen]:
        found = await self._pool.fetch(SQL["forget_nodes"], silent_s, repeatable=False)
        return [rows.node(row) for row in found]

    async def claim_duty(self, name: str, lasts_s: float) -> bool:
        return bool(
            await self._pool.fetch(SQL["claim_duty"], name, self._holder, lasts_s, repeatable=True)
        )
