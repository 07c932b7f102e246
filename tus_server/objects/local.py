"""ObjectStore on local disk: parts are written at their place in one `.partial` file.

Durable when: a part after fsync of the file (and of the folder, when its name is new); the object
after rename and fsync of the folder. Nothing is stitched, so there are no receipts to keep and a
part may have any size. One process owns the files: the data dir's lock sees to that.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import aiofiles

from tus_server.core.checksums import EMPTY_CRC64, crc64
from tus_server.core.errors import BytesMissing, StorageFull, StoreUnavailable
from tus_server.core.parts import MIB
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER, Part, Upload
from tus_server.folders import sync_folder
from tus_server.objects import files
from tus_server.objects.files import disk_errors
from tus_server.objects.paths import Paths
from tus_server.objects.threads import FileThreads
from tus_server.ports import PartReceipt, PartWriter, StoreLimits

READ_SIZE = 256 * 1024
T = TypeVar("T")


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
        self.durable = durable
        self.folders = files.Folders(str(root), durable=durable)
        self._threads = threads
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

    def open_part(self, upload: Upload, *, number: int, start: int) -> PartWriter:
        return _LocalPart(self, upload, start)

    async def complete(self, upload: Upload, parts: Sequence[Part]) -> None:
        await self.run(lambda: self._complete(upload))

    async def recover(self, upload: Upload) -> None:
        await self.run(lambda: self._recover(upload))

    async def free(self, upload: Upload) -> None:
        await self.run(lambda: self._free(upload))

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

    async def check(self) -> None:
        await self.run(self._probe)

    def run(self, step: Callable[[], T]) -> "asyncio.Future[T]":
        """Start a blocking step in a thread, its errors translated."""

        def translated() -> T:
            with disk_errors():
                return step()

        return self._threads.run(translated)

    def _complete(self, upload: Upload) -> None:
        partial, final = self.paths.partial(upload.id), self.paths.final(upload.id)
        size = files.size_of(partial)
        if size is None:
            # A crash came between the rename and the commit that tells of it.
            size = files.size_of(final)
            if size != upload.length:
                raise _bytes_missing(upload, size)
        elif size < upload.committed_bytes:
            raise _bytes_missing(upload, size)
        else:
            if size > upload.committed_bytes:
                self._cut(partial, upload.committed_bytes)
            os.rename(partial, final)
        if self.durable:
            sync_folder(self.paths.folder(upload.id))

    def _recover(self, upload: Upload) -> None:
        partial = self.paths.partial(upload.id)
        if upload.committed_bytes == 0:
            # Also an object whose creation was never committed.
            files.remove(partial)
            files.remove(self.paths.final(upload.id))
            return
        size = files.size_of(partial)
        if size is None or size < upload.committed_bytes:
            raise _bytes_missing(upload, size)
        if size > upload.committed_bytes:
            self._cut(partial, upload.committed_bytes)

    def _cut(self, path: str, size: int) -> None:
        """Drop what was written behind `size` and never acknowledged; durably."""
        descriptor = files.open_for_writing(path)
        try:
            os.ftruncate(descriptor, size)
            if self.durable:
                files.sync_content(descriptor)
        finally:
            os.close(descriptor)

    def _free(self, upload: Upload) -> None:
        removed = [
            files.remove(self.paths.partial(upload.id)),
            files.remove(self.paths.final(upload.id)),
        ]
        if self.durable and any(removed):
            sync_folder(self.paths.folder(upload.id))

    def _probe(self) -> None:
        path = self.paths.probe
        descriptor = self.folders.create_file(path)
        try:
            files.write_at(descriptor, memoryview(bytes(4096)), 0)
            if self.durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
            files.remove(path)


class _LocalPart:
    """See ports.PartWriter."""

    def __init__(self, store: LocalObjects, upload: Upload, start: int) -> None:
        self._store = store
        self._upload = upload
        self._start = start
        self._size = 0
        self._crc64 = EMPTY_CRC64
        self._descriptor = -1

    def write(self, block: memoryview) -> Awaitable[None]:
        return self._store.run(lambda: self._write(block))

    async def finish(self, rest: memoryview, *, completes: bool) -> PartReceipt:
        return await self._store.run(lambda: self._finish(rest, completes=completes))

    async def discard(self) -> None:
        try:
            await self._store.run(self._close)
        except (StorageFull, StoreUnavailable):
            pass  # given up anyway; the bytes are behind the committed offset

    def _write(self, block: memoryview) -> None:
        if self._descriptor < 0:
            self._open()
        files.write_at(self._descriptor, block, self._start + self._size)
        self._crc64 = crc64(block, self._crc64)
        self._size += len(block)

    def _finish(self, rest: memoryview, *, completes: bool) -> PartReceipt:
        self._write(rest)
        is_object = completes and self._start == 0
        store, upload = self._store, self._upload
        if store.durable:
            files.sync_content(self._descriptor)
        if is_object:
            os.rename(store.paths.partial(upload.id), store.paths.final(upload.id))
        if self._start == 0 and store.durable:
            sync_folder(store.paths.folder(upload.id))
        self._close()
        return PartReceipt(self._size, self._crc64, is_object=is_object)

    def _open(self) -> None:
        path = self._store.paths.partial(self._upload.id)
        if self._start == 0:
            self._descriptor = self._store.folders.create_file(path)
            return
        committed = self._upload.committed_bytes
        try:
            self._descriptor = files.open_for_writing(path)
        except FileNotFoundError as exc:
            raise _bytes_missing(self._upload, None) from exc
        size = os.fstat(self._descriptor).st_size
        if size < committed:
            raise _bytes_missing(self._upload, size)
        if self._start == committed < size:
            # What a failed or killed writer left behind the committed bytes was never
            # acknowledged. Behind a part under way (start > committed) there is no such excess.
            os.ftruncate(self._descriptor, committed)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _bytes_missing(upload: Upload, size: int | None) -> BytesMissing:
    found = "no file" if size is None else f"a file of {size}"
    return BytesMissing(
        f"Upload {upload.id} has {upload.committed_bytes} committed bytes, the disk has {found}."
    )
