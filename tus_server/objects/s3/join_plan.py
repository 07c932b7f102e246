"""How objects end to end are cut into the parts of another one, most of them copied by the store.

Pure. S3 copies a range of an object into a part ("UploadPartCopy"), but of a size that a part may
have, and out of an object that is larger than the smallest part. So what is too small passes
through this server, together with what is next to it. Sizes in bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tus_server.core.checksums import EMPTY_CRC64, combine_crc64
from tus_server.core.parts import MIB, PartLimits

# Of a source that is not copied as a whole: several of its ranges are copied at the same time.
RANGE_SIZE = 256 * MIB
# The order of x modulo the polynomial divides it: after so many zero bytes a CRC is what it was.
_CRC_CYCLE = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of a source, which is named by its place among them."""

    source: int
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class JoinPart:
    """Pieces end to end. copied: a single one, which the store copies by itself."""

    pieces: tuple[Piece, ...]
    copied: bool = False

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)


def plan_join(limits: PartLimits, sizes: Sequence[int]) -> list[JoinPart]:
    """Cut sources of `sizes`, end to end, into parts; at least one, which may be empty.

    A single part that is not copied may as well be put as the object. Raises ValueError where no
    plan exists: the whole is larger than the limits allow.
    """
    total = sum(sizes)
    if total <= limits.min_part_size:
        return [JoinPart(_pieces(sizes))]
    mean = -(-total // limits.max_parts)
    if mean > limits.max_part_size:
        raise ValueError(f"{total} bytes do not fit into {limits.max_parts} parts")
    # Large enough for all ranges to take but half of the numbers there are.
    range_size = min(limits.max_part_size, max(RANGE_SIZE, 2 * mean))
    if not limits.equal_parts and range_size >= 2 * limits.min_part_size:
        parts = _Cutting(limits, range_size).cut(sizes)
        if len(parts) <= limits.max_parts:
            return parts
    return _cut_equally(limits, sizes, max(limits.preferred_part_size, mean))


class _Cutting:
    """From left to right: what is too small is gathered, and closed before what is copied."""

    def __init__(self, limits: PartLimits, range_size: int) -> None:
        self._least = limits.min_part_size
        self._largest = limits.max_part_size
        self._preferred = limits.preferred_part_size
        self._range_size = range_size
        self._parts: list[JoinPart] = []
        self._gathered: list[Piece] = []
        self._gathered_size = 0

    def cut(self, sizes: Sequence[int]) -> list[JoinPart]:
        for piece in _pieces(sizes):
            start = self._needed() if piece.size > self._least else piece.size
            if piece.size - start < self._least:
                start = piece.size
            self._gather(Piece(piece.source, 0, start))
            if start < piece.size:
                self._close()
                self._copy(Piece(piece.source, start, piece.size))
        self._close()
        return self._parts

    def _needed(self) -> int:
        """Give how much is missing to what was gathered before it may be a part."""
        return max(0, self._least - self._gathered_size) if self._gathered else 0

    def _gather(self, piece: Piece) -> None:
        start = piece.start
        while start < piece.end:
            end = min(piece.end, start + self._preferred - self._gathered_size)
            self._gathered.append(Piece(piece.source, start, end))
            self._gathered_size += end - start
            if self._gathered_size == self._preferred:
                self._close()
            start = end

    def _close(self) -> None:
        if self._gathered:
            self._parts.append(JoinPart(tuple(self._gathered)))
            self._gathered.clear()
            self._gathered_size = 0

    def _copy(self, piece: Piece) -> None:
        """Copy a source as a whole where that can be, else its rest in ranges of about one size."""
        whole = piece.start == 0 and piece.size <= self._largest
        count = 1 if whole else -(-piece.size // self._range_size)
        ends = [piece.start + piece.size * nth // count for nth in range(count + 1)]
        for start, end in pairwise(ends):
            self._parts.append(JoinPart((Piece(piece.source, start, end),), copied=True))


def _cut_equally(limits: PartLimits, sizes: Sequence[int], size: int) -> list[JoinPart]:
    """Make all parts of one size but the last; copied is what lies within one source."""
    parts: list[JoinPart] = []
    pieces: list[Piece] = []
    room = size

    def close() -> None:
        (first, *others) = pieces
        copied = not others and sizes[first.source] > limits.min_part_size
        parts.append(JoinPart(tuple(pieces), copied))
        pieces.clear()

    for source in _pieces(sizes):
        start = 0
        while start < source.end:
            end = min(source.end, start + room)
            pieces.append(Piece(source.source, start, end))
            room -= end - start
            start = end
            if not room:
                close()
                room = size
    if pieces:
        close()
    return parts


def _pieces(sizes: Sequence[int]) -> tuple[Piece, ...]:
    """Give the sources that are not empty."""
    return tuple(Piece(source, 0, size) for source, size in enumerate(sizes) if size)


def fill_in_crcs(crcs: Sequence[int | None], sizes: Sequence[int], whole: int) -> list[int]:
    """Give CRCs for parts of `sizes` whose combination is `whole`.

    For stores that tell nothing of what they have copied: what is not known is made up, and right
    only together. Where all are known they are given as they are.
    """
    filled = [EMPTY_CRC64 if crc is None else crc for crc in crcs]
    if None in crcs:
        last = max(place for place, crc in enumerate(crcs) if crc is None)
        # A CRC is linear: what the made-up one has to add is what is missing at the end, shifted
        # back over the bytes behind it; and that is shifting on until the cycle is through.
        behind = sum(sizes[last + 1 :])
        missing = whole ^ combined(filled, sizes)
        filled[last] = combine_crc64(missing, EMPTY_CRC64, _CRC_CYCLE - behind)
    return filled


def combined(crcs: Sequence[int], sizes: Sequence[int]) -> int:
    """Give the CRC of byte strings laid end to end."""
    crc = EMPTY_CRC64
    for following, size in zip(crcs, sizes, strict=True):
        crc = combine_crc64(crc, following, size)
    return crc
