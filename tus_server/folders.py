"""Folders whose names survive a power cut: a name lasts once the folder that has it is synced."""

import os
from pathlib import Path


def sync_folder(folder: str | Path) -> None:
    """Make the names in `folder` durable. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_lasting_folder(folder: Path) -> None:
    """Make `folder` and the folders above it that are missing, durably. Raises: OSError."""
    missing = [folder, *folder.parents]
    missing = missing[: next(i for i, path in enumerate(missing) if path.exists())]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)
