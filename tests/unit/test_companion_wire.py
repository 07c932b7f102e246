"""What Uppy's S3 plugin asks of its companion."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.errors import MalformedRequest
from tus_server.core.parts import MIB
from tus_server.wire.companion import (
    Beginning,
    parse_beginning,
    parse_completion,
    parse_params,
    parse_part_number,
    plan_part_size,
)


def body(**told: Any) -> bytes:
    return json.dumps(told).encode()


def test_a_query_has_name_type_and_metadata() -> None:
    query = urlencode(
        {
            "filename": "ü 1.png",
            "type": "image/png",
            "metadata[name]": "ü 1.png",
            "metadata[relativePath]": "null",
            "metadata[size]": "7",
            "other": "x",
        }
    )

    assert parse_params(query.encode()) == Beginning(
        "ü 1.png", "image/png", {"name": "ü 1.png"}, 7, None
    )


def test_nothing_has_to_be_said_in_a_query() -> None:
    assert parse_params(b"") == Beginning(None, None, {}, None, None)


def test_a_body_has_values_of_any_kind() -> None:
    content = body(
        filename="a",
        type="text/plain",
        metadata={"n": 1.5, "yes": True, "none": None, "list": ["ü"], "size": 12, "part_size": "9"},
    )

    assert parse_beginning(content) == Beginning(
        "a", "text/plain", {"n": "1.5", "yes": "true", "list": '["ü"]'}, 12, 9
    )
    assert parse_beginning(body(metadata=None)) == Beginning(None, None, {}, None, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        body(filename=1),
        body(type=[]),
        body(metadata=[]),
        body(metadata={"size": -1}),
        body(metadata={"size": 1.5}),
        body(metadata={"size": "1e3"}),
        body(metadata={"size": "٣"}),
        body(metadata={"size": "9" * 30}),
        body(metadata={"part_size": ""}),
    ],
)
def test_a_beginning_that_makes_no_sense_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_beginning(content)


@pytest.mark.parametrize("query", [b"filename=%FF", b"a=\xff", b"&".join([b"a=1"] * 201)])
def test_a_query_that_makes_no_sense_is_refused(query: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_params(query)


def test_a_completion_has_numbers_and_etags() -> None:
    content = body(parts=[{"PartNumber": 2, "ETag": '"b"'}, {"PartNumber": 1, "ETag": "a"}])

    assert parse_completion(content) == [(2, '"b"'), (1, "a")]


@pytest.mark.parametrize(
    "content",
    [
        b"null",
        b"{}",
        body(parts={}),
        body(parts=[1]),
        body(parts=[{"PartNumber": 1}]),
        body(parts=[{"PartNumber": "1", "ETag": "a"}]),
        body(parts=[{"PartNumber": True, "ETag": "a"}]),
        body(parts=[{"PartNumber": 1, "ETag": None}]),
    ],
)
def test_a_completion_that_makes_no_sense_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_completion(content)


def test_the_number_of_a_part_is_a_plain_number() -> None:
    assert parse_part_number("17") == 17
    for text in ("", "+1", "1.0", "٣", "x", "01", "9" * 30):
        with pytest.raises(MalformedRequest):
            parse_part_number(text)


@pytest.mark.parametrize(
    ("size", "wanted", "part_size"),
    [
        (1, None, 5 * MIB),
        (50_000 * MIB, None, 5 * MIB),
        (50_000 * MIB + 1, None, 5 * MIB + 1),
        (100 * MIB, 8 * MIB, 8 * MIB),
        (100 * MIB, 1, 5 * MIB),
        (100_000 * MIB, 6 * MIB, 10 * MIB),
    ],
)
def test_parts_are_as_large_as_the_plugin_makes_them(
    size: int, wanted: int | None, part_size: int
) -> None:
    assert plan_part_size(size, wanted) == part_size


@given(st.integers(1, 5 * 1024**4), st.none() | st.integers(0, 10**10))
def test_parts_of_the_plugin_are_never_too_small_or_too_many(size: int, wanted: int | None) -> None:
    part_size = plan_part_size(size, wanted)

    assert part_size >= 5 * MIB
    assert -(-size // part_size) <= 10_000
