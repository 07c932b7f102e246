"""A piece of a file as the body of a request: read while it is sent, never held as a whole."""

import os
from collections.abc import Callable, Iterator
from typing import IO, Final

from tus_server.cli.replies import TransferFailed
from tus_server.core.checksums import EMPTY_CRC64, crc64

_BLOCK_SIZE: Final = 64 * 1024


class FileSection:
    """Bytes [start, start + length) of a file, in blocks. Its length makes it no chunked body.

    moved: is told the position behind each block once that was sent. The position of the file
    itself is left alone, so several sections of one file may be read at once.
    """

    def __init__(
        self, file: IO[bytes], start: int, length: int, moved: Callable[[int], None]
    ) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._moved = moved

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        while sent < self._length:
            wanted = min(_BLOCK_SIZE, self._length - sent)
            try:
                block = os.pread(self._file.fileno(), wanted, self._start + sent)
            except OSError as exc:
                # requests would take it for an error of the connection.
                raise TransferFailed(f"it cannot be read: {exc.strerror}") from exc
            if not block:
                raise TransferFailed("it has become shorter while it was sent")
            yield block
            sent += len(block)
            self._moved(self._start + sent)


class SummedSection(FileSection):
    """A section that sums up what was read of it: crc64, the CRC-64/NVME."""

    crc64 = EMPTY_CRC64

    def __iter__(self) -> Iterator[bytes]:
        self.crc64 = EMPTY_CRC64
        for block in super().__iter__():
            self.crc64 = crc64(block, self.crc64)
            yield block
