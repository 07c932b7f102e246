"""What a body is made of, for those who have to know more of it than its size."""

from __future__ import annotations

import hashlib
import time
from base64 import b64encode
from typing import NamedTuple

from bench.load.connection import BLOCK


class Digest(NamedTuple):
    """A digest of a body as Connection.send_body() sends it, and what it took to make."""

    field: bytes
    took_s: float


def checksum(algorithm: str, size: int) -> Digest:
    """The Upload-Checksum line of a body of size bytes, made by one core."""
    start_s = time.perf_counter()
    made = hashlib.new(algorithm, usedforsecurity=False)
    for start in range(0, size, len(BLOCK)):
        made.update(BLOCK[: min(len(BLOCK), size - start)])
    took_s = time.perf_counter() - start_s
    value = b64encode(made.digest())
    return Digest(b"Upload-Checksum: %s %s\r\n" % (algorithm.encode(), value), took_s)
