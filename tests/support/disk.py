"""Disks that fail, and what a power cut would leave of them."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Platter:
    """What a power cut would leave of the files below `root`.

    A file has the bytes of its last sync, a folder the names of its own. A sync that failed has
    thrown the bytes it was for away, as Linux does: later syncs succeed without them, until they
    are written again. Watches os.fsync, os.fdatasync, os.pwrite and os.ftruncate.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.syncs = 0
        self._fail_at: set[int] = set()
        self._contents: dict[int, bytes] = {}
        self._lost: dict[int, set[int]] = {}
        self._written: dict[int, set[int]] = {}  # since the last sync
        self._names: dict[int, dict[str, int]] = {_inode(root): _entries(root)}
        self._lock = threading.Lock()
        for name, watched in (
            ("fsync", self._sync),
            ("fdatasync", self._sync),
            ("pwrite", self._pwrite),
            ("ftruncate", self._ftruncate),
        ):
            real = getattr(os, name)
            monkeypatch.setattr(
                os, name, lambda *args, real=real, watched=watched: watched(real, *args)
            )

    def fail(self, *which: int) -> None:
        """Let the nth syncs from now on fail."""
        with self._lock:
            self._fail_at = {self.syncs + nth for nth in which}

    def read(self, path: Path) -> bytes | None:
        """Give the bytes of a file, None if its name or a folder's above it would be gone."""
        inode = _inode(self.root)
        for name in path.relative_to(self.root).parts:
            found = self._names.get(inode, {}).get(name)
            if found is None:
                return None
            inode = found
        return self._contents.get(inode)

    def _sync(self, real: Callable[[int], None], descriptor: int) -> None:
        with self._lock:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if not path.is_relative_to(self.root):
                real(descriptor)
                return
            self.syncs += 1
            inode = os.fstat(descriptor).st_ino
            if self.syncs in self._fail_at:
                self._lost.setdefault(inode, set()).update(self._written.pop(inode, set()))
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(descriptor)
            if path.is_dir():
                self._names[inode] = _entries(path)
            else:
                content = bytearray(os.pread(descriptor, 1 << 24, 0))
                for position in self._lost.get(inode, ()):
                    if position < len(content):
                        content[position] = 0
                self._contents[inode] = bytes(content)
                self._written.pop(inode, None)

    def _pwrite(self, real: Callable[..., int], descriptor: int, block: Any, at: int) -> int:
        count = real(descriptor, block, at)
        with self._lock:
            inode, span = os.fstat(descriptor).st_ino, range(at, at + count)
            self._lost.get(inode, set()).difference_update(span)
            self._written.setdefault(inode, set()).update(span)
        return count

    def _ftruncate(self, real: Callable[[int, int], None], descriptor: int, size: int) -> None:
        real(descriptor, size)
        with self._lock:
            lost = self._lost.get(os.fstat(descriptor).st_ino, set())
            lost.difference_update([position for position in lost if position >= size])


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _entries(folder: Path) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(folder)}


class Faulty:
    """One function of os that fails at its nth call, for paths below a root."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, name: str, code: int, *, nth: int = 1
    ) -> None:
        self._real = getattr(os, name)
        self._code = code
        self._left = nth
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args: Any, **named: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise OSError(self._code, os.strerror(self._code))
        return self._real(*args, **named)


def open_files(root: Path) -> int:
    """Count the descriptors of this process that name something below `root`."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith(str(root))
        except FileNotFoundError:
            continue  # it was the one that listed
    return found
