"""How the bytes of a direct upload are cut into parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import toy_limits
from tus_server.core.direct import MAX_PARTS, check_part_size, part_count, part_range, plan_direct
from tus_server.core.parts import MIB
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER, Protocol
from tus_server.ports import StoreLimits

S3 = StoreLimits(
    min_part_size=5 * MIB,
    max_part_size=5 * 1024 * MIB,
    max_parts=10_000,
    preferred_part_size=8 * MIB,
    max_object_size=5 * 1024 * 1024 * MIB,
)
DISK = toy_limits(32 * MIB, keeps_receipts=False, max_parts=MAX_ANNOUNCED_INTEGER)


@given(
    length=st.integers(0, S3.max_object_size),
    preferred_size=st.integers(1, 5 * 1024 * MIB),
    limits=st.sampled_from([S3, DISK]),
)
def test_parts_cover_every_byte_once_and_fit_the_store(
    length: int, preferred_size: int, limits: StoreLimits
) -> None:
    size = plan_direct(limits, Protocol.MULTIPART, length=length, preferred_size=preferred_size)

    count = part_count(length, size)
    assert 1 <= count <= MAX_PARTS
    assert limits.min_part_size <= size <= limits.max_part_size
    reached = 0
    for number in {1, 2, count // 2, count - 1, count} & set(range(1, count + 1)):
        start, part_size = part_range(number, length=length, part_size=size)
        assert start == (number - 1) * size
        assert part_size == (size if number < count else length - start)
        assert 0 < part_size <= size or length == 0
        reached = max(reached, start + part_size)
    assert reached == length


@pytest.mark.parametrize(
    ("length", "size"),
    [(0, 16), (1, 16), (160_000 * MIB, 16), (160_000 * MIB + 1, 17), (5 * 1024**2 * MIB, 525)],
)
def test_parts_have_the_preferred_size_unless_they_would_be_too_many(
    length: int, size: int
) -> None:
    found = plan_direct(S3, Protocol.MULTIPART, length=length, preferred_size=16 * MIB)

    assert found == size * MIB


@given(length=st.integers(0, 5 * 1024 * MIB))
def test_a_single_upload_is_one_part(length: int) -> None:
    size = plan_direct(S3, Protocol.SINGLE, length=length, preferred_size=16 * MIB)

    assert part_count(length, size) == 1
    assert part_range(1, length=length, part_size=size) == (0, length)


def test_a_single_upload_beyond_the_largest_part_has_no_plan() -> None:
    with pytest.raises(ValueError, match=str(S3.max_part_size + 1)):
        plan_direct(S3, Protocol.SINGLE, length=S3.max_part_size + 1, preferred_size=16 * MIB)


def test_a_multipart_upload_beyond_the_largest_object_has_no_plan() -> None:
    with pytest.raises(ValueError, match="bytes"):
        plan_direct(
            S3,
            Protocol.MULTIPART,
            length=S3.max_part_size * 10_000 + 1,
            preferred_size=16 * MIB,
        )


@pytest.mark.parametrize(
    ("limits", "part_size", "length"),
    [
        (S3, 5 * MIB, 50_000 * MIB),
        (S3, 5 * MIB + 1, 0),
        (S3, 1, 1),  # one part is the last part
        (S3, 5 * 1024 * MIB, 1),
        (DISK, 1, MAX_PARTS),
    ],
)
def test_a_part_size_that_the_store_takes_may_be_chosen(
    limits: StoreLimits, part_size: int, length: int
) -> None:
    check_part_size(limits, part_size, length=length)

    assert part_count(length, part_size) <= MAX_PARTS


@pytest.mark.parametrize(
    ("limits", "part_size", "length", "words"),
    [
        (S3, 0, 1, "1 or more"),
        (S3, -5, 0, "1 or more"),
        (S3, 5 * MIB - 1, 5 * MIB, "5242880 bytes or more"),
        (S3, 5 * 1024 * MIB + 1, 1, "no part has more than"),
        (S3, 5 * MIB, 50_000 * MIB + 1, "10001 parts"),
        (DISK, 1, MAX_PARTS + 1, "10001 parts"),
    ],
)
def test_a_part_size_that_does_not_fit_is_refused_with_a_sentence(
    limits: StoreLimits, part_size: int, length: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check_part_size(limits, part_size, length=length)
