"""Cases the text of tus leaves open (T119-T131)."""

import contextlib

import pytest

from tests.e2e.conftest import LIMITED_PART_SIZE
from tests.e2e.values import UNKNOWN_ID
from tests.support.http import Connection, Fields
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import BODY_TYPE, Tus, pattern


@pytest.mark.parametrize("offset", [0, 2, 4])
@pytest.mark.parametrize("excess", [1, 1000, 10**12])
def test_a_content_length_beyond_the_rest_is_413_before_any_byte(
    tus: Tus, offset: int, excess: int
) -> None:
    """T119: the body is never sent here."""
    url = tus.stored(b"hello"[:offset], length=5)
    fields = tus.fields | {
        "Content-Type": BODY_TYPE,
        "Upload-Offset": str(offset),
        "Content-Length": str(5 - offset + excess),
    }

    with tus.unchanged(url, b"hello"), tus.connect() as connection:
        connection.send_head("PATCH", url, fields)
        reply = connection.read_reply()

        assert reply.status == 413
        assert reply.problem()["code"] == "body_too_large"


@pytest.mark.parametrize("offset", [0, 2, 4])
@pytest.mark.parametrize("excess", [1, 100_000])
def test_a_chunked_body_beyond_the_rest_is_413_and_does_not_complete(
    tus: Tus, records: Records, offset: int, excess: int
) -> None:
    """T120."""
    url = tus.stored(b"hello"[:offset], length=5)

    with tus.unchanged(url):
        reply = tus.patch(url, offset, b"hello"[offset:] + bytes(excess), chunked=True)

        assert reply.status == 413
    assert records.events(url) == []
    assert tus.finish(url, b"hello") == b"hello"
    assert records.events(url) == ["verified"]


def test_parts_committed_before_the_overrun_stay(
    limited: Tus, limited_server: ServerProcess
) -> None:
    """T120: but nothing beyond the length, and not the part that reaches it."""
    content = pattern(2 * LIMITED_PART_SIZE + 1000)
    url = limited.new(len(content))

    reply = limited.patch(url, 0, content + b"!", chunked=True)

    assert reply.status == 413
    assert limited.offset(url) == 2 * LIMITED_PART_SIZE
    (file,) = Records(limited_server.data_dir).files(url)
    assert file.stat().st_size <= len(content)
    assert limited.finish(url, content) == content


@pytest.mark.parametrize("sizes", [[5], [1, 1, 1, 1, 1], [4, 1], [100_000, 1, 70_000, 17]], ids=str)
def test_a_chunked_body_is_taken_whatever_its_chunks(tus: Tus, sizes: list[int]) -> None:
    """T121."""
    content = pattern(sum(sizes))
    url = tus.new(len(content))

    with tus.connect() as connection:
        _send_chunked_head(tus, connection, url)
        rest = content
        for size in sizes:
            connection.send_chunk(rest[:size])
            rest = rest[size:]
        connection.end_chunks()
        reply = connection.read_reply()

    assert reply.status == 204
    assert reply["upload-offset"] == str(len(content))
    assert tus.content(url) == content


def test_a_huge_chunked_body_is_taken(limited: Tus) -> None:
    """T121: more than one part, most of it without a client that waits."""
    content = pattern(3 * LIMITED_PART_SIZE)
    url = limited.new(len(content))

    with limited.connect() as connection:
        _send_chunked_head(limited, connection, url)
        for start in range(0, len(content), 60_001):
            connection.send_chunk(content[start : start + 60_001])
        connection.end_chunks()
        reply = connection.read_reply()

    assert reply.status == 204
    assert limited.content(url) == content


def test_all_bytes_without_the_end_of_a_chunked_body_complete_the_upload(
    tus: Tus, records: Records
) -> None:
    """T120: once the end of the connection is seen."""
    content = pattern(1000)
    url = tus.new(1000)

    with tus.hold(url, 0, content) as holder:
        unseen = records.events(url)
        holder.half_close()
        holder.read_until_closed()

    assert unseen == []
    assert tus.offset(url) == 1000
    assert tus.content(url) == content
    assert records.events(url) == ["verified"]


def test_an_empty_patch_at_the_end_can_be_repeated(tus: Tus) -> None:
    """T122, C7."""
    url = tus.stored(b"hello")

    for chunked in (False, True, False):
        with tus.unchanged(url):
            reply = tus.patch(url, 5, chunked=chunked)

            assert reply.status == 204
            assert reply["upload-offset"] == "5"


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_body_behind_the_end_is_413(tus: Tus, chunked: bool, size: int) -> None:
    """T122."""
    url = tus.stored(b"hello")

    with tus.unchanged(url, b"hello"):
        assert tus.patch(url, 5, bytes(size), chunked=chunked).status == 413


