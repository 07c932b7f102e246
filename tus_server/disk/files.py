"""Blocking file steps, with operating system errors translated at the call.

Every function here runs in a thread. What is durable when: a file's bytes after sync_content(),
its name after sync_folder() of the folder that has it, that folder's own name by Folders.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tus_server.core.errors import StorageFull, StoreUnavailable
from tus_server.folders import sync_folder

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an OSError into StorageFull or StoreUnavailable."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        if exc.errno in _NO_SPACE:
            raise StorageFull(f"The disk takes no more bytes ({reason}).") from exc
        raise StoreUnavailable(f"The disk refused a file operation ({reason}).") from exc


def write_at(descriptor: int, block: memoryview, position: int) -> None:
    """Write all of `block` at `position`; a short write is continued."""
    written = os.pwrite(descriptor, block, position)
    while written < len(block):
        written += os.pwrite(descriptor, block[written:], position + written)


def sync_content(descriptor: int) -> None:
    """Make the bytes and the size of a file durable."""
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter
    sync(descriptor)


def open_for_writing(path: str, flags: int = 0) -> int:
    """Open `path` for reading and writing."""
    return os.open(path, flags | os.O_RDWR | os.O_CLOEXEC, 0o600)


def size_of(path: str) -> int | None:
    """Give the size of a file, None if there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def remove(path: str) -> bool:
    """Remove a file; tell whether there was one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


class Folders:
    """Makes folders whose names last; thread-safe.

    That a folder exists does not mean that its name survives a power cut: a thread or a process
    may have made it and failed, or died, before the fsync of its parent. So each is synced once
    by each process, before the first file in it counts.
    """

    def __init__(self, root: str, *, durable: bool) -> None:
        """root: exists and lasts already."""
        self._root = root
        self._lasting = {root}
        self._durable = durable

    def create_file(self, path: str) -> int:
        """Open a new or emptied file in a folder that lasts. Raises: OSError."""
        return self._open(path, os.O_CREAT | os.O_TRUNC)

    def open_file(self, path: str) -> int:
        """Open a file as it is, or a new one, in a folder that lasts. Raises: OSError."""
        return self._open(path, os.O_CREAT)

    def _open(self, path: str, flags: int) -> int:
        folder = os.path.dirname(path)
        self._make(folder)
        try:
            return open_for_writing(path, flags)
        except FileNotFoundError:
            # Somebody removed the folder while we ran.
            self._lasting = {self._root}
            self._make(folder)
            return open_for_writing(path, flags)

    def _make(self, folder: str) -> None:
        """Return when `folder`, somewhere below the root, exists and lasts."""
        if folder in self._lasting:
            return
        parent = os.path.dirname(folder)
        self._make(parent)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        if self._durable:
            sync_folder(parent)
        self._lasting.add(folder)
