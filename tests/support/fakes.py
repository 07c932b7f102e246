"""Fakes of the ports, in memory, and a wrapper that makes any port fail on order.

The contract suites run over FakeState and FakeObjects: what a test sees here it would see over
the real ones. They also assert what the contracts ask of the caller.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Sequence,
)
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from tus_server.core.checksums import crc64
from tus_server.core.direct import part_count, part_range
from tus_server.core.errors import (
    BodyInterrupted,
    BodyStopped,
    BytesMissing,
    ClientGone,
    FileIdTaken,
    LeaseLost,
    PartsDiffer,
    RequestKeyTaken,
    StoreUnavailable,
    TailMissing,
    TusServerError,
)
from tus_server.core.ids import UploadId, new_upload_id, random_part
from tus_server.core.jobs import Job, Outcome
from tus_server.core.states import (
    ACTIVE,
    EVENTS,
    FINISHED,
    TERMINAL,
    UNFINISHED,
    UploadState,
    check_steps,
)
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER, Part, Protocol, Tail, Upload
from tus_server.ports import (
    SECOND_PASS_S,
    Attempt,
    Beat,
    Blocks,
    Claim,
    Event,
    Joined,
    Lease,
    Letters,
    Node,
    NodeSeen,
    PartReceipt,
    StatusChange,
    StoreLimits,
)

T = TypeVar("T")
START = datetime(2024, 1, 1, 12, 0, tzinfo=UTC)


async def settle() -> None:
    """Let everything run that is only waiting for its turn on the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


class FakeClock:
    """See ports.Clock. Each look at now() is a millisecond later; advance() moves both times."""

    def __init__(self) -> None:
        self.moment = START
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        self.moment += timedelta(milliseconds=1)
        return self.moment

    def monotonic_s(self) -> float:
        return self.elapsed_s

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        self.elapsed_s += seconds


def make_upload(clock: FakeClock, **fields: Any) -> Upload:
    """Give a new row that no store has yet."""
    now = clock.now()
    upload = Upload(
        id=new_upload_id(),
        protocol=Protocol.TUS,
        state=UploadState.INITIATED,
        created_at=now,
        state_on=now,
    )
    return replace(upload, **fields)


# --- state ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class HeldLease:
    """A lease that was not let go of. dead: it has run out, or its process has ended."""

    lease: Lease
    process: str
    dead: bool = False


