"""Downloads: GET of a finished upload and the HEAD that goes with it (RFC 9110, T55, T127)."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.conftest import check_log
from tests.e2e.values import UNKNOWN
from tests.support.http import Fields
from tests.support.server import ServerProcess
from tests.support.tus import Tus, encode_metadata, pattern
from tests.support.waiting import wait_until

CONTENT = b"0123456789"
MIB = 1024 * 1024


@pytest.fixture
def url(tus: Tus) -> str:
    """A finished upload of ten bytes."""
    return tus.stored(CONTENT)


def test_a_download_is_the_content_with_its_length(tus: Tus, url: str) -> None:
    """T127."""
    reply = tus.get(url)

    assert reply.status == 200
    assert reply.body == CONTENT
    assert reply["content-length"] == "10"
    assert reply["accept-ranges"] == "bytes"
    assert reply["content-type"] == "application/octet-stream"
    assert reply["content-disposition"] == "attachment"
    assert reply["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply["content-security-policy"]


def test_head_tells_what_get_would(tus: Tus, url: str) -> None:
    """T8, T127."""
    get = tus.get(url)
    head = tus.head(url, {"Tus-Resumable": None})

    assert head.status == 200
    assert head.body == b""
    assert [field for field in head.fields if field[0] != "date"] == [
        field for field in get.fields if field[0] != "date"
    ]


def test_an_empty_upload_can_be_downloaded(tus: Tus) -> None:
    """T45, T127."""
    url = tus.stored(b"")

    reply = tus.get(url)

    assert reply.status == 200
    assert reply["content-length"] == "0"
    assert tus.head(url, {"Tus-Resumable": None})["content-length"] == "0"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 6)),
        ("bytes=2-", (2, 10)),
        ("bytes=9-", (9, 10)),
        ("bytes=0-99", (0, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("Bytes=1-2", (1, 3)),
    ],
)
def test_a_range_is_206_with_just_those_bytes(
    tus: Tus, url: str, value: str, expected: tuple[int, int]
) -> None:
    """T127."""
    start, end = expected

    reply = tus.get(url, {"Range": value})

    assert reply.status == 206
    assert reply.body == CONTENT[start:end]
    assert reply["content-range"] == f"bytes {start}-{end - 1}/10"
    assert reply["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "value", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999-"]
)
def test_a_range_behind_the_end_is_416(tus: Tus, url: str, value: str) -> None:
    """T127."""
    reply = tus.get(url, {"Range": value})

    assert reply.status == 416
    assert reply["content-range"] == "bytes */10"
    assert reply.problem()["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    "value", ["bytes=5-2", "bytes=a-b", "bytes", "", "items=0-1", "bytes=0-1,4-5", "bytes=-", "0-1"]
)
def test_a_range_that_is_not_understood_is_the_whole(tus: Tus, url: str, value: str) -> None:
    """T127."""
    reply = tus.get(url, {"Range": value})

    assert reply.status == 200
    assert reply.body == CONTENT
    assert "content-range" not in reply


def test_a_range_does_not_count_for_head(tus: Tus, url: str) -> None:
    """T127."""
    reply = tus.head(url, {"Tus-Resumable": None, "Range": "bytes=0-0"})

    assert reply.status == 200
    assert reply["content-length"] == "10"


def _conditions(etag: str, modified: str) -> list[tuple[str, Fields, int]]:
    moment = parsedate_to_datetime(modified)
    earlier = format_datetime(moment - timedelta(days=1), usegmt=True)
    later = format_datetime(moment + timedelta(days=1), usegmt=True)
    part = {"Range": "bytes=0-1"}
    return [
        ("if-none-match same", {"If-None-Match": etag}, 304),
        ("if-none-match weak", {"If-None-Match": f"W/{etag}"}, 304),
        ("if-none-match any", {"If-None-Match": "*"}, 304),
        ("if-none-match in a list", {"If-None-Match": f'"a", {etag}'}, 304),
        ("if-none-match in lines", {"If-None-Match": ['"a"', etag]}, 304),
        ("if-none-match other", {"If-None-Match": '"a"'}, 200),
        ("if-match same", {"If-Match": etag}, 200),
        ("if-match any", {"If-Match": "*"}, 200),
        ("if-match in a list", {"If-Match": f'"a",{etag}'}, 200),
        ("if-match weak", {"If-Match": f"W/{etag}"}, 412),
        ("if-match other", {"If-Match": '"a"'}, 412),
        ("if-modified-since same", {"If-Modified-Since": modified}, 304),
        ("if-modified-since later", {"If-Modified-Since": later}, 304),
        ("if-modified-since earlier", {"If-Modified-Since": earlier}, 200),
        ("if-modified-since nonsense", {"If-Modified-Since": "yesterday"}, 200),
        ("if-unmodified-since same", {"If-Unmodified-Since": modified}, 200),
        ("if-unmodified-since earlier", {"If-Unmodified-Since": earlier}, 412),
        ("etag before date", {"If-None-Match": '"a"', "If-Modified-Since": later}, 200),
        ("match before unmodified", {"If-Match": etag, "If-Unmodified-Since": earlier}, 200),
        ("match, then none-match", {"If-Match": etag, "If-None-Match": etag}, 304),
        ("if-range same", {"If-Range": etag} | part, 206),
        ("if-range weak", {"If-Range": f"W/{etag}"} | part, 200),
        ("if-range other", {"If-Range": '"a"'} | part, 200),
        ("if-range date", {"If-Range": modified} | part, 206),
        ("if-range other date", {"If-Range": later} | part, 200),
        ("none-match before range", {"If-None-Match": etag} | part, 304),
    ]


@pytest.mark.parametrize("number", range(26))
def test_conditions_are_evaluated_in_the_order_of_the_rfc(tus: Tus, url: str, number: int) -> None:
    """T127: RFC 9110, 13.2.2."""
    current = tus.get(url)
    name, fields, status = _conditions(current["etag"], current["last-modified"])[number]

    reply = tus.get(url, fields)

    assert reply.status == status, name
    if status == 304:
        assert reply["etag"] == current["etag"]
        assert reply.body == b""
    if status == 200:
        assert reply.body == CONTENT


def test_the_list_of_conditions_is_tested_whole() -> None:
    assert len(_conditions('"x"', "Fri, 20 Nov 2026 21:07:36 GMT")) == 26


def test_the_etag_is_strong_and_made_of_the_content(tus: Tus, url: str) -> None:
    """T127."""
    etag = tus.get(url)["etag"]

    assert etag.startswith('"')
    assert etag.endswith('"')
    assert tus.get(tus.stored(CONTENT))["etag"] == etag
    assert tus.get(tus.stored(CONTENT[:-1] + b"8"))["etag"] != etag


NAMES = [
    "plain.txt",
    "two words.pdf",
    "caf\u00e9.txt",
    "\u6587\u4ef6.zip",
    "\U0001f600.png",
    "100%.txt",
    "%41.txt",
    'qu"ote.txt',
    "semi;colon.txt",
    "a'b.txt",
    "back\\slash.txt",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("key", ["filename", "name"])
def test_the_file_keeps_its_name(tus: Tus, name: str, key: str) -> None:
    """T55: RFC 6266, filename* where filename would not do."""
    url = tus.stored(CONTENT, metadata=encode_metadata({key: name}))

    disposition = tus.get(url)["content-disposition"]

    assert disposition.startswith("attachment; filename=")
    given = name.rpartition("\\")[2]
    if "filename*=" in disposition:
        charset, _, encoded = disposition.rpartition("filename*=")[2].partition("''")
        assert charset == "UTF-8"
        assert unquote(encoded) == given
    else:
        assert disposition == f'attachment; filename="{given}"'


@pytest.mark.parametrize(
    ("filetype", "shown_inline"),
    [
        ("image/png", True),
        ("image/jpeg", True),
        ("video/mp4", True),
        ("text/plain", True),
        ("text/html", False),
        ("image/svg+xml", False),
        ("application/xhtml+xml", False),
        ("text/xml", False),
        ("application/javascript", False),
        ("application/pdf", False),
        ("application/zip", False),
    ],
)
def test_only_harmless_types_are_shown_inline(tus: Tus, filetype: str, shown_inline: bool) -> None:
    """T55."""
    url = tus.stored(CONTENT, metadata=encode_metadata({"filename": "f", "filetype": filetype}))

    reply = tus.get(url)

    assert reply["content-type"].partition(";")[0] == filetype
    assert reply["content-disposition"].startswith("inline" if shown_inline else "attachment")
    assert reply["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "value", ["text/html\r\nX: y", "a/b/c", "text", "", "*/*", "text/html, a/b", "null"]
)
def test_a_type_that_is_none_is_a_stream_of_bytes(tus: Tus, value: str) -> None:
    """T55: Uppy sends `null` for a type it does not know."""
    encoded = b64encode(value.encode()).decode()
    url = tus.stored(CONTENT, metadata=f"filetype {encoded}")

    assert tus.get(url)["content-type"] == "application/octet-stream"


def test_what_is_unfinished_or_gone_is_404(tus: Tus, url: str) -> None:
    """T127."""
    tus.delete(url)

    for missing in (tus.new(5), tus.stored(b"he", length=5), tus.new(), url, UNKNOWN):
        assert tus.get(missing).status == 404
        assert tus.get(missing, {"Range": "bytes=0-1"}).status == 404


@pytest.mark.parametrize("size", [256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 5 * MIB + 17])
def test_a_large_download_is_whole(tus: Tus, size: int) -> None:
    """T127."""
    content = pattern(size)
    url = tus.stored(content)

    assert tus.content(url) == content
    assert tus.get(url, {"Range": f"bytes={size - 1000}-"}).body == content[-1000:]
    assert tus.get(url, {"Range": "bytes=100000-200000"}).body == content[100_000:200_001]


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_goes_in_the_middle_does_no_harm(
    tus: Tus, server: ServerProcess, how: str
) -> None:
    """T127: the file is closed, others go on."""
    content = pattern(16 * MIB)
    url = tus.stored(content)

    for _ in range(5):
        connection = tus.connect()
        connection.send_head("GET", url)
        assert connection.read_one_head().status == 200
        connection.reset() if how == "reset" else connection.close()

    assert tus.get(url, {"Range": "bytes=-5"}).body == content[-5:]
    wait_until(lambda: not _open_files(server, url), "the file is closed")


def _open_files(server: ServerProcess, url: str) -> list[str]:
    name = url.rpartition("/")[2]
    found = []
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if name in target:
            found.append(target)
    return found


def test_a_reader_keeps_its_file_when_the_upload_is_deleted(tus: Tus) -> None:
    """T95, T127."""
    content = pattern(16 * MIB)
    url = tus.stored(content)

    with tus.connect() as connection:
        connection.send_head("GET", url)
        connection.read_one_head()
        assert tus.delete(url).status == 204
        assert tus.get(url).status == 404
        body = connection.read_exactly(len(content))

    assert body == content


@pytest.fixture(scope="module")
def closed_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server without downloads."""
    data_dir = tmp_path_factory.mktemp("closed") / "data"
    with ServerProcess(data_dir, TUS_BODY_PATH=body_path, TUS_DOWNLOADS="off") as server:
        yield server
        check_log(server.log)


def test_without_downloads_there_is_no_get(closed_server: ServerProcess) -> None:
    """T127: TUS_DOWNLOADS=off."""
    tus = Tus(closed_server.port)
    finished, unfinished = tus.new(5), tus.new(5)
    tus.append(finished, 0, b"hello")

    for url in (finished, unfinished, UNKNOWN):
        reply = tus.get(url)

        assert reply.status == 405
        assert reply.names("allow") == {"head", "patch", "delete", "options"}
    assert tus.head(finished, {"Tus-Resumable": None}).status == 412
    assert tus.head(finished)["upload-offset"] == "5"
    assert tus.delete(finished).status == 204
