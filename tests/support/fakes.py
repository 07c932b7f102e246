"""Fakes of the ports, in memory, and a wrapper that makes any port fail on order.

The contract suites run over FakeState and FakeObjects: what a test sees here it would see over
the real ones. They also assert what the contracts ask of the caller.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tus_server.core.checksums import crc64
from tus_server.core.errors import (
    BodyInterrupted,
    BodyStopped,
    BytesMissing,
    ClientGone,
    LeaseLost,
    TusServerError,
)
from tus_server.core.ids import UploadId, new_upload_id
from tus_server.core.states import EVENTS, FINISHED, TERMINAL, UNFINISHED, UploadState, check_steps
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER, Part, Protocol, Upload
from tus_server.ports import Claim, Event, Lease, PartReceipt, StatusChange, StoreLimits

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
class Tables:
    """What survives a FakeState, as a database file survives its process."""

    uploads: dict[UploadId, Upload] = field(default_factory=dict)  # in order of creation
    parts: dict[UploadId, list[Part]] = field(default_factory=dict)
    history: dict[UploadId, list[StatusChange]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


class FakeState:
    """See ports.StateStore. An effect is there at the call; the answer comes a turn later."""

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables = tables or Tables()
        self._epochs: dict[UploadId, int] = {}
        self._last_epoch = 0

    # --- reading

    async def find_upload(self, upload_id: UploadId) -> Upload | None:
        found = self.tables.uploads.get(upload_id)
        await asyncio.sleep(0)
        return found

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
        return self.tables.events[:limit]

    async def find_parts(self, upload_id: UploadId) -> list[Part]:
        await asyncio.sleep(0)
        return sorted(self.tables.parts.get(upload_id, []), key=lambda part: part.start)

    async def unfinished_work(
        self, limit: int, after: UploadId | None = None, *, receiving: bool
    ) -> list[Upload]:
        rows = list(self.tables.uploads.values())
        if after is not None:
            rows = rows[list(self.tables.uploads).index(after) + 1 :]
        await asyncio.sleep(0)
        return [row for row in rows if _is_half_way(row, receiving=receiving)][:limit]

    # --- leases

    async def claim_upload(self, upload_id: UploadId) -> Claim:
        await asyncio.sleep(0)
        upload = self.tables.uploads.get(upload_id)
        if upload is None or upload_id in self._epochs:
            return Claim(upload, held=upload is not None)
        return Claim(upload, self._grant(upload_id))

    async def is_held(self, upload_id: UploadId) -> bool:
        return upload_id in self._epochs

    async def release(self, lease: Lease) -> None:
        if self._epochs.get(lease.upload_id) == lease.epoch:
            del self._epochs[lease.upload_id]
        await asyncio.sleep(0)

    def take_lease_away(self, upload_id: UploadId) -> None:
        """Let another process have the lease, as one that expired."""
        self._grant(upload_id)

    def _grant(self, upload_id: UploadId) -> Lease:
        self._last_epoch += 1
        self._epochs[upload_id] = self._last_epoch
        return Lease(upload_id, self._last_epoch)

    # --- writing

    async def create_upload(self, upload: Upload, *, claim: bool) -> Lease | None:
        assert upload.id not in self.tables.uploads
        _check_row(upload)
        self.tables.uploads[upload.id] = upload
        self.tables.history[upload.id] = [StatusChange(upload.state, upload.created_at)]
        lease = self._grant(upload.id) if claim else None
        await asyncio.sleep(0)
        return lease

    async def commit(
        self,
        lease: Lease,
        before: Upload,
        after: Upload,
        *,
        steps: tuple[UploadState, ...] = (),
        parts: Sequence[Part] = (),
        release: bool = False,
    ) -> None:
        assert before.id == after.id == lease.upload_id
        check_steps(before.state, steps)
        assert after.state is (steps[-1] if steps else before.state)
        _check_row(after)
        tables, upload_id = self.tables, lease.upload_id
        row = tables.uploads.get(upload_id)
        if self._epochs.get(upload_id) != lease.epoch or row is None or row.offset != before.offset:
            raise LeaseLost
        tables.uploads[upload_id] = after
        tables.parts.setdefault(upload_id, []).extend(parts)
        for state in steps:
            tables.history[upload_id].append(StatusChange(state, after.state_on))
            if state in EVENTS:
                tables.events.append(Event(upload_id, state, after.state_on))
        if release:
            del self._epochs[upload_id]
        await asyncio.sleep(0)

    async def check(self) -> None:
        await asyncio.sleep(0)


def _check_row(upload: Upload) -> None:
    """Assert the constraints a database would hold."""
    assert upload.length is None or 0 <= upload.offset <= upload.length
    if upload.state in FINISHED | {UploadState.COMPLETED}:
        assert upload.tail is None
        assert upload.committed_bytes == upload.length
    assert (upload.state is UploadState.ERROR) == (upload.error_code is not None)
    assert upload.freed_at is None or upload.state in TERMINAL


def _is_half_way(upload: Upload, *, receiving: bool) -> bool:
    if upload.state in UNFINISHED:
        return receiving
    if upload.state in TERMINAL:
        return upload.freed_at is None
    return upload.state is UploadState.COMPLETED


# --- objects -------------------------------------------------------------------------------------


@dataclass(slots=True)
class StoredUpload:
    """What a store has of one upload."""

    parts: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # by number: start, bytes
    whole: bytes | None = None


def toy_limits(part_size_bytes: int, **fields: Any) -> StoreLimits:
    """Give limits that take any part and plan small ones."""
    limits = StoreLimits(
        min_part_size=1,
        max_part_size=MAX_ANNOUNCED_INTEGER,
        max_parts=10_000,
        preferred_part_size=part_size_bytes,
        max_object_size=MAX_ANNOUNCED_INTEGER,
    )
    return replace(limits, **fields)


class FakeObjects:
    """See ports.ObjectStore: multipart like S3, or with keeps_receipts False like a disk.

    `disk` survives the store, as files survive their process.
    """

    def __init__(
        self, limits: StoreLimits, disk: dict[UploadId, StoredUpload] | None = None
    ) -> None:
        self._limits = limits
        self.disk = {} if disk is None else disk
        self.open_writers = 0  # begun, and neither finished nor discarded

    @property
    def limits(self) -> StoreLimits:
        return self._limits

    def open_part(self, upload: Upload, *, number: int, start: int) -> "FakePart":
        assert 1 <= number <= self._limits.max_parts
        assert start >= upload.committed_bytes
        return FakePart(self, upload.id, number, start)

    async def complete(self, upload: Upload, parts: Sequence[Part]) -> None:
        await asyncio.sleep(0)
        stored = self.disk.get(upload.id, StoredUpload())
        if stored.whole is None:
            assert upload.length is not None
            if self._limits.keeps_receipts:
                whole = self._joined(stored, parts)
            else:
                whole = _contiguous(stored)[: upload.length]
            if len(whole) != upload.length:
                raise BytesMissing(f"{len(whole)} of {upload.length} bytes")
            stored.whole = whole
            stored.parts.clear()
        elif len(stored.whole) != upload.length:
            raise BytesMissing(f"{len(stored.whole)} of {upload.length} bytes")

    async def recover(self, upload: Upload) -> None:
        await asyncio.sleep(0)
        committed = upload.committed_bytes
        if committed == 0:
            self.disk.pop(upload.id, None)
            return
        stored = self.disk.get(upload.id, StoredUpload())
        for number, (start, block) in list(stored.parts.items()):
            if start >= committed:
                del stored.parts[number]
            else:
                stored.parts[number] = start, block[: committed - start]
        if len(_contiguous(stored)) != committed:
            raise BytesMissing(f"{len(_contiguous(stored))} of {committed} bytes")

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

    async def check(self) -> None:
        await asyncio.sleep(0)

    def _joined(self, stored: StoredUpload, parts: Sequence[Part]) -> bytes:
        whole = b""
        for part in parts:
            start, block = stored.parts.get(part.number, (-1, b""))
            if (start, len(block), crc64(block)) != (len(whole), part.size, part.crc64):
                raise BytesMissing(f"part {part.number}")
            assert part is parts[-1] or part.size >= self._limits.min_part_size
            whole += block
        return whole


class FakePart:
    """See ports.PartWriter. Blocks are read a turn after write(): reused memory would show."""

    def __init__(self, store: FakeObjects, upload_id: UploadId, number: int, start: int) -> None:
        self._store = store
        self._upload_id = upload_id
        self._number = number
        self._start = start
        self._bytes = b""
        self._begun = False

    def write(self, block: memoryview) -> "asyncio.Future[None]":
        self._begin()
        return asyncio.ensure_future(self._write(block))

    async def finish(self, rest: memoryview, *, completes: bool) -> PartReceipt:
        self._begin()
        await self._write(rest)
        limits, size = self._store.limits, len(self._bytes)
        is_object = completes and self._start == 0
        assert size or is_object
        assert size <= limits.max_part_size
        stored = self._store.disk.setdefault(self._upload_id, StoredUpload())
        if is_object:
            stored.whole = self._bytes
        else:
            stored.parts[self._number] = self._start, self._bytes
        self._end()
        etag = f"etag-{self._number}" if limits.keeps_receipts else None
        return PartReceipt(size, crc64(self._bytes), etag, is_object=is_object)

    async def discard(self) -> None:
        self._end()
        await asyncio.sleep(0)

    async def _write(self, block: memoryview) -> None:
        await asyncio.sleep(0)
        self._bytes += block

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._store.open_writers += 1

    def _end(self) -> None:
        if self._begun:
            self._begun = False
            self._store.open_writers -= 1


def _contiguous(stored: StoredUpload) -> bytes:
    """Give the bytes from 0 to the first gap, as a file of the parts would have them."""
    whole = b""
    for start, block in sorted(stored.parts.values()):
        if start > len(whole):
            break
        whole = whole[:start] + block + whole[start + len(block) :]
    return whole


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
        if self._error is not None:
            raise self._error


class _Fault(Hold):
    """A hold that is let go at once."""

    def __init__(self, error: TusServerError) -> None:
        super().__init__()
        self.let_go(error)


class Failing:
    """Any port, of which the nth call of a method (from now on) fails or is held.

    after: the call has its effect first, so the caller cannot know. The writers of open_part()
    are under the same orders: `write`, `finish` and `discard` count over all parts.
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
        if name == "open_part":
            return lambda *args, **named: Failing(value(*args, **named), self._orders)
        if not callable(value):
            return value

        def call(*args: Any, **named: Any) -> Any:
            order = self._orders.due(name)
            if order is None:
                return value(*args, **named)
            if name == "read":
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
    order: tuple[Hold, bool], stream: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    hold, _ = order
    await hold.pass_by()
    async for block in stream:
        yield block
