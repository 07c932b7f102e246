"""Which file goes to which upload URL, kept across runs of `put`."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from tusclient.fingerprint.interface import Fingerprint
from tusclient.storage.interface import Storage

_MAX_URLS: Final = 1000
_SAMPLE_SIZE: Final = 64 * 1024


def default_path() -> Path:
    """Give the file's place in the XDG state folder (a relative one does not count, says XDG)."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = Path.home() / ".local" / "state"
    return state / "tus-server" / "uploads.json"


class StoredUrls(Storage):
    """tuspy's URL storage in one JSON file that all `put` processes of a user share.

    The newest 1,000 are kept. An upload URL is a capability, so the file is the user's alone.
    """

    def __init__(self, path: Path) -> None:
        """Raises: OSError if the folder cannot be made or written."""
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            pass

    def get_item(self, key: str) -> str | None:
        with self._locked():
            return self._read().get(key)

    def set_item(self, key: str, value: str | None) -> None:
        # tuspy 1.1.0 stores the None it has just found.
        if value is None:
            return
        with self._locked():
            urls = self._read()
            if urls.get(key) != value:
                urls.pop(key, None)
                self._write(dict([*urls.items(), (key, value)][-_MAX_URLS:]))

    def remove_item(self, key: str) -> None:
        with self._locked():
            urls = self._read()
            if urls.pop(key, None) is not None:
                self._write(urls)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A file of its own, for the other one is replaced.
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, str]:
        try:
            urls = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            # Damaged is as good as absent: the uploads begin anew.
            return {}
        if not isinstance(urls, dict):
            return {}
        return {key: url for key, url in urls.items() if isinstance(url, str)}

    def _write(self, urls: Mapping[str, str]) -> None:
        new = self._path.with_suffix(".new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(urls, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


class FileFingerprint(Fingerprint):
    """Tells one upload from another: file as it is now, creation URL, metadata.

    tuspy's own looks at the length and the first 64 KiB only, and would join two versions of a file
    that differ behind them.
    """

    def __init__(self, endpoint: str, metadata: Mapping[str, str]) -> None:
        self._target = [endpoint, sorted(metadata.items())]

    def get_fingerprint(self, fs: IO[Any]) -> str:
        """Fingerprint an open file; changes with path, length, time of change and content."""
        status = os.fstat(fs.fileno())
        digest = hashlib.sha256()
        about = [self._target, os.path.realpath(fs.name), status.st_size, status.st_mtime_ns]
        digest.update(json.dumps(about).encode())
        fs.seek(0)
        digest.update(fs.read(_SAMPLE_SIZE))
        fs.seek(max(0, status.st_size - _SAMPLE_SIZE))
        digest.update(fs.read(_SAMPLE_SIZE))
        return digest.hexdigest()
