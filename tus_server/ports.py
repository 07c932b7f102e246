"""What the engine needs from outside, as Protocols with their contracts.

Contracts are written here, once; an adapter documents only what is special about its backend.
`tests/contract/` runs every rule below against every implementation and the fakes.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol as Port
from typing import TypeVar

from tus_server.core.ids import UploadId
from tus_server.core.jobs import Job, Outcome
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Tail, Upload

# After a terminal upload was freed: longer than any call that was under way then can last.
SECOND_PASS_S = 3600.0

T = TypeVar("T")


# --- state ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to append to one upload. A higher epoch makes every earlier lease void (P3).

    numbers: the part numbers set aside for it. No other lease is ever given them, so a number
    never carries the bytes of two writers, however late a call of the first arrives.
    """

    upload_id: UploadId
    epoch: int
    numbers: range = range(0)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim found: the row after it, and the lease if it was granted.

    upload None: no such row. lease None: somebody else holds it (`held`), or the row is not what
    the claim asked for.
    """

    upload: Upload | None
    lease: Lease | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """What a process hears when it shows that it is alive.

    lost: leases that are another's by now. wanted: those somebody waits for.
    """

    lost: frozenset[UploadId] = frozenset()
    wanted: frozenset[UploadId] = frozenset()


@dataclass(frozen=True, slots=True)
class Node:
    """A data directory and the processes that share it. label: in the ids of its uploads."""

    id: str
    label: str


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node as the others know it. silent_s: seconds since it last showed that it is alive."""

    node: Node
    silent_s: float


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One row of an upload's history. note: what happened beside a change of state."""

    state: UploadState
    at: datetime
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the outbox: something the application may want to know.

    id: grows with each event. outcome: what entering the state has decided, with `job` as the
    upload's instructions have it (None: the server's default). attempts: to deliver it, this one
    included. done: the targets that have it. error: how the last attempt failed. given_up_at: no
    more attempts are made (a dead letter), until it is retried.
    """

    upload_id: UploadId
    kind: UploadState
    at: datetime
    id: int = 0
    outcome: Outcome | None = None
    job: Job | None = None
    attempts: int = 0
    done: frozenset[str] = frozenset()
    error: str | None = None
    due_at: datetime | None = None
    delivered_at: datetime | None = None
    given_up_at: datetime | None = None


class Letters(StrEnum):
    """Kinds of rows of the outbox, by what became of them."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt to deliver `event` went, as claim_events() gave it.

    done: the targets that have it by now, beside those that had it. error: None: it is delivered.
    retry_in_s: when to try again; None with an error: give it up.
    """

    event: Event
    done: frozenset[str]
    error: str | None = None
    retry_in_s: float | None = None


class StateReader(Port):
    """Reading rows, with no right to change them. Every method raises StateUnavailable."""

    async def find_upload(self, upload_id: UploadId) -> Upload | None:
        """Give the row as last committed."""

    async def find_uploads(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, Upload]:
        """Give those of the rows that exist, as last committed, in one round trip."""

    async def find_partials(self, upload_id: UploadId) -> list[Upload]:
        """Give what a final upload consists of, in order, one that is used twice twice.

        Empty for any other upload.
        """

    async def find_expired(
        self, limit: int, after: UploadId | None = None, *, ahead_s: float = 0.0
    ) -> list[Upload]:
        """Give rows whose expires_at is past, or less than `ahead_s` away, oldest first, from
        behind row `after`.

        Those are unfinished uploads, and verified partial ones that no final upload in state
        initiated consists of. Held ones too. Of the time the state store's own clock decides.
        """

    async def find_kept_longer(
        self, limit: int, after: UploadId | None = None, *, kept_s: float
    ) -> list[Upload]:
        """Give finished uploads, no partial ones, that were finished more than `kept_s` ago,
        oldest first, from behind row `after`, by the state store's own clock.
        """

    async def list_uploads(
        self,
        states: frozenset[UploadState] | None,
        limit: int,
        before: UploadId | None = None,
    ) -> list[Upload]:
        """Give up to `limit` rows in `states` (None: all), newest first, older than `before`."""

    async def history(self, upload_id: UploadId) -> list[StatusChange]:
        """Give the status changes of an upload, newest first; empty for an unknown id."""

    async def histories(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, list[StatusChange]]:
        """Give the history of each, in one round trip; unknown ids are left out."""

    async def find_by_file_id(
        self, file_id: str, limit: int, before: UploadId | None = None
    ) -> list[Upload]:
        """Give up to `limit` uploads of a file_id, newest first, older than `before`."""

    async def find_active(self, file_id: str) -> Upload | None:
        """Give the upload of a file_id that is in one of states.ACTIVE."""

    async def find_requested(self, request_key: str) -> Upload | None:
        """Give the upload that was created with an Idempotency-Key."""

    async def find_auto_complete(self, limit: int, after: UploadId | None = None) -> list[Upload]:
        """Give unfinished direct uploads that are to complete by themselves, oldest first."""

    async def find_parts(self, upload_id: UploadId) -> list[Part]:
        """Give the receipts committed for an upload, by start; of a direct upload all that are
        planned, those without an ETag too.
        """

    async def pending_events(self, limit: int) -> list[Event]:
        """Give the oldest undelivered events of the outbox, oldest first; no dead letters."""

    async def list_events(
        self,
        kind: Letters,
        limit: int,
        before: int | None = None,
        *,
        upload_id: UploadId | None = None,
    ) -> list[Event]:
        """Give up to `limit` events of a kind, newest first, with ids below `before`."""

    async def find_event(self, event_id: int) -> Event | None:
        """Give one event."""

    async def find_node(self, node_id: str) -> NodeSeen | None:
        """Give what is known of a node."""

    async def find_stale_nodes(self, silent_s: float) -> list[NodeSeen]:
        """Give nodes that were not heard of for longer, and of which no upload has a tail."""


class StateStore(StateReader, Port):
    """The truth about every upload. What a method has returned from is durable.

    Every method raises StateUnavailable where the store does not answer in time.
    """

    @property
    def hears(self) -> bool:
        """Tell whether watch() works now, so that nobody has to look again and again."""

    def watch(
        self, *, wanted: Callable[[UploadId], None], freed: Callable[[UploadId], None]
    ) -> None:
        """From now on call, on the loop, `wanted` when another process waits for a lease of this
        one, and `freed` when another process has let go of an upload somebody waits for.

        Best effort, and only from other processes: beat() and claims tell the same later.
        """

    async def create_upload(
        self,
        upload: Upload,
        *,
        claim: bool,
        numbers: int = 0,
        partials: Sequence[UploadId] = (),
    ) -> Lease | None:
        """Insert a new row, its first history row, and with `claim` a lease on it, atomically.

        upload.next_part_number is that of the row before `numbers` were set aside. partials: what
        a final upload consists of, in order; rows that exist. Of a direct upload the planned parts
        are inserted too, by length and part_size. Raises: FileIdTaken (another one of its file_id
        is active), RequestKeyTaken (another one was created with its request_key), in either case
        naming that one, StateUnavailable (the row may exist; nobody knows its id), StorageFull.
        """

    async def record_parts(
        self, upload_id: UploadId, parts: Sequence[Part], *, expires_at: datetime | None = None
    ) -> Upload | None:
        """Write down what has arrived of an unfinished direct upload, and give its row after it.

        parts: planned ones, each with ETag and CRC as it is stored now; without an ETag it is not
        stored any more. committed_bytes follows, and the first one that is stored begins
        `receiving`; all atomically. expires_at: when it expires, if that is later than it was.
        None: there is no such upload, or it is not unfinished; nothing was changed. Idempotent.
        Needs no lease: a commit from a row as it was before this one loses, for what changes
        anything changes `generation` of the row too.
        """

    def now(self) -> datetime:
        """Give the time by the clock that decides what has expired; aware UTC, no round trip."""

    async def find_ready_finals(
        self, limit: int, after: UploadId | None = None, *, of: UploadId | None = None
    ) -> list[UploadId]:
        """Give final uploads in state initiated that wait for no partial any more, oldest first,
        from behind row `after`.

        All of those are finished, or one has ended otherwise. of: only those with this partial.
        """

    async def is_needed(self, upload_id: UploadId) -> bool:
        """Tell whether a final upload consists of it that is initiated or completed."""

    async def let_partials_expire(self, upload_id: UploadId, after_s: float) -> None:
        """Let the partials of a final upload expire `after_s` from now, if not sooner.

        Also those that would never have expired. Idempotent: a repetition puts nothing off.
        """

    async def purge(self, limit: int, *, ended_s: float) -> int:
        """Remove rows of terminal uploads, and all that belongs to them but events; tell how many.

        Those that ended more than `ended_s` ago, were freed, and need no second look; no partial
        that a final upload in state initiated consists of. After it nobody knows their ids.
        """

    async def forget_nodes(self, silent_s: float) -> list[NodeSeen]:
        """Remove the nodes that find_stale_nodes() gives, and give them."""

    async def claim_duty(self, name: str, lasts_s: float) -> bool:
        """Take on, or go on with, what one process at a time does; False: another one has it.

        It ends `lasts_s` from now by itself, unless claimed again.
        """

    async def observe_upload(self, upload_id: UploadId) -> Claim:
        """Give the row, and whether it is held; a holder that has died counts. One round trip."""

    async def claim_upload(
        self, upload_id: UploadId, *, offset: int | None = None, numbers: int = 0
    ) -> Claim:
        """Take the lease of an upload if nobody has it; never waits for a holder.

        A holder whose lease has run out, or whose process is known to have ended, has it no more;
        then `generation` of the row becomes the epoch of the new lease, and `unclean` true.
        offset: grant it only where the upload is unfinished and at this offset. numbers: how
        many part numbers to set aside from row.next_part_number on (durably, with the claim).
        The row in the answer is the one after the claim. One round trip. Cancelled: the lease
        may have been taken; it then expires.
        """

    async def ask_release(self, upload_id: UploadId) -> None:
        """Let the holder in another process know that its lease is wanted."""

    async def beat(self, leases: Sequence[Lease]) -> Beat:
        """Renew `leases`, and show that this process and its node are alive."""

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
        """Replace row `before` by `after`, atomically and fenced by the lease.

        Writes with it: a history row for each of `steps` (with `note` a single one in any case),
        a row of the outbox for each step in states.EVENTS (none for a partial upload: T100), with
        the outcome and its job where the commit sets completed_at, the receipts `parts`, and with
        `release` the clean end of the lease. Without `release` it takes no part numbers back that
        are set aside. `steps` is the way from before.state to after.state.
        Repeating a commit that took effect succeeds while no later lease was granted. Raises:
        LeaseLost (the lease is not the current one, or the row is not at before.offset, in
        before.state and of before.generation; nothing was changed), StateUnavailable (may or may
        not have taken effect; re-read before trusting memory), StorageFull (had no effect).
        Cancelled: as StateUnavailable.
        """

    async def release(
        self, lease: Lease, *, next_part_number: int | None = None, clean: bool = True
    ) -> None:
        """End the lease. One that is not the current one, or ended with a commit, is left alone.

        next_part_number: gives part numbers back that were never used. clean: every thread and
        store call of the holder has ended, and left nothing beside the row; else `unclean` of
        the row becomes true.
        """

    async def claim_unfinished(
        self, limit: int, after: UploadId | None = None, *, receiving: bool, numbers: int = 0
    ) -> list[tuple[Upload, Lease]]:
        """Claim rows a crash may have left half-way, oldest first, from behind row `after`.

        Those are, where nobody holds them: completed; terminal with freed_at None; unclean; held
        by who has died; with `receiving` also initiated and receiving. A terminal row that is
        unclean and was freed once comes again SECOND_PASS_S after that, for what arrived late.
        Rows that another claim is looking at just now are skipped, not waited for.
        """

    # --- the outbox

    async def claim_events(self, limit: int, lasts_s: float) -> list[Event]:
        """Take events to deliver for `lasts_s`; then anybody may have them again.

        Those that are due for longest, given by their ids; not delivered, given up or claimed; and
        in order: of an upload none while an earlier one is neither delivered nor given up. Counts
        the attempt.
        """

    async def settle_events(self, attempts: Sequence[Attempt]) -> None:
        """Write down how attempts went, in one round trip.

        One that was claimed again since by somebody else, or is no longer due since
        event.due_at, is left alone. Idempotent.
        """

    async def settle_unwanted(
        self, limit: int, unwanted: Collection[tuple[UploadState, Outcome | None]]
    ) -> int:
        """Let up to `limit` events be delivered that nobody wants, by their kind and outcome; tell
        how many.

        Of those that are due and not claimed, without a job of their own. Idempotent.
        """

    async def retry_event(self, event_id: int) -> bool:
        """Let a dead letter be tried again from now on, as if it were new; False: it is none."""

    async def purge_events(self, limit: int, *, delivered_s: float) -> int:
        """Remove events that were delivered more than `delivered_s` ago; tell how many.

        The newest event of all may stay.
        """

    async def check(self) -> None:
        """Raise StateUnavailable or StorageFull unless a write would succeed now."""


class JobQueue(Port):
    """A queue in the same database as the state (procrastinate)."""

    async def defer(self, event: Event, target: str, *, queue: str, task: str, lock: str) -> bool:
        """Enqueue event.job as `task`, and write down that `target` has it, atomically.

        So it is enqueued once, however often the event is delivered. False: the event is not this
        attempt's any more. Raises: StateUnavailable (may have taken effect; the event's row tells),
        DeliveryFailed (the queue is not there, or refuses).
        """


# --- objects -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What a store takes as a part; all sizes in bytes.

    min_part_size: of every part but the last. equal_parts: all but the last have one size.
    parallel_parts: how many parts of one upload may be on their way at once. keeps_receipts:
    complete() needs the receipt of every part; otherwise parts are at their place already.
    reserved_numbers: how many part numbers a lease sets aside at a time; 0: parts have none.
    """

    min_part_size: int
    max_part_size: int
    max_parts: int
    preferred_part_size: int
    max_object_size: int
    equal_parts: bool = False
    parallel_parts: int = 1
    keeps_receipts: bool = True
    reserved_numbers: int = 0


