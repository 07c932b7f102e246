"""Where the servers keep their files during a run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")


class NoRoom(Exception):
    """The upload folder is too small for a row."""


def find_parent(chosen: Path | None, room_bytes: int) -> Path:
    """Where a row's files go: chosen, else in memory, else the temp folder.

    Raises: NoRoom.
    """
    parent = chosen or _default_parent(room_bytes)
    free_bytes = shutil.disk_usage(parent).free
    if free_bytes < room_bytes:
        raise NoRoom(f"{parent} has {free_bytes >> 20} MiB free, {room_bytes >> 20} are needed")
    return parent


@contextmanager
def upload_folder(parent: Path) -> Iterator[Path]:
    """A fresh folder under parent, removed at the end."""
    with tempfile.TemporaryDirectory(
        prefix="tus-bench-", dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def touch_memory(folder: Path, size: int) -> None:
    """Write size bytes to a file in folder and delete it.

    A virtual machine may have given free memory back to its host; fetching it again can cost more
    than the upload itself, and whichever server ran first would pay.
    """
    block = bytes(1 << 20)
    path = folder / "touch"
    with path.open("wb", buffering=0) as file:
        for _ in range(size // len(block)):
            file.write(block)
    path.unlink()


def _default_parent(room_bytes: int) -> Path:
    # A container's /dev/shm is often 64 MiB.
    if _is_tmpfs(_SHARED_MEMORY) and shutil.disk_usage(_SHARED_MEMORY).free >= room_bytes:
        return _SHARED_MEMORY
    return Path(tempfile.gettempdir())


def _is_tmpfs(folder: Path) -> bool:
    mounts = Path("/proc/mounts").read_text().splitlines()
    return any(fields[1:3] == [str(folder), "tmpfs"] for fields in map(str.split, mounts))