@pytest.mark.parametrize("offset", [0, 2])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_an_empty_patch_before_the_end_changes_nothing(
    tus: Tus, offset: int, chunked: bool
) -> None:
    """T123."""
    url = tus.stored(b"hello"[:offset], length=5)

    with tus.unchanged(url, b"hello"):
        reply = tus.patch(url, offset, chunked=chunked)

        assert reply.status == 204
        assert reply["upload-offset"] == str(offset)


def test_a_patch_without_offset_is_400(tus: Tus) -> None:
    """T124."""
    url = tus.stored(b"he", length=5)

    with tus.unchanged(url, b"hello"):
        reply = tus.patch(url, 2, b"llo", fields={"Upload-Offset": None})

        assert reply.status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "MKCOL", "TRACE"])
@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
def test_other_methods_on_an_upload_are_405(tus: Tus, method: str, finished: bool) -> None:
    """T126."""
    url = tus.stored(b"hello" if finished else b"he", length=5)

    with tus.unchanged(url, b"hello"):
        reply = tus.request(method, url, {"Upload-Length": "5"})

        assert reply.status == 405
        assert reply.names("allow") == {"get", "head", "patch", "delete", "options"}


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD"])
def test_other_methods_on_the_creation_url_are_405(tus: Tus, method: str) -> None:
    """T126."""
    reply = tus.request(method, tus.base)

    assert reply.status == 405
    assert reply.names("allow") == {"post", "options"}


def test_get_is_the_content_once_the_upload_is_complete(tus: Tus) -> None:
    """T127."""
    url = tus.new(5)
    new = tus.get(url)
    tus.append(url, 0, b"he")
    begun = tus.get(url)
    tus.append(url, 2, b"llo")

    assert (new.status, begun.status) == (404, 404)
    assert tus.content(url) == b"hello"
    assert tus.get(url, {"Range": "bytes=1-3"}).body == b"ell"
    assert tus.get(url, {"Range": "bytes=5-"}).status == 416


@pytest.mark.parametrize(
    "fields",
    [
        {"Upload-Offset": ["0", "0"]},
        {"Upload-Offset": ["0", "2"]},
        {"Upload-Length": ["5", "5"]},
        {"Content-Type": [BODY_TYPE, BODY_TYPE]},
        {"Content-Type": [BODY_TYPE, "text/plain"]},
    ],
    ids=str,
)
def test_a_field_that_may_appear_once_is_400_when_repeated(tus: Tus, fields: Fields) -> None:
    """T128."""
    url = tus.stored(b"he", length=5)

    with tus.unchanged(url, b"hello"):
        assert tus.patch(url, 2, b"llo", fields=fields).status == 400


@pytest.mark.parametrize("target", ["/files", "/files/"])
def test_the_creation_url_works_with_and_without_slash(tus: Tus, target: str) -> None:
    """T130."""
    created = tus.request("POST", target, {"Upload-Length": "5"})

    assert created.status == 201
    assert created["location"].startswith("/files/")
    assert tus.options(target).status == 204
    assert tus.get(target).status == 405


def test_an_upload_url_works_with_and_without_slash(tus: Tus) -> None:
    """T130: no reply ever is a redirect."""
    url = tus.new(5)

    assert tus.head(f"{url}/")["upload-offset"] == "0"
    assert tus.patch(f"{url}/", 0, b"hello").status == 204
    assert tus.get(f"{url}/").body == b"hello"
    assert tus.get(url).body == b"hello"
    assert tus.delete(f"{url}/").status == 204
    assert tus.head(url).status == 404


@pytest.mark.parametrize(
    "target",
    ["/file", "/filesystem", "/files/a/b", f"/files/{UNKNOWN_ID}/x", "//files/", "/x"],
)
def test_nothing_is_redirected(tus: Tus, target: str) -> None:
    """T130, C5."""
    for method in ("GET", "HEAD", "PATCH", "DELETE", "POST"):
        reply = tus.request(method, target)

        assert 400 <= reply.status < 500
        assert "location" not in reply


def test_a_query_does_not_count(tus: Tus) -> None:
    """T130."""
    url = tus.request("POST", "/files/?a=b&c", {"Upload-Length": "5"})["location"]

    assert "?" not in url
    assert tus.head(f"{url}?x=1")["upload-offset"] == "0"
    assert tus.patch(f"{url}?", 0, b"hello").status == 204


def _send_chunked_head(tus: Tus, connection: Connection, url: str) -> None:
    fields = {"Content-Type": BODY_TYPE, "Upload-Offset": "0", "Transfer-Encoding": "chunked"}
    with contextlib.suppress(ConnectionResetError):
        connection.send_head("PATCH", url, tus.fields | fields)
