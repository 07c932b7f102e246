"""Core protocol: PATCH (T22-T29, T33)."""

import pytest

from tests.e2e.values import UNKNOWN, shown
from tests.support.http import FieldValue
from tests.support.records import Records
from tests.support.tus import Tus, pattern

KIB = 1024
MIB = 1024 * KIB
BLOCKS = [1, 2, 3, 1000, 16 * KIB, 16 * KIB + 1, 128 * KIB - 1, 128 * KIB, MIB, MIB + 1, 77]


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("sizes", [BLOCKS, BLOCKS[::-1], [3 * MIB + 7]], ids=["up", "down", "one"])
def test_bytes_are_applied_at_the_offset_whatever_the_pieces(
    tus: Tus, sizes: list[int], chunked: bool
) -> None:
    """T22, T26, T27, T121."""
    content = pattern(sum(sizes))
    url = tus.new(len(content))

    offset = 0
    for size in sizes:
        reply = tus.patch(url, offset, content[offset : offset + size], chunked=chunked)
        offset += size

        assert reply.status == 204
        assert reply["upload-offset"] == str(offset)
        assert reply.body == b""
    assert tus.content(url) == content


def test_one_byte_at_a_time_is_fine(tus: Tus) -> None:
    """T33."""
    content = pattern(40)
    url = tus.new(40)

    for offset in range(40):
        assert tus.append(url, offset, content[offset : offset + 1]) == offset + 1

    assert tus.content(url) == content


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/octet-stream",
        "text/plain",
        "application/offset+octet-streams",
        "application/offset octet-stream",
        "multipart/form-data; boundary=application/offset+octet-stream",
        "application/partial-upload",
        "*/*",
    ],
    ids=shown,
)
@pytest.mark.parametrize("body", [b"llo", b""], ids=["body", "empty"])
def test_another_content_type_is_415_and_changes_nothing(
    tus: Tus, content_type: FieldValue, body: bytes
) -> None:
    """T23."""
    url = tus.stored(b"he", length=5)

    with tus.unchanged(url, b"hello"):
        reply = tus.patch(url, 2, body, fields={"Content-Type": content_type})

        assert reply.status == 415
        assert reply.problem()["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "content_type",
    [
        "Application/Offset+Octet-Stream",
        "application/offset+octet-stream; charset=utf-8",
        "application/offset+octet-stream ;x=y",
    ],
)
def test_case_and_parameters_of_the_content_type_do_not_count(tus: Tus, content_type: str) -> None:
    """T23."""
    url = tus.new(5)

    assert tus.patch(url, 0, b"hello", fields={"Content-Type": content_type}).status == 204


@pytest.mark.parametrize("offset", [0, 1, 3, 4, 5, 6, 2**53], ids=str)
@pytest.mark.parametrize("body", [b"l", b""], ids=["body", "empty"])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_another_offset_is_409_and_changes_nothing(
    tus: Tus, offset: int, body: bytes, chunked: bool
) -> None:
    """T24, T25: the 409 tells the offset."""
    url = tus.stored(b"he", length=5)

    with tus.unchanged(url, b"hello"):
        reply = tus.patch(url, offset, body, chunked=chunked)

        assert reply.status == 409
        assert reply["upload-offset"] == "2"
        assert reply.problem()["code"] == "offset_mismatch"


@pytest.mark.parametrize("offset", [0, 4, 6])
@pytest.mark.parametrize("body", [b"!", b""], ids=["body", "empty"])
def test_another_offset_after_completion_is_409(tus: Tus, offset: int, body: bytes) -> None:
    """T24, T25."""
    url = tus.stored(b"hello")

    with tus.unchanged(url, b"hello"):
        reply = tus.patch(url, offset, body)

        assert reply.status == 409
        assert reply["upload-offset"] == "5"


def test_another_offset_on_a_deferred_upload_is_409(tus: Tus) -> None:
    """T24, T25."""
    url = tus.new()
    tus.append(url, 0, b"he")

    with tus.unchanged(url):
        reply = tus.patch(url, 4, b"llo", length=7)

        assert reply.status == 409
        assert reply["upload-offset"] == "2"


@pytest.mark.parametrize("url", [UNKNOWN, "/files/nothing", UNKNOWN + "/"])
def test_patch_of_no_upload_is_404(tus: Tus, records: Records, url: str) -> None:
    """T29."""
    with records.nothing_created():
        assert tus.patch(url, 0, b"hello").status == 404