@dataclass(frozen=True, slots=True)
class PartReceipt:
    """The store has a part, durably. is_object: the part was the whole, and the object exists.

    multipart_id: of the multipart upload the part belongs to, if the store has such.
    """

    size: int
    crc64: int
    etag: str | None = None
    is_object: bool = False
    multipart_id: str | None = None


class PartWriter(Port):
    """One part on its way into the store. One task uses it; write, ..., then finish or discard."""

    @property
    def size(self) -> int:
        """Bytes written or kept so far."""

    @property
    def crc64(self) -> int:
        """Their CRC-64/NVME."""

    def write(self, block: memoryview) -> Awaitable[None]:
        """Begin to take `block` behind what was written; await before reusing its memory.

        At most one write may be pending. Raises (awaited): StorageFull, StoreUnavailable,
        BytesMissing (what the row says is committed is not there).
        """

    def keep(self, block: bytearray, size: int) -> bool:
        """Take over the pool's block with its first `size` bytes, without copying them.

        False: this writer does not want it; write() it. True: the writer gives it back to the
        pool itself. Not while a write is pending.
        """

    async def put_away(self) -> None:
        """Give blocks back that were kept, for the sender pauses; their bytes go to a file.

        Not while a write is pending. Raises: StorageFull, StoreUnavailable.
        """

    async def finish(self, rest: memoryview, *, completes: bool) -> PartReceipt:
        """Take `rest` too, and make the whole part durable.

        completes: the last byte of the upload is in this part. When it is also the first part,
        the object itself comes into being (receipt.is_object). Raises: BytesMissing (there is an
        object of other bytes at the key, and it may not be replaced); as write(); the part then
        counts as not stored, whatever of it was stored is harmless, and read_back() still has
        its bytes. Cancelled: as raised.
        """

    def read_back(self, start: int, rest: memoryview) -> AsyncGenerator[memoryview, None]:
        """Give the bytes from `start` of the part on, `rest` at the end, before discard().

        Only of stores whose limits let a tail come into being. Raises: StorageFull.
        """

    async def discard(self) -> None:
        """Give the part up and free what it took; never raises, may be called more than once.

        Also after finish() has returned.
        """


