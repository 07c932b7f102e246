import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tus_server.core.errors import MalformedHeader
from tus_server.wire.headers import Fields, excerpt, media_type

NAME = b"upload-offset"


def field(value: bytes) -> Fields:
    return Fields([(NAME, value)])


# --- fields


def test_an_absent_field_is_none() -> None:
    fields = Fields([])

    assert NAME not in fields
    assert fields.find(NAME) is None
    assert fields.find_joined(NAME) is None
    assert fields.find_number(NAME) is None


def test_a_field_is_found_as_it_came() -> None:
    fields = Fields([(b"a", b"\xff ;\n"), (b"b", b"")])

    assert fields.find(b"a") == b"\xff ;\n"
    assert fields.find(b"b") == b""
    assert b"b" in fields


def test_blanks_around_a_value_are_no_part_of_it() -> None:
    fields = Fields([(b"a", b" \t x y\t"), (b"b", b" 1"), (b"b", b"2 "), (NAME, b"\t5 ")])

    assert fields.find(b"a") == b"x y"
    assert fields.find_joined(b"a") == "x y"
    assert fields.find_joined(b"b") == "1,2"
    assert fields.find_number(NAME) == 5


@pytest.mark.parametrize("times", [2, 3])
def test_a_field_that_may_appear_once_is_refused_when_repeated(times: int) -> None:
    fields = Fields([(NAME, b"5")] * times)

    with pytest.raises(MalformedHeader, match="Upload-Offset appears more than once"):
        fields.find(NAME)
    with pytest.raises(MalformedHeader, match="Upload-Offset appears more than once"):
        fields.find_number(NAME)


def test_a_repeated_field_does_not_spoil_the_others() -> None:
    fields = Fields([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])

    assert fields.find(b"b") == b"2"


def test_lines_of_a_list_are_joined_in_order() -> None:
    fields = Fields([(b"a", b"x 1"), (b"b", b"-"), (b"a", b"y 2"), (b"a", b"z")])

    assert fields.find_joined(b"a") == "x 1,y 2,z"
    assert fields.find_joined(b"b") == "-"


def test_the_size_counts_every_name_and_value() -> None:
    assert Fields([(b"ab", b"cde"), (b"ab", b"f"), (b"g", b"")]).size_bytes == 9
    assert Fields([]).size_bytes == 0


def test_as_text_gives_every_field_joined() -> None:
    fields = Fields([(b"a", b"1"), (b"b", b"\xe9"), (b"a", b"2")])

    assert fields.as_text() == {"a": "1,2", "b": "é"}


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.binary(max_size=5))))
def test_no_value_gets_lost(raw: list[tuple[bytes, bytes]]) -> None:
    fields = Fields(raw)

    for name in (b"a", b"b", b"c"):
        values = [value.strip(b" \t").decode("latin-1") for given, value in raw if given == name]
        assert (name in fields) == bool(values)
        assert fields.find_joined(name) == (",".join(values) if values else None)
        if len(values) > 1:
            with pytest.raises(MalformedHeader):
                fields.find(name)


# --- lists of names


def test_the_members_of_a_list_are_found_whatever_their_case() -> None:
    fields = Fields([(b"trailer", b" A-b ,,c\t"), (b"x", b"1"), (b"trailer", b"D")])

    assert fields.names(b"trailer") == {"a-b", "c", "d"}
    assert fields.names(b"absent") == set()
    assert Fields([(b"trailer", b" , ")]).names(b"trailer") == set()


@given(st.binary() | st.text())
def test_an_excerpt_is_short_and_printable(value: bytes | str) -> None:
    shown = excerpt(value)

    assert shown.isprintable()
    assert len(shown) < 450


# --- numbers


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"0", 0),
        (b"5", 5),
        (b"10", 10),
        (b"9007199254740991", 2**53 - 1),
        (b"9223372036854775807", 2**63 - 1),
        (b"9" * 19, 10**19 - 1),
    ],
)
def test_a_plain_decimal_number_is_taken(value: bytes, number: int) -> None:
    assert field(value).find_number(NAME) == number


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"-0",
        b"-1",
        b"+5",
        b"00",
        b"05",
        b"5 5",
        b"5\n",
        b"\x0b5",
        b"\xa05",
        b"5\0",
        b"5.0",
        b"5e3",
        b"0x10",
        b"1_000",
        b"1,000",
        b"5,5",
        b"5;q=1",
        b"five",
        b"\xb2",
        "\u0663".encode(),
        b"1" * 20,
        b"9" * 5000,
    ],
)
def test_anything_else_is_malformed(value: bytes) -> None:
    with pytest.raises(MalformedHeader, match="must be a plain decimal number"):
        field(value).find_number(NAME)


def test_a_refused_value_is_shown_escaped_and_cut() -> None:
    with pytest.raises(MalformedHeader) as caught:
        field(b"\r\n\x1b[31m" + b"7" * 5000).find_number(NAME)

    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 150


DIGITS = re.compile(rb"[0-9]+")


@given(
    st.binary() | st.from_regex(rb"\A[ +-]?[0-9_., ]{1,24}\Z") | st.integers().map(b"%d".__mod__)
)
@example(b"18446744073709551616")
def test_only_canonical_decimal_is_ever_taken(value: bytes) -> None:
    bare = value.strip(b" \t")
    canonical = DIGITS.fullmatch(bare) is not None and b"%d" % int(bare) == bare
    if canonical and len(bare) <= 19:
        assert field(value).find_number(NAME) == int(bare)
    else:
        with pytest.raises(MalformedHeader) as caught:
            field(value).find_number(NAME)
        assert caught.value.detail.isprintable()


@given(st.integers(0, 10**19 - 1))
def test_every_number_of_up_to_19_digits_is_read_back(number: int) -> None:
    assert field(b"%d" % number).find_number(NAME) == number


# --- media types


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b""),
        (b"", b""),
        (b";charset=x", b""),
        (b"text/plain", b"text/plain"),
        (b" Text/PLAIN ; charset=x", b"text/plain"),
        (b"application/offset+octet-stream;a=b;c=d", b"application/offset+octet-stream"),
    ],
)
def test_a_media_type_is_compared_without_case_and_parameters(
    value: bytes | None, expected: bytes
) -> None:
    assert media_type(value) == expected
