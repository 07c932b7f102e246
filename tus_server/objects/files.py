"""Blocking file steps of the local store, with operating system errors translated at the call.

Every function here runs in a thread. What is durable when: a file's bytes after sync(), its name
after sync_folder() of the folder that has it, up to the first folder that existed before.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tus_server.core.errors import StorageFull, StoreUnavailable

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


def open_making_folders(path: str, flags: int, *, durable: bool) -> int:
    """Open `path` for writing; folders that are missing are made, and made to last."""
    flags |= os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        _make_folders(os.path.dirname(path), durable=durable)
        return os.open(path, flags, 0o600)


def sync_folder(folder: str) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _make_folders(folder: str, *, durable: bool) -> None:
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folders(parent, durable=durable)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass  # another thread was quicker; its sync may still be on the way, so sync here too
    if durable:
        sync_folder(parent)
