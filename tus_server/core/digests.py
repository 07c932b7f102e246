"""Checksums that clients may ask for, by name: how they are computed and how long they are.

The CRCs are given as their big-endian bytes, as S3 writes them (T79).
"""

import hashlib
import zlib
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from awscrt.checksums import crc32c, crc64nvme


class Hasher(Protocol):
    """A checksum being computed; update() lets other threads run where that is worth while."""

    def update(self, block: memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    def __init__(self, function: Callable[[memoryview, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, block: memoryview, /) -> None:
        self._value = self._function(block, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


_HASHERS: Final[dict[str, Callable[[], Hasher]]] = {
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "crc32": partial(_Crc, zlib.crc32, 4),
    "crc32c": partial(_Crc, crc32c, 4),
    "crc64nvme": partial(_Crc, crc64nvme, 8),
}
ALGORITHMS: Final = tuple(_HASHERS)
SIZES: Final = {name: len(make().digest()) for name, make in _HASHERS.items()}  # bytes


def new_hasher(algorithm: str) -> Hasher:
    """Begin to compute one of ALGORITHMS."""
    return _HASHERS[algorithm]()
