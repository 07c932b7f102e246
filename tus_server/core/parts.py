"""The part planner: how the bytes of an upload are cut into parts a store takes.

Pure. The property every function keeps: in every reachable state the bytes still to come fit into
the part numbers still free. Sizes in bytes.
"""

from typing import Protocol

MIB = 1024 * 1024


class PartLimits(Protocol):
    """The limits a plan needs; ports.StoreLimits has them."""

    @property
    def min_part_size(self) -> int: ...
    @property
    def max_part_size(self) -> int: ...
    @property
    def max_parts(self) -> int: ...
    @property
    def preferred_part_size(self) -> int: ...
    @property
    def max_object_size(self) -> int: ...
    @property
    def equal_parts(self) -> bool: ...
    @property
    def reserved_numbers(self) -> int: ...


def _mean(rest: int, numbers: int) -> int:
    """Give the smallest part size with which `rest` bytes fit `numbers` parts."""
    return -(-rest // numbers)


def _rounded(limits: PartLimits, size: int) -> int:
    """Give the preferred size, or above it whole MiB, as far as the largest part allows."""
    if size <= limits.preferred_part_size:
        return limits.preferred_part_size
    return min(-(-size // MIB) * MIB, limits.max_part_size)


def _dependable(limits: PartLimits, numbers_left: int) -> int:
    """Give how many of the numbers left a plan may count on.

    A lease that ends without a release takes the numbers with it that were set aside for it. So
    the last eighth is kept for that, and once it is being used, half of what is left.
    """
    kept = _kept(limits)
    if kept == 0:
        return numbers_left
    return numbers_left - kept if numbers_left > kept else max(numbers_left // 2, 1)


def _kept(limits: PartLimits) -> int:
    """Give how many of the last numbers are there for leases that end in crashes."""
    return limits.max_parts // 8 if limits.reserved_numbers and not limits.equal_parts else 0


def number_of(start: int, part_size: int | None) -> int:
    """Give the number of the part at byte `start` in a store of equal parts.

    part_size: of every part but the last; None while no part is stored, which makes it the first.
    """
    if part_size is None:
        assert start == 0
        return 1
    assert start % part_size == 0
    return start // part_size + 1


def plan_part_size(
    limits: PartLimits,
    *,
    length: int | None,
    start: int,
    number: int,
    first_size: int | None,
    at_least: int = 0,
) -> int:
    """Give the size part `number` (from 1), which begins at byte `start`, should grow to.

    length: of the upload, None while deferred. first_size: size of part 1 where one is stored,
    which an equal-part store repeats. at_least: bytes of the tail, all of which this part begins
    with; it was planned when the length was not known, or with other settings, maybe. Raises
    ValueError where no plan exists: the upload is larger than the limits allow, which callers
    refuse long before.
    """
    if number > limits.max_parts:
        raise ValueError(f"part {number} of at most {limits.max_parts}")
    numbers_left = limits.max_parts - number + 1
    if limits.equal_parts and first_size is not None:
        size = first_size
    elif length is not None:
        size = _planned_for_length(limits, length - start, numbers_left)
    elif limits.equal_parts:
        # The one size is chosen before the length is known: it has to serve the largest object.
        size = _rounded(limits, _mean(limits.max_object_size, limits.max_parts))
    else:
        size = _planned_for_deferred(limits, start, number)
    size = max(size, at_least)
    return size if length is None else min(size, length - start)


def _planned_for_length(limits: PartLimits, remaining: int, numbers_left: int) -> int:
    if _mean(remaining, numbers_left) > limits.max_part_size:
        raise ValueError(f"{remaining} bytes do not fit into {numbers_left} parts")
    return _rounded(limits, _mean(remaining, _dependable(limits, numbers_left)))


def _planned_for_deferred(limits: PartLimits, start: int, number: int) -> int:
    """Grow by the share of the numbers used: small parts first, and still room for the largest.

    What is left of the largest object, spread over the numbers left, is the least a part may be
    on average from here on. Small parts are affordable while that mean stays below half of the
    largest part and another number follows.
    """
    numbers_left = _dependable(limits, limits.max_parts - number + 1)
    mean = _mean(limits.max_object_size - start, numbers_left)
    if numbers_left > 1 and 2 * mean <= limits.max_part_size:
        steps = (number - 1) * 16 // limits.max_parts
        return min(limits.preferred_part_size << steps, _rounded(limits, 2 * mean))
    return _rounded(limits, mean)


def flush_at_end(
    limits: PartLimits,
    *,
    length: int | None,
    start: int,
    size: int,
    numbers_left: int,
    full: bool = False,
) -> bool:
    """Tell whether a remainder of `size` bytes at the end of a request becomes a part at once.

    numbers_left: that of this part included. full: it has its planned size. Otherwise it becomes
    the tail. A part at once, so that few acknowledged bytes depend on one node; not where the
    store would refuse it, where a known length fits one part (it ends as one put), where parts
    must be equal, or where numbers are scarce.
    """
    if size == 0:
        return False
    if full or (length is not None and start + size == length):
        return True
    if size < limits.min_part_size or limits.equal_parts:
        return False
    whole = limits.max_object_size if length is None else length
    fits_one_part = whole <= _rounded(limits, _mean(whole, limits.max_parts))
    if fits_one_part and length is not None and start == 0 and limits.min_part_size > 1:
        return False
    numbers = min(_dependable(limits, numbers_left), numbers_left - 1)
    # The numbers kept for crashes are not for small parts.
    if numbers == 0 or numbers_left <= _kept(limits):
        return False
    # What early parts take from the numbers makes the later ones, and so the later tails, larger.
    planned = _mean(whole, _dependable(limits, limits.max_parts))
    mean = _mean(whole - start - size, numbers)
    return 2 * mean <= limits.max_part_size and mean <= max(
        2 * planned, 8 * limits.preferred_part_size
    )
