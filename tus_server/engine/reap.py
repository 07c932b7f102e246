"""The reaper: ends uploads whose time is over, forgets those that ended long ago.

One pass may stop anywhere and be run again, beside any number of others: each upload is ended
under its lease, and what was not freed then is recovery's. Which are due is asked of the state
store, and asked again under the lease: a client that came back in between keeps its upload.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from tus_server.core.errors import TusServerError
from tus_server.core.expiry import Expiry
from tus_server.core.states import FINISHED, UNFINISHED, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.engine.leases import stay
from tus_server.engine.terminate import discard
from tus_server.ports import Lease, StateReader

log = structlog.get_logger(__name__)

INTERVAL_S = 60.0
DUTY = "reap"
# Longer than from one pass to the next, so that it stays with one process as long as that lives.
DUTY_S = 90.0
RETRY_S = 10.0  # when somebody else has the duty
PAGE = 100
CONCURRENCY = 8
PURGE_PAGE = 500
# T76: 410 while the tombstone is kept, then 404.
TOMBSTONE_S = 30 * 86400.0
# Delivered events can be looked at for so long; dead letters stay until they are retried.
EVENTS_KEPT_S = 7 * 86400.0
NODE_SILENT_S = 30 * 86400.0

# What is computed from times in a row that were taken one after the other.
_SLACK = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a pass ends. expiry: as uploads are received with.

    kept_s: how long finished uploads stay; None: for ever. idle_s: treat as expired also what got
    no byte for that long.
    """

    expiry: Expiry
    kept_s: float | None = None
    idle_s: float | None = None

    @property
    def ahead_s(self) -> float:
        """How long before their time uploads are given up that are idle for too long."""
        if self.idle_s is None or self.expiry.after_s is None:
            return 0.0
        return max(0.0, self.expiry.after_s - self.idle_s)

    def is_idle(self, upload: Upload, now: datetime) -> bool:
        """Tell of one whose time is less than ahead_s away whether it is sure that it is idle.

        Nothing but expires_at tells of the last byte, and where that is the end of the age, or
        from a setting that was shorter, it does not tell either.
        """
        assert self.idle_s is not None
        assert self.expiry.after_s is not None
        assert upload.expires_at is not None
        since = now - timedelta(seconds=self.idle_s)
        if max(upload.created_at, upload.state_on) > since or upload.is_final:
            return False
        if upload.state is not UploadState.RECEIVING:
            return True  # no byte since state_on
        last = upload.expires_at - timedelta(seconds=self.expiry.after_s)
        at_age = self.is_too_old(upload, upload.expires_at)
        return upload.state_on - _SLACK <= last <= since and not at_age

    def is_too_old(self, upload: Upload, now: datetime) -> bool:
        """Tell whether an unfinished upload is beyond the age that bytes do not extend."""
        at_most_s = self.expiry.at_most_s
        if at_most_s is None or upload.state not in UNFINISHED:
            return False
        return now >= upload.created_at + timedelta(seconds=at_most_s)


@dataclass(slots=True)
class Reaped:
    """What a pass has done. purged: uploads that ended long ago, events: those delivered then.

    postponed: uploads that are due, but held, or could not be freed.
    """

    expired: int = 0
    deleted: int = 0
    freed_bytes: int = 0
    purged: int = 0
    events: int = 0
    nodes: int = 0
    postponed: int = 0


async def reap_loop(engine: Engine, limits: Limits) -> None:
    """Until the engine closes: a pass now and again, in one process at a time."""
    label = engine.node_label
    by = f"by the reaper of node {label}" if label else "by the reaper"

    async def on_duty() -> bool:
        return not engine.closing and await engine.state.claim_duty(DUTY, DUTY_S)

    while not engine.closing:
        wait_s = RETRY_S
        try:
            if await on_duty():
                await reap(engine, limits, by=by, may_go_on=on_duty)
                wait_s = INTERVAL_S
        except TusServerError as exc:
            log.warning("reap.postponed", code=exc.code, detail=exc.detail)
        except Exception:
            log.exception("reap.failed")
        await asyncio.sleep(wait_s)


async def _always() -> bool:
    return True


async def reap(
    engine: Engine,
    limits: Limits,
    *,
    by: str,
    may_go_on: Callable[[], Awaitable[bool]] = _always,
) -> Reaped:
    """Do one pass. by: who, for the histories. may_go_on: asked before each of many steps.

    Raises: StateUnavailable; what was done until then is done.
    """
    one = _Pass(engine, limits, by)
    for due, ended in (
        (find_expired(engine.state, limits, engine.clock.now), UploadState.EXPIRED),
        (find_kept_longer(engine.state, limits), UploadState.DELETED),
    ):
        async with aclosing(due) as pages:
            async for page in pages:
                if not await may_go_on():
                    return one.reaped
                await one.end_all(page, ended)
    purged = PURGE_PAGE
    while purged == PURGE_PAGE and await may_go_on():
        purged = await engine.state.purge(PURGE_PAGE, ended_s=TOMBSTONE_S)
        one.reaped.purged += purged
    purged = PURGE_PAGE
    while purged == PURGE_PAGE and await may_go_on():
        purged = await engine.state.purge_events(PURGE_PAGE, delivered_s=EVENTS_KEPT_S)
        one.reaped.events += purged
    one.reaped.nodes = len(await engine.state.forget_nodes(NODE_SILENT_S))
    if one.reaped != Reaped():
        log.info("reap.done", **_counts(one.reaped))
    return one.reaped


