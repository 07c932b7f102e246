"""The part planner: whatever way an upload takes, its bytes fit the numbers and the sizes."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tus_server.core.parts import MIB, flush_at_end, number_of, plan_part_size
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER
from tus_server.ports import StoreLimits

GIB = 1024 * MIB
TIB = 1024 * GIB

S3 = StoreLimits(
    min_part_size=5 * MIB,
    max_part_size=5 * GIB,
    max_parts=10_000,
    preferred_part_size=8 * MIB,
    max_object_size=5 * TIB,
    reserved_numbers=16,
)
EQUAL = StoreLimits(
    min_part_size=5 * MIB,
    max_part_size=5 * GIB,
    max_parts=10_000,
    preferred_part_size=8 * MIB,
    max_object_size=5 * TIB,
    equal_parts=True,
)
LOCAL = StoreLimits(
    min_part_size=1,
    max_part_size=MAX_ANNOUNCED_INTEGER,
    max_parts=MAX_ANNOUNCED_INTEGER,
    preferred_part_size=32 * MIB,
    max_object_size=MAX_ANNOUNCED_INTEGER,
    keeps_receipts=False,
)


@dataclass(slots=True)
class Plan:
    """An upload as the planner sees it: what is stored, what waits as the tail, what may come.

    Every step checks the property; `sizes` are those of the stored parts.
    """

    limits: StoreLimits
    length: int | None
    start: int = 0  # stored, in parts
    held: int = 0  # behind them: the part that grows, the tail between requests
    number: int = 1
    part_size: int | None = None  # of equal parts
    sizes: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.limits.max_object_size if self.length is None else self.length

    @property
    def missing(self) -> int:
        return self.end - self.start - self.held

    def request(self, size: int) -> None:
        """Receive one body of `size` bytes, or what is missing where that is less."""
        size = min(size, self.missing)
        full = False
        while self.start < self.end:
            # The first part of a request begins with the whole tail.
            goal = plan_part_size(
                self.limits,
                length=self.length,
                start=self.start,
                number=self.number,
                first_size=self.part_size,
                at_least=self.held,
            )
            taken = min(size, goal - self.held)
            self.held += taken
            size -= taken
            full = self.held == goal
            if size == 0:
                break
            self._store()
        if self.held and flush_at_end(
            self.limits,
            length=self.length,
            start=self.start,
            size=self.held,
            numbers_left=self.limits.max_parts - self.number + 1,
            full=full,
        ):
            self._store()

    def settle(self, length: int) -> None:
        """Learn the length: the tail may be more than a part of the new plan then."""
        self.length = length

    def crash(self, lost: int) -> None:
        """Lose the part numbers that a lease had set aside; with all bytes there nobody has one."""
        if not self.limits.equal_parts and self.start < self.end:
            self.number += lost
            self.check()

    def _store(self) -> None:
        limits, size = self.limits, self.held
        last = self.start + size == self.end
        assert 0 < size <= limits.max_part_size
        assert last or size >= limits.min_part_size
        if limits.equal_parts:
            assert self.number == number_of(self.start, self.part_size)
            assert self.part_size in (None, size) or (last and size < (self.part_size or 0))
            self.part_size = self.part_size or size
        self.sizes.append(size)
        self.start += size
        self.held = 0
        self.number += 1
        self.check()

    def check(self) -> None:
        """Assert that the bytes still to come fit into the part numbers still free."""
        numbers_left = self.limits.max_parts - self.number + 1
        largest = self.part_size or self.limits.max_part_size
        assert numbers_left * largest >= self.end - self.start


def run(
    limits: StoreLimits,
    length: int,
    requests: list[tuple[int, int]],
    settled_at: int | None,
    losses: list[tuple[int, int]] | None = None,
) -> Plan:
    """Upload `length` bytes: (size, times) of each run of requests, then the rest in one.

    settled_at: before which request the length becomes known; None: it always was. losses: before
    which request how many part numbers are lost.
    """
    plan = Plan(limits, length if settled_at is None else None)
    plan.check()
    bodies = [size for size, times in requests for _ in range(times)]
    lost = dict(losses or [])
    for index, size in enumerate(bodies):
        if index == settled_at:
            plan.settle(length)
        plan.crash(lost.pop(index, 0))
        plan.request(min(size, length - plan.start - plan.held))
    for numbers in lost.values():
        plan.crash(numbers)
    if plan.length is None:
        plan.settle(length)
    plan.request(length)

    assert (plan.start, plan.held) == (length, 0)
    assert sum(plan.sizes) == length
    return plan


# --- examples


@pytest.mark.parametrize("length", [1, 4 * MIB, 8 * MIB])
def test_a_known_length_within_one_part_is_one_part(length: int) -> None:
    assert run(S3, length, [], None).sizes == [length]
    assert run(S3, length, [(1, 3), (length // 2, 2)], None).sizes == [length]


def test_a_known_length_takes_the_preferred_size_where_the_numbers_suffice() -> None:
    assert run(S3, 20 * MIB, [], None).sizes == [8 * MIB, 8 * MIB, 4 * MIB]
    assert plan_part_size(S3, length=70_000 * MIB, start=0, number=1, first_size=None) == 8 * MIB


def test_a_large_known_length_takes_the_smallest_whole_mebibytes_that_fit() -> None:
    size = plan_part_size(S3, length=70_000 * MIB + 1, start=0, number=1, first_size=None)

    assert size == 9 * MIB


@pytest.mark.parametrize("limits", [S3, EQUAL])
@pytest.mark.parametrize("settled_at", [None, 0])
def test_the_largest_object_fits(limits: StoreLimits, settled_at: int | None) -> None:
    plan = run(limits, 5 * TIB, [], settled_at)

    assert len(plan.sizes) <= 10_000


def test_the_largest_object_fits_when_its_length_is_never_told() -> None:
    plan = Plan(S3, None)
    plan.request(5 * TIB)

    assert plan.start + plan.held == 5 * TIB
    assert plan.sizes[:625] == [8 * MIB] * 625  # small parts first


def test_the_largest_object_fits_behind_a_gigabyte_in_crumbs() -> None:
    plan = run(S3, 5 * TIB, [(5 * MIB, 200), (1, 100)], None)

    assert plan.sizes[:200] == [5 * MIB] * 200


def test_what_waits_at_the_end_of_a_request_is_below_the_smallest_part_while_numbers_last() -> None:
    plan = Plan(S3, None)
    for _ in range(3000):
        plan.request(6 * MIB)
        assert plan.held < S3.min_part_size


def test_parts_grow_while_a_deferred_upload_does() -> None:
    plan = Plan(S3, None)
    plan.request(300 * GIB)

    assert plan.sizes[:-1] == sorted(plan.sizes[:-1])
    assert plan.sizes[-2] > 100 * MIB


def test_a_deferred_upload_of_equal_parts_serves_the_largest_object_from_the_start() -> None:
    size = plan_part_size(EQUAL, length=None, start=0, number=1, first_size=None)

    assert size == 525 * MIB


def test_equal_parts_are_never_flushed_early() -> None:
    plan = Plan(EQUAL, 40 * MIB)
    for _ in range(6):
        plan.request(7 * MIB)

    assert plan.sizes == [8 * MIB] * 5


def test_local_disk_has_no_tail() -> None:
    plan = Plan(LOCAL, None)
    for size in (1, 5, 100 * MIB, 3):
        plan.request(size)
        assert plan.held == 0
    plan.settle(plan.start + 2)
    plan.request(2)

    assert plan.sizes == [1, 5, 32 * MIB, 32 * MIB, 32 * MIB, 4 * MIB, 3, 2]


def test_a_preferred_size_of_a_few_bytes_is_taken_at_its_word() -> None:
    tiny = StoreLimits(
        min_part_size=1,
        max_part_size=MAX_ANNOUNCED_INTEGER,
        max_parts=MAX_ANNOUNCED_INTEGER,
        preferred_part_size=7,
        max_object_size=MAX_ANNOUNCED_INTEGER,
    )

    assert run(tiny, 16, [], None).sizes == [7, 7, 2]
    assert run(tiny, 16, [], 0).sizes == [7, 7, 2]


def test_one_byte_more_than_the_numbers_hold_has_no_plan() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        plan_part_size(S3, length=10_000 * 5 * GIB + 1, start=0, number=1, first_size=None)
    with pytest.raises(ValueError, match="10001"):
        plan_part_size(S3, length=TIB, start=0, number=10_001, first_size=None)


def test_a_part_takes_the_whole_tail_that_was_planned_otherwise() -> None:
    def planned(limits: StoreLimits, length: int | None) -> int:
        tail = 20 * MIB
        return plan_part_size(
            limits, length=length, start=0, number=1, first_size=None, at_least=tail
        )

    assert planned(S3, None) == 20 * MIB
    assert planned(S3, 30 * MIB) == 20 * MIB
    assert planned(S3, 20 * MIB) == 20 * MIB
    assert planned(EQUAL, 30 * MIB) == 20 * MIB
    assert planned(EQUAL, None) == 525 * MIB


def test_equal_parts_have_the_number_their_place_tells() -> None:
    assert number_of(0, None) == 1
    assert [number_of(n * 8 * MIB, 8 * MIB) for n in range(3)] == [1, 2, 3]


def test_a_full_part_is_never_a_tail() -> None:
    for limits in (S3, EQUAL):
        plan = Plan(limits, 24 * MIB)
        for _ in range(3):
            plan.request(8 * MIB)
            assert plan.held == 0
        assert plan.sizes == [8 * MIB] * 3


@pytest.mark.parametrize("length", [None, 5 * TIB, GIB])
def test_leases_that_end_without_a_release_do_not_use_up_the_numbers(length: int | None) -> None:
    plan = Plan(S3, length)
    for _ in range(100):
        plan.crash(16)
        plan.request(6 * MIB)
    plan.request(5 * TIB)

    assert plan.missing == 0


def test_numbers_are_left_for_a_crash_behind_the_last_planned_part() -> None:
    plan = Plan(S3, 5 * TIB)
    plan.request(5 * TIB - 1)

    assert plan.number < 9_000
    plan.crash(40 * 16)
    plan.request(1)
    assert plan.missing == 0


def test_crumbs_stop_before_they_use_up_the_numbers() -> None:
    plan = Plan(S3, 80 * GIB)
    longest_tail = 0
    while plan.missing:
        plan.request(5 * MIB)
        longest_tail = max(longest_tail, plan.held)

    assert plan.sizes[:7500] == [5 * MIB] * 7500
    assert plan.number < 9_000
    assert longest_tail < 70 * MIB


def test_nothing_is_no_part() -> None:
    assert not flush_at_end(S3, length=None, start=0, size=0, numbers_left=10)
    assert not flush_at_end(S3, length=0, start=0, size=0, numbers_left=10)


def test_the_last_number_is_kept_for_the_end() -> None:
    assert not flush_at_end(S3, length=GIB, start=0, size=6 * MIB, numbers_left=1)
    assert flush_at_end(S3, length=6 * MIB, start=0, size=6 * MIB, numbers_left=1)


# --- properties


SIZES = (
    st.sampled_from([1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 8 * MIB, 8 * MIB + 1, GIB])
    | st.integers(1, 64 * MIB)
    | st.integers(1, 10 * GIB)
)
REQUESTS = st.lists(
    st.tuples(SIZES, st.sampled_from([1, 2, 50]) | st.sampled_from([700, 4000, 9999])), max_size=6
)
LENGTHS = st.integers(1, 64 * MIB) | st.integers(1, 5 * TIB) | st.just(5 * TIB)
SETTLED_AT = st.none() | st.integers(0, 3) | st.integers(0, 30_000)
# 600 numbers in all: some 40 leases that end without a release.
LOSSES = st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 200)), max_size=3) | st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 16)), max_size=37
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([S3, EQUAL]), LENGTHS, REQUESTS, SETTLED_AT, LOSSES)
def test_any_way_to_upload_fits_s3(
    limits: StoreLimits,
    length: int,
    requests: list[tuple[int, int]],
    settled_at: int | None,
    losses: list[tuple[int, int]],
) -> None:
    plan = run(limits, length, requests, settled_at, losses)

    assert plan.number <= limits.max_parts + 1
    if settled_at is None and length <= limits.preferred_part_size:
        assert plan.sizes == [length]


@settings(deadline=None)
@given(
    st.integers(1, MAX_ANNOUNCED_INTEGER // 2**10) | st.integers(1, GIB),
    st.lists(st.tuples(st.integers(1, GIB), st.integers(1, 20)), max_size=5),
    SETTLED_AT,
)
def test_any_way_to_upload_fits_local_disk_without_a_tail(
    length: int, requests: list[tuple[int, int]], settled_at: int | None
) -> None:
    # The rest of a huge upload would be millions of equal steps: it ends where the requests do.
    length = min(length, sum(size * times for size, times in requests) + GIB)
    plan = run(LOCAL, length, requests, settled_at)

    assert max(plan.sizes) <= LOCAL.preferred_part_size


@st.composite
def toy_limits(draw: st.DrawFn) -> StoreLimits:
    """Limits at which every edge is near: few numbers, parts of a few bytes or MiB."""
    unit = draw(st.sampled_from([1, 3, MIB, MIB + 1]))
    smallest = draw(st.integers(1, 6)) * unit
    preferred = smallest + draw(st.integers(0, 6)) * unit
    largest = preferred + draw(st.integers(0, 40)) * unit
    numbers = draw(st.integers(1, 24))
    return StoreLimits(
        min_part_size=smallest,
        max_part_size=largest,
        max_parts=numbers,
        preferred_part_size=preferred,
        max_object_size=draw(st.integers(largest, largest * numbers)),
        equal_parts=draw(st.booleans()),
    )


@settings(max_examples=200, deadline=None)
@given(toy_limits(), st.data())
def test_any_way_to_upload_fits_toy_limits(limits: StoreLimits, data: st.DataObject) -> None:
    length = data.draw(
        st.integers(1, limits.max_object_size) | st.just(limits.max_object_size), "length"
    )
    size = st.integers(1, limits.max_part_size) | st.sampled_from(
        [1, limits.min_part_size, limits.preferred_part_size]
    )
    requests = data.draw(st.lists(st.tuples(size, st.integers(1, 12)), max_size=6), "requests")
    settled_at = data.draw(st.none() | st.integers(0, 20), "settled at")

    plan = run(limits, length, requests, settled_at)

    assert len(plan.sizes) <= limits.max_parts


@settings(deadline=None)
@given(toy_limits(), st.data())
def test_a_known_length_that_is_planned_as_one_part_stays_one(
    limits: StoreLimits, data: st.DataObject
) -> None:
    length = data.draw(st.integers(1, min(limits.preferred_part_size, limits.max_object_size)))
    sizes = data.draw(st.lists(st.integers(1, limits.preferred_part_size), max_size=8))

    plan = run(limits, length, [(size, 1) for size in sizes], None)

    assert plan.sizes == [length] or limits.min_part_size == 1


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_way_to_upload_survives_leases_that_end_without_a_release(data: st.DataObject) -> None:
    numbers = data.draw(st.integers(64, 400), "numbers")
    limits = StoreLimits(
        min_part_size=5,
        max_part_size=500,
        max_parts=numbers,
        preferred_part_size=data.draw(st.integers(5, 40), "preferred"),
        max_object_size=500 * numbers // 4,
        reserved_numbers=4,
    )
    length = data.draw(st.integers(1, limits.max_object_size), "length")
    requests = data.draw(
        st.lists(st.tuples(st.integers(1, 600), st.integers(1, 200)), max_size=6), "requests"
    )
    losses = data.draw(
        st.lists(
            st.tuples(st.integers(0, 600), st.integers(1, 4)),
            max_size=numbers // 16 // 4,
            unique_by=lambda loss: loss[0],
        ),
        "losses",
    )
    settled_at = data.draw(st.none() | st.integers(0, 600), "settled at")

    plan = run(limits, length, requests, settled_at, losses)

    assert plan.number <= limits.max_parts + 1


def test_small_parts_leave_the_last_numbers_to_leases_that_end_in_crashes() -> None:
    limits = StoreLimits(
        min_part_size=5,
        max_part_size=500,
        max_parts=64,
        preferred_part_size=12,
        max_object_size=8000,
        reserved_numbers=4,
    )

    plan = run(limits, 1117, [(18, 62)], None, [(62, 2)])

    assert plan.number <= limits.max_parts + 1
