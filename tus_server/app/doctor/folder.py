"""A folder the server writes to: whether it can, and whether what is written there lasts."""

import asyncio
import fcntl
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from tus_server.findings import Finding, failed, note, ok, warning, within

TIMEOUT_S: Final = 20.0
SYNCS: Final = 9
SLOW_SYNC_S: Final = 0.05
MIB: Final = 1024 * 1024
LITTLE_BYTES: Final = 1024 * MIB  # to have free where files are kept


async def examine_folder(
    name: str, folder: Path, *, needed_bytes: int, why: str
) -> AsyncIterator[Finding]:
    """Try `folder`, or where it is going to be made, with files that are removed again.

    needed_bytes: that should be free, and `why`.
    """
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".tus-server-doctor-", dir=place))
    except OSError as exc:
        yield failed(
            name,
            f"{folder} cannot be written ({exc.strerror})",
            "change its owner or rights, or name another folder; run this as the server's user.",
        )
        return
    try:
        yield _owner(name, folder, place)
        for suffix, check in (("locks", _locks), ("fsync", _syncs), ("spill files", _spills)):
            what = f"{name}: {suffix}"
            yield await within(what, TIMEOUT_S, asyncio.to_thread(_safely, check, what, scratch))
        yield _space(f"{name}: free space", place, needed_bytes, why)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _safely(check: Callable[[str, Path], Finding], what: str, scratch: Path) -> Finding:
    try:
        return check(what, scratch)
    except OSError as exc:
        return failed(
            what,
            f"{exc.strerror or type(exc).__name__}",
            "put it on a file system of this machine, with room, that works.",
        )


def _owner(name: str, folder: Path, place: Path) -> Finding:
    if place != folder:
        return ok(name, f"{folder} can be made, by `serve`")
    owner, us = folder.stat().st_uid, os.geteuid()
    if owner != us:
        return warning(
            name,
            f"{folder} can be written by user {us}, and belongs to user {owner}",
            "run the doctor as the user of the server, to see what that one sees.",
        )
    return ok(name, f"{folder} can be written")


def _locks(what: str, scratch: Path) -> Finding:
    path = scratch / "lock"
    with path.open("wb") as ours, path.open("rb") as other:
        fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return ok(what, "flock works")
    return failed(
        what,
        "flock gives one lock to two",
        "use a file system that keeps locks: with this one two servers could share the folder.",
    )


def _syncs(what: str, scratch: Path) -> Finding:
    times_s = []
    with (scratch / "sync").open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(4096))
            begin_s = time.perf_counter()
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - begin_s)
    median_s = statistics.median(times_s)
    text = f"{1000 * median_s:.2f} ms at the median of {SYNCS}"
    if median_s > SLOW_SYNC_S:
        return warning(
            what,
            text,
            "use a faster disk (an SSD): an acknowledged request may wait for one or more.",
        )
    return ok(what, text)


def _spills(what: str, scratch: Path) -> Finding:
    if not hasattr(os, "O_TMPFILE"):
        return note(what, "no files without a name on this system; they are unlinked at once")
    try:
        os.close(os.open(scratch, os.O_TMPFILE | os.O_RDWR, 0o600))
    except OSError:
        return note(what, "no files without a name (O_TMPFILE) here; they are unlinked at once")
    return ok(what, "files without a name (O_TMPFILE)")


def _space(what: str, place: Path, needed_bytes: int, why: str) -> Finding:
    free = shutil.disk_usage(place).free
    text = f"{free // MIB:,} MiB"
    if free < needed_bytes:
        return warning(
            what,
            text,
            f"make room, or use a larger disk: {needed_bytes // MIB:,} MiB are for {why}.",
        )
    return ok(what, text)
