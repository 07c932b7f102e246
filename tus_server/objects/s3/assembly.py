"""A part while it is put together: in blocks of the pool, or in a spill file.

What arrives quickly stays in the blocks it was received into, and is sent from there. What arrives
slowly must not sit on memory: beyond a little everything goes to an anonymous file (nothing to
sweep after a crash), and the blocks go back to the pool at once.
"""

import asyncio
import base64
import os
import tempfile
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from functools import partial
from hashlib import md5
from pathlib import Path

from tus_server.core.checksums import EMPTY_CRC64, crc64
from tus_server.core.parts import MIB
from tus_server.disk.files import disk_errors, write_at
from tus_server.disk.threads import FileThreads
from tus_server.objects.s3.body import READ_SIZE, FileRange, Segment, size_of
from tus_server.ports import Blocks

MAX_COPIED = 16 * 1024


@dataclass(frozen=True, slots=True)
class Room:
    """Where parts are put together. kept_bytes: the most of one part that stays in blocks."""

    blocks: Blocks
    threads: FileThreads
    spill_dir: Path
    kept_bytes: int


class Assembly:
    """The bytes of one part. Used by one task."""

    def __init__(self, room: Room) -> None:
        self.size = 0
        self.crc64 = EMPTY_CRC64
        self._room = room
        self._kept: list[bytearray] = []
        self._memory: list[memoryview] = []
        self._copied = 0
        self._in_memory = 0
        self._file = -1
        self._in_file = 0
        self._writing: asyncio.Future[tuple[int, int]] | None = None

    def keep(self, block: bytearray, size: int) -> bool:
        """See ports.PartWriter."""
        if self._file >= 0 or self._in_memory + size > self._room.kept_bytes:
            return False
        self._kept.append(block)
        self._take(memoryview(block)[:size])
        return True

    def write(self, block: memoryview) -> Awaitable[None]:
        """See ports.PartWriter."""
        if self._file < 0 and self._copied + len(block) <= MAX_COPIED:
            self._copied += len(block)
            self._take(memoryview(bytes(block)))
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        return self._write_out(block)

    async def put_away(self) -> None:
        """See ports.PartWriter."""
        if self._writing is not None:
            await asyncio.wait({self._writing})  # two spills at once would begin at the same place
        if self._kept:
            await self._write_out(memoryview(b""))

    def _write_out(self, block: memoryview) -> Awaitable[None]:
        # Whoever waits may be cancelled; the thread is not, and reads the blocks until it ends.
        self._writing = self._room.threads.run(lambda: self._spill(block))
        self._writing.add_done_callback(self._spilled)
        return _end_of(self._writing)

    def segments(self, rest: memoryview) -> list[Segment]:
        """Give the bytes so far, and `rest` behind them, where they lie."""
        segments: list[Segment] = list(self._memory)
        if self._file >= 0:
            segments = [FileRange(self._file, self._in_file)]
        return [*segments, rest] if rest else segments

    async def read(self, start: int, rest: memoryview) -> AsyncGenerator[memoryview, None]:
        """Give the bytes from `start` on, `rest` at the end. Raises: StorageFull."""
        position = 0
        for segment in self.segments(rest):
            first = max(0, start - position)
            position += size_of(segment)
            if isinstance(segment, FileRange):
                for place in range(first, segment.size, READ_SIZE):
                    yield memoryview(await self._read(place, min(READ_SIZE, segment.size - place)))
            else:
                for place in range(first, len(segment), MIB):
                    yield segment[place : place + MIB]

    async def content_md5(self, rest: memoryview) -> str:
        """Give the MD5 of all that read(0, rest) gives, as a header has it. Raises: StorageFull."""
        digest = md5(usedforsecurity=False)
        async for view in self.read(0, rest):
            await self._room.threads.run(partial(digest.update, view))
        return base64.b64encode(digest.digest()).decode()

    async def close(self) -> None:
        """Give back what the part took; never raises, may be called again."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        self._forget_memory()
        if self._file >= 0:
            descriptor, self._file = self._file, -1
            os.close(descriptor)

    def _take(self, view: memoryview) -> None:
        self._memory.append(view)
        self._in_memory += len(view)
        self.crc64 = crc64(view, self.crc64)
        self.size += len(view)

    async def _read(self, start: int, size: int) -> bytes:
        with disk_errors():
            return await self._room.threads.run(lambda: os.pread(self._file, size, start))

    # --- in a thread

    def _spill(self, block: memoryview) -> tuple[int, int]:
        """Write what is in memory, and `block`, to the file; give its size and the part's CRC."""
        with disk_errors():
            if self._file < 0:
                self._file = open_anonymous(self._room.spill_dir)
            end = self._in_file
            for view in (*self._memory, block):
                write_at(self._file, view, end)
                end += len(view)
        return end, crc64(block, self.crc64)

    # --- on the loop

    def _spilled(self, done: "asyncio.Future[tuple[int, int]]") -> None:
        if not done.cancelled() and done.exception() is None:
            self._in_file, self.crc64 = done.result()
            self.size = self._in_file
            self._forget_memory()

    def _forget_memory(self) -> None:
        self._memory.clear()
        self._in_memory = 0
        while self._kept:
            self._room.blocks.give(self._kept.pop())


async def _end_of(writing: "asyncio.Future[tuple[int, int]]") -> None:
    await asyncio.shield(writing)


def open_anonymous(folder: Path) -> int:
    """Open a file without a name in `folder`."""
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            pass  # not every file system has such files
    descriptor, path = tempfile.mkstemp(prefix="spill-", dir=folder)
    os.unlink(path)
    return descriptor
