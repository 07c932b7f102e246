"""Which processes of this node are alive: each has a locked file, and a lock ends with its process.

A lease of a process that has ended is free at once, without waiting until it runs out.
"""

import fcntl
import os
import re
import secrets
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tus_server.core.errors import DataDirUnusable
from tus_server.folders import make_lasting_folder

FOLDER_NAME: Final = "run"
_SUFFIX: Final = ".lock"
_TOKEN = re.compile(r"[0-9a-f]{32}", re.ASCII)


class ProcessLock:
    """Shows that this process lives, for as long as the context is open.

    The lock is flock's: it ends with the process, however that ends.
    """

    def __init__(self, data_dir: Path) -> None:
        self.token = secrets.token_hex(16)
        self._folder = data_dir.absolute() / FOLDER_NAME
        self._path = self._find_path(self.token)

    def __enter__(self) -> Self:
        """Lock the file of this process, remove those of ended ones. Raises: DataDirUnusable."""
        try:
            make_lasting_folder(self._folder)
            self._file = _lock_new(self._path)
        except OSError as exc:
            raise DataDirUnusable(
                f"{self._path} cannot be made and locked ({exc.strerror}): the data directory must"
                " be writable, on a file system with flock; or set TUS_DATA_DIR to another one."
            ) from exc
        for path in self._folder.glob(f"*{_SUFFIX}"):
            self.has_ended(path.name.removesuffix(_SUFFIX))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def has_ended(self, token: str) -> bool:
        """Tell whether the process of this node that had `token` is no more; never waits.

        Where that cannot be found out, it lives: its leases then run out by themselves.
        """
        if token == self.token or not _TOKEN.fullmatch(token):
            return False
        path = self._find_path(token)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            # Shared: others that look at the same moment must not take us for the process.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def _find_path(self, token: str) -> Path:
        return self._folder / f"{token}{_SUFFIX}"


def _lock_new(path: Path) -> int:
    """Make and lock a file; one that sweeps may remove it before it is locked. Raises: OSError."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # whoever looks has it for a moment only
            if path.exists() and os.path.samestat(os.stat(path), os.fstat(file)):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
