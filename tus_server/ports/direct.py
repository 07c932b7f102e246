"""Parts that clients send to the store by themselves."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol as Port

from tus_server.core.ids import UploadId
from tus_server.core.upload import Part, Upload


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
