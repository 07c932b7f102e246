"""JSON in requests: what is taken, what is refused, and with which words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.errors import MalformedRequest
from tus_server.wire.strict_json import MAX_DEPTH, parse_json

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NUMBERS = st.integers(-(2**64) + 1, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@given(value=VALUES)
def test_what_python_writes_is_read_as_it_was(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expecting value"),
        (b"{", "character 1"),
        (b"{} {}", "extra data"),
        (b"\xff", "UTF-8"),
        (b"\xed\xa0\x80", "UTF-8"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"\xef\xbb\xbf{}", "unexpected utf-8 bom"),
        (b"NaN", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e400", "too large"),
        (b"18446744073709551616", "too large"),
        (b"-18446744073709551616", "too large"),
        (b"9" * 100_000, "too large"),
        (b'{"a": 1, "a": 1}', "two members"),
        (b'{"x": {"a": 1, "\\u0061": 2}}', "two members"),
        (b'"\\u0000"', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (nested(MAX_DEPTH + 1), "deep"),
        (nested(1_000_000), "deep"),
        (b'{"a":' * 100_000, "deep"),
    ],
)
def test_everything_else_is_refused_with_a_reason(content: bytes, words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        parse_json(content)


def test_nesting_has_a_limit_far_from_what_anybody_needs() -> None:
    assert parse_json(nested(MAX_DEPTH)) is not None


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@given(content=st.binary(max_size=64))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    try:
        parse_json(content)
    except MalformedRequest:
        pass
