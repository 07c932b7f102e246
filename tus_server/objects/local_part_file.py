"""One part of a direct upload on local disk, written at its place in the sparse `.partial` file."""

import os
import threading
from collections.abc import Awaitable
from dataclasses import replace

from tus_server.core.checksums import EMPTY_CRC64, crc64
from tus_server.core.errors import StorageFull, StoreUnavailable
from tus_server.core.upload import Part, Upload
from tus_server.disk import files
from tus_server.disk.threads import ended
from tus_server.folders import sync_folder
from tus_server.objects.local_parts import LocalDisk, bytes_missing


class LocalPartFile:
    """See ports.PartFile. Steps run one at a time, and none once it is closed: as _LocalPart's."""

    def __init__(self, disk: LocalDisk, upload: Upload, part: Part) -> None:
        self._disk = disk
        self._upload = upload
        self._part = part
        self._size = 0
        self._crc64 = EMPTY_CRC64
        self._descriptor = -1
        self._alone = threading.Lock()
        self._is_open = True
        self._has_steps = False  # to be waited for
        self._failed_syncs = 0  # before it

    def write(self, block: memoryview) -> Awaitable[None]:
        self._has_steps = True
        return self._disk.run(lambda: self._write(block))

    async def finish(self) -> Part:
        self._has_steps = True
        await self._disk.run(self._finish)
        self._has_steps = False
        return replace(self._part, crc64=self._crc64, etag=f'"{self._crc64:016x}"')

    async def close(self) -> None:
        if not self._has_steps:
            return
        try:
            await ended(self._disk.run(self._close))
        except (StorageFull, StoreUnavailable):
            pass  # what it wrote counts only if finish() has returned

    def _write(self, block: memoryview) -> None:
        with self._alone:
            self._open()
            # Behind its end is the next part, which may be stored.
            assert self._size + len(block) <= self._part.size
            files.write_at(self._descriptor, block, self._part.start + self._size)
            self._crc64 = crc64(block, self._crc64)
            self._size += len(block)

    def _finish(self) -> None:
        with self._alone:
            self._open()
            assert self._size == self._part.size
            if self._disk.durable:
                self._sync()
            self._close_file()

    def _sync(self) -> None:
        disk = self._disk
        try:
            files.sync_content(self._descriptor)
        except OSError:
            disk.failed_syncs += 1
            raise
        # One that fails may take with it what others have written to the same file until then.
        if disk.failed_syncs != self._failed_syncs:
            raise StoreUnavailable("An fsync of another part failed meanwhile.")
        if not self._upload.committed_bytes:
            # Whichever part was first recorded has made the name last for all.
            sync_folder(disk.paths.folder(self._upload.id))

    def _open(self) -> None:
        if not self._is_open:
            raise StoreUnavailable("This part was given up.")
        if self._descriptor >= 0:
            return
        self._failed_syncs = self._disk.failed_syncs
        path, committed = self._disk.paths.partial(self._upload.id), self._upload.committed_bytes
        if not committed:
            self._descriptor = self._disk.folders.open_file(path)
            return
        # A new file would have a hole where stored parts were.
        try:
            self._descriptor = files.open_for_writing(path)
        except FileNotFoundError as exc:
            raise bytes_missing(self._upload, None) from exc
        size = os.fstat(self._descriptor).st_size
        if size < committed:
            raise bytes_missing(self._upload, size)

    def _close(self) -> None:
        with self._alone:
            self._close_file()

    def _close_file(self) -> None:
        self._is_open = False
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
