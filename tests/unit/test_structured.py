import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.wire.headers import Fields
from tus_server.wire.structured import find_boolean, find_dictionary, find_integer


def fields(*values: bytes) -> Fields:
    return Fields([(b"x", value) for value in values])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0", 0),
        (b"5", 5),
        (b" 5 ", 5),
        (b"\t5\t", 5),
        (b"05", 5),
        (b"5;a=1", 5),
        (b"9" * 15, 10**15 - 1),
        (b"9" * 16, None),
        (b"-1", None),
        (b"5.0", None),
        (b'"5"', None),
        (b"?1", None),
        (b":AAAA:", None),
        (b"@5", None),
        (b"five", None),
        (b"+5", None),
        (b"1_0", None),
        (b"5, 5", None),
        (b"", None),
        (b"\xd9\xa3", None),
    ],
)
def test_only_non_negative_integers_are_integers(value: bytes, expected: int | None) -> None:
    """R4, R6."""
    assert find_integer(fields(value), b"x") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"?1", True),
        (b"?0", False),
        (b" ?1 ", True),
        (b"?1;a", True),
        (b"1", None),
        (b"true", None),
        (b'"?1"', None),
        (b"?2", None),
        (b"?", None),
        (b"?1, ?1", None),
        (b"", None),
    ],
)
def test_only_booleans_are_booleans(value: bytes, expected: bool | None) -> None:
    """R5."""
    assert find_boolean(fields(value), b"x") is expected


def test_an_item_that_is_repeated_is_none() -> None:
    assert find_integer(fields(b"5", b"5"), b"x") is None
    assert find_boolean(fields(b"?1", b"?1"), b"x") is None


def test_what_is_absent_is_none() -> None:
    assert find_integer(fields(), b"x") is None
    assert find_boolean(fields(), b"x") is None
    assert find_dictionary(fields(), b"x") == {}


def test_lines_of_a_dictionary_are_joined() -> None:
    found = find_dictionary(fields(b"a=1, b=:AAAA:;p", b"c=?0, d"), b"x")

    assert found == {"a": 1, "b": b"\0\0\0", "c": False, "d": True}


@pytest.mark.parametrize("value", [b"a=1,", b"A=1", b"a=:A!:", b"=1", b"\xff"])
def test_a_malformed_dictionary_is_empty(value: bytes) -> None:
    assert find_dictionary(fields(value), b"x") == {}


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=3))
def test_no_value_is_an_exception(values: list[bytes]) -> None:
    given_fields = fields(*values)

    number = find_integer(given_fields, b"x")
    flag = find_boolean(given_fields, b"x")
    find_dictionary(given_fields, b"x")

    assert number is None or 0 <= number < 10**15
    assert flag in (None, True, False)
