"""Joining finished objects on local disk: the kernel copies them, no byte passes through us."""

import errno
import os
from collections.abc import Sequence

from tus_server.core.errors import BytesMissing
from tus_server.core.parts import MIB
from tus_server.core.upload import Upload
from tus_server.disk import files
from tus_server.disk.threads import ended
from tus_server.folders import sync_folder
from tus_server.objects.local_parts import LocalDisk
from tus_server.ports import Confirm

# One step in a thread: others get their turn, and their fsyncs do not wait for gigabytes.
STEP_SIZE = 128 * MIB
BLOCK_SIZE = MIB
# What a kernel or a file system says that does not copy in this way, or not between these files.
_NOT_SO = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


async def join(
    disk: LocalDisk, upload: Upload, sources: Sequence[Upload], confirm: Confirm
) -> None:
    """Write the `.partial` file of `upload`. See ports.ObjectStore."""
    assert sum(source.length or 0 for source in sources) == upload.length
    joining = _Joining(disk, upload, sources)
    await ended(disk.run(joining.check))
    await confirm()
    # A step is never left behind: the next try empties the file it writes to.
    await ended(disk.run(joining.begin))
    while await ended(disk.run(joining.step)):
        pass


class _Joining:
    """One try. No descriptor is open between its steps, so it may end after each of them."""

    def __init__(self, disk: LocalDisk, upload: Upload, sources: Sequence[Upload]) -> None:
        self._disk = disk
        self._upload = upload
        self._sources = sources
        self._path = disk.paths.partial(upload.id)
        self._place = 0  # the source that is next, and where in it
        self._start = 0
        self._end = 0  # of what is written
        self._ways = list(_WAYS)

    def check(self) -> None:
        """Raise BytesMissing unless every source is there as its row says."""
        for source in self._sources:
            size = files.size_of(self._disk.paths.final(source.id))
            if size != source.length:
                raise _missing(source, size)

    def begin(self) -> None:
        os.close(self._disk.folders.create_file(self._path))

    def step(self) -> bool:
        """Copy some more, durably; tell whether there is more to copy."""
        target = files.open_for_writing(self._path)
        try:
            room = STEP_SIZE
            while room and self._place < len(self._sources):
                room -= self._copy_from(self._sources[self._place], target, room)
            if self._disk.durable:
                files.sync_content(target)
        finally:
            os.close(target)
        if self._place < len(self._sources):
            return True
        if self._disk.durable:
            sync_folder(self._disk.paths.folder(self._upload.id))
        return False

    def _copy_from(self, source: Upload, target: int, most: int) -> int:
        """Copy up to `most` bytes of the source that is next; give how many."""
        assert source.length is not None
        size = min(most, source.length - self._start)
        path = self._disk.paths.final(source.id)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as exc:
            raise _missing(source, None) from exc
        try:
            self._copy(source, descriptor, target, self._start + size)
        finally:
            os.close(descriptor)
        if self._start == source.length:
            self._place, self._start = self._place + 1, 0
        return size

    def _copy(self, source: Upload, descriptor: int, target: int, end: int) -> None:
        while self._start < end:
            try:
                count = self._ways[0](descriptor, target, end - self._start, self._start, self._end)
            except OSError as exc:
                if exc.errno not in _NOT_SO or len(self._ways) == 1:
                    raise
                count = 0
            if not count:
                # Some file systems say so where they cannot; that there is nothing more only the
                # last way is believed.
                if len(self._ways) == 1:
                    raise _missing(source, self._start)
                del self._ways[0]
                continue
            self._start += count
            self._end += count


def _by_kernel(source: int, target: int, size: int, start: int, end: int) -> int:
    """Share or copy the blocks within the file system."""
    return os.copy_file_range(source, target, size, start, end)


def _by_sendfile(source: int, target: int, size: int, start: int, end: int) -> int:
    os.lseek(target, end, os.SEEK_SET)
    return os.sendfile(target, source, start, size)


def _by_blocks(source: int, target: int, size: int, start: int, end: int) -> int:
    block = os.pread(source, min(size, BLOCK_SIZE), start)
    files.write_at(target, memoryview(block), end)
    return len(block)


_WAYS = [_by_blocks]
# macOS has the second one for sockets alone, and not the first.
if hasattr(os, "copy_file_range"):
    _WAYS = [_by_kernel, _by_sendfile, _by_blocks]


def _missing(source: Upload, size: int | None) -> BytesMissing:
    found = "no file" if size is None else f"a file of {size}"
    return BytesMissing(
        f"Partial upload {source.id} has {source.length} bytes, the disk has {found}."
    )