async def find_expired(
    state: StateReader, limits: Limits, now: Callable[[], datetime]
) -> AsyncGenerator[list[Upload], None]:
    """Give, in pages, the uploads that are to expire, unless somebody writes to them just then."""
    after = None
    while True:
        page = await state.find_expired(PAGE, after, ahead_s=limits.ahead_s)
        if not page:
            return
        after = page[-1].id
        if limits.ahead_s:
            moment = now()
            yield [each for each in page if _is_past(each, moment) or limits.is_idle(each, moment)]
        else:
            yield page


async def find_kept_longer(
    state: StateReader, limits: Limits
) -> AsyncGenerator[list[Upload], None]:
    """Give, in pages, the finished uploads that were kept for long enough."""
    after = None
    while limits.kept_s is not None:
        page = await state.find_kept_longer(PAGE, after, kept_s=limits.kept_s)
        if not page:
            return
        after = page[-1].id
        yield page


class _Pass:
    """Ends uploads, several at a time."""

    def __init__(self, engine: Engine, limits: Limits, by: str) -> None:
        self.reaped = Reaped()
        self._engine = engine
        self._limits = limits
        self._by = by
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def end_all(self, uploads: list[Upload], ended: UploadState) -> None:
        async with asyncio.TaskGroup() as group:
            for upload in uploads:
                group.create_task(self._try_to_end(upload, ended))

    async def _try_to_end(self, upload: Upload, ended: UploadState) -> None:
        """End one upload; one that resists is logged, and due again at the next pass."""
        async with self._slots:
            if self._engine.closing:
                return
            try:
                await self._engine.undisturbed(self._end(upload, ended), stay)
            except TusServerError as exc:
                self.reaped.postponed += 1
                log.warning("reap.postponed", upload=upload.id, code=exc.code, detail=exc.detail)
            except Exception:
                self.reaped.postponed += 1
                log.exception("reap.failed", upload=upload.id)

    async def _end(self, found: Upload, ended: UploadState) -> None:
        engine = self._engine
        claimed = await self._claim(found)
        if claimed is None:
            self.reaped.postponed += 1
            return
        lease, row = claimed
        try:
            if not self._is_due(row, found, ended):
                return
            whole_part = row.is_partial and row.state in FINISHED
            if whole_part and await engine.state.is_needed(row.id):
                return  # by a final upload that was created since
            freed = await discard(engine, lease, row, ended, note=self._by)
        finally:
            await engine.leases.release(lease)
        if ended is UploadState.EXPIRED:
            self.reaped.expired += 1
        else:
            self.reaped.deleted += 1
        if freed:
            self.reaped.freed_bytes += row.offset
        else:
            self.reaped.postponed += 1

    async def _claim(self, found: Upload) -> tuple[Lease, Upload] | None:
        """Take the lease, where somebody else has it only from an upload that is too old.

        Who is at work will commit bytes that extend the life of the upload, but not its age.
        """
        claim = await self._engine.state.claim_upload(found.id)
        if claim.lease is not None and claim.upload is not None:
            self._engine.leases.adopt(claim.lease, stay)
            return claim.lease, claim.upload
        if claim.upload is None or not self._is_too_old(claim.upload):
            return None
        return await self._engine.leases.acquire(found.id, stay)

    def _is_due(self, row: Upload, found: Upload, ended: UploadState) -> bool:
        """Tell of the row under its lease whether it is to be ended, as the one found was."""
        if ended is UploadState.DELETED:
            return row.state in FINISHED and row.state_on == found.state_on
        # tus 1.0.0, Expiration: only unfinished uploads expire (T77), and partial ones (T107).
        if row.state not in UNFINISHED and not (row.state in FINISHED and row.is_partial):
            return False
        is_same = (row.state, row.offset, row.expires_at) == (
            found.state,
            found.offset,
            found.expires_at,
        )
        return is_same or self._is_too_old(row)

    def _is_too_old(self, row: Upload) -> bool:
        return self._limits.is_too_old(row, self._engine.clock.now())


def _is_past(upload: Upload, now: datetime) -> bool:
    return upload.expires_at is not None and upload.expires_at <= now


def _counts(reaped: Reaped) -> dict[str, int]:
    return {name: getattr(reaped, name) for name in Reaped.__slots__}
