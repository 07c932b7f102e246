"""ObjectStore on local disk: parts are written at their place in one `.partial` file.

Durable when: a part after fsync of the file (and of the folder, when its name is new); the object
after rename and fsync of the folder. Nothing is stitched, so there are no receipts to keep and a
part may have any size. One process owns the files: the data dir's lock sees to that.
"""

import functools
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import aiofiles

from tus_server.core.errors import BytesMissing, StoreUnavailable
from tus_server.core.ids import UploadId
from tus_server.core.parts import MIB
from tus_server.core.states import FINISHED, UNFINISHED
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER, Part, Upload
from tus_server.disk import files
from tus_server.disk.files import disk_errors
from tus_server.disk.threads import FileThreads, ended
from tus_server.folders import sync_folder
from tus_server.objects import local_join
from tus_server.objects.local_partials import find_folders, find_in
from tus_server.objects.local_parts import LocalDisk, LocalWriter, bytes_missing
from tus_server.objects.paths import Paths
from tus_server.ports import Confirm, FoundPartial, Joined, StoreLimits, UploadWriter

READ_SIZE = 256 * 1024

Surplus = dict[str, int | None]  # by path, how many bytes of the file stay; None: it goes


class LocalObjects:
    """See ports.ObjectStore."""

    def __init__(
        self,
        root: Path,
        threads: FileThreads,
        *,
        part_size_bytes: int = 32 * MIB,
        durable: bool = True,
    ) -> None:
        self.paths = Paths(root)
        self.disk = LocalDisk(self.paths, threads, durable=durable)
        self._limits = StoreLimits(
            min_part_size=1,
            max_part_size=MAX_ANNOUNCED_INTEGER,
            max_parts=MAX_ANNOUNCED_INTEGER,
            preferred_part_size=part_size_bytes,
            max_object_size=MAX_ANNOUNCED_INTEGER,
            # One part may be fsynced while the next is received.
            parallel_parts=2,
            keeps_receipts=False,
        )

    @property
    def limits(self) -> StoreLimits:
        return self._limits

    def make_key(self, upload: Upload) -> str | None:
        return None

    def open_writer(self, upload: Upload, *, confirm: Confirm | None = None) -> UploadWriter:
        return LocalWriter(self.disk, self._recover)

    async def complete(
        self, upload: Upload, parts: Sequence[Part], *, confirm: Confirm | None = None
    ) -> int | None:
        await self.disk.run(lambda: self._complete(upload))
        return upload.crc64

    async def join(self, upload: Upload, sources: Sequence[Upload], *, confirm: Confirm) -> Joined:
        await local_join.join(self.disk, upload, sources, confirm)
        return Joined()

    async def recover(self, upload: Upload, *, confirm: Confirm) -> None:
        surplus = await self.disk.run(lambda: self._find_surplus(upload))
        await confirm()
        if surplus:
            await self.disk.run(lambda: self._remove(surplus))

    async def free(self, upload: Upload) -> None:
        await self.disk.run(lambda: self._free(upload))

    async def read(self, upload: Upload, start: int, end: int) -> AsyncGenerator[bytes, None]:
        path = self.paths.final(upload.id)
        try:
            with disk_errors():
                file = await aiofiles.open(path, "rb", buffering=0)
        except StoreUnavailable as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                raise BytesMissing(f"The object of upload {upload.id} is gone.") from exc
            raise
        try:
            await file.seek(start)
            while start < end:
                with disk_errors():
                    block = await file.read(min(READ_SIZE, end - start))
                if not block:
                    raise BytesMissing(f"The object of upload {upload.id} is too short.")
                start += len(block)
                yield block
        finally:
            await file.close()

    async def presign(self, upload: Upload, *, method: str) -> str | None:
        return None

    async def check(self) -> None:
        await self.disk.run(self._probe)

    async def find_partials(self) -> list[FoundPartial]:
        """See ports.PartialFiles. A folder at a time: finished objects are next to them."""
        found: list[FoundPartial] = []
        for folder in await self.disk.run(lambda: find_folders(Path(self.paths.objects))):
            found += await self.disk.run(functools.partial(find_in, folder))
        return found

    async def remove_partial(self, upload_id: UploadId) -> None:
        """See ports.PartialFiles."""
        await ended(self.disk.run(lambda: files.remove(self.paths.partial(upload_id))))

    def _complete(self, upload: Upload) -> None:
        partial, final = self.paths.partial(upload.id), self.paths.final(upload.id)
        size = files.size_of(partial)
        if size is None:
            # A crash came between the rename and the commit that tells of it.
            size = files.size_of(final)
            if size != upload.length:
                raise bytes_missing(upload, size)
        elif size < upload.committed_bytes:
            # Also of a direct upload, all parts of which are recorded: the last one is not there.
            raise bytes_missing(upload, size)
        else:
            if size > upload.committed_bytes:
                self._cut(partial, upload.committed_bytes)
            os.rename(partial, final)
        if self.disk.durable:
            sync_folder(self.paths.folder(upload.id))

    async def _recover(self, upload: Upload) -> None:
        """Do the same for a writer, which knows that the files are its own."""
        await self.disk.run(lambda: self._remove(self._find_surplus(upload)))

    def _find_surplus(self, upload: Upload) -> Surplus:
        """Find what the row does not have. Raises: BytesMissing."""
        partial, final = self.paths.partial(upload.id), self.paths.final(upload.id)
        if upload.state in FINISHED:
            return _there(partial)
        if upload.state in UNFINISHED and upload.committed_bytes == 0:
            if upload.is_direct:
                return {}  # parts are on their way, or were: they are sent again to their places
            # Also an object whose creation was never committed.
            return _there(partial, final)
        size = files.size_of(partial)
        if size is None and upload.state not in UNFINISHED:
            # A crash came between the rename and the commit that tells of it.
            size = files.size_of(final)
            if size == upload.length:
                return {}
        if size is None or size < upload.committed_bytes:
            raise bytes_missing(upload, size)
        if upload.is_direct:
            return {}  # where it ends says nothing: parts arrive in any order
        return {partial: upload.committed_bytes} if size > upload.committed_bytes else {}

    def _remove(self, surplus: Surplus) -> None:
        for path, kept in surplus.items():
            if kept is None:
                files.remove(path)
            else:
                self._cut(path, kept)

    def _cut(self, path: str, size: int) -> None:
        """Drop what was written behind `size` and never acknowledged; durably."""
        descriptor = files.open_for_writing(path)
        try:
            os.ftruncate(descriptor, size)
            if self.disk.durable:
                files.sync_content(descriptor)
        finally:
            os.close(descriptor)

    def _free(self, upload: Upload) -> None:
        removed = [
            files.remove(self.paths.partial(upload.id)),
            files.remove(self.paths.final(upload.id)),
        ]
        if self.disk.durable and any(removed):
            sync_folder(self.paths.folder(upload.id))

    def _probe(self) -> None:
        path = self.paths.probe
        descriptor = self.disk.folders.create_file(path)
        try:
            files.write_at(descriptor, memoryview(bytes(4096)), 0)
            if self.disk.durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
            files.remove(path)


def _there(*paths: str) -> Surplus:
    """Give those of the files that exist, as a surplus to be removed."""
    return {path: None for path in paths if files.size_of(path) is not None}
