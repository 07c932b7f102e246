"""The node's own files: tails, and what is not yet an object."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol as Port

from tus_server.core.ids import UploadId
from tus_server.core.upload import Tail, Upload


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
