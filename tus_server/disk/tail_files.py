"""One file of a tail, read or written in threads: the blocking half of tails.DiskTails."""

import os

from tus_server.core.checksums import EMPTY_CRC64, crc64
from tus_server.core.errors import TailMissing
from tus_server.core.parts import MIB
from tus_server.core.upload import Tail, Upload
from tus_server.disk import files
from tus_server.folders import sync_folder

NEW = ".new"  # what is written before it is renamed to the name of a tail


class TailReader:
    """Reads a tail and checks it on the way; opens and closes the file by itself."""

    def __init__(self, path: str, upload: Upload, tail: Tail) -> None:
        self.position = 0
        self._path = path
        self._upload = upload
        self._tail = tail
        self._crc64 = EMPTY_CRC64
        self._descriptor = -1

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def fill(self, view: memoryview) -> int:
        """Read as much as fits; give how much. Raises: OSError, TailMissing."""
        if not self.is_open:
            self._open()
        wanted = view[: self._tail.length - self.position]
        count = os.preadv(self._descriptor, [wanted], self.position)
        if count == 0:
            raise _missing(self._upload, f"ends after {self.position} bytes")
        self._crc64 = crc64(wanted[:count], self._crc64)
        self.position += count
        if self.position == self._tail.length:
            self.close()
            if self._crc64 != self._tail.crc64:
                raise _missing(self._upload, "has other bytes than were received")
        return count

    def close(self) -> None:
        if self.is_open:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as exc:
            raise _missing(self._upload, "is not there") from exc
        size = os.fstat(self._descriptor).st_size
        if size < self._tail.length:
            raise _missing(self._upload, f"has {size} bytes")


class TailWriter:
    """Writes a tail: continues its file, or makes a new one and renames it.

    kept: how many bytes of the file at `path` stay. renames: make a new file, with a copy of
    these. sync_failed: what was written may be lost although a later sync succeeds.
    """

    def __init__(
        self,
        folders: files.Folders,
        path: str,
        upload: Upload,
        kept: int,
        *,
        renames: bool,
        durable: bool,
    ) -> None:
        self.renames = renames
        self.sync_failed = False
        self._folders = folders
        self._path = path
        self._upload = upload
        self._kept = kept
        self._durable = durable
        self._position = kept
        self._descriptor = -1

    def write(self, block: memoryview) -> None:
        """Write `block` behind what was written. Raises: OSError, TailMissing."""
        if self._descriptor < 0:
            self._open()
        files.write_at(self._descriptor, block, self._position)
        self._position += len(block)

    def finish(self) -> None:
        """Make all of it durable. Raises: OSError, TailMissing."""
        if self._descriptor < 0:
            self._open()
        if self._durable:
            self._sync()
        self._close()
        if self.renames:
            os.rename(self._path + NEW, self._path)
            if self._durable:
                sync_folder(os.path.dirname(self._path))

    def give_up(self) -> None:
        """Leave the file with the bytes that were to be kept; never raises."""
        try:
            if self.renames:
                files.remove(self._path + NEW)
            elif self._descriptor >= 0:
                os.ftruncate(self._descriptor, self._kept)
        except OSError:
            pass  # what is behind them was never acknowledged
        try:
            self._close()
        except OSError:
            pass

    def _open(self) -> None:
        if self.renames:
            self._descriptor = self._folders.create_file(self._path + NEW)
            if self._kept:
                self._copy_kept()
            return
        try:
            self._descriptor = files.open_for_writing(self._path)
        except FileNotFoundError as exc:
            raise _missing(self._upload, "is not there") from exc
        size = os.fstat(self._descriptor).st_size
        if size < self._kept:
            raise _missing(self._upload, f"has {size} bytes")
        if size > self._kept:
            os.ftruncate(self._descriptor, self._kept)

    def _copy_kept(self) -> None:
        tail = self._upload.tail
        assert tail is not None
        assert tail.length == self._kept
        reader = TailReader(self._path, self._upload, tail)
        view = memoryview(bytearray(min(tail.length, MIB)))
        try:
            while (start := reader.position) < tail.length:
                files.write_at(self._descriptor, view[: reader.fill(view)], start)
        finally:
            reader.close()

    def _sync(self) -> None:
        try:
            files.sync_content(self._descriptor)
        except OSError:
            self.sync_failed = True
            raise

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _missing(upload: Upload, what: str) -> TailMissing:
    tail = upload.tail
    assert tail is not None
    return TailMissing(
        f"Upload {upload.id} has {tail.length} bytes in a file of node {tail.node}; "
        f"the file here {what}."
    )
