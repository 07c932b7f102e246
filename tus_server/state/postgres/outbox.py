"""The outbox: claiming events, and writing down how their delivery went."""

from collections.abc import Collection, Sequence

from tus_server.core.jobs import Outcome
from tus_server.core.states import UploadState
from tus_server.ports import Attempt, Event
from tus_server.state.postgres import rows
from tus_server.state.postgres.reads import Reads
from tus_server.state.postgres.rows import SQL


class Outbox(Reads):
    """The methods of delivery, over a pool."""

    async def claim_events(self, limit: int, lasts_s: float) -> list[Event]:
        # Not repeatable: a first attempt that took effect unheard would count, and keep them.
        found = await self._pool.fetch(SQL["claim_events"], limit, lasts_s, repeatable=False)
        return [rows.event(row) for row in found]

    async def settle_events(self, attempts: Sequence[Attempt]) -> None:
        await self._pool.fetch(
            SQL["settle_events"], rows.render_attempts(attempts), repeatable=True
        )

    async def settle_unwanted(
        self, limit: int, unwanted: Collection[tuple[UploadState, Outcome | None]]
    ) -> int:
        pairs = ",".join(f"{kind}:{outcome or ''}" for kind, outcome in unwanted)
        found = await self._pool.fetch(SQL["settle_unwanted"], limit, pairs, repeatable=True)
        number: int = found[0][0]
        return number

    async def retry_event(self, event_id: int) -> bool:
        return bool(await self._pool.fetch(SQL["retry_event"], event_id, repeatable=False))

    async def purge_events(self, limit: int, *, delivered_s: float) -> int:
        found = await self._pool.fetch(SQL["purge_events"], limit, delivered_s, repeatable=False)
        number: int = found[0][0]
        return number
