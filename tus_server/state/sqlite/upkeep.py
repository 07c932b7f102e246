"""What is done about uploads that nobody sends to: those that others wait for, and the old."""

import json
import sqlite3
from collections import OrderedDict
from dataclasses import replace
from datetime import timedelta

from tus_server.core.ids import UploadId
from tus_server.core.upload import Upload
from tus_server.ports import NodeSeen
from tus_server.state.sqlite import lookups, rows
from tus_server.state.sqlite.leases import Leases
from tus_server.state.sqlite.reader import Reads
from tus_server.state.sqlite.writer import Writer


class Upkeep(Reads):
    """The methods of recovery and reaper that need no lease, over the writer.

    They change rows behind the back of the memory, which follows when a change is durable.
    """

    _writer: Writer
    _leases: Leases
    _cache: OrderedDict[UploadId, Upload]

    async def find_ready_finals(
        self, limit: int, after: UploadId | None = None, *, of: UploadId | None = None
    ) -> list[UploadId]:
        return await self._run(lambda db: lookups.ready_finals(db, limit, after, of))

    async def is_needed(self, upload_id: UploadId) -> bool:
        return await self._run(
            lambda db: bool(db.execute(rows.SQL["is_needed"], (upload_id,)).fetchone()[0])
        )

    async def let_partials_expire(self, upload_id: UploadId, after_s: float) -> None:
        at = self.now() + timedelta(seconds=after_s)

        def let_expire(db: sqlite3.Connection) -> list[UploadId]:
            values = {"id": upload_id, "at": rows.microseconds(at)}
            return [UploadId(row[0]) for row in db.execute(rows.SQL["let_partials_expire"], values)]

        def settle(changed: list[UploadId] | None, error: BaseException | None) -> None:
            if changed is None:
                self._cache.clear()  # outcome unknown: the file knows
            for partial_id in changed or ():
                if (known := self._cache.get(partial_id)) is not None:
                    self._cache[partial_id] = replace(known, expires_at=at)

        await self._writer.submit(let_expire, settle)

    async def purge(self, limit: int, *, ended_s: float) -> int:
        ended_before = rows.microseconds(self.now() - timedelta(seconds=ended_s))
        held = json.dumps(list(self._leases.held))

        def remove(db: sqlite3.Connection) -> list[UploadId]:
            values = {"limit": limit, "ended_before": ended_before, "held": held}
            return [UploadId(row[0]) for row in db.execute(rows.SQL["purge"], values)]

        def settle(gone: list[UploadId] | None, error: BaseException | None) -> None:
            if gone is None:
                self._cache.clear()
            for upload_id in gone or ():
                self._cache.pop(upload_id, None)

        gone: list[UploadId] = await self._writer.submit(remove, settle)
        return len(gone)

    # --- other processes: there are none

    async def forget_nodes(self, silent_s: float) -> list[NodeSeen]:
        return []

    async def claim_duty(self, name: str, lasts_s: float) -> bool:
        return True
