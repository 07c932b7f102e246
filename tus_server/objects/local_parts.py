"""Writing on local disk: what one lease writes, and one part on its way to its place in a file."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from tus_server.core.checksums import EMPTY_CRC64, crc64
from tus_server.core.errors import BytesMissing, StorageFull, StoreUnavailable
from tus_server.core.states import UNFINISHED
from tus_server.core.upload import Upload
from tus_server.disk import files
from tus_server.disk.files import disk_errors
from tus_server.disk.threads import FileThreads
from tus_server.folders import sync_folder
from tus_server.objects.paths import Paths
from tus_server.ports import PartReceipt, PartWriter

T = TypeVar("T")


class LocalDisk:
    """What the store and its writers share: where files are, and threads that work on them.

    failed_syncs: how many syncs of files that several parts are written to at once have failed.
    """

    def __init__(self, paths: Paths, threads: FileThreads, *, durable: bool) -> None:
        self.paths = paths
        self.durable = durable
        self.folders = files.Folders(str(paths.root), durable=durable)
        self.failed_syncs = 0
        self._threads = threads

    def run(self, step: Callable[[], T]) -> "asyncio.Future[T]":
        """Start a blocking step in a thread, its errors translated."""

        def translated() -> T:
            with disk_errors():
                return step()

        return self._threads.run(translated)


class LocalWriter:
    """See ports.UploadWriter."""

    def __init__(self, disk: LocalDisk, recover: Callable[[Upload], Awaitable[None]]) -> None:
        self._disk = disk
        self._recover = recover
        # What its parts have left on disk:
        self.gave_up = False  # bytes nobody will commit
        self.reached = 0  # the end of the last part stored
        self.made_object = False

    def open_part(self, upload: Upload, *, number: int, start: int) -> PartWriter:
        return _LocalPart(self._disk, self, upload, start)

    leaves = False

    async def undo(self, upload: Upload, *, holds: bool) -> bool:
        if not self._left_something(upload):
            return True
        if not holds:
            return False
        try:
            await self._recover(upload)
        except (BytesMissing, StorageFull, StoreUnavailable):
            return False  # the next writer cuts it
        return True

    def _left_something(self, upload: Upload) -> bool:
        if upload.state not in UNFINISHED:
            return self.gave_up
        return self.gave_up or self.made_object or self.reached > upload.committed_bytes


class _LocalPart:
    """See ports.PartWriter.

    Its steps run one at a time, and none runs once it was given up: a request that is cancelled
    leaves a step behind, which must neither write to a descriptor that is another file's by then
    nor read memory that was lent again.
    """

    def __init__(self, disk: LocalDisk, writer: LocalWriter, upload: Upload, start: int) -> None:
        self._disk = disk
        self._writer = writer
        self._upload = upload
        self._start = start
        self._size = 0
        self._crc64 = EMPTY_CRC64
        self._descriptor = -1
        self._alone = threading.Lock()
        self._given_up = False
        self._begun = False
        self._finished = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def crc64(self) -> int:
        return self._crc64

    def write(self, block: memoryview) -> Awaitable[None]:
        self._begun = True
        return self._disk.run(lambda: self._write_alone(block))

    def keep(self, block: bytearray, size: int) -> bool:
        return False

    async def put_away(self) -> None:
        pass  # nothing is kept

    async def finish(self, rest: memoryview, *, completes: bool) -> PartReceipt:
        self._begun = True
        receipt = await self._disk.run(lambda: self._finish(rest, completes=completes))
        self._finished = True
        self._writer.reached = max(self._writer.reached, self._start + receipt.size)
        self._writer.made_object |= receipt.is_object
        return receipt

    def read_back(self, start: int, rest: memoryview) -> AsyncGenerator[memoryview, None]:
        raise AssertionError("this store takes parts of any size, so there is never a tail")

    async def discard(self) -> None:
        if self._finished or not self._begun:
            return
        self._writer.gave_up = True
        try:
            await self._disk.run(self._give_up)
        except (StorageFull, StoreUnavailable):
            pass  # given up anyway; the bytes are behind the committed offset

    def _write_alone(self, block: memoryview) -> None:
        with self._alone:
            self._write(block)

    def _write(self, block: memoryview) -> None:
        if self._descriptor < 0:
            self._open()
        files.write_at(self._descriptor, block, self._start + self._size)
        self._crc64 = crc64(block, self._crc64)
        self._size += len(block)

    def _finish(self, rest: memoryview, *, completes: bool) -> PartReceipt:
        is_object = completes and self._start == 0
        disk, upload = self._disk, self._upload
        with self._alone:
            self._write(rest)
            if disk.durable:
                files.sync_content(self._descriptor)
            if is_object:
                os.rename(disk.paths.partial(upload.id), disk.paths.final(upload.id))
            if self._start == 0 and disk.durable:
                sync_folder(disk.paths.folder(upload.id))
            self._close()
        return PartReceipt(self._size, self._crc64, is_object=is_object)

    def _open(self) -> None:
        if self._given_up:
            raise StoreUnavailable("This part was given up.")
        path = self._disk.paths.partial(self._upload.id)
        if self._start == 0:
            self._descriptor = self._disk.folders.create_file(path)
            return
        committed = self._upload.committed_bytes
        try:
            self._descriptor = files.open_for_writing(path)
        except FileNotFoundError as exc:
            raise bytes_missing(self._upload, None) from exc
        size = os.fstat(self._descriptor).st_size
        if size < committed:
            raise bytes_missing(self._upload, size)
        if self._start == committed < size:
            # What a failed or killed writer left behind the committed bytes was never
            # acknowledged. Behind a part under way (start > committed) there is no such excess.
            os.ftruncate(self._descriptor, committed)

    def _give_up(self) -> None:
        with self._alone:
            self._given_up = True
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def bytes_missing(upload: Upload, size: int | None) -> BytesMissing:
    found = "no file" if size is None else f"a file of {size}"
    return BytesMissing(
        f"Upload {upload.id} has {upload.committed_bytes} committed bytes, the disk has {found}."
    )
