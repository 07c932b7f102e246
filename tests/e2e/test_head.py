"""Core protocol: HEAD (T15-T21)."""

import pytest

from tests.e2e.replies import DOWNLOADS, REPLIES
from tests.e2e.values import UNKNOWN
from tests.support.http import Reply
from tests.support.tus import Tus

TUS_REPLIES = [name for name in REPLIES if " get" not in name]


def test_the_offset_of_a_new_upload_is_0(tus: Tus) -> None:
    """T15, T43."""
    reply = tus.head(tus.new(5))

    assert reply.status == 200
    assert reply["upload-offset"] == "0"


def test_the_offset_of_a_complete_upload_is_its_length(tus: Tus) -> None:
    """T16, T17."""
    reply = tus.head(tus.stored(b"hello"))

    assert reply["upload-offset"] == "5"
    assert reply["upload-length"] == "5"


@pytest.mark.parametrize("length", [0, 1, 5, 2**31, 2**32, 2**53 - 1])
def test_the_length_is_told_when_known(tus: Tus, length: int) -> None:
    """T17, T131."""
    assert tus.head(tus.new(length))["upload-length"] == str(length)


def _failing_heads(tus: Tus) -> dict[str, Reply]:
    deleted = tus.stored(b"hello")
    tus.delete(deleted)
    present = tus.stored(b"he", length=5)
    return {
        "unknown": tus.head(UNKNOWN),
        "no id": tus.head("/files/what"),
        "deleted": tus.head(deleted),
        "version": tus.head(present, {"Tus-Resumable": "0.2.2"}),
        "no version": tus.head(present, {"Tus-Resumable": None}),
        "fields too large": tus.head(present, {"X-Padding": "x" * 40_000}),
        "collection": tus.head(tus.base),
    }


def test_head_of_no_upload_is_404(tus: Tus) -> None:
    """T18, T96."""
    replies = _failing_heads(tus)

    assert {name: replies[name].status for name in ("unknown", "no id", "deleted")} == {
        "unknown": 404,
        "no id": 404,
        "deleted": 404,
    }


def test_no_failed_head_has_an_offset(tus: Tus) -> None:
    """T19, C3."""
    for name, reply in _failing_heads(tus).items():
        assert reply.status >= 400, name
        assert "upload-offset" not in reply, name
        assert "upload-length" not in reply, name


def test_head_is_200_without_body_and_content_length(tus: Tus) -> None:
    """T20."""
    url = tus.stored(b"he", length=5)

    with tus.connect() as connection:
        for _ in range(2):  # a body would be taken for the second reply
            connection.send_head("HEAD", url, tus.fields)
            reply = connection.read_reply()

            assert reply.status == 200
            assert "content-length" not in reply
            assert "transfer-encoding" not in reply


@pytest.mark.parametrize("name", TUS_REPLIES)
def test_replies_are_never_stored_by_caches(tus: Tus, name: str) -> None:
    """T21."""
    assert REPLIES[name](tus)["cache-control"] == "no-store"


@pytest.mark.parametrize("name", [name for name in DOWNLOADS if name[:3] in ("200", "206", "304")])
def test_downloads_may_be_cached(tus: Tus, name: str) -> None:
    """T21."""
    reply = DOWNLOADS[name](tus)

    assert "no-store" not in (reply.find("cache-control") or "")
    assert "etag" in reply
