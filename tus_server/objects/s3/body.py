"""The bytes of one call, sent from where they lie.

botocore wants something like a file, aiohttp a Payload; this is both, and gives the transport
views of the blocks. So whoever sends must see to it that no connection uses the blocks any more
before they are used for something else (P9): end() does.
"""

import asyncio
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from tus_server.core.parts import MIB
from tus_server.disk.threads import FileThreads

READ_SIZE = 512 * 1024
END_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes [0, size) of an open file."""

    descriptor: int
    size: int


Segment = memoryview | FileRange


class PartBody(Payload):
    """`segments` one behind the other. aiohttp may send it twice: it repeats a PUT whose
    connection breaks.
    """

    _autoclose = True  # nothing to close, says aiohttp's own payload of bytes too

    def __init__(self, segments: Sequence[Segment], threads: FileThreads) -> None:
        super().__init__(b"")
        self._segments = segments
        self._threads = threads
        self._size = sum(map(size_of, segments))
        self._ended = False
        # Transport and protocol of each connection; aiohttp forgets a transport as it closes it.
        self._used: list[tuple[Any, Any]] = []
        self.expects_continue = False

    def __len__(self) -> int:
        assert self._size is not None
        return self._size

    # botocore takes for a body what has read(), and rewinds it before it repeats a call; what it
    # would read for, checksums and signatures, is switched off.

    def read(self, size: int = -1) -> bytes:
        raise io.UnsupportedOperation("read")

    def seek(self, position: int, whence: int = 0) -> int:
        return 0

    def tell(self) -> int:
        return 0

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise io.UnsupportedOperation("decode")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self._used.append((writer.transport, writer.protocol))  # type: ignore[attr-defined]
        for segment in self._segments:
            if isinstance(segment, FileRange):
                await self._write_file(writer, segment)
                continue
            for start in range(0, len(segment), MIB):
                await self._write(writer, segment[start : start + MIB])

    async def _write_file(self, writer: AbstractStreamWriter, file: FileRange) -> None:
        for start in range(0, file.size, READ_SIZE):
            size = min(READ_SIZE, file.size - start)
            block = await self._threads.run(_reading(file.descriptor, size, start))
            if len(block) != size:
                raise OSError("the spill file is too short")
            await self._write(writer, memoryview(block))

    async def _write(self, writer: AbstractStreamWriter, block: memoryview) -> None:
        if self._ended:
            raise ConnectionAbortedError("the call has ended")
        await writer.write(block)

    async def end(self) -> None:
        """Return when no connection uses the memory of this body any more.

        A call that timed out leaves a connection that is closed only once its buffer is sent, and
        that buffer has views of our blocks.
        """
        self._ended = True
        closing = set()
        for transport, protocol in self._used:
            if transport is not None and transport.get_write_buffer_size():
                closed = protocol.closed
                transport.abort()
                if closed is not None:
                    closing.add(closed)
        self._used.clear()
        if closing:
            for future in (await asyncio.wait(closing, timeout=END_TIMEOUT_S))[0]:
                future.exception()


def size_of(segment: Segment) -> int:
    """Give the bytes of a segment."""
    return segment.size if isinstance(segment, FileRange) else len(segment)


def _reading(descriptor: int, size: int, start: int) -> Callable[[], bytes]:
    return lambda: os.pread(descriptor, size, start)
