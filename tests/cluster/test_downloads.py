"""Downloads of objects in S3, from any node or from the store itself."""

from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.http import Fields, request
from tests.support.nodes import MIB, Cluster
from tests.support.tus import Tus, encode_metadata, pattern

SIZE = 12 * MIB + 3  # several parts
CONTENT = pattern(SIZE)
METADATA = {
    "filename": "Überblick 1.pdf",
    "filetype": "application/pdf",
    "To.Do": "ä%",
    "empty": "",
}


@pytest.fixture(scope="module")
def url(shared_cluster: Cluster) -> str:
    """A finished upload of several parts, which node a took."""
    made: str = shared_cluster.tus("a").stored(CONTENT, metadata=encode_metadata(METADATA))
    return made


@pytest.fixture
def there(pair: Cluster) -> Tus:
    """The node that had nothing to do with the upload."""
    return pair.tus("b")


def test_a_download_from_another_node_is_the_whole(there: Tus, url: str) -> None:
    reply = there.get(url)

    assert reply.status == 200
    assert reply.body == CONTENT
    assert reply["content-length"] == str(SIZE)
    assert reply["content-type"] == "application/pdf"
    assert "filename*=" in reply["content-disposition"]


def test_head_tells_what_get_would(there: Tus, url: str) -> None:
    head = there.head(url, {"Tus-Resumable": None})

    assert (head.status, head["content-length"]) == (200, str(SIZE))
    assert head["etag"] == there.get(url, {"Range": "bytes=0-0"})["etag"]


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        (f"bytes={5 * MIB - 1}-{5 * MIB}", 5 * MIB - 1, 5 * MIB + 1),
        (f"bytes={MIB}-", MIB, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        (f"bytes={SIZE - 1}-{2 * SIZE}", SIZE - 1, SIZE),
    ],
)
def test_a_range_is_just_those_bytes(
    there: Tus, url: str, value: str, start: int, end: int
) -> None:
    reply = there.get(url, {"Range": value})

    assert reply.status == 206
    assert reply.body == CONTENT[start:end]
    assert reply["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"


def test_a_range_behind_the_end_is_refused(there: Tus, url: str) -> None:
    reply = there.get(url, {"Range": f"bytes={SIZE}-"})

    assert (reply.status, reply["content-range"]) == (416, f"bytes */{SIZE}")


def test_every_node_gives_the_same_validators(pair: Cluster, url: str) -> None:
    """So a download that moves to another node goes on where it was."""
    first, second = (pair.tus(name).get(url, {"Range": "bytes=0-9"}) for name in "ab")
    etag, modified = first["etag"], first["last-modified"]
    assert (second["etag"], second["last-modified"]) == (etag, modified)

    cases: list[tuple[Fields, int]] = [
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Match": etag}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Modified-Since": modified}, 304),
        ({"Range": "bytes=1-2", "If-Range": etag}, 206),
        ({"Range": "bytes=1-2", "If-Range": '"other"'}, 200),
    ]
    for fields, status in cases:
        assert pair.tus("b").get(url, fields).status == status, fields


@pytest.mark.parametrize("size", [0, 1000])
def test_a_small_object_is_downloaded_from_another_node(pair: Cluster, size: int) -> None:
    made = pair.tus("a").create(size, body=CONTENT[:size])["location"]

    reply = pair.tus("b").get(made)

    assert (reply.status, reply.body) == (200, CONTENT[:size])


def test_an_unfinished_upload_cannot_be_downloaded(pair: Cluster) -> None:
    made = pair.tus("a").stored(CONTENT[: 6 * MIB], length=SIZE)

    assert [pair.tus(name).get(made).status for name in "ab"] == [404, 404]

    assert pair.tus("a").finish(made, CONTENT) == CONTENT


# --- what the object itself tells


def check_described(found: dict[str, Any]) -> None:
    assert found["ContentLength"] == SIZE or found["ContentLength"] == 1000
    assert found["ContentType"] == "application/pdf"
    assert found["ContentDisposition"].startswith("attachment; filename")
    assert "filename*=UTF-8''%C3%9Cberblick%201.pdf" in found["ContentDisposition"]
    assert found["Metadata"] == {
        "filename": "%C3%9Cberblick%201.pdf",
        "filetype": "application/pdf",
        "to-do": "%C3%A4%25",
        "empty": "",
    }


def test_an_object_of_parts_tells_what_it_is(pair: Cluster, url: str) -> None:
    check_described(pair.described(url))


def test_an_object_put_at_once_tells_what_it_is(pair: Cluster) -> None:
    made = pair.tus("a").stored(CONTENT[:1000], metadata=encode_metadata(METADATA))

    check_described(pair.described(made))


@pytest.mark.parametrize("size", [1000, 6 * MIB], ids=["put-at-once", "of-parts"])
def test_metadata_that_s3_would_not_take_is_left_out_of_the_object(
    pair: Cluster, size: int
) -> None:
    given = encode_metadata({"filename": "a.txt", "note": "x" * 3000})

    made = pair.tus("a").stored(CONTENT[:size], metadata=given)

    found = pair.described(made)
    assert found["Metadata"] == {}
    assert "a.txt" in found["ContentDisposition"]
    assert pair.tus("b").head(made)["upload-metadata"] == given
    assert pair.tus("b").content(made) == CONTENT[:size]


# --- from the store itself


def test_a_download_is_sent_to_the_store(pair: Cluster, url: str) -> None:
    tus = Tus(pair.node("r", TUS_DOWNLOADS="redirect").port)

    reply = tus.get(url)

    assert (reply.status, reply["cache-control"]) == (307, "no-store")
    place = urlsplit(reply["location"])
    assert place.port is not None
    target = f"{place.path}?{place.query}"
    found = request(place.port, "GET", target)
    assert (found.status, found.body) == (200, CONTENT)
    assert found["content-type"] == "application/pdf"
    assert "filename" in found["content-disposition"]
    part = request(place.port, "GET", target, {"Range": "bytes=5-9"})
    assert (part.status, part.body) == (206, CONTENT[5:10])
    # The URL is for what was asked for.
    head = tus.head(url, {"Tus-Resumable": None})
    assert head.status == 307
    place = urlsplit(head["location"])
    assert request(place.port or 0, "HEAD", f"{place.path}?{place.query}").status == 200
    assert request(place.port or 0, "DELETE", f"{place.path}?{place.query}").status == 403
    assert pair.content(url) == CONTENT
    pair.drop_node("r")


def test_downloads_can_be_off(pair: Cluster, url: str) -> None:
    tus = Tus(pair.node("o", TUS_DOWNLOADS="off").port)

    assert tus.get(url).status == 405
    assert tus.offset(url) == SIZE
    pair.drop_node("o")
