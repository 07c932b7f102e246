"""CRC-64/NVME of byte strings, and of their concatenation without reading them again."""

from awscrt.checksums import combine_crc64nvme, crc64nvme

EMPTY_CRC64 = 0


def crc64(block: bytes | bytearray | memoryview, previous: int = EMPTY_CRC64) -> int:
    """Continue `previous` over `block` (some 50 GB/s: cheap enough for any thread)."""
    crc: int = crc64nvme(block, previous)
    return crc


def combine_crc64(first: int, second: int, second_size_bytes: int) -> int:
    """Give the CRC of two byte strings laid end to end from the CRC of each."""
    crc: int = combine_crc64nvme(first, second, second_size_bytes)
    return crc
