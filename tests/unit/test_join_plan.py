"""How objects end to end are cut into parts of another one that a store copies."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.checksums import crc64
from tus_server.core.parts import MIB
from tus_server.objects.s3.join_plan import JoinPart, Piece, combined, fill_in_crcs, plan_join
from tus_server.ports import StoreLimits

GIB = 1024 * MIB
S3 = StoreLimits(
    min_part_size=5 * MIB,
    max_part_size=5 * GIB,
    max_parts=10_000,
    preferred_part_size=8 * MIB,
    max_object_size=5 * 1024 * GIB,
)


def toy(
    least: int, preferred: int, largest: int, most: int = 10_000, *, equal: bool = False
) -> StoreLimits:
    return StoreLimits(least, largest, most, preferred, largest * most, equal_parts=equal)


@st.composite
def plans(draw: st.DrawFn) -> tuple[StoreLimits, list[int]]:
    """Give limits, and sizes of sources that fit them."""
    least = draw(st.integers(1, 12))
    preferred = draw(st.integers(least, 20))
    largest = draw(st.integers(preferred, 100))
    most = draw(st.integers(1, 40))
    limits = toy(least, preferred, largest, most, equal=draw(st.booleans()))
    sizes = []
    left = largest * most
    for size in draw(st.lists(st.integers(0, 3 * largest), max_size=30)):
        sizes.append(min(size, left))
        left -= sizes[-1]
    return limits, sizes


@given(plans())
def test_every_plan_is_one_the_store_takes(found: tuple[StoreLimits, list[int]]) -> None:
    limits, sizes = found

    parts = plan_join(limits, sizes)

    # Every byte of every source, once, in order.
    pieces = [piece for part in parts for piece in part.pieces]
    position = [(piece.source, piece.start, piece.end) for piece in pieces]
    assert position == sorted(position)
    assert all(start < end for _, start, end in position)
    for source, size in enumerate(sizes):
        of_source = [piece for piece in pieces if piece.source == source]
        assert sum(piece.size for piece in of_source) == size
        if size:
            assert (of_source[0].start, of_source[-1].end) == (0, size)
    # In parts as the store wants them.
    assert 1 <= len(parts) <= limits.max_parts
    assert all(part.size >= limits.min_part_size for part in parts[:-1])
    assert all(part.size <= limits.max_part_size for part in parts)
    if limits.equal_parts:
        assert len({part.size for part in parts[:-1]} | {max(p.size for p in parts)}) == 1
    for part in parts:
        if part.copied:
            (piece,) = part.pieces
            assert sizes[piece.source] > limits.min_part_size


@given(plans())
def test_little_passes_through(found: tuple[StoreLimits, list[int]]) -> None:
    """What is copied by the store is all that can be, but what borders on something small."""
    limits, sizes = found
    parts = plan_join(limits, sizes)
    mean = -(-sum(sizes) // limits.max_parts)
    planned = max(limits.preferred_part_size, mean)

    through = [part.size for part in parts if not part.copied]

    # Bounded memory: none of these is larger than a part that was received.
    assert all(size <= planned for size in through)
    small = sum(size for size in sizes if size <= 2 * limits.min_part_size)
    few = len(parts) < limits.max_parts and limits.max_part_size >= 2 * limits.min_part_size
    if few and not limits.equal_parts and len(parts) * 3 < limits.max_parts:
        large = sum(size > 2 * limits.min_part_size for size in sizes)
        assert sum(through) <= small + large * limits.min_part_size


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([], [((), False)]),
        ([0, 0], [((), False)]),
        ([1], [(((0, 0, 1),), False)]),
        ([5], [(((0, 0, 5),), False)]),
        ([6], [(((0, 0, 6),), True)]),
        ([2, 2], [(((0, 0, 2), (1, 0, 2)), False)]),
        ([20], [(((0, 0, 20),), True)]),
        ([50], [(((0, 0, 16),), True), (((0, 16, 33),), True), (((0, 33, 50),), True)]),
        ([2, 20], [(((0, 0, 2), (1, 0, 3)), False), (((1, 3, 20),), True)]),
        ([2, 7], [(((0, 0, 2), (1, 0, 6)), False), (((1, 6, 7),), False)]),
        ([20, 2], [(((0, 0, 20),), True), (((1, 0, 2),), False)]),
        ([0, 20, 0, 0, 2], [(((1, 0, 20),), True), (((4, 0, 2),), False)]),
        ([4, 4, 4], [(((0, 0, 4), (1, 0, 4)), False), (((2, 0, 4),), False)]),
    ],
)
def test_plans_look_like_this(
    sizes: list[int], parts: list[tuple[tuple[tuple[int, int, int], ...], bool]]
) -> None:
    expected = [
        JoinPart(tuple(Piece(*piece) for piece in found), copied) for found, copied in parts
    ]

    assert plan_join(toy(5, 8, 20), sizes) == expected


def test_equal_parts_are_copied_where_they_lie_within_a_source() -> None:
    parts = plan_join(toy(5, 8, 20, equal=True), [20, 20, 3])

    assert [(part.size, part.copied) for part in parts] == [
        (8, True),
        (8, True),
        (8, False),
        (8, True),
        (8, True),
        (3, False),
    ]


def test_ten_partials_of_a_gib_are_ten_copies() -> None:
    assert [part.copied for part in plan_join(S3, [GIB] * 10)] == [True] * 10


def test_a_thousand_small_ones_are_few_parts() -> None:
    parts = plan_join(S3, [MIB] * 1000)

    assert len(parts) == 125
    assert not any(part.copied for part in parts)


def test_what_is_larger_than_a_part_is_copied_in_ranges_at_the_same_time() -> None:
    parts = plan_join(S3, [5 * GIB, 5 * GIB + 1])

    assert parts[0].size == 5 * GIB
    assert len(parts) == 22
    assert max(part.size for part in parts[1:]) <= 256 * MIB


def test_the_largest_object_fits() -> None:
    for sizes in ([5 * 1024 * GIB], [1] + [GIB] * 5119 + [GIB - 1], [5 * 1024 * GIB - 1, 1]):
        parts = plan_join(S3, sizes)
        assert len(parts) <= S3.max_parts
        assert sum(part.size for part in parts) == 5 * 1024 * GIB


def test_what_fits_no_parts_has_no_plan() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        plan_join(toy(1, 1, 10, 2), [21])


# --- checksums that nobody tells


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 2**64 - 1),
)
def test_made_up_checksums_are_right_together(blocks: list[tuple[bytes, bool]], other: int) -> None:
    contents = [block for block, _ in blocks]
    sizes = [len(block) for block in contents]
    whole = crc64(b"".join(contents))
    crcs = [crc64(block) if known else None for block, known in blocks]

    filled = fill_in_crcs(crcs, sizes, whole)

    assert combined(filled, sizes) == whole
    for given_crc, crc in zip(crcs, filled, strict=True):
        assert given_crc in (None, crc)
    # Where all is known nothing is made up, so a wrong whole shows.
    known = [crc64(block) for block in contents]
    assert fill_in_crcs(known, sizes, other) == known


def test_made_up_checksums_are_right_for_large_parts_too() -> None:
    crc, random = 0, Random(1)
    sizes = [5 * GIB, 5 * GIB, 7 * MIB + 1]
    crcs: list[int | None] = [random.getrandbits(64), None, random.getrandbits(64)]
    crc = random.getrandbits(64)

    assert combined(fill_in_crcs(crcs, sizes, crc), sizes) == crc
