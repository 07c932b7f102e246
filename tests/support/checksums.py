"""Upload-Checksum values for tests, computed apart from the server's own code."""

import hashlib
import zlib
from base64 import b64encode

ALGORITHMS = ("sha1", "sha256", "sha512", "md5", "crc32", "crc32c", "crc64nvme")
# Reflected polynomials, as their registered names have them (CRC-32/ISCSI, CRC-64/NVME).
_POLYNOMIALS = {"crc32c": (32, 0x82F63B78), "crc64nvme": (64, 0x9A6C9329AC4BC9B5)}


def digest(algorithm: str, content: bytes) -> bytes:
    """Give the digest; CRCs as big-endian bytes."""
    if algorithm == "crc32":
        return zlib.crc32(content).to_bytes(4, "big")
    if algorithm in _POLYNOMIALS:
        return _crc(*_POLYNOMIALS[algorithm], content)
    return hashlib.new(algorithm, content).digest()


def checksum(algorithm: str, content: bytes) -> str:
    """Give the value of an Upload-Checksum field."""
    return f"{algorithm} {b64encode(digest(algorithm, content)).decode()}"


def _crc(bits: int, polynomial: int, content: bytes) -> bytes:
    """Bit by bit: slow, and so plain that it needs no proof of its own."""
    mask = (1 << bits) - 1
    register = mask
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (polynomial if register & 1 else 0)
    return (register ^ mask).to_bytes(bits // 8, "big")
