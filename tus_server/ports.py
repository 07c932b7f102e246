"""What the engine needs from outside, as Protocols with their contracts.

Contracts are written here, once; an adapter documents only what is special about its backend.
`tests/contract/` runs every rule below against every implementation and the fakes.
"""

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType
from typing import Protocol as Port

from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload

HolderId = NewType("HolderId", str)


# --- state ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to append to one upload. A higher epoch makes every earlier lease void (P3)."""

    upload_id: UploadId
    epoch: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim found: the row, and the lease if it was granted.

    upload None: no such row. lease None: somebody else holds it (`held`).
    """

    upload: Upload | None
    lease: Lease | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One row of an upload's history."""

    state: UploadState
    at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the outbox: something the application may want to know."""

    upload_id: UploadId
    kind: UploadState
    at: datetime


class StateReader(Port):
    """Reading rows, with no right to change them."""

    async def find_upload(self, upload_id: UploadId) -> Upload | None:
        """Give the row as last committed. Raises: StateUnavailable."""

    async def list_uploads(
        self,
        states: frozenset[UploadState] | None,
        limit: int,
        before: UploadId | None = None,
    ) -> list[Upload]:
        """Give up to `limit` rows in `states` (None: all), newest first, older than `before`."""

    async def history(self, upload_id: UploadId) -> list[StatusChange]:
        """Give the status changes of an upload, newest first; empty for an unknown id."""

    async def pending_events(self, limit: int) -> list[Event]:
        """Give the oldest undelivered events of the outbox, oldest first."""


class StateStore(StateReader, Port):
    """The truth about every upload. What a method has returned from is durable."""

    async def create_upload(self, upload: Upload, *, claim: bool) -> Lease | None:
        """Insert a new row, its first history row, and with `claim` a lease on it, atomically.

        Raises: StateUnavailable (the row may exist; nobody knows its id), StorageFull.
        """

    async def claim_upload(self, upload_id: UploadId) -> Claim:
        """Take the lease of an upload if nobody has it; never waits for a holder.

        Raises: StateUnavailable. Cancelled: the lease may have been taken; it then expires.
        """

    async def is_held(self, upload_id: UploadId) -> bool:
        """Tell whether somebody holds the lease just now."""

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
        """Replace row `before` by `after`, atomically and fenced by the lease.

        Writes with it: a history row for each of `steps`, a row of the outbox for each step in
        states.EVENTS, the receipts `parts`, and with `release` the end of the lease. `steps` is
        the way from before.state to after.state. Raises: LeaseLost (the lease is not the current
        one, or the row's offset is not before.offset; nothing was changed), StateUnavailable
        (may or may not have taken effect; re-read before trusting memory), StorageFull (had no
        effect). Cancelled: as StateUnavailable.
        """

    async def release(self, lease: Lease) -> None:
        """End the lease. A lease that is not the current one is left alone."""

    async def find_parts(self, upload_id: UploadId) -> list[Part]:
        """Give the receipts committed for an upload, by start."""

    async def unfinished_work(
        self, limit: int, after: UploadId | None = None, *, receiving: bool
    ) -> list[Upload]:
        """Give rows a crash may have left half-way, oldest first, from behind row `after`.

        Those are: completed; terminal with freed_at None; with `receiving` also initiated and
        receiving.
        """

    async def check(self) -> None:
        """Raise StateUnavailable or StorageFull unless a write would succeed now."""


# --- objects -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What a store takes as a part; all sizes in bytes.

    min_part_size: of every part but the last. equal_parts: all but the last have one size.
    parallel_parts: how many parts of one upload may be on their way at once. keeps_receipts:
    complete() needs the receipt of every part; otherwise parts are at their place already.
    """

    min_part_size: int
    max_part_size: int
    max_parts: int
    preferred_part_size: int
    max_object_size: int
    equal_parts: bool = False
    parallel_parts: int = 1
    keeps_receipts: bool = True


@dataclass(frozen=True, slots=True)
class PartReceipt:
    """The store has a part, durably. is_object: the part was the whole, and the object exists."""

    size: int
    crc64: int
    etag: str | None = None
    is_object: bool = False


class PartWriter(Port):
    """One part on its way into the store. One task uses it; write, ..., then finish or discard."""

    def write(self, block: memoryview) -> Awaitable[None]:
        """Begin to take `block` behind what was written; await before reusing its memory.

        At most one write may be pending. Raises (awaited): StorageFull, StoreUnavailable,
        BytesMissing (what the row says is committed is not there).
        """

    async def finish(self, rest: memoryview, *, completes: bool) -> PartReceipt:
        """Take `rest` too, and make the whole part durable.

        completes: the last byte of the upload is in this part. When it is also the first part,
        the object itself comes into being (receipt.is_object). Raises: as write(); the part then
        counts as not stored, and whatever of it was stored is harmless.
        """

    async def discard(self) -> None:
        """Give the part up and free what it took; never raises, may be called more than once."""


class ObjectStore(Port):
    """Where bytes end up. Keys are opaque and made from the id alone."""

    @property
    def limits(self) -> StoreLimits:
        """The limits; the same for the life of the process."""

    def open_part(self, upload: Upload, *, number: int, start: int) -> PartWriter:
        """Prepare to write part `number` at byte `start`; no I/O yet.

        A part that follows another one in the same request is opened once a write to that one
        has been awaited, and may overtake it from then on.

        Only the holder of the lease may do so, and never while another writer of the same
        bytes has a thread or call under way.
        """

    async def complete(self, upload: Upload, parts: Sequence[Part]) -> None:
        """Make the object of upload.length bytes out of its stored parts. Idempotent, durable.

        Raises: BytesMissing (a committed byte is not there), StoreUnavailable, StorageFull.
        """

    async def recover(self, upload: Upload) -> None:
        """Bring what a crash left of an unfinished upload back to its committed bytes.

        Raises: BytesMissing.
        """

    async def free(self, upload: Upload) -> None:
        """Remove object and parts. Idempotent. Raises: StoreUnavailable."""

    def read(self, upload: Upload, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Stream bytes [start, end) of a finished object.

        Raises before the first item: BytesMissing, StoreUnavailable.
        """

    async def check(self) -> None:
        """Raise StoreUnavailable or StorageFull unless a write would succeed and last now."""


# --- the request ---------------------------------------------------------------------------------


class Body(Port):
    """The body of one request, pulled."""

    @property
    def size(self) -> int | None:
        """Content-Length in bytes; None for a chunked body."""

    async def read_into(self, view: memoryview) -> int:
        """Fill `view` from its start; give the number of bytes, 0 only at the end of the body.

        Gives fewer bytes than fit at the end of the body, when the sender is slow, or before it
        raises. Bytes that arrived are always given out before: ClientGone, BodyStalled,
        BodyInterrupted.
        """

    def interrupt(self) -> None:
        """Make the pending or next read_into raise BodyInterrupted, after what has arrived."""


class Operation(StrEnum):
    """What a request wants to do, as an authorizer sees it."""

    CREATE = "create"
    STATUS = "status"
    APPEND = "append"
    TERMINATE = "terminate"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `name` becomes the owner of what it creates; None: anonymous."""

    name: str | None = None


ANONYMOUS = Principal()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows of who asks: effective method, path, header fields, peer address."""

    method: str
    path: str
    headers: Mapping[str, str]
    client: str | None


class Authorizer(Port):
    """Who may do what. Called for every verb, before the body is asked for (P8, P9)."""

    @property
    def takes_all(self) -> bool:
        """Tell that authenticate() gives ANONYMOUS to everyone, so that it need not be asked."""

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Tell who asks. Raises: Unauthenticated, Forbidden."""

    async def check(
        self, principal: Principal, operation: Operation, upload: Upload | None
    ) -> None:
        """Return if `principal` may; upload is None for CREATE only.

        Raises: Forbidden, or UploadNotFound to hide another user's upload.
        """


class Clock(Port):
    """In-process time, so that tests own it."""

    def now(self) -> datetime:
        """Aware UTC."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