@dataclass(slots=True)
class Tables:
    """What survives a FakeState, as a database survives its clients.

    wanted: held uploads that a process other than their holder waits for.
    """

    uploads: dict[UploadId, Upload] = field(default_factory=dict)  # in order of creation
    parts: dict[UploadId, list[Part]] = field(default_factory=dict)
    history: dict[UploadId, list[StatusChange]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    leases: dict[UploadId, HeldLease] = field(default_factory=dict)
    epochs: dict[UploadId, int] = field(default_factory=dict)  # of the last lease granted
    wanted: set[UploadId] = field(default_factory=set)
    nodes: dict[str, NodeSeen] = field(default_factory=dict)
    members: dict[UploadId, list[UploadId]] = field(default_factory=dict)  # of final uploads
    claimed: list[datetime] = field(default_factory=list)  # of each event, until when
    purged: set[int] = field(default_factory=set)  # places of events
    duties: dict[str, tuple[str, datetime]] = field(default_factory=dict)  # process, until
    processes: dict[str, "FakeState"] = field(default_factory=dict)

    def expire(self, upload_id: UploadId) -> None:
        """Let the current lease of an upload run out; its holder may still beat in time."""
        self.leases[upload_id].dead = True

    def is_needed(self, upload_id: UploadId) -> bool:
        """Tell whether a final upload in state initiated consists of this one."""
        return any(
            upload_id in members and self.uploads[final_id].state is UploadState.INITIATED
            for final_id, members in self.members.items()
        )

    def remove(self, upload_id: UploadId) -> None:
        """Remove a row with all that belongs to it but events."""
        del self.uploads[upload_id]
        for rows in (self.parts, self.history, self.members):
            rows.pop(upload_id, None)
        for final_id, members in self.members.items():
            self.members[final_id] = [one for one in members if one != upload_id]

    def kill(self, process: str | None = None) -> None:
        """Let a process (None: every one) be known to have ended without letting go."""
        for held in self.leases.values():
            if process in (None, held.process):
                held.dead = True


class FakeState:
    """See ports.StateStore. An effect is there at the call; the answer comes a turn later.

    Stores over the same tables, each with a `process` of its own, are processes that share a
    database. Without a name it is a process that is alone: all that came before it have ended.
    """

    def __init__(
        self,
        tables: Tables | None = None,
        *,
        process: str | None = None,
        clock: FakeClock | None = None,
        early_events: frozenset[UploadState] = frozenset(),
    ) -> None:
        self.early = early_events
        self.tables = tables or Tables()
        self.tables.kill(process)
        self._process = process or "alone"
        self._clock = clock or FakeClock()
        self._wanted: Callable[[UploadId], None] = _ignore
        self._freed: Callable[[UploadId], None] = _ignore
        self.tables.processes[self._process] = self
        self.hears = True

    # --- reading

    async def find_upload(self, upload_id: UploadId) -> Upload | None:
        found = self.tables.uploads.get(upload_id)
        await asyncio.sleep(0)
        return found

    async def find_uploads(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, Upload]:
        uploads = self.tables.uploads
        found = {one: uploads[one] for one in upload_ids if one in uploads}
        await asyncio.sleep(0)
        return found

    async def find_partials(self, upload_id: UploadId) -> list[Upload]:
        found = [self.tables.uploads[one] for one in self.tables.members.get(upload_id, [])]
        await asyncio.sleep(0)
        return found

    async def find_expired(
        self, limit: int, after: UploadId | None = None, *, ahead_s: float = 0.0
    ) -> list[Upload]:
        moment = self._clock.now() + timedelta(seconds=ahead_s)
        found = [
            (upload.expires_at, place, upload)
            for place, upload in enumerate(self.tables.uploads.values())
            if upload.expires_at is not None and upload.expires_at <= moment
            if self._may_expire(upload)
        ]
        found.sort(key=lambda one: one[:2])
        await asyncio.sleep(0)
        return self._page(found, limit, after, lambda upload: upload.expires_at)

    async def find_kept_longer(
        self, limit: int, after: UploadId | None = None, *, kept_s: float
    ) -> list[Upload]:
        moment = self._clock.now() - timedelta(seconds=kept_s)
        found = [
            (upload.state_on, place, upload)
            for place, upload in enumerate(self.tables.uploads.values())
            if upload.state in FINISHED and not upload.is_partial and upload.state_on < moment
        ]
        found.sort(key=lambda one: one[:2])
        await asyncio.sleep(0)
        return self._page(found, limit, after, self._finished_on)

    async def list_uploads(
        self, states: frozenset[UploadState] | None, limit: int, before: UploadId | None = None
    ) -> list[Upload]:
        rows = list(self.tables.uploads.values())
        if before is not None:
            rows = rows[: list(self.tables.uploads).index(before)]
        found = [row for row in reversed(rows) if states is None or row.state in states]
        await asyncio.sleep(0)
        return found[:limit]

    async def history(self, upload_id: UploadId) -> list[StatusChange]:
        await asyncio.sleep(0)
        return self.tables.history.get(upload_id, [])[::-1]

    async def pending_events(self, limit: int) -> list[Event]:
        await asyncio.sleep(0)
        return [event for event in self.tables.events if self._is_pending(event)][:limit]

    async def histories(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, list[StatusChange]]:
        await asyncio.sleep(0)
        known = self.tables.history
        return {one: known[one][::-1] for one in upload_ids if one in known}

    async def find_by_file_id(
        self, file_id: str, limit: int, before: UploadId | None = None
    ) -> list[Upload]:
        found = await self.list_uploads(None, len(self.tables.uploads), before)
        return [row for row in found if row.file_id == file_id][:limit]

    async def find_active(self, file_id: str) -> Upload | None:
        await asyncio.sleep(0)
        rows = self.tables.uploads.values()
        found = (row for row in rows if row.file_id == file_id and row.state in ACTIVE)
        return next(found, None)

    async def find_requested(self, request_key: str) -> Upload | None:
        await asyncio.sleep(0)
        rows = self.tables.uploads.values()
        return next((row for row in rows if row.request_key == request_key), None)

    async def find_auto_complete(self, limit: int, after: UploadId | None = None) -> list[Upload]:
        await asyncio.sleep(0)
        rows = list(self.tables.uploads.values())
        if after is not None:
            rows = rows[list(self.tables.uploads).index(after) + 1 :]
        found = (row for row in rows if row.auto_complete and row.is_direct)
        return [row for row in found if row.state in UNFINISHED][:limit]

    async def find_parts(self, upload_id: UploadId) -> list[Part]:
        await asyncio.sleep(0)
        return sorted(self.tables.parts.get(upload_id, []), key=lambda part: part.start)

    async def observe_upload(self, upload_id: UploadId) -> Claim:
        found = Claim(self.tables.uploads.get(upload_id), held=upload_id in self.tables.leases)
        await asyncio.sleep(0)
        return found

    async def find_node(self, node_id: str) -> NodeSeen | None:
        await asyncio.sleep(0)
        return self.tables.nodes.get(node_id)

    async def find_stale_nodes(self, silent_s: float) -> list[NodeSeen]:
        unfinished = [row for row in self.tables.uploads.values() if row.state in UNFINISHED]
        needed = {row.tail.node for row in unfinished if row.tail is not None}
        nodes = self.tables.nodes.values()
        found = [one for one in nodes if one.silent_s > silent_s and one.node.id not in needed]
        await asyncio.sleep(0)
        return sorted(found, key=lambda one: -one.silent_s)

    def _may_expire(self, upload: Upload) -> bool:
        if upload.state in UNFINISHED:
            return True
        is_left = upload.is_partial and upload.state is UploadState.VERIFIED
        return is_left and not self.tables.is_needed(upload.id)

    def _finished_on(self, upload: Upload) -> datetime | None:
        """Give when an upload was finished, also of one that was deleted since."""
        history = self.tables.history[upload.id]
        return max((one.at for one in history if one.state in FINISHED), default=None)

    def _page(
        self,
        found: Sequence[tuple[datetime, int, Upload]],
        limit: int,
        after: UploadId | None,
        moment_of: Callable[[Upload], datetime | None],
    ) -> list[Upload]:
        """Give what comes behind row `after` in `found`, which is sorted by moment and place."""
        if after in self.tables.uploads:
            passed = moment_of(self.tables.uploads[after]) or START
            place = list(self.tables.uploads).index(after)
            found = [one for one in found if one[:2] > (passed, place)]
        return [upload for _, _, upload in found[:limit]]

    # --- leases

    async def claim_upload(
        self, upload_id: UploadId, *, offset: int | None = None, numbers: int = 0
    ) -> Claim:
        await asyncio.sleep(0)
        upload = self.tables.uploads.get(upload_id)
        if upload is None:
            return Claim(None)
        if self._is_held(upload_id):
            return Claim(upload, held=True)
        if offset is not None and (upload.state not in UNFINISHED or upload.offset != offset):
            return Claim(upload)
        lease = self._grant(upload_id, numbers)
        return Claim(self.tables.uploads[upload_id], lease)

    async def claim_unfinished(
        self, limit: int, after: UploadId | None = None, *, receiving: bool, numbers: int = 0
    ) -> list[tuple[Upload, Lease]]:
        await asyncio.sleep(0)
        ids = list(self.tables.uploads)
        if after is not None:
            ids = ids[ids.index(after) + 1 :]
        free = [upload_id for upload_id in ids if not self._is_held(upload_id)]
        found = [one for one in free if self._is_half_way(one, receiving=receiving)][:limit]
        leases = [self._grant(upload_id, numbers) for upload_id in found]
        return [(self.tables.uploads[lease.upload_id], lease) for lease in leases]

    async def release(
        self, lease: Lease, *, next_part_number: int | None = None, clean: bool = True
    ) -> None:
        if self._holds(lease):
            row = self.tables.uploads[lease.upload_id]
            if lease.numbers and next_part_number is not None:
                assert next_part_number <= row.next_part_number
                row = replace(row, next_part_number=next_part_number)
            self.tables.uploads[lease.upload_id] = replace(row, unclean=row.unclean or not clean)
            self._end(lease.upload_id)
        await asyncio.sleep(0)

    def take_lease_away(self, upload_id: UploadId) -> Lease:
        """Let another process have the lease, as one that has run out."""
        self.tables.expire(upload_id)
        return FakeState(self.tables, process="thief")._grant(upload_id, 0)

    def _is_held(self, upload_id: UploadId) -> bool:
        held = self.tables.leases.get(upload_id)
        return held is not None and not held.dead

    def _holds(self, lease: Lease) -> bool:
        held = self.tables.leases.get(lease.upload_id)
        return held is not None and held.lease.epoch == lease.epoch

    def _is_half_way(self, upload_id: UploadId, *, receiving: bool) -> bool:
        upload = self.tables.uploads[upload_id]
        if upload.unclean and upload.freed_at is not None:
            return self._clock.now() - upload.freed_at >= timedelta(seconds=SECOND_PASS_S)
        if upload.unclean or upload_id in self.tables.leases:
            return True
        if upload.state in UNFINISHED:
            return receiving
        if upload.state in TERMINAL:
            return upload.freed_at is None
        return upload.state is UploadState.COMPLETED

    def _grant(self, upload_id: UploadId, numbers: int) -> Lease:
        """Give a lease, from a holder that has died if there is one."""
        tables, row = self.tables, self.tables.uploads[upload_id]
        epoch = tables.epochs[upload_id] = tables.epochs.get(upload_id, 0) + 1
        if upload_id in tables.leases:
            row = replace(row, generation=epoch, unclean=True)
        first = row.next_part_number
        tables.uploads[upload_id] = replace(row, next_part_number=first + numbers)
        lease = Lease(upload_id, epoch, range(first, first + numbers))
        tables.leases[upload_id] = HeldLease(lease, self._process)
        tables.wanted.discard(upload_id)
        return lease

    def _end(self, upload_id: UploadId) -> None:
        del self.tables.leases[upload_id]
        if upload_id in self.tables.wanted:
            self.tables.wanted.discard(upload_id)
            for other in self.tables.processes.values():
                if other is not self and other.hears:
                    asyncio.get_running_loop().call_soon(other._freed, upload_id)

    # --- other processes

    def watch(
        self, *, wanted: Callable[[UploadId], None], freed: Callable[[UploadId], None]
    ) -> None:
        self._wanted, self._freed = wanted, freed

    async def ask_release(self, upload_id: UploadId) -> None:
        held = self.tables.leases.get(upload_id)
        if held is not None and held.process != self._process:
            self.tables.wanted.add(upload_id)
            holder = self.tables.processes[held.process]
            if holder.hears:
                asyncio.get_running_loop().call_soon(holder._wanted, upload_id)
        await asyncio.sleep(0)

    async def beat(self, leases: Sequence[Lease]) -> Beat:
        ours = {lease.upload_id for lease in leases if self._holds(lease)}
        for upload_id in ours:
            self.tables.leases[upload_id].dead = False
        await asyncio.sleep(0)
        lost = {lease.upload_id for lease in leases} - ours
        return Beat(frozenset(lost), frozenset(ours & self.tables.wanted))

    # --- writing

    async def create_upload(
        self,
        upload: Upload,
        *,
        claim: bool,
        numbers: int = 0,
        partials: Sequence[UploadId] = (),
    ) -> Lease | None:
        assert upload.id not in self.tables.uploads
        assert claim or not numbers
        assert all(one in self.tables.uploads for one in partials)
        assert upload.is_final == bool(partials)
        _check_row(upload)
        self._check_unique(upload)
        self.tables.uploads[upload.id] = upload
        if upload.is_direct:
            self.tables.parts[upload.id] = planned_parts(upload)
        if upload.state in self.early and not upload.is_partial:
            self._tell(upload, upload.state, upload.created_at)
        if partials:
            self.tables.members[upload.id] = list(partials)
        self.tables.history[upload.id] = [StatusChange(upload.state, upload.created_at)]
        lease = self._grant(upload.id, numbers) if claim else None
        await asyncio.sleep(0)
        return lease

    def _check_unique(self, upload: Upload) -> None:
        for other in self.tables.uploads.values():
            if upload.request_key is not None and other.request_key == upload.request_key:
                raise RequestKeyTaken(upload=other.id)
        for other in self.tables.uploads.values():
            is_same = upload.file_id is not None and other.file_id == upload.file_id
            if is_same and other.state in ACTIVE:
                raise FileIdTaken(upload=other.id, state=other.state)

    async def record_parts(
        self, upload_id: UploadId, parts: Sequence[Part], *, expires_at: datetime | None = None
    ) -> Upload | None:
        await asyncio.sleep(0)
        row = self.tables.uploads.get(upload_id)
        if row is None or not row.is_direct or row.state not in UNFINISHED:
            return None
        before = row
        known = {part.number: part for part in self.tables.parts[upload_id]}
        kept = dict(known)
        for part in parts:
            kept[part.number] = replace(kept[part.number], crc64=part.crc64, etag=part.etag)
        self.tables.parts[upload_id] = list(kept.values())
        size = sum(part.size for part in kept.values() if part.etag is not None)
        row = replace(row, committed_bytes=size)
        if expires_at is not None and row.expires_at is not None:
            row = replace(row, expires_at=max(expires_at, row.expires_at))
        if kept != known or row != before:
            row = replace(row, generation=row.generation + 1)
        if row.state is UploadState.INITIATED and any(part.etag is not None for part in parts):
            row = row.stepped(UploadState.RECEIVING, on=self._clock.now())
            self.tables.history[upload_id].append(StatusChange(row.state, row.state_on))
            if row.state in self.early:
                self._tell(row, row.state, row.state_on)
        self.tables.uploads[upload_id] = row
        return row

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
        assert before.id == after.id == lease.upload_id
        check_steps(before.state, steps)
        assert after.state is (steps[-1] if steps else before.state)
        assert note is None or len(steps) <= 1
        _check_row(after)
        row = self.tables.uploads.get(lease.upload_id)
        if not self._may_have_committed(lease, before, after, release=release):
            if not self._holds(lease) or row is None or row.offset != before.offset:
                raise LeaseLost
            if row.state is not before.state or row.generation != before.generation:
                raise LeaseLost
            if not release:
                numbers_end = max(row.next_part_number, after.next_part_number)
                after = replace(after, next_part_number=numbers_end)
            self._replace(before, after, steps, parts, note)
        if release and self._holds(lease):
            self._end(lease.upload_id)
        await asyncio.sleep(0)

    def _may_have_committed(
        self, lease: Lease, before: Upload, after: Upload, *, release: bool
    ) -> bool:
        """Tell whether this is a commit that took effect, under the last lease there was."""
        tables, row = self.tables, self.tables.uploads.get(after.id)
        if row is None or tables.epochs.get(after.id) != lease.epoch:
            return False
        if not release and row.next_part_number > after.next_part_number:
            after = replace(after, next_part_number=row.next_part_number)
        if row != after:
            return False
        return before != after if self._holds(lease) else release

    def _replace(
        self,
        before: Upload,
        after: Upload,
        steps: tuple[UploadState, ...],
        parts: Sequence[Part],
        note: str | None,
    ) -> None:
        tables, upload_id = self.tables, after.id
        tables.uploads[upload_id] = after
        receipts = tables.parts.setdefault(upload_id, [])
        receipts.extend(parts)
        assert len({part.number for part in receipts}) == len(receipts)
        history = tables.history[upload_id]
        for state in steps:
            history.append(StatusChange(state, after.state_on, note))
            if state in EVENTS | self.early and not after.is_partial:
                is_last = state is steps[-1]
                outcome, job = after.decides(before) if is_last else (None, None)
                self._tell(after, state, after.state_on, outcome, job)
        if note is not None and not steps:
            history.append(StatusChange(after.state, self._clock.now(), note))

    def _tell(
        self,
        upload: Upload,
        state: UploadState,
        at: datetime,
        outcome: Outcome | None = None,
        job: Job | None = None,
    ) -> None:
        events = self.tables.events
        events.append(Event(upload.id, state, at, len(events) + 1, outcome, job, due_at=at))
        self.tables.claimed.append(at)

    # --- the outbox

    def _is_pending(self, event: Event) -> bool:
        return event.delivered_at is None and event.given_up_at is None

    async def claim_events(self, limit: int, lasts_s: float) -> list[Event]:
        await asyncio.sleep(0)
        now = self._clock.now()
        due: list[tuple[datetime, int]] = []
        waiting: set[UploadId] = set()
        for place, event in enumerate(self.tables.events):
            if not self._is_pending(event) or event.upload_id in waiting:
                continue
            waiting.add(event.upload_id)
            assert event.due_at is not None
            if event.due_at <= now and self.tables.claimed[place] <= now:
                due.append((event.due_at, place))
        places = sorted(place for _, place in sorted(due)[:limit])
        for place in places:
            event = self.tables.events[place]
            self.tables.events[place] = replace(event, attempts=event.attempts + 1)
            self.tables.claimed[place] = now + timedelta(seconds=lasts_s)
        return [self.tables.events[place] for place in places]

    async def settle_events(self, attempts: Sequence[Attempt]) -> None:
        now = self._clock.now()
        for one in attempts:
            place = one.event.id - 1
            event = self.tables.events[place]
            same = (event.attempts, event.due_at) == (one.event.attempts, one.event.due_at)
            if not self._is_pending(event) or not same:
                continue
            event = replace(event, done=event.done | one.done, error=one.error)
            self.tables.claimed[place] = now
            if one.error is None:
                event = replace(event, delivered_at=now)
            elif one.retry_in_s is None:
                event = replace(event, given_up_at=now)
            else:
                event = replace(event, due_at=now + timedelta(seconds=one.retry_in_s))
            self.tables.events[place] = event
        await asyncio.sleep(0)

    async def settle_unwanted(
        self, limit: int, unwanted: Collection[tuple[UploadState, Outcome | None]]
    ) -> int:
        await asyncio.sleep(0)
        now, settled = self._clock.now(), 0
        for place, event in enumerate(self.tables.events):
            is_unwanted = event.job is None and (event.kind, event.outcome) in unwanted
            if not (is_unwanted and self._is_pending(event)) or settled == limit:
                continue
            assert event.due_at is not None
            if event.due_at <= now and self.tables.claimed[place] <= now:
                self.tables.events[place] = replace(event, delivered_at=now, error=None)
                settled += 1
        return settled

    async def retry_event(self, event_id: int) -> bool:
        await asyncio.sleep(0)
        event = await self.find_event(event_id)
        if event is None or event.given_up_at is None:
            return False
        now = self._clock.now()
        self.tables.events[event_id - 1] = replace(event, attempts=0, due_at=now, given_up_at=None)
        self.tables.claimed[event_id - 1] = now
        return True

    async def purge_events(self, limit: int, *, delivered_s: float) -> int:
        await asyncio.sleep(0)
        before = self._clock.now() - timedelta(seconds=delivered_s)
        old = [
            (event.delivered_at, place)
            for place, event in enumerate(self.tables.events)
            if event.delivered_at is not None and event.delivered_at < before
            if place not in self.tables.purged
        ]
        gone = [place for _, place in sorted(old)[:limit]]
        self.tables.purged.update(gone)
        return len(gone)

    async def find_event(self, event_id: int) -> Event | None:
        await asyncio.sleep(0)
        is_there = 0 < event_id <= len(self.tables.events)
        is_there &= event_id - 1 not in self.tables.purged
        return self.tables.events[event_id - 1] if is_there else None

    async def list_events(
        self,
        kind: Letters,
        limit: int,
        before: int | None = None,
        *,
        upload_id: UploadId | None = None,
    ) -> list[Event]:
        await asyncio.sleep(0)
        found = [
            event
            for place, event in enumerate(self.tables.events)
            if place not in self.tables.purged
            if (event.delivered_at is not None) == (kind is Letters.DELIVERED)
            if (event.given_up_at is not None) == (kind is Letters.DEAD)
            if before is None or event.id < before
            if upload_id in (None, event.upload_id)
        ]
        return found[::-1][:limit]

    # --- upkeep

    def now(self) -> datetime:
        return self._clock.now()

    async def is_needed(self, upload_id: UploadId) -> bool:
        await asyncio.sleep(0)
        return any(
            self.tables.uploads[final_id].state in (UploadState.INITIATED, UploadState.COMPLETED)
            for final_id, members in self.tables.members.items()
            if upload_id in members
        )

    async def find_ready_finals(
        self, limit: int, after: UploadId | None = None, *, of: UploadId | None = None
    ) -> list[UploadId]:
        found = [
            final_id
            for final_id, members in self.tables.members.items()
            if of is None or of in members
            if self.tables.uploads[final_id].state is UploadState.INITIATED
            if self._is_settled({self.tables.uploads[one].state for one in members})
        ]
        await asyncio.sleep(0)
        order = list(self.tables.uploads)
        first = 0 if after is None else order.index(after) + 1
        return [one for one in found if one in order[first:]][:limit]

    def _is_settled(self, states: set[UploadState]) -> bool:
        return bool(states & TERMINAL) or states <= FINISHED

    async def let_partials_expire(self, upload_id: UploadId, after_s: float) -> None:
        at = self._clock.now() + timedelta(seconds=after_s)
        for one in self.tables.members.get(upload_id, []):
            partial = self.tables.uploads[one]
            if partial.state not in TERMINAL:
                sooner = min(partial.expires_at or at, at)
                self.tables.uploads[one] = replace(partial, expires_at=sooner)
        await asyncio.sleep(0)

    async def purge(self, limit: int, *, ended_s: float) -> int:
        moment = self._clock.now() - timedelta(seconds=ended_s)
        found = [
            upload.id
            for upload in sorted(self.tables.uploads.values(), key=lambda one: one.state_on)
            if upload.freed_at is not None and not upload.unclean and upload.state_on < moment
            if upload.id not in self.tables.leases and not self.tables.is_needed(upload.id)
        ][:limit]
        for upload_id in found:
            self.tables.remove(upload_id)
        await asyncio.sleep(0)
        return len(found)

    async def forget_nodes(self, silent_s: float) -> list[NodeSeen]:
        found = await self.find_stale_nodes(silent_s)
        for seen in found:
            del self.tables.nodes[seen.node.id]
        return found

    async def claim_duty(self, name: str, lasts_s: float) -> bool:
        await asyncio.sleep(0)
        now = self._clock.now()
        holder, until = self.tables.duties.get(name, (self._process, now))
        if holder != self._process and until > now:
            return False
        self.tables.duties[name] = self._process, now + timedelta(seconds=lasts_s)
        return True

    async def check(self) -> None:
        await asyncio.sleep(0)


def _ignore(upload_id: UploadId) -> None:
    pass


def planned_parts(upload: Upload) -> list[Part]:
    """Give the parts of a direct upload before any has arrived."""
    assert upload.length is not None
    assert upload.part_size is not None
    length, size = upload.length, upload.part_size
    numbers = range(1, part_count(length, size) + 1)
    ranges = [part_range(number, length=length, part_size=size) for number in numbers]
    return [Part(n, *found, None, None) for n, found in zip(numbers, ranges, strict=True)]


def _check_row(upload: Upload) -> None:
    """Assert the constraints a database would hold."""
    assert upload.crc64 is not None or upload.is_direct
    assert not upload.is_direct or (upload.part_size is not None and upload.length is not None)
    assert upload.length is None or 0 <= upload.offset <= upload.length
    assert upload.tail is None or upload.tail.length > 0
    if upload.state in FINISHED | {UploadState.COMPLETED}:
        assert upload.tail is None
        assert upload.committed_bytes == upload.length
    assert (upload.state is UploadState.ERROR) == (upload.error_code is not None)
    assert upload.freed_at is None or upload.state in TERMINAL


# --- objects -------------------------------------------------------------------------------------

PartsByNumber = dict[int, tuple[int, bytes]]  # start, bytes


@dataclass(slots=True)
class StoredUpload:
    """What a store has of one upload: multipart uploads, or one file; the object; parked tails."""

    multiparts: dict[str, PartsByNumber] = field(default_factory=dict)
    partial: bytes | None = None
    whole: bytes | None = None
    tails: dict[int, bytes] = field(default_factory=dict)  # by generation

    @property
    def parts(self) -> PartsByNumber:
        """All parts, whatever multipart upload they belong to."""
        return {
            number: part for parts in self.multiparts.values() for number, part in parts.items()
        }


def toy_limits(part_size_bytes: int, **fields: Any) -> StoreLimits:
    """Give limits that take any part and plan small ones.

    min_part_size: above 1 for tails, as S3 makes them.
    """
    limits = StoreLimits(
        min_part_size=1,
        max_part_size=MAX_ANNOUNCED_INTEGER,
        max_parts=10_000,
        preferred_part_size=part_size_bytes,
        max_object_size=MAX_ANNOUNCED_INTEGER,
        reserved_numbers=16 if fields.get("keeps_receipts", True) else 0,
    )
    return replace(limits, **fields)


class FakeObjects:
    """See ports.ObjectStore: multipart like S3, or with keeps_receipts False like a disk.

    `disk` survives the store, as files survive their process. blocks: where kept blocks go back
    to; without it none are kept.
    """

    def __init__(
        self,
        limits: StoreLimits,
        disk: dict[UploadId, StoredUpload] | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        self._limits = limits
        self.disk = {} if disk is None else disk
        self.blocks = blocks
        self.open_writers = 0  # parts begun, and neither stored nor discarded

    @property
    def limits(self) -> StoreLimits:
        return self._limits

    def make_key(self, upload: Upload) -> str | None:
        return f"fake/{random_part(upload.id)}" if self._limits.keeps_receipts else None

    def open_writer(
        self, upload: Upload, *, confirm: Callable[[], Awaitable[None]] | None = None
    ) -> "FakeWriter":
        return FakeWriter(self, upload, confirm)

    async def complete(
        self,
        upload: Upload,
        parts: Sequence[Part],
        *,
        confirm: Callable[[], Awaitable[None]] | None = None,
    ) -> int | None:
        await asyncio.sleep(0)
        stored = self.disk.get(upload.id, StoredUpload())
        if stored.whole is None or stored.partial is not None:
            assert upload.length is not None
            if upload.is_direct and self._limits.keeps_receipts:
                whole = joined_direct(stored, upload, parts)
            elif self._limits.keeps_receipts:
                whole = self._joined(stored, upload, parts)
            else:
                whole = (stored.partial or b"")[: upload.length]
            self._check_whole(upload, whole)
            stored.whole, stored.partial = whole, None
            # A part that comes from now on finds no such multipart upload.
            stored.multiparts.pop(upload.multipart_id or "", None)
        else:
            self._check_whole(upload, stored.whole)
            stored.multiparts.pop(upload.multipart_id or "", None)
        return crc64(stored.whole)

    async def join(
        self,
        upload: Upload,
        sources: Sequence[Upload],
        *,
        confirm: Callable[[], Awaitable[None]],
    ) -> Joined:
        await asyncio.sleep(0)
        wholes = [self.disk.get(source.id, StoredUpload()).whole for source in sources]
        for source, found in zip(sources, wholes, strict=True):
            if found is None or len(found) != source.length:
                raise BytesMissing(f"{source.id} is not there")
        await confirm()
        whole = b"".join(found for found in wholes if found)
        self._check_whole(upload, whole)
        limits = self._limits
        if not limits.keeps_receipts:
            self.disk.setdefault(upload.id, StoredUpload()).partial = whole
            await asyncio.sleep(0)
            return Joined()
        writer = FakeWriter(self, upload, confirm)
        if len(whole) <= limits.min_part_size:
            await writer.put(whole)
            parts = (Part(1, 0, len(whole), crc64(whole), "etag-1"),) if whole else ()
            return Joined(parts, is_object=True)
        size = max(limits.preferred_part_size, -(-len(whole) // limits.max_parts))
        made, multipart_id = [], None
        for number, start in enumerate(range(0, len(whole), size), 1):
            block = whole[start : start + size]
            multipart_id = writer.store(upload, number, start, block)
            made.append(Part(number, start, len(block), crc64(block), f"etag-{number}"))
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.disk[upload.id].multiparts.pop(multipart_id or "", None)
                tidy(self.disk, upload.id)
                raise
        return Joined(tuple(made), multipart_id)

    async def recover(self, upload: Upload, *, confirm: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(0)
        stored = self.disk.get(upload.id, StoredUpload())
        finished = upload.state in FINISHED
        multiparts = {
            found for found in stored.multiparts if finished or found != upload.multipart_id
        }
        row_tail = upload.tail.generation if upload.tail and upload.tail.node is None else None
        tails = {found for found in stored.tails if found != row_tail}
        if not self._limits.keeps_receipts:
            self._check_committed(upload)
        await confirm()
        await asyncio.sleep(0)
        for multipart_id in multiparts:
            stored.multiparts.pop(multipart_id, None)
        for generation in tails:
            stored.tails.pop(generation, None)
        if not self._limits.keeps_receipts:
            self._cut(upload)
        tidy(self.disk, upload.id)
        self._check_committed(upload)

    async def free(self, upload: Upload) -> None:
        await asyncio.sleep(0)
        self.disk.pop(upload.id, None)

    async def read(self, upload: Upload, start: int, end: int) -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(0)
        stored = self.disk.get(upload.id)
        if stored is None or stored.whole is None or len(stored.whole) < end:
            raise BytesMissing
        for position in range(start, end, 1000):
            yield stored.whole[position : min(position + 1000, end)]

    async def presign(self, upload: Upload, *, method: str) -> str | None:
        await asyncio.sleep(0)
        return f"https://store.test/{upload.object_key}?{method}" if upload.object_key else None

    async def check(self) -> None:
        await asyncio.sleep(0)

    def _cut(self, upload: Upload) -> None:
        """Do what a disk does, which has one writer: an object nobody committed goes too."""
        stored = self.disk.get(upload.id, StoredUpload())
        if upload.state in UNFINISHED and upload.committed_bytes == 0:
            stored.partial = stored.whole = None
        elif upload.state in FINISHED:
            stored.partial = None
        elif stored.partial is not None and not upload.is_direct:
            stored.partial = stored.partial[: upload.committed_bytes]

    def _check_committed(self, upload: Upload) -> None:
        """Raise BytesMissing unless as many bytes are stored as are committed."""
        committed = upload.committed_bytes
        if not committed or upload.state in FINISHED or upload.is_direct:
            return
        stored = self.disk.get(upload.id, StoredUpload())
        found = len(stored.partial or b"")
        if self._limits.keeps_receipts:
            # Which parts are committed only complete() is told.
            found = committed if stored.multiparts else 0
        if upload.state not in UNFINISHED and stored.whole is not None:
            found = max(found, len(stored.whole))
        if found < committed:
            raise BytesMissing(f"{found} of {committed} bytes")

    def _joined(self, stored: StoredUpload, upload: Upload, parts: Sequence[Part]) -> bytes:
        """Do what S3 does: parts end to end in the order of their numbers."""
        found = stored.multiparts.get(upload.multipart_id or "", {})
        numbers = [part.number for part in parts]
        assert numbers == sorted(set(numbers))
        whole = b""
        for part in parts:
            start, block = found.get(part.number, (-1, b""))
            if (start, len(block), crc64(block)) != (len(whole), part.size, part.crc64):
                raise BytesMissing(f"part {part.number}")
            if part is not parts[-1]:
                assert part.size >= self._limits.min_part_size
                assert part.size == parts[0].size or not self._limits.equal_parts
            whole += block
        return whole

    def _check_whole(self, upload: Upload, whole: bytes) -> None:
        if len(whole) != upload.length:
            raise BytesMissing(f"{len(whole)} of {upload.length} bytes")
        if crc64(whole) != upload.crc64 and upload.crc64 is not None:
            raise BytesMissing("the bytes are not those that were received")


def direct_etag(content: bytes) -> str:
    """Give the ETag of a part that a client has sent by itself."""
    return f'"{crc64(content):016x}"'


def joined_direct(stored: StoredUpload, upload: Upload, parts: Sequence[Part]) -> bytes:
    """Do what S3 does: the parts whose ETags are listed, and no others.

    Raises: PartsDiffer, BytesMissing (the multipart upload is gone as a whole).
    """
    found = stored.multiparts.get(upload.multipart_id or "")
    whole = b""
    for part in parts:
        if found is None and part.etag is not None:
            raise BytesMissing("no such multipart upload")
        _, block = (found or {}).get(part.number, (-1, b""))
        if part.etag is None or direct_etag(block) != part.etag:
            raise PartsDiffer(f"part {part.number}", part=part.number)
        whole += block
    return whole


def tidy(disk: dict[UploadId, StoredUpload], upload_id: UploadId) -> None:
    """Forget an upload of which nothing is stored."""
    if disk.get(upload_id) == StoredUpload():
        del disk[upload_id]


_multiparts = itertools.count(1)


class FakeWriter:
    """See ports.UploadWriter. The first part of the first lease makes the multipart upload."""

    def __init__(
        self,
        store: FakeObjects,
        upload: Upload,
        confirm: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._store = store
        self._confirm = confirm
        self._upload_id = upload.id
        self._created: str | None = None
        self._made_object = False
        self._wrote = False

    leaves = False

    def open_part(self, upload: Upload, *, number: int, start: int) -> "FakePart":
        assert upload.id == self._upload_id
        assert 1 <= number <= self._store.limits.max_parts
        assert start >= upload.committed_bytes
        return FakePart(self._store, self, upload, number, start)

    async def undo(self, upload: Upload, *, holds: bool) -> bool:
        await asyncio.sleep(0)
        stored = self._store.disk.get(self._upload_id)
        if stored is None:
            return True
        if self._created is not None and self._created != upload.multipart_id:
            # Nobody else writes to it, so it goes also without the lease.
            stored.multiparts.pop(self._created, None)
        left = upload.state in UNFINISHED and (
            (self._made_object and stored.whole is not None)
            or len(stored.partial or b"") > upload.committed_bytes
        )
        if left and holds and not self._store.limits.keeps_receipts:
            if self._made_object:
                stored.whole = None
            if stored.partial is not None:
                stored.partial = stored.partial[: upload.committed_bytes] or None
            left = False
        tidy(self._store.disk, self._upload_id)
        return not left

    async def put(self, whole: bytes) -> None:
        """Make the object; another one at its key is replaced, if that is confirmed."""
        stored = self._store.disk.setdefault(self._upload_id, StoredUpload())
        if self._store.limits.keeps_receipts:
            if stored.whole not in (None, whole):
                if self._confirm is None:
                    raise BytesMissing("there is another object under this key")
                await self._confirm()
        else:
            stored.partial = None
        stored.whole = whole
        self._made_object = True

    def store(self, upload: Upload, number: int, start: int, block: bytes) -> str | None:
        """Store a part; give the id of the multipart upload it belongs to."""
        limits = self._store.limits
        if not limits.keeps_receipts:
            stored = self._store.disk.setdefault(self._upload_id, StoredUpload())
            before = (stored.partial or b"")[:start].ljust(start, b"\0")
            stored.partial = before + block + (stored.partial or b"")[start + len(block) :]
            return None
        multipart_id = upload.multipart_id or self._created
        if multipart_id is None:
            multipart_id = self._created = f"multipart-{next(_multiparts)}"
            stored = self._store.disk.setdefault(self._upload_id, StoredUpload())
            stored.multiparts[multipart_id] = {}
        parts = self._store.disk.get(self._upload_id, StoredUpload()).multiparts.get(multipart_id)
        if parts is None:
            raise StoreUnavailable("no such multipart upload")
        there = parts.get(number, (start, block))
        assert there[0] == start, "a number is used twice"
        # With equal parts the number follows from the start, and what was not acknowledged may
        # come again in another form.
        assert there[1] == block or limits.equal_parts, "a number carries two byte strings"
        parts[number] = start, block
        return multipart_id


class FakePart:
    """See ports.PartWriter. Blocks are read a turn after write(): reused memory would show."""

    def __init__(
        self, store: FakeObjects, writer: FakeWriter, upload: Upload, number: int, start: int
    ) -> None:
        self._store = store
        self._writer = writer
        self._upload = upload
        self._number = number
        self._start = start
        self._pieces: list[bytes | memoryview] = []  # written, or kept
        self._kept: list[bytearray] = []
        self._begun = False
        self._pending = 0

    @property
    def size(self) -> int:
        return sum(len(piece) for piece in self._pieces)

    @property
    def crc64(self) -> int:
        return crc64(b"".join(self._pieces))

    def write(self, block: memoryview) -> "asyncio.Future[None]":
        self._begin()
        assert not self._pending
        self._pending += 1
        return asyncio.ensure_future(self._write(block))

    def keep(self, block: bytearray, size: int) -> bool:
        assert not self._pending
        if self._store.blocks is None or not self._store.limits.keeps_receipts:
            return False
        self._begin()
        self._kept.append(block)
        self._pieces.append(memoryview(block)[:size])
        return True

    async def put_away(self) -> None:
        assert not self._pending
        await asyncio.sleep(0)
        self._pieces = [b"".join(self._pieces)]
        self._give_back()

    async def finish(self, rest: memoryview, *, completes: bool) -> PartReceipt:
        assert not self._pending
        self._begin()
        await asyncio.sleep(0)
        limits = self._store.limits
        whole = b"".join([*self._pieces, rest])
        is_object = completes and self._start == 0
        assert whole or is_object
        assert len(whole) <= limits.max_part_size
        multipart_id = None
        if is_object:
            await self._writer.put(whole)
        else:
            assert completes or len(whole) >= limits.min_part_size
            multipart_id = self._writer.store(self._upload, self._number, self._start, whole)
        # Who is told of an error although the part was stored may still want its bytes.
        self._pieces = [b"".join(self._pieces)]
        self._end()
        etag = f"etag-{self._number}" if limits.keeps_receipts else None
        return PartReceipt(
            len(whole), crc64(whole), etag, is_object=is_object, multipart_id=multipart_id
        )

    async def read_back(self, start: int, rest: memoryview) -> AsyncGenerator[memoryview, None]:
        assert self._store.limits.min_part_size > 1, "this store never leaves a tail"
        whole = b"".join([*self._pieces, rest])
        for position in range(start, len(whole), 1000):
            await asyncio.sleep(0)
            block = bytearray(whole[position : position + 1000])
            yield memoryview(block)
            block[:] = bytes(len(block))  # good until the next one is asked for

    async def discard(self) -> None:
        self._pieces.clear()
        self._end()
        await asyncio.sleep(0)

    async def _write(self, block: memoryview) -> None:
        try:
            await asyncio.sleep(0)
            self._pieces.append(bytes(block))
        finally:
            self._pending -= 1

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._store.open_writers += 1

    def _end(self) -> None:
        if self._begun:
            self._begun = False
            self._store.open_writers -= 1
        self._give_back()

    def _give_back(self) -> None:
        for block in self._kept:
            assert self._store.blocks is not None
            self._store.blocks.give(block)
        self._kept.clear()


# --- tails ---------------------------------------------------------------------------------------


class FakeTails:
    """See ports.TailStore: the disk of a node, or with node None parked beside the objects.

    disk: survives the store; that of FakeObjects for parked ones, so that freeing an upload and
    recovering it finds them.
    """

    def __init__(
        self, disk: dict[UploadId, StoredUpload] | None = None, *, node: Node | None = None
    ) -> None:
        self.disk = {} if disk is None else disk
        self._node = node

    async def read(self, upload: Upload) -> AsyncGenerator[memoryview, None]:
        tail = upload.tail
        assert tail is not None
        await asyncio.sleep(0)
        found = self.disk.get(upload.id, StoredUpload()).tails.get(tail.generation, b"")
        found = found[: tail.length]
        if len(found) < tail.length or crc64(found) != tail.crc64:
            raise TailMissing
        for position in range(0, tail.length, 1000):
            block = bytearray(found[position : position + 1000])
            yield memoryview(block)
            block[:] = bytes(len(block))

    async def save(
        self,
        upload: Upload,
        *,
        generation: int,
        kept: int,
        content: AsyncIterator[memoryview],
    ) -> None:
        old = self.disk.get(upload.id, StoredUpload()).tails.get(generation, b"")
        assert not kept or self._node is not None, "a parked tail is never continued"
        # The row's own tail is continued, or left alone: until the commit it is the only one.
        own = self._own(upload, generation)
        assert kept == (own.length if own else 0)
        if len(old) < kept:
            raise TailMissing
        whole = old[:kept]
        async for block in content:
            await asyncio.sleep(0)
            whole += block
        self.disk.setdefault(upload.id, StoredUpload()).tails[generation] = whole

    async def remove(self, upload: Upload, tail: Tail) -> bool:
        await asyncio.sleep(0)
        if upload.id in self.disk and self._own(upload, tail.generation) is None:
            self.disk[upload.id].tails.pop(tail.generation, None)
            tidy(self.disk, upload.id)
        return True

    async def check(self) -> None:
        await asyncio.sleep(0)

    def _own(self, upload: Upload, generation: int) -> Tail | None:
        """Give the row's tail, if it is the one of this place and generation."""
        node_id = self._node.id if self._node else None
        tail = upload.tail
        if tail is None or (tail.node, tail.generation) != (node_id, generation):
            return None
        return tail


# --- the request ---------------------------------------------------------------------------------


class Pause:
    """In the script of a body: nothing arrives for a moment, long enough to be seen as slow."""


class Stall:
    """In the script of a body: nothing arrives until resume(), or interrupt()."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._gate = asyncio.Event()

    def resume(self) -> None:
        self._gate.set()

    async def wait(self) -> None:
        self.reached.set()
        await self._gate.wait()


PAUSE = Pause()
Script = bytes | Pause | Stall | BodyStopped


class FakeBody:
    """See ports.Body: gives what its script says.

    chunked: without a Content-Length. Else that is `size`, or as many bytes as the script has, and
    one more that never comes where the script ends with a stall or an error. `asked` tells whether
    a byte was asked for, which is when a client would be told to send.
    """

    def __init__(self, *script: Script, chunked: bool = False, size: int | None = None) -> None:
        self._script = list(script)
        self._interrupted = False
        self._given = 0
        self.asked = False
        self.size = None
        if not chunked:
            sent = sum(len(item) for item in script if isinstance(item, bytes))
            cut = bool(script) and isinstance(script[-1], Stall | BodyStopped)
            self.size = sent + cut if size is None else size

    async def read_into(self, view: memoryview) -> int:
        self.asked = True
        fill = 0
        while fill < len(view) and self._script:
            match self._script[0]:
                case bytes() as block:
                    count = min(len(block), len(view) - fill)
                    view[fill : fill + count] = block[:count]
                    fill += count
                    self._script[0] = block[count:]
                    if count == len(block):
                        del self._script[0]
                case _ if fill:
                    break
                case BodyStopped() as stop:
                    raise stop
                case _ if self._interrupted:
                    raise BodyInterrupted
                case Stall() as stall:
                    await stall.wait()
                    if not self._interrupted:
                        del self._script[0]
                case Pause():
                    await asyncio.sleep(0)
                    del self._script[0]
        self._given += fill
        if view and not fill and self.size is not None and self._given < self.size:
            raise ClientGone
        return fill

    def interrupt(self) -> None:
        self._interrupted = True
        for item in self._script:
            if isinstance(item, Stall):
                item.resume()


# --- faults --------------------------------------------------------------------------------------


class Hold:
    """A call that stops on order: `reached` is set when it is there, let_go() lets it on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._gate = asyncio.Event()
        self._error: TusServerError | None = None

    def let_go(self, error: TusServerError | None = None) -> None:
        """Let the call go on, or fail with `error`."""
        self._error = error
        self._gate.set()

    async def pass_by(self) -> None:
        self.reached.set()
        await self._gate.wait()
        self.raise_now()

    def raise_now(self) -> None:
        """Fail a call that cannot wait."""
        if self._error is not None:
            raise self._error


class _Fault(Hold):
    """A hold that is let go at once."""

    def __init__(self, error: TusServerError) -> None:
        super().__init__()
        self.let_go(error)


class Failing:
    """Any port, of which the nth call of a method (from now on) fails or is held.

    after: the call has its effect first, so the caller cannot know. What open_writer() and
    open_part() give is under the same orders: `write`, `finish`, `discard`, `undo` and
    `open_part` count over all of them.
    """

    def __init__(self, target: Any, orders: "_Orders | None" = None) -> None:
        self._target = target
        self._orders = orders or _Orders()

    def fail(
        self,
        method: str,
        error: TusServerError,
        *,
        nth: int = 1,
        times: int = 1,
        after: bool = False,
    ) -> None:
        """Let the nth call of `method`, and times - 1 more, raise `error`."""
        for index in range(nth, nth + times):
            self._orders.add(method, index, _Fault(error), after=after)

    def hold(self, method: str, *, nth: int = 1, after: bool = False) -> Hold:
        """Stop the nth call of `method` until it is let go."""
        hold = Hold()
        self._orders.add(method, nth, hold, after=after)
        return hold

    def heal(self) -> None:
        """Drop the orders that nothing has run into."""
        self._orders.clear()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value

        def call(*args: Any, **named: Any) -> Any:
            order = self._orders.due(name)
            if name in ("open_writer", "open_part"):
                if order is not None:
                    order[0].raise_now()
                return Failing(value(*args, **named), self._orders)
            if order is None:
                return value(*args, **named)
            if name in ("read", "read_back"):
                return _held_stream(order, value(*args, **named))
            return asyncio.ensure_future(_held_call(order, value, args, named))

        return call


class _Orders:
    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._by_call: dict[tuple[str, int], tuple[Hold, bool]] = {}

    def add(self, method: str, nth: int, hold: Hold, *, after: bool) -> None:
        self._by_call[method, self._calls[method] + nth] = hold, after

    def due(self, method: str) -> tuple[Hold, bool] | None:
        self._calls[method] += 1
        return self._by_call.pop((method, self._calls[method]), None)

    def clear(self) -> None:
        self._by_call.clear()


async def _held_call(order: tuple[Hold, bool], call: Any, args: Any, named: Any) -> Any:
    hold, after = order
    if not after:
        await hold.pass_by()
    result = await call(*args, **named)
    if after:
        await hold.pass_by()
    return result


async def _held_stream(
    order: tuple[Hold, bool], stream: AsyncGenerator[T, None]
) -> AsyncGenerator[T, None]:
    hold, _ = order
    await hold.pass_by()
    async for block in stream:
        yield block
