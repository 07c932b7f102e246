"""Blocks that request bodies are read into: few sizes, reused, under one budget.

A body starts with a small block and gets larger ones only while it keeps filling them quickly, so
a slow client costs kilobytes (P7). The budget bounds the growth; a small block is never refused,
because the number of connections bounds those.
"""

from tus_server.core.parts import MIB

SMALL, MIDDLE, LARGE = SIZES = (16 * 1024, 128 * 1024, MIB)
KEPT_BLOCKS = 16  # idle blocks kept of each size


class BlockPool:
    """Lends blocks of memory; whoever takes one gives it back when no thread uses it any more."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._lent_bytes = 0
        self._idle: dict[int, list[bytearray]] = {size: [] for size in SIZES}

    @property
    def lent_bytes(self) -> int:
        """Bytes of the blocks that are out."""
        return self._lent_bytes

    @property
    def is_short(self) -> bool:
        """Tell whether most of the budget is out: who has something under way waits for it."""
        return self._lent_bytes > self._budget_bytes * 3 // 4

    def take(self, wanted_bytes: int) -> bytearray:
        """Give the smallest block of at least `wanted_bytes`, or a smaller one beyond the budget.

        More than the largest size is not to be had: the caller looks at the block's length.
        """
        size = SMALL
        if wanted_bytes > SMALL:
            size = MIDDLE if wanted_bytes <= MIDDLE else LARGE
            if self._lent_bytes + size > self._budget_bytes:
                size = SMALL
        self._lent_bytes += size
        idle = self._idle[size]
        return idle.pop() if idle else bytearray(size)

    def give(self, block: bytearray) -> None:
        """Take a block back."""
        self._lent_bytes -= len(block)
        idle = self._idle[len(block)]
        if len(idle) < KEPT_BLOCKS:
            idle.append(block)


def grown(size: int) -> int:
    """Give the next larger size of block."""
    return min(size * 8, LARGE)
