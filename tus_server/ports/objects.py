"""The bytes of uploads, in parts and as finished objects."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol as Port

from tus_server.core.upload import Part, Upload


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
