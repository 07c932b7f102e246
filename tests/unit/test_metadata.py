from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.errors import MalformedMetadata
from tus_server.wire.metadata import find_text, parse_metadata


@pytest.mark.parametrize("raw", [None, "", " ", " \t "])
def test_an_empty_field_is_no_metadata(raw: str | None) -> None:
    assert parse_metadata(raw) == {}


def test_pairs_keep_their_order() -> None:
    parsed = parse_metadata("filename d29ybGQucGRm,filetype dGV4dC9wbGFpbg==")

    assert list(parsed.items()) == [("filename", b"world.pdf"), ("filetype", b"text/plain")]


@pytest.mark.parametrize(
    "raw", ["a YQ==,b Yg==", "a YQ== , b Yg==", "a YQ==\t,\tb Yg==", " a YQ==,b Yg== "]
)
def test_blanks_around_commas_do_not_count(raw: str) -> None:
    assert parse_metadata(raw) == {"a": b"a", "b": b"b"}


@pytest.mark.parametrize(
    "raw",
    [
        "is_confidential,b Yg==",
        "is_confidential ,b Yg==",
        "b Yg==,is_confidential",
        "b Yg==,is_confidential ",
        "b Yg==, is_confidential ",
    ],
)
def test_a_value_may_be_empty_at_any_place(raw: str) -> None:
    assert parse_metadata(raw) == {"is_confidential": b"", "b": b"b"}


def test_a_lone_key_has_an_empty_value() -> None:
    assert parse_metadata("is_confidential") == {"is_confidential": b""}
    assert parse_metadata("is_confidential ") == {"is_confidential": b""}


def test_a_value_may_be_any_bytes() -> None:
    assert parse_metadata("k AP/+") == {"k": b"\x00\xff\xfe"}


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (",", "empty member"),
        ("a YQ==,", "empty member"),
        (",a YQ==", "empty member"),
        ("a YQ==, ,b Yg==", "empty member"),
        ("a  YQ==", "more than one space"),
        ("a YQ== YQ==", "more than one space"),
        (" dmFs", "empty key"),
        ("a YQ==, dmFs", "empty key"),
        ("a YQ==,b,a", "second time"),
        ("a YQ==,a YQ==", "second time"),
        ("näme YQ==", "visible ASCII"),
        ("a\tb YQ==", "visible ASCII"),
        ("a\x7f YQ==", "visible ASCII"),
        ("filename ###", "not Base64"),
        ("a YQ", "not Base64"),
        ("a YQ=", "not Base64"),
        ("a YQ===", "not Base64"),
        ("a =", "not Base64"),
        ("a ====", "not Base64"),
        ("a Y", "not Base64"),
        ("a YQ==YQ==", "not Base64"),
        ("a YQ\n==", "not Base64"),
        ("a _-__", "not Base64"),
        ("a ÿÿÿÿ", "not Base64"),
    ],
)
def test_what_breaks_the_rules_is_named(raw: str, what: str) -> None:
    with pytest.raises(MalformedMetadata, match=what):
        parse_metadata(raw)


def test_the_offending_member_is_shown_escaped_and_cut() -> None:
    with pytest.raises(MalformedMetadata) as caught:
        parse_metadata("ok YQ==,bad\r\n\u202e" + "x" * 5000)

    assert "'bad\\r\\n\\u202exxx" in caught.value.detail
    assert len(caught.value.detail) < 200


def test_the_first_name_with_a_text_is_taken() -> None:
    metadata = {"name": b"", "filename": b"null", "title": "é.txt".encode(), "other": b"x"}

    assert find_text(metadata, "absent", "name", "filename", "title", "other") == "é.txt"


def test_empty_null_and_absent_are_no_text() -> None:
    assert find_text({"name": b"", "filename": b"null"}, "name", "filename", "title") is None


def test_bytes_that_are_not_utf8_are_still_a_text() -> None:
    assert find_text({"name": b"a\xff"}, "name") == "a\ufffd"


@given(st.text() | st.text(alphabet="ab ,=\tYQ/+"))
def test_any_field_gives_metadata_or_the_documented_error(raw: str) -> None:
    try:
        shown = repr(parse_metadata(raw))
    except MalformedMetadata as error:
        shown = error.detail

    assert shown.isprintable()


KEYS = st.text(alphabet=[chr(c) for c in range(0x21, 0x7F) if chr(c) != ","], min_size=1)


@given(st.dictionaries(KEYS, st.binary()))
def test_what_a_client_renders_is_read_back(metadata: dict[str, bytes]) -> None:
    raw = ",".join(f"{key} {b64encode(value).decode()}" for key, value in metadata.items())

    assert list(parse_metadata(raw).items()) == list(metadata.items())
