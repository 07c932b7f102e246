"""Forms with one file, as browsers send them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.errors import MalformedRequest
from tus_server.wire.form import FileScan, find_boundary, parse_head

BOUNDARY = b"----WebKitFormBoundaryKc2kNEAAXqGMX7wp"
LINE = b"--" + BOUNDARY + b"\r\n"
KEY = LINE + b'Content-Disposition: form-data; name="key"\r\n\r\nabc\r\n'
FILE = (
    LINE + b'Content-Disposition: form-data; name="file"; filename="blob"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)
CLOSING = b"\r\n--" + BOUNDARY + b"--\r\n"


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=" + BOUNDARY, BOUNDARY),
        (b'multipart/form-data;boundary="a b:c"', b"a b:c"),
        (b"Multipart/Form-Data; charset=utf-8; Boundary=x", b"x"),
        (b"multipart/form-data; boundary=x; charset=utf-8", b"x"),
    ],
)
def test_the_boundary_is_named_by_the_content_type(content_type: bytes, boundary: bytes) -> None:
    assert find_boundary(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b'multipart/form-data; boundary="a\r\n"',
        b"multipart/form-data; boundary=a\xff",
        b"multipart/form-data; boundary=" + b"x" * 71,
        b'multipart/form-data; x="; boundary=a"',
    ],
)
def test_a_form_without_a_boundary_is_refused(content_type: bytes) -> None:
    with pytest.raises(MalformedRequest, match="boundary"):
        find_boundary(content_type)


def test_fields_are_read_up_to_the_file() -> None:
    head = parse_head(KEY + FILE + b"content", BOUNDARY)

    assert head is not None
    assert head.fields == {"key": "abc"}
    assert head.size == len(KEY + FILE)
    assert head.closing == CLOSING
    assert head.file_size(len(KEY + FILE) + 7 + len(CLOSING)) == 7
    assert head.file_size(len(KEY + FILE) + len(CLOSING)) == 0


def test_a_form_that_ends_inside_its_file_is_refused() -> None:
    head = parse_head(FILE, BOUNDARY)
    assert head is not None

    with pytest.raises(MalformedRequest):
        head.file_size(len(FILE) + len(CLOSING) - 1)


def test_a_beginning_that_is_not_the_whole_head_says_nothing_yet() -> None:
    for size in range(len(KEY + FILE)):
        assert parse_head((KEY + FILE)[:size], BOUNDARY) is None, size


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"hello", "boundary"),
        (b"\r\n" + KEY + FILE, "boundary"),
        (b"--" + BOUNDARY + b"--\r\n", "no file"),
        (KEY + b"--" + BOUNDARY + b"--\r\n", "no file"),
        (KEY + KEY + FILE, "more than once"),
        (LINE + b"Content-Type: a/b\r\n\r\n", "no name"),
        (LINE + b"X: y\r\n\r\n", "no name"),
        (LINE + b'Content-Disposition: form-data; name="a\xff"\r\n\r\n', "UTF-8"),
        (KEY.replace(b"abc", b"\xff") + FILE, "UTF-8"),
    ],
)
def test_what_is_no_form_with_a_file_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        parse_head(raw, BOUNDARY)


@given(st.data())
def test_the_end_of_a_file_is_found_wherever_its_bytes_are_cut(data: st.DataObject) -> None:
    delimiter = b"\r\n--abab"
    pieces = st.lists(st.sampled_from([delimiter[:n] for n in range(1, 8)] + [b"ab", b"x"]))
    content = b"".join(data.draw(pieces)) + data.draw(st.sampled_from([b"", delimiter + b"\r\n"]))
    content = data.draw(st.sampled_from([content, content[::-1]]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))

    scan = FileScan(delimiter)
    found = False
    for start, end in itertools.pairwise([0, *cuts, len(content)]):
        try:
            scan.feed(memoryview(content)[start:end])
        except MalformedRequest:
            found = True
            break

    assert found == (delimiter in content)


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_bring_the_parser_down(raw: bytes, begins: bool) -> None:
    try:
        parse_head((LINE if begins else b"") + raw, BOUNDARY)
    except MalformedRequest:
        pass