class UploadWriter(Port):
    """What one lease writes of one upload."""

    def open_part(self, upload: Upload, *, number: int, start: int) -> PartWriter:
        """Prepare to write part `number` at byte `start`; no I/O yet. upload: as last committed.

        A part that follows another one in the same request is opened once a write to that one
        has been awaited, and may overtake it from then on.

        Only the holder of the lease may do so, and never while another writer of the same
        bytes has a thread or call under way.
        """

    @property
    def leaves(self) -> bool:
        """Tell whether there may be something that no receipt tells of: undo() is to be called."""

    async def undo(self, upload: Upload, *, holds: bool) -> bool:
        """Remove what was stored here that `upload`, the row as last committed, does not have.

        Once every part has been finished or discarded. holds: the lease is still held; without
        it nothing is touched that another lease may count on. Tells whether nothing is left,
        and never raises.
        """


Confirm = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Joined:
    """What a final upload is made of, as its row has to have it. is_object: the object exists."""

    parts: tuple[Part, ...] = ()
    multipart_id: str | None = None
    is_object: bool = False


class ObjectStore(Port):
    """Where bytes end up. Keys are made from the id and never from what users say."""

    @property
    def limits(self) -> StoreLimits:
        """The limits; the same for the life of the process."""

    def make_key(self, upload: Upload) -> str | None:
        """Give the key of a new upload, for the row; None: the store needs none."""

    def open_writer(self, upload: Upload, *, confirm: Confirm | None = None) -> UploadWriter:
        """Prepare to write under a lease; no I/O.

        confirm: raises unless the lease is still held. With it an object of other bytes, which
        somebody left at the key, is looked at, confirmed to be no later holder's, and replaced.
        Without it such an object stays, and is BytesMissing.
        """

    async def complete(
        self, upload: Upload, parts: Sequence[Part], *, confirm: Confirm | None = None
    ) -> int | None:
        """Make the object of upload.length bytes out of its stored parts. Idempotent, durable.

        confirm: as for open_writer().

        On return the object has been found to be what the row says: its size, and its CRC as far
        as the store can tell. Gives the CRC of the object: that of the row, or where the row has
        none what the store tells; None: it does not. Raises: BytesMissing (a committed byte is not
        there), PartsDiffer (of a direct upload: parts are not there as reported any more),
        StoreUnavailable, StorageFull.
        """

    async def join(self, upload: Upload, sources: Sequence[Upload], *, confirm: Confirm) -> Joined:
        """Make the bytes of the finished `sources`, end to end, those of `upload`, durably.

        For the holder of the lease of a final upload of which nothing is committed; what an
        earlier try left does no harm. upload.length and crc64 are those of the whole. The object
        comes into being with complete(), once the row has what this gives, unless is_object. A
        source may be given more than once, may be empty, and is not changed. Raises: BytesMissing
        (a source is not there), what confirm raises, StoreUnavailable, StorageFull. Cancelled: as
        raised; what was made is then removed here or by recover().
        """

    async def recover(self, upload: Upload, *, confirm: Confirm) -> None:
        """Bring what a crash left of an upload back to what its row has. Idempotent.

        For the holder of the lease; upload is unfinished or finished, but not terminal. Looks
        first, then awaits `confirm`, which raises unless the lease is still held, and removes
        only what it had seen before: none of that can be a later holder's. An object at the key
        of an unfinished upload stays: who sends the same bytes again adopts it. Raises: what
        confirm raises, BytesMissing, StoreUnavailable, StorageFull. Cancelled: as if not called.
        """

    async def free(self, upload: Upload) -> None:
        """Remove object, parts and parked tails. Idempotent. Raises: StoreUnavailable."""

    def read(self, upload: Upload, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Stream bytes [start, end) of a finished object.

        Raises before the first item: BytesMissing, StoreUnavailable.
        """

    async def presign(self, upload: Upload, *, method: str) -> str | None:
        """Give a URL under which the object itself can be read for a while; None: no such."""

    async def check(self) -> None:
        """Raise StoreUnavailable or StorageFull unless a write would succeed and last now."""


# --- direct uploads ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that whoever has it may make until expires_at, without any other credentials.

    url: absolute, or a path on this server. headers: to be sent exactly so.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class FoundPart:
    """What a store tells of a part that a client has sent. crc64: None: it does not tell."""

    size: int
    etag: str
    crc64: int | None


class DirectParts(Port):
    """The side of an object store that clients talk to, with requests that were signed for them."""

    async def begin(self, upload: Upload) -> str | None:
        """Let parts be sent; give the multipart id for the row; None: the store needs none.

        For the holder of the lease. What a begin leaves that no row came to tell of,
        ObjectStore.recover() removes. Raises: StoreUnavailable, StorageFull.
        """

    async def sign_parts(
        self, upload: Upload, parts: Sequence[Part], *, expires_at: datetime
    ) -> list[SignedRequest]:
        """Sign the request that sends each of `parts`, bound to its method, place and size.

        upload: begun. Raises: StoreUnavailable (credentials cannot be had).
        """

    async def find_stored(self, upload: Upload) -> dict[int, FoundPart] | None:
        """Look at what clients have sent, by part number; None: the rows of the parts tell.

        Raises: StoreUnavailable.
        """


class PartFile(Port):
    """One part of a direct upload while this server receives it. Used by one task."""

    def write(self, block: memoryview) -> Awaitable[None]:
        """Begin to write `block` behind what was written, at the part's place; await before
        reusing its memory.

        At most one write may be pending. Raises (awaited): StorageFull, StoreUnavailable,
        BytesMissing (stored parts of the upload are not there any more).
        """

    async def finish(self) -> Part:
        """Make all of the part durable; give it with its CRC and ETag. Raises: as write."""

    async def close(self) -> None:
        """End it, finished or not; never raises. On return no thread uses it any more."""


class PartFiles(Port):
    """A store whose signed requests come to this server: every part at its place in one file."""

    def open_part(self, upload: Upload, part: Part) -> PartFile:
        """Prepare to receive; no I/O. One at a time of each part of an upload, and only while the
        row says that it is not stored.
        """

    def check_signature(
        self,
        upload_id: UploadId,
        number: int,
        *,
        method: str,
        query: Mapping[str, str],
        now: datetime,
    ) -> int:
        """Give the size of the part that a request was signed for. Raises: SignatureRefused."""


# --- the application's part ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of the application says of the content of an upload.

    code, message: why it is refused, for the client; None, None: it is accepted.
    """

    code: str | None = None
    message: str | None = None

    @property
    def is_accepted(self) -> bool:
        return self.code is None


OpenStream = Callable[..., AsyncGenerator[bytes, None]]  # (start=0, end=None)


class Verifier(Port):
    """A check of the application, before an upload is verified: all its bytes are in the store."""

    async def __call__(self, upload: Upload, open_stream: OpenStream) -> Verdict:
        """Look at the content. May be called again for the same upload, on any node.

        Raises: CheckPostponed (to be called again later); anything else it raises counts as that.
        """


class Gate(Port):
    """The application's say before something happens: tusd's blocking hooks."""

    async def before_create(self, upload: Upload, principal: "Principal") -> Upload:
        """Give the row to create: `upload`, with metadata that the application may have changed.

        Raises: RefusedByHook, CheckPostponed (the application does not answer).
        """

    async def before_terminate(self, upload: Upload, principal: "Principal") -> None:
        """Return if the upload may be terminated. Raises: as before_create."""


class JobTarget(Port):
    """Where jobs and events are delivered. name: in Event.done; the same on every node."""

    @property
    def name(self) -> str: ...

    def wants(self, event: Event) -> bool:
        """Tell whether the event is for this target: by its kind, outcome and job alone."""

    async def deliver(
        self, event: Event, upload: Upload | None, history: "list[StatusChange]"
    ) -> None:
        """Deliver; at least once, so it may have been delivered before.

        upload: as it is now; None: its row has been removed. Raises: DeliveryFailed.
        """


# --- tails ---------------------------------------------------------------------------------------


class TailStore(Port):
    """Where tails are: on the disk of this node, or parked in the object store."""

    def read(self, upload: Upload) -> AsyncGenerator[memoryview, None]:
        """Give the bytes of upload.tail; each block is good until the next one is asked for.

        At the end they have been found to be what the row says. Raises: TailMissing (absent,
        shorter, or different; also after some blocks), StoreUnavailable. Changes nothing.
        """

    async def save(
        self, upload: Upload, *, generation: int, kept: int, content: AsyncIterator[memoryview]
    ) -> None:
        """Make the tail of `generation` its first `kept` bytes followed by `content`, durably.

        What was behind them was never acknowledged. kept > 0: they were read just before, by the
        same lease. Raises: StorageFull, StoreUnavailable; the first `kept` bytes are then still
        there, and must not be trusted to last where an fsync failed.
        """

    async def remove(self, upload: Upload, tail: Tail) -> bool:
        """Remove a tail that is no longer the row's; tell whether it is gone. Idempotent.

        Never raises.
        """

    async def check(self) -> None:
        """Raise StoreUnavailable or StorageFull unless a tail could be saved now."""


@dataclass(frozen=True, slots=True)
class FoundTail:
    """A file of a tail, found on disk. age_s: since it was last written to."""

    upload_id: UploadId
    generation: int
    age_s: float


class TailFiles(Port):
    """The tail files of this node, whether a row has them or not."""

    async def find_all(self) -> list[FoundTail]:
        """Find every file of a tail. Files of other names are nobody's business."""

    async def remove_found(self, upload_id: UploadId, generation: int) -> None:
        """Remove a file that find_all() has found. Idempotent. Never raises."""


@dataclass(frozen=True, slots=True)
class FoundPartial:
    """A file of what has arrived of an upload, found on disk. age_s: since it was last written."""

    upload_id: UploadId
    age_s: float


class PartialFiles(Port):
    """The files of unfinished uploads in a store on this disk, whether a row has them or not."""

    async def find_partials(self) -> list[FoundPartial]:
        """Find every such file. Files of other names are nobody's business.

        Raises: StoreUnavailable.
        """

    async def remove_partial(self, upload_id: UploadId) -> None:
        """Remove a file that find_partials() has found, never a finished object. Idempotent.

        Raises: StoreUnavailable.
        """


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


class Blocks(Port):
    """Lends memory for bodies; see engine.buffers."""

    def take(self, wanted_bytes: int) -> bytearray:
        """Give a block of at least `wanted_bytes`, or a smaller one beyond the budget."""

    def give(self, block: bytearray) -> None:
        """Take a block back, when no thread and no connection uses it any more."""


class Threads(Port):
    """Runs blocking steps beside the loop."""

    def run(self, step: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `step` in a thread; it runs to its end even if nobody awaits the future."""


class Operation(StrEnum):
    """What a request wants to do, as an authorizer sees it."""

    CREATE = "create"
    STATUS = "status"
    APPEND = "append"
    TERMINATE = "terminate"
    DOWNLOAD = "download"
    CONCATENATE = "concatenate"  # use a partial upload as part of a final one
    SIGN = "sign"
    COMPLETE = "complete"
    JUDGE = "judge"  # accept or reject
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows of who asks: effective method, path, header fields, peer address."""

    method: str
    path: str
    headers: Mapping[str, str]
    client: str | None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `name` becomes the owner of what it creates; None: anonymous.

    is_application: the application itself, by its token or in its own process. request: what it
    asks by, where somebody wants to know (see Gate).
    """

    name: str | None = None
    is_application: bool = False
    request: Credentials | None = None


ANONYMOUS = Principal()
APPLICATION = Principal(is_application=True)


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
        """Return if `principal` may; upload is None for CREATE and LIST only.

        Raises: Forbidden, or UploadNotFound to hide another user's upload.
        """


class Clock(Port):
    """In-process time, so that tests own it."""

    def now(self) -> datetime:
        """Aware UTC."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
