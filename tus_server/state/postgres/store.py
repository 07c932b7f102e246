"""StateStore in Postgres: every operation is one statement, and holds a connection no longer."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import Self

import asyncpg

from tus_server.core.errors import FileIdTaken, LeaseLost, RequestKeyTaken, StateUnavailable
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports import JobQueue, Lease, Node
from tus_server.state.outcome import has_become
from tus_server.state.postgres import rows
from tus_server.state.postgres.leases import Leases
from tus_server.state.postgres.listener import Listener
from tus_server.state.postgres.nodes import register
from tus_server.state.postgres.options import PostgresOptions
from tus_server.state.postgres.outbox import Outbox
from tus_server.state.postgres.pool import Pool
from tus_server.state.postgres.procrastinate import Procrastinate
from tus_server.state.postgres.rows import COLUMNS, SQL
from tus_server.state.postgres.start import open_checked
from tus_server.state.postgres.upkeep import Upkeep

STOP_WAIT_S = 2.0  # for saying goodbye
BACKOFF_S = (0.05, 2.0)  # between two attempts of a commit: at first, at most
CREATE_ROUNDS = 5
_PROMISES = {"uploads_active", "uploads_requested"}  # indexes, of rows that others may end


class PostgresState(Leases, Upkeep, Outbox):
    """See ports.StateStore. Use as an async context manager on the loop that serves.

    process: the name of this process among all of its node, lower-case hex; no other process
    ever had it. has_ended: tells whether a process of this node is known to have ended, so that
    its leases are free at once; those of other nodes run out by the clock of the database.
    """

    def __init__(
        self,
        options: PostgresOptions,
        *,
        node: Node,
        process: str,
        has_ended: Callable[[str], bool],
        registers: bool = True,
        early_events: frozenset[UploadState] = frozenset(),
    ) -> None:
        """registers: False for a command beside the servers, which may not know the node's name.

        early_events: of states.EARLY_EVENTS, those that somebody wants to hear of.
        """
        super().__init__(options, node=node, process=process, has_ended=has_ended)
        self._registers = registers
        self._early = early_events
        self._stack = AsyncExitStack()

    @property
    def job_queue(self) -> JobQueue:
        """The queue of procrastinate in the same database, whether it is there or not."""
        return self._job_queue

    async def __aenter__(self) -> Self:
        """Raises: SettingsInvalid, SchemaMismatch, NodeNameTaken."""
        async with AsyncExitStack() as stack:
            connection = await open_checked(self._options, writes=True)
            self._pool = await stack.enter_async_context(Pool(self._options))
            self._pool.adopt(connection)
            self._job_queue = Procrastinate(self._pool)
            if self._registers:
                await register(connection, self._options, self._node)
            await self.beat([])  # tells what time it is
            channels = {
                f"tus_wanted_{self._process}": self._hear_wanted,
                "tus_freed": self._hear_freed,
            }
            self._listener = await stack.enter_async_context(
                Listener(self._options, self._pool, channels)
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if self._registers:
                # Should another process of this node go on, it says so with its next beat.
                async with asyncio.timeout(STOP_WAIT_S):
                    await self.mark_stopped()
        except (TimeoutError, StateUnavailable):
            pass  # the name is free after a while anyway
        finally:
            await self._stack.aclose()

    async def create_upload(
        self,
        upload: Upload,
        *,
        claim: bool,
        numbers: int = 0,
        partials: Sequence[UploadId] = (),
    ) -> Lease | None:
        row = replace(upload, next_part_number=upload.next_part_number + numbers)
        lease = (1, self._holder, self._options.lease_s) if claim else (0, None, None)
        is_news = upload.state in self._early and not upload.is_partial
        query = "create_direct" if upload.is_direct else "create_upload"
        values = (*rows.insert_values(row), *lease, is_news)
        if partials:
            query, values = "create_final", (*values, ",".join(partials))
        for _ in range(CREATE_ROUNDS):
            try:
                await self._pool.fetch(SQL[query], *values, repeatable=True)
                break
            except asyncpg.UniqueViolationError as exc:
                # A first attempt may have taken effect, and its answer been lost.
                found = await self.find_upload(upload.id)
                if found is None:
                    await self._check_free(upload, exc)
                    continue
                # Without a lease others may have gone on with it: a final upload is joined.
                if found.created_at != row.created_at or (claim and found != row):
                    raise
                break
        else:
            raise StateUnavailable("Uploads of this file_id come and go: try again.")
        return self._remember(row, 1, numbers) if claim else None

    async def _check_free(self, upload: Upload, cause: asyncpg.UniqueViolationError) -> None:
        """Raise what a unique index has refused, with the row that it was refused for.

        Return where that row has ended meanwhile, or is gone. Raises `cause` itself for a defect.
        """
        if upload.request_key is not None:
            first = await self.find_requested(upload.request_key)
            if first is not None:
                raise RequestKeyTaken(upload=first.id) from cause
        if upload.file_id is not None:
            first = await self.find_active(upload.file_id)
            if first is not None:
                raise FileIdTaken(
                    f"Upload {first.id} of this file_id is {first.state}.",
                    upload=first.id,
                    state=first.state,
                ) from cause
        if cause.constraint_name not in _PROMISES:
            raise cause

    async def record_parts(
        self, upload_id: UploadId, parts: Sequence[Part], *, expires_at: datetime | None = None
    ) -> Upload | None:
        last = {part.number: part for part in parts}
        found = await self._pool.fetch(
            SQL["record_parts"],
            upload_id,
            rows.render_receipts(list(last.values())),
            expires_at,
            UploadState.RECEIVING in self._early,
            repeatable=True,
        )
        return rows.upload(found[0]) if found else None

    async def commit(
        self,
        lease: Lease,
        before: Upload,
        after: Upload,
        *,
        steps: tuple[UploadState, ...] = (),
        parts: Sequence[Part] = (),
        note: str | None = None,
        release: bool = False,
    ) -> None:
        values = (
            lease.upload_id,
            lease.epoch,
            self._holder,
            before.offset,
            before.state,
            before.committed_bytes,
            release,
            self._options.lease_s,
            *rows.commit_values(before, after, steps, parts, note, early=self._early),
        )
        try:
            await self._commit(lease, values, after, release=release)
        except LeaseLost:
            self._forget(lease)
            raise
        if release:
            self._forget(lease)

    async def _commit(
        self, lease: Lease, values: tuple[object, ...], after: Upload, *, release: bool
    ) -> None:
        """Commit, waiting for Postgres to come back.

        The bytes are in the store, so giving up would waste them. An attempt whose outcome is
        unknown is repeated: the guards let it take effect once.
        """
        deadline_s = monotonic() + self._options.retry_s
        pause_s = BACKOFF_S[0]
        is_unknown = False
        while True:
            try:
                left_s = max(deadline_s - monotonic(), 1.0)
                if await self._pool.fetch(
                    SQL["commit"], *values, repeatable=False, timeout_s=left_s
                ):
                    return
                found = await self._pool.fetch(
                    SQL["observe_upload"], lease.upload_id, repeatable=True
                )
                break
            except StateUnavailable:
                if monotonic() + pause_s > deadline_s:
                    raise
                is_unknown = True
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
            pause_s = min(2 * pause_s, BACKOFF_S[1])
        # A guard has refused it, maybe because it had taken effect before.
        epoch = found[0][COLUMNS] if found else None
        if epoch == lease.epoch and has_become(rows.upload(found[0]), after, release=release):
            return
        if epoch not in (None, lease.epoch) and is_unknown:
            # Whether that was before or after an attempt of ours, nobody can tell.
            raise StateUnavailable("The upload was taken over while Postgres was away.")
        raise LeaseLost

    async def mark_stopped(self) -> None:
        """Let other nodes know that the last process of this one ends, so that its name is free."""
        await self._pool.fetch(SQL["stop_node"], self._node.id, repeatable=True)

    async def check(self) -> None:
        await self._pool.fetch(SQL["check"], repeatable=True)
