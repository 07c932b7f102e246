"""The key that signs URLs of direct uploads on local disk: a file in the data directory."""

import os
import secrets
from pathlib import Path
from typing import Final

from tus_server.core.errors import DataDirUnusable
from tus_server.folders import make_lasting_folder, sync_folder

FILE_NAME: Final = "signing.key"
KEY_BYTES: Final = 32


def load_signing_key(data_dir: Path) -> bytes:
    """Give the key of a data directory, made once.

    For the holder of the directory's lock. Raises: DataDirUnusable (also for a damaged file).
    """
    path = data_dir.absolute() / FILE_NAME
    try:
        key = path.read_bytes() if path.exists() else _make(path)
    except OSError as exc:
        raise DataDirUnusable(
            f"{path} cannot be read or made ({exc.strerror}): change its owner or rights, or set"
            " TUS_DATA_DIR to another folder."
        ) from exc
    if len(key) != KEY_BYTES:
        raise DataDirUnusable(
            f"{path} is damaged: remove it, and the URLs of direct uploads that were given out have"
            " to be signed again."
        )
    return key


def _make(path: Path) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    make_lasting_folder(path.parent)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)  # its rights are those of whoever left it
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
    return key
