"""Direct uploads: how their bytes are cut into parts, settled when they are created. Pure."""

from tus_server.core.parts import MIB, PartLimits
from tus_server.core.upload import Protocol

MAX_PARTS = 10_000  # also on a disk, which would take more: clients know the limit of S3


def plan_direct(limits: PartLimits, protocol: Protocol, *, length: int, preferred_size: int) -> int:
    """Give the size of every part but the last, in bytes.

    A single upload is one part. Raises ValueError where so many bytes do not fit.
    """
    most = min(MAX_PARTS, limits.max_parts)
    if protocol is Protocol.SINGLE:
        size = max(length, 1)
    else:
        size = max(preferred_size, limits.min_part_size)
        least = -(-length // most)
        if least > size:
            size = -(-least // MIB) * MIB
            if size > limits.max_part_size:
                size = least
    if size > limits.max_part_size:
        raise ValueError(f"a part of this upload has {size} bytes")
    return size


def check_part_size(limits: PartLimits, part_size: int, *, length: int) -> None:
    """Raise ValueError, with a sentence, unless parts of a size that somebody chose will do."""
    if part_size < 1:
        raise ValueError("it is a number of bytes, 1 or more")
    if part_size < min(limits.min_part_size, length):
        raise ValueError(f"every part but the last has {limits.min_part_size} bytes or more")
    if part_size > limits.max_part_size:
        raise ValueError(f"no part has more than {limits.max_part_size} bytes")
    count, most = part_count(length, part_size), min(MAX_PARTS, limits.max_parts)
    if count > most:
        raise ValueError(f"that would be {count} parts, and {most} is the most")


def part_count(length: int, part_size: int) -> int:
    """Give the number of parts; an empty upload has one, which is empty."""
    return max(1, -(-length // part_size))


def part_range(number: int, *, length: int, part_size: int) -> tuple[int, int]:
    """Give start and size of part `number`, from 1."""
    start = (number - 1) * part_size
    return start, min(part_size, length - start)
