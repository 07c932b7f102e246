import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.errors import RangeNotSatisfiable
from tus_server.wire.ranges import parse_range, render_content_range


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 6)),
        ("bytes=2-", (2, 10)),
        ("bytes=9-9", (9, 10)),
        ("bytes=-3", (7, 10)),
        ("Bytes=0-1", (0, 2)),
        ("bytes=007-0000000000000000000000008", (7, 9)),
    ],
)
def test_a_single_range_is_half_open(value: str, expected: tuple[int, int]) -> None:
    assert parse_range(value, 10) == expected


@pytest.mark.parametrize("value", ["bytes=4-99", "bytes=4-" + "9" * 5000])
def test_an_end_behind_the_file_is_cut_to_it(value: str) -> None:
    assert parse_range(value, 10) == (4, 10)


@pytest.mark.parametrize("value", ["bytes=-99", "bytes=-" + "9" * 5000])
def test_a_suffix_longer_than_the_file_is_all_of_it(value: str) -> None:
    assert parse_range(value, 10) == (0, 10)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5",
        "bytes=5-4",
        "bytes= 0-1",
        "bytes=0 -1",
        "bytes=0-1\n",
        "bytes=+0-1",
        "bytes=1_0-",
        "bytes=\u0663-\u0665",
        "byte\u017f=0-1",
        "lines=0-1",
        "bytes=0-1,3-4",
        "bytes=0-1,",
        "bytes=0-1, bytes=0-1",
    ],
)
def test_what_is_malformed_of_another_unit_or_several_is_ignored(value: str) -> None:
    assert parse_range(value, 10) is None


@pytest.mark.parametrize(
    "value", ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=" + "9" * 5000 + "-"]
)
def test_a_range_without_a_byte_of_the_file_is_not_satisfiable(value: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(value, 10)

    assert caught.value.length == 10


def test_an_empty_file_has_no_first_byte() -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range("bytes=0-", 0)


def test_the_last_bytes_of_an_empty_file_are_the_whole_file() -> None:
    assert parse_range("bytes=-5", 0) is None


def test_content_range_counts_its_last_byte() -> None:
    assert render_content_range(2, 6, 10) == "bytes 2-5/10"


@given(
    st.one_of(st.text(), st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True)),
    st.integers(min_value=0, max_value=2**63),
)
def test_any_field_gives_a_part_of_the_file_nothing_or_the_documented_error(
    value: str, length: int
) -> None:
    try:
        found = parse_range(value, length)
    except RangeNotSatisfiable:
        return

    assert found is None or 0 <= found[0] < found[1] <= length


@given(st.data(), st.integers(min_value=1, max_value=2**63 - 1))
def test_the_range_of_a_content_range_is_the_one_asked_for(
    data: st.DataObject, length: int
) -> None:
    start = data.draw(st.integers(min_value=0, max_value=length - 1))
    end = data.draw(st.integers(min_value=start + 1, max_value=length))

    assert parse_range(f"bytes={start}-{end - 1}", length) == (start, end)
    assert render_content_range(start, end, length) == f"bytes {start}-{end - 1}/{length}"
