"""Creation With Deferred Length (T56-T62)."""

import pytest

from tests.e2e.conftest import LIMITED_MAX_SIZE
from tests.support.records import Records
from tests.support.tus import Tus, pattern


def test_while_the_length_is_unknown_head_says_so(tus: Tus) -> None:
    """T57."""
    url = tus.new()

    for offset in range(3):
        reply = tus.head(url)

        assert reply["upload-defer-length"] == "1"
        assert "upload-length" not in reply
        assert reply["upload-offset"] == str(offset)
        tus.append(url, offset, b"x")


def test_once_the_length_is_known_the_deferral_is_gone(tus: Tus) -> None:
    """T58, T59."""
    url = tus.new()

    tus.patch(url, 0, b"he", length=5)
    before = tus.head(url)
    tus.append(url, 2, b"llo")
    after = tus.head(url)

    for reply in (before, after):
        assert reply["upload-length"] == "5"
        assert "upload-defer-length" not in reply
    assert tus.content(url) == b"hello"


def test_an_upload_of_known_length_was_never_deferred(tus: Tus) -> None:
    """T58."""
    assert "upload-defer-length" not in tus.head(tus.new(5))


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize(
    ("first", "last"), [(b"hello", b""), (b"", b"hello"), (b"he", b"llo")], ids=str
)
def test_a_length_with_the_last_bytes_completes_the_upload(
    tus: Tus, records: Records, first: bytes, last: bytes, chunked: bool
) -> None:
    """T59: tus-js ends a stream with an empty PATCH that brings the length."""
    url = tus.new()
    tus.patch(url, 0, first, chunked=chunked)

    reply = tus.patch(url, len(first), last, length=5, chunked=chunked)

    assert reply.status == 204
    assert reply["upload-offset"] == "5"
    assert tus.content(url) == b"hello"
    assert records.events(url) == ["verified"]


def test_a_length_may_come_alone_and_early(tus: Tus) -> None:
    """T59."""
    url = tus.new()

    reply = tus.patch(url, 0, length=5)

    assert reply.status == 204
    assert reply["upload-offset"] == "0"
    assert tus.head(url)["upload-length"] == "5"
    assert tus.finish(url, b"hello") == b"hello"


@pytest.mark.parametrize("given_at", ["creation", "patch"])
@pytest.mark.parametrize("length", [0, 2, 4, 6])
@pytest.mark.parametrize("body", [b"l", b""], ids=["body", "empty"])
def test_a_length_that_is_set_does_not_change(
    tus: Tus, given_at: str, length: int, body: bytes
) -> None:
    """T60."""
    if given_at == "creation":
        url = tus.stored(b"he", length=5)
    else:
        url = tus.new()
        tus.patch(url, 0, b"he", length=5)

    with tus.unchanged(url, b"hello"):
        reply = tus.patch(url, 2, body, length=length)

        assert reply.status == 400
        assert reply.problem()["code"] == "length_changed"


def test_the_same_length_again_is_accepted(tus: Tus) -> None:
    """T60, C7: tuspy repeats it on a retry."""
    known, deferred = tus.new(5), tus.new()

    for url in (known, deferred):
        for offset, byte in enumerate(b"hello"):
            assert tus.patch(url, offset, bytes([byte]), length=5).status == 204
        assert tus.patch(url, 5, length=5).status == 204
        assert tus.patch(url, 5, length=6).status == 400
        assert tus.content(url) == b"hello"


@pytest.mark.parametrize("length", [0, 4])
@pytest.mark.parametrize("body", [b"!", b""], ids=["body", "empty"])
def test_a_length_below_the_offset_is_400_and_the_length_stays_deferred(
    tus: Tus, length: int, body: bytes
) -> None:
    """T61."""
    url = tus.new()
    tus.append(url, 0, b"hello")

    with tus.unchanged(url):
        reply = tus.patch(url, 5, body, length=length)

        assert reply.status == 400
        assert reply.problem()["code"] == "length_below_offset"
    assert tus.head(url)["upload-defer-length"] == "1"


def test_a_body_beyond_the_length_it_brings_is_413(tus: Tus) -> None:
    """T61, T119, T120: neither bytes nor length are taken."""
    url = tus.new()
    tus.append(url, 0, b"he")

    with tus.unchanged(url):
        assert tus.patch(url, 2, b"llo!", length=5).status == 413
        assert tus.patch(url, 2, b"llo!", length=5, chunked=True).status == 413
    assert tus.patch(url, 2, b"llo", length=5).status == 204
    assert tus.content(url) == b"hello"


def test_a_length_above_the_maximum_is_413_and_the_length_stays_deferred(limited: Tus) -> None:
    """T62."""
    url = limited.new()
    limited.append(url, 0, b"hello")

    with limited.unchanged(url):
        assert limited.patch(url, 5, length=LIMITED_MAX_SIZE + 1).status == 413
        assert limited.patch(url, 5, b"!", length=LIMITED_MAX_SIZE + 1).status == 413
    assert limited.head(url)["upload-defer-length"] == "1"


def test_a_sized_body_beyond_the_maximum_is_413_while_the_length_is_deferred(limited: Tus) -> None:
    """T62."""
    url = limited.new()
    limited.append(url, 0, b"hello")

    with limited.unchanged(url):
        reply = limited.patch(url, 5, bytes(LIMITED_MAX_SIZE - 4))

        assert reply.status == 413


def test_a_chunked_body_beyond_the_maximum_is_413_while_the_length_is_deferred(
    limited: Tus,
) -> None:
    """T62, T120: what was committed before stays, and it is not too much."""
    content = pattern(LIMITED_MAX_SIZE + 1)
    url = limited.new()

    reply = limited.patch(url, 0, content, chunked=True)

    assert reply.status == 413
    head = limited.head(url)
    offset = int(head["upload-offset"])
    assert head["upload-defer-length"] == "1"
    assert offset < LIMITED_MAX_SIZE
    assert limited.patch(url, offset, content[offset:-1], length=LIMITED_MAX_SIZE).status == 204
    assert limited.content(url) == content[:-1]


def test_a_deferred_upload_may_reach_the_maximum(limited: Tus) -> None:
    """T62."""
    content = pattern(LIMITED_MAX_SIZE)
    url = limited.new()

    assert limited.patch(url, 0, content, chunked=True).status == 204
    assert limited.patch(url, LIMITED_MAX_SIZE, length=LIMITED_MAX_SIZE).status == 204
    assert limited.content(url) == content
