"""Termination (T93-T97)."""

import pytest

from tests.e2e.values import UNKNOWN
from tests.support.records import Records
from tests.support.tus import Tus, pattern

KINDS = ["new", "begun", "deferred", "finished", "empty"]
ENDED = {"finished": "deleted", "empty": "deleted"}


def make(tus: Tus, kind: str) -> str:
    if kind == "deferred":
        url = tus.new()
        tus.append(url, 0, b"he")
        return url
    content = {"new": b"", "begun": b"he", "finished": b"hello", "empty": b""}[kind]
    return tus.stored(content, length=0 if kind == "empty" else 5)


@pytest.mark.parametrize("kind", KINDS)
def test_delete_is_204_and_frees_everything(tus: Tus, records: Records, kind: str) -> None:
    """T94, T95."""
    url = make(tus, kind)
    events = records.events(url)

    reply = tus.delete(url)

    assert reply.status == 204
    assert reply.body == b""
    assert records.files(url) == []
    assert records.state(url) == ENDED.get(kind, "canceled")
    assert records.events(url) == [*events, ENDED.get(kind, "canceled")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_upload_is_404_for_everyone(tus: Tus, kind: str) -> None:
    """T94, T96."""
    url = make(tus, kind)
    tus.delete(url)

    assert tus.delete(url).status == 404
    assert tus.head(url).status == 404
    assert tus.get(url).status == 404
    assert tus.patch(url, 0).status == 404
    assert tus.patch(url, 2, b"llo").status == 404


def test_a_deleted_upload_is_as_one_that_never_was(tus: Tus) -> None:
    """T8, T96: also for a request that does not say which protocol it means."""
    url = tus.stored(b"he", length=5)
    tus.delete(url)

    for method in ("HEAD", "GET"):
        asked = {tus.request(method, u, {"Tus-Resumable": None}).status for u in (url, UNKNOWN)}

        assert asked == {404}, method


def test_delete_of_no_upload_is_404(tus: Tus) -> None:
    """T94."""
    assert tus.delete(UNKNOWN).status == 404
    assert tus.delete(tus.base).status == 405


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_delete_ends_a_running_patch_first(tus: Tus, records: Records, framing: str) -> None:
    """T97."""
    content = pattern(100_000)
    url = tus.new(len(content))
    declared = len(content) if framing == "sized" else None

    with tus.hold(url, 0, content[:50_000], declared=declared) as holder:
        reply = tus.delete(url)

        assert reply.status == 204
        holder.read_until_closed()
    assert tus.head(url).status == 404
    assert records.files(url) == []


def test_deleting_one_upload_leaves_the_others(tus: Tus) -> None:
    """T95."""
    kept, gone = tus.stored(b"hello"), tus.stored(b"hello")

    tus.delete(gone)

    assert tus.content(kept) == b"hello"
