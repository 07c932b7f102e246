"""StateStore in one SQLite file: leases and hot rows in memory, everything else durable.

One process owns the file (the data dir's lock), so a row that was read or written is served from
memory until it is pushed out, and a claim writes nothing, unless it sets part numbers aside: those
have to stay spent when the process dies, because a call with one of them may arrive at the object
store later. Nobody can take a lease over while its process lives.
"""

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tus_server.core.errors import LeaseLost
from tus_server.core.ids import UploadId
from tus_server.core.states import UNFINISHED, UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports import SECOND_PASS_S, Beat, Claim, Clock, Lease
from tus_server.state.outcome import has_become
from tus_server.state.sqlite import lookups, rows
from tus_server.state.sqlite.leases import Leases
from tus_server.state.sqlite.outbox import Outbox
from tus_server.state.sqlite.schema import connect
from tus_server.state.sqlite.upkeep import Upkeep
from tus_server.state.sqlite.writer import Writer

CACHED_ROWS = 4096
T = TypeVar("T")


class SqliteState(Upkeep, Outbox):
    """See ports.StateStore. Use as an async context manager on the loop that serves."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        durable: bool = True,
        early_events: frozenset[UploadState] = frozenset(),
    ) -> None:
        """early_events: of states.EARLY_EVENTS, those that somebody wants to hear of."""
        self._path = path
        self._early = early_events
        self._clock = clock
        self._durable = durable
        self._cache: OrderedDict[UploadId, Upload] = OrderedDict()

    async def __aenter__(self) -> Self:
        self._writer = Writer(lambda: connect(self._path, durable=self._durable))
        await self._writer.start()
        try:
            self._leases = Leases(*await self._run(rows.begin_run))
        except BaseException:
            await self._writer.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._writer.close()

    # --- reading

    async def find_upload(self, upload_id: UploadId) -> Upload | None:
        if (cached := self._cache.get(upload_id)) is not None:
            self._cache.move_to_end(upload_id)
            return cached

        # Through the writer's queue: a read that overtook a commit would put an old row in memory.
        def remember(found: Upload | None, error: BaseException | None) -> None:
            if found is not None:
                self._remember(found)

        found: Upload | None = await self._writer.submit(
            lambda db: rows.find(db, upload_id), remember
        )
        # What was delivered together with it may have replaced the row already.
        return self._cache.get(upload_id, found)

    async def observe_upload(self, upload_id: UploadId) -> Claim:
        upload = await self.find_upload(upload_id)
        # Also by who died: its claims have to be voided before the row is final.
        held = self._leases.is_held(upload_id) or upload_id in self._leases.lapsed
        return Claim(upload, held=held and upload is not None)

    # --- leases

    async def claim_upload(
        self, upload_id: UploadId, *, offset: int | None = None, numbers: int = 0
    ) -> Claim:
        upload = await self.find_upload(upload_id)
        if upload is None:
            return Claim(None)
        if self._leases.is_held(upload_id):
            return Claim(upload, held=True)
        if offset is not None and (upload.state not in UNFINISHED or upload.offset != offset):
            return Claim(upload)
        # No await between the look and the grant, and the row is the cached one: still current.
        upload, lease = self._leases.grant(upload, numbers)
        if numbers or upload_id in self._leases.lapsed:
            [(upload, lease)] = await self._write_claims([(upload, lease)])
        return Claim(upload, lease)

    async def claim_unfinished(
        self, limit: int, after: UploadId | None = None, *, receiving: bool, numbers: int = 0
    ) -> list[tuple[Upload, Lease]]:
        claims: list[tuple[Upload, Lease]] = []

        def grant(found: list[Upload] | None, error: BaseException | None) -> None:
            # Now, before anybody else's turn: a row that nobody holds has no commit under way.
            for upload in () if found is None or looking.cancelled() else found:
                if not self._leases.is_held(upload.id):
                    claims.append(self._leases.grant(upload, numbers))
                    self._remember(upload)

        held = self._leases.held
        freed_before = rows.microseconds(self.now() - timedelta(seconds=SECOND_PASS_S))
        looking = self._writer.submit(
            lambda db: lookups.unfinished(
                db, limit, after, receiving=receiving, freed_before=freed_before, held=held
            ),
            grant,
        )
        try:
            await looking
        except asyncio.CancelledError:
            for _, lease in claims:
                self._leases.end(lease)
            raise
        lapsed = self._leases.lapsed
        changed = [claim for claim in claims if numbers or claim[0].id in lapsed]
        if not changed:
            return claims
        written = {claim[0].id: claim for claim in await self._write_claims(changed)}
        return [written.get(claim[0].id, claim) for claim in claims]

    async def release(
        self, lease: Lease, *, next_part_number: int | None = None, clean: bool = True
    ) -> None:
        upload_id = lease.upload_id
        if not self._leases.is_current(lease):
            return
        if clean and not lease.numbers:
            self._leases.end(lease)
            return
        number = next_part_number if lease.numbers else None

        def settle(result: None, error: BaseException | None) -> None:
            self._leases.end(lease, lapsed=error is not None)
            row = self._cache.get(upload_id)
            if error is not None:
                self._cache.pop(upload_id, None)
            elif row is not None:
                unclean = row.unclean or not clean
                number_now = row.next_part_number if number is None else number
                self._remember(replace(row, next_part_number=number_now, unclean=unclean))

        await self._writer.submit(
            lambda db: rows.mark_released(db, upload_id, number, unclean=not clean), settle
        )

    async def _write_claims(self, claims: list[tuple[Upload, Lease]]) -> list[tuple[Upload, Lease]]:
        """Make durable what leases just granted have changed in their rows; give the rows after."""

        def settle(written: list[Upload] | None, error: BaseException | None) -> None:
            for upload in written or ():
                self._remember(upload)
                self._leases.lapsed.discard(upload.id)
            for upload, lease in claims:
                if error is not None:
                    self._cache.pop(upload.id, None)  # outcome unknown: the file knows
                if error is not None or writing.cancelled():
                    self._leases.end(lease, lapsed=True)

        lapsed = self._leases.lapsed
        marks = [
            rows.Mark(
                upload.id,
                upload.next_part_number,
                lease.epoch if upload.id in lapsed else None,
                held=bool(lease.numbers),
            )
            for upload, lease in claims
        ]
        writing = self._writer.submit(lambda db: rows.mark_claimed(db, marks), settle)
        try:
            written: list[Upload] = await writing
        except asyncio.CancelledError:
            if not writing.cancelled():  # it was done, and the caller never hears of it
                for _, lease in claims:
                    self._leases.end(lease, lapsed=True)
            raise
        return [(upload, lease) for upload, (_, lease) in zip(written, claims, strict=True)]

    # --- other processes: there are none

    @property
    def hears(self) -> bool:
        return True

    def watch(
        self, *, wanted: Callable[[UploadId], None], freed: Callable[[UploadId], None]
    ) -> None:
        pass

    async def ask_release(self, upload_id: UploadId) -> None:
        pass

    async def beat(self, leases: Sequence[Lease]) -> Beat:
        return Beat()

    # --- writing

    async def create_upload(
        self,
        upload: Upload,
        *,
        claim: bool,
        numbers: int = 0,
        partials: Sequence[UploadId] = (),
    ) -> Lease | None:
        lease: Lease | None = None
        if claim:
            upload, lease = self._leases.grant(upload, numbers)

        def settle(result: None, error: BaseException | None) -> None:
            if error is None:
                self._remember(upload)
            elif lease is not None:
                self._leases.end(lease)

        held = lease is not None and bool(lease.numbers)
        is_news = upload.state in self._early and not upload.is_partial
        await self._writer.submit(
            lambda db: rows.insert(db, upload, held=held, partials=partials, is_news=is_news),
            settle,
        )
        return lease

    async def record_parts(
        self, upload_id: UploadId, parts: Sequence[Part], *, expires_at: datetime | None = None
    ) -> Upload | None:
        until = None if expires_at is None else rows.microseconds(expires_at)
        now = rows.microseconds(self.now())
        is_news = UploadState.RECEIVING in self._early

        def settle(after: Upload | None, error: BaseException | None) -> None:
            if after is not None:
                self._remember(after)
            elif error is not None:
                self._cache.pop(upload_id, None)  # outcome unknown: the file knows

        found: Upload | None = await self._writer.submit(
            lambda db: rows.record_parts(
                db, upload_id, parts, expires_at=until, now=now, is_news=is_news
            ),
            settle,
        )
        return found

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
        upload_id = lease.upload_id
        if not self._leases.is_current(lease):
            # The commit that ended the lease may be repeated, until somebody else has it.
            ended = release and not self._leases.is_held(upload_id)
            if ended and await self.find_upload(upload_id) == after:
                return
            raise LeaseLost

        def settle(result: None, error: BaseException | None) -> None:
            if error is None:
                self._remember_committed(after, release=release)
                if release:
                    self._leases.end(lease)
            else:
                self._cache.pop(upload_id, None)  # outcome unknown: the file knows

        known = self._cache.get(upload_id)
        is_new = known is before or before == after
        if not is_new and known is not None:
            is_new = not has_become(known, after, release=release)
        change = rows.Change(
            before,
            after,
            steps,
            parts,
            note,
            release=release,
            held=bool(lease.numbers) and not release,
            may_repeat=not is_new,
            now=0 if note is None else rows.microseconds(self.now()),
            is_early=bool(steps) and steps[0] in self._early and not after.is_partial,
        )
        await self._writer.submit(lambda db: rows.update(db, change), settle)

    async def check(self) -> None:
        now = rows.microseconds(self.now())
        await self._run(lambda db: db.execute(rows.SQL["probe"], (now,)).rowcount)

    def now(self) -> datetime:
        return self._clock.now()

    async def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        result: T = await self._writer.submit(query)
        return result

    def _remember_committed(self, after: Upload, *, release: bool) -> None:
        known = self._cache.get(after.id)
        if release or (known is not None and known.next_part_number <= after.next_part_number):
            self._remember(after)
        elif known is not None:
            self._remember(replace(after, next_part_number=known.next_part_number))
        # Else only the file knows how many part numbers are set aside.

    def _remember(self, upload: Upload) -> None:
        self._cache[upload.id] = upload
        self._cache.move_to_end(upload.id)
        if len(self._cache) > CACHED_ROWS:
            self._cache.popitem(last=False)
