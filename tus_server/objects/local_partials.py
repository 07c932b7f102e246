"""The `.partial` files of the local store, found without asking any row."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tus_server.core.ids import UploadId, find_upload_id, random_part
from tus_server.objects.paths import PARTIAL
from tus_server.ports import FoundPartial


def find_folders(objects: Path) -> list[Path]:
    """Give the folders that have files of uploads."""
    return [inner for outer in _below(objects) for inner in _below(outer)]


def find_in(folder: Path) -> list[FoundPartial]:
    """Find the partial files in one of these folders."""
    now_s = time.time()
    found = []
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with entries:
        for entry in entries:
            upload_id = _parse(folder, entry.name)
            if upload_id is None:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it was finished or freed
            found.append(FoundPartial(upload_id, now_s - status.st_mtime))
    return found


def _below(folder: Path) -> Iterator[Path]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if len(entry.name) == 1 and entry.is_dir(follow_symlinks=False):
                yield folder / entry.name


def _parse(folder: Path, name: str) -> UploadId | None:
    """Give the upload whose partial file has this name in this folder, if there can be one.

    Its id has no label: where nodes have labels, objects are in S3.
    """
    if not name.endswith(PARTIAL):
        return None
    upload_id = find_upload_id(name.removesuffix(PARTIAL))
    if upload_id is None or upload_id != random_part(upload_id):
        return None
    return upload_id if folder.parts[-2:] == (upload_id[0], upload_id[1]) else None
