"""The data directory: one server at a time, and how others find that server."""

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tus_server.core.errors import DataDirInUse, DataDirUnusable
from tus_server.folders import make_lasting_folder

LOCK_NAME = "server.lock"
LOOK_S = 0.2


class DataDir:
    """A data directory in use by this process, for as long as the context is open.

    The lock is flock's: it ends with the process, however that ends. The locked file tells
    others our process id and URL.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        """Make the folder, check that it can be written, and lock it.

        Raises: DataDirUnusable, DataDirInUse.
        """
        try:
            make_lasting_folder(self.path.absolute())
            self._file = os.open(
                self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as exc:
            raise DataDirUnusable(
                f"The data directory {self.path} cannot be written ({exc.strerror}): change its"
                " owner or rights, or set TUS_DATA_DIR to another one."
            ) from exc
        try:
            _lock(self._file)
        except BlockingIOError as exc:
            owner = _owner(self._file).get("pid")
            os.close(self._file)
            raise DataDirInUse(
                f"The data directory {self.path} is in use by another server"
                f"{f' (process {owner})' if owner else ''}: stop it, or set TUS_DATA_DIR."
            ) from exc
        except OSError as exc:
            os.close(self._file)
            raise DataDirUnusable(
                f"The data directory {self.path} cannot be locked ({exc.strerror}); it must be on"
                " a file system with flock."
            ) from exc
        self.announce(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        os.close(self._file)

    def announce(self, url: str | None) -> None:
        """Tell who looks for the server on this directory where its creation URL is."""
        text = json.dumps({"pid": os.getpid(), "url": url}).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)


def _lock(file: int) -> None:
    """Take the lock; who only looks (find_server) has it for a moment, and is waited for."""
    deadline_s = time.monotonic() + LOOK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(LOOK_S / 10)


def find_server(path: Path) -> str | None:
    """Give the creation URL of the server that runs on a data directory, None if none does.

    Raises: DataDirInUse if one runs that serves no URL (yet).
    """
    try:
        file = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner(file)
        url = owner.get("url")
        if not isinstance(url, str):
            raise DataDirInUse(f"Process {owner.get('pid')} uses {path} without an URL.") from None
        return url
    finally:
        os.close(file)
    return None


def _owner(file: int) -> dict[str, object]:
    try:
        owner = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
