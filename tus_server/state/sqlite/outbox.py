"""The outbox: claiming events, and writing down how their delivery went."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from datetime import timedelta

from tus_server.core.jobs import Outcome
from tus_server.core.states import UploadState
from tus_server.ports import Attempt, Event
from tus_server.state.sqlite import lookups, rows
from tus_server.state.sqlite.reader import Reads


class Outbox(Reads):
    """The methods of delivery, over the writer."""

    async def claim_events(self, limit: int, lasts_s: float) -> list[Event]:
        now = self.now()
        values = {
            "limit": limit,
            "now": rows.microseconds(now),
            "until": rows.microseconds(now + timedelta(seconds=lasts_s)),
        }

        def claim(db: sqlite3.Connection) -> list[Event]:
            found = map(lookups.event, db.execute(rows.SQL["claim_events"], values))
            return sorted(found, key=lambda event: event.id)

        return await self._run(claim)

    async def settle_events(self, attempts: Sequence[Attempt]) -> None:
        now = self.now()
        values = [
            {
                "id": one.event.id,
                "attempts": one.event.attempts,
                "was_due": None
                if one.event.due_at is None
                else rows.microseconds(one.event.due_at),
                "done": json.dumps(sorted(one.done)),
                "error": one.error,
                "now": rows.microseconds(now),
                "due_at": None
                if one.retry_in_s is None
                else rows.microseconds(now + timedelta(seconds=one.retry_in_s)),
            }
            for one in attempts
        ]
        await self._run(lambda db: db.executemany(rows.SQL["settle_event"], values).rowcount)

    async def settle_unwanted(
        self, limit: int, unwanted: Collection[tuple[UploadState, Outcome | None]]
    ) -> int:
        values = {
            "limit": limit,
            "now": rows.microseconds(self.now()),
            "unwanted": json.dumps([f"{kind}:{outcome or ''}" for kind, outcome in unwanted]),
        }
        return await self._run(lambda db: db.execute(rows.SQL["settle_unwanted"], values).rowcount)

    async def retry_event(self, event_id: int) -> bool:
        values = {"id": event_id, "now": rows.microseconds(self.now())}
        changed = await self._run(lambda db: db.execute(rows.SQL["retry_event"], values).rowcount)
        return changed == 1

    async def purge_events(self, limit: int, *, delivered_s: float) -> int:
        before = rows.microseconds(self.now() - timedelta(seconds=delivered_s))
        values = {"limit": limit, "before": before}
        return await self._run(lambda db: db.execute(rows.SQL["purge_events"], values).rowcount)
