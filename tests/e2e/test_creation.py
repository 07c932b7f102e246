"""Creation (T38-T55)."""

import re
from base64 import b64encode

import pytest

from tests.e2e.replies import REPLIES
from tests.e2e.values import shown
from tests.support.http import FieldValue
from tests.support.records import Records
from tests.support.tus import Tus, pattern

GOOD_METADATA = [
    "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential",
    "is_confidential",
    "is_confidential ,filename Zm9v",
    "a,b Yg==",
    "b Yg==,a",
    "a YQ==, b Yg==",
    "a YQ== ,b Yg==",
    "a YQ==\t,\tb Yg==",
    "filename Zm9v,filetype dGV4dC9wbGFpbg==,caption bnVsbA==",
    "!#$%&'*+-.^_`|~:;<=>?@[]{}()/\"\\ YQ==",
    "A YQ==,a YQ==",
    f"note {b64encode(bytes(range(256))).decode()}",
    f"long {b64encode(bytes(8000)).decode()}",
]
BAD_METADATA: list[str | bytes] = [
    "filename ###",
    "filename YQ",
    "filename YQ=",
    "filename =YQ=",
    "filename Y-Q_",
    "filename YQ==YQ==",
    "filename  YQ==",
    "filename YQ== YQ==",
    "a YQ==, dmFs",
    "a,,b",
    ",",
    ",a YQ==",
    "a YQ==,",
    "a YQ==,a Yg==",
    "a,a",
    "a YQ==,b Yg==,a YQ==",
    "a\tb YQ==",
    "caf\u00e9 YQ==",
    "\u043a\u043b\u044e\u0447 YQ==".encode(),
    "filename \u00e9\u00e9\u00e9\u00e9",
]


def test_creation_answers_201_with_the_url_of_the_upload(tus: Tus) -> None:
    """T41, T42: an absolute path, because no public URL is configured."""
    reply = tus.create(5)

    assert reply.status == 201
    assert re.fullmatch(r"/files/[0-9a-f]{32}", reply["location"])
    assert tus.head(reply["location"]).status == 200


def test_every_upload_has_a_url_of_its_own(tus: Tus) -> None:
    """T42."""
    assert len({tus.new(5) for _ in range(20)}) == 20


@pytest.mark.parametrize("name", [name for name in REPLIES if name[0] in "45"])
def test_no_error_reply_has_a_location(tus: Tus, name: str) -> None:
    """T42, C3."""
    assert "location" not in REPLIES[name](tus)


@pytest.mark.parametrize("length", [5, None], ids=["known", "deferred"])
def test_the_offset_of_a_new_upload_is_0_and_is_told_at_once(tus: Tus, length: int | None) -> None:
    """T43."""
    reply = tus.create(length)

    assert reply["upload-offset"] == "0"
    assert tus.offset(reply["location"]) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"Upload-Length": None},
        {"Upload-Length": "5", "Upload-Defer-Length": "1"},
        {"Upload-Length": "0", "Upload-Defer-Length": "1"},
    ],
    ids=["neither", "both", "both with 0"],
)
def test_a_length_or_its_deferral_is_needed(
    tus: Tus, records: Records, fields: dict[str, FieldValue]
) -> None:
    """T39."""
    with records.nothing_created():
        reply = tus.create(5, fields=fields)

    assert reply.status == 400


@pytest.mark.parametrize(
    "value", ["0", "2", "true", "", "1.0", "01", "+1", "-1", "1,1", ["1", "1"]], ids=shown
)
def test_another_value_than_1_of_the_deferral_is_400(
    tus: Tus, records: Records, value: FieldValue
) -> None:
    """T40."""
    with records.nothing_created():
        reply = tus.create(fields={"Upload-Defer-Length": value})

    assert reply.status == 400


def test_more_than_the_maximum_is_413_and_creates_nothing(limited: Tus) -> None:
    """T44, T11."""
    maximum = int(limited.options()["tus-max-size"])

    assert limited.create(maximum + 1).status == 413
    assert limited.create(10**18).status == 413
    assert limited.create(maximum).status == 201


def test_an_upload_of_the_maximum_can_be_finished(limited: Tus) -> None:
    """T44."""
    content = pattern(int(limited.options()["tus-max-size"]))
    url = limited.new(len(content))

    assert limited.finish(url, content) == content


def test_an_empty_upload_is_complete_at_once(tus: Tus, records: Records) -> None:
    """T45: with one completion event, however often it is looked at and repeated."""
    reply = tus.create(0, metadata="filename ZW1wdHk=")
    url = reply["location"]

    assert reply.status == 201
    assert reply["upload-offset"] == "0"
    for _ in range(2):
        head = tus.head(url)
        assert (head["upload-offset"], head["upload-length"]) == ("0", "0")
        assert tus.patch(url, 0).status == 204
        assert tus.patch(url, 0, chunked=True, length=0).status == 204
    assert tus.content(url) == b""
    assert records.state(url) == "verified"
    assert records.events(url) == ["verified"]


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_an_upload_that_turns_out_empty_completes_once(
    tus: Tus, records: Records, chunked: bool
) -> None:
    """T45, T59."""
    url = tus.new()

    for _ in range(2):
        assert tus.patch(url, 0, length=0, chunked=chunked).status == 204

    assert tus.content(url) == b""
    assert records.events(url) == ["verified"]


def test_a_finished_upload_has_one_event(tus: Tus, records: Records) -> None:
    """T45: the same for uploads with bytes."""
    url = tus.stored(b"he", length=5)
    unfinished = records.events(url)
    tus.append(url, 2, b"llo")
    tus.patch(url, 5)
    tus.head(url)

    assert unfinished == []
    assert records.events(url) == ["verified"]


# --- metadata


@pytest.mark.parametrize("metadata", GOOD_METADATA, ids=shown)
@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
def test_metadata_is_echoed_byte_for_byte(tus: Tus, metadata: str, finished: bool) -> None:
    """T46, T47, T48, T49, T51, T54."""
    url = tus.new(1, metadata=metadata)
    if finished:
        tus.append(url, 0, b"x")

    assert tus.head(url)["upload-metadata"] == metadata


def test_repeated_metadata_lines_are_joined(tus: Tus) -> None:
    """T47."""
    fields = {"Upload-Metadata": ["a YQ==", "b Yg==,c"]}

    url = tus.create(5, fields=fields)["location"]

    assert tus.head(url)["upload-metadata"] == "a YQ==,b Yg==,c"


@pytest.mark.parametrize("metadata", ["", " ", "\t"], ids=shown)
def test_blank_metadata_is_none(tus: Tus, metadata: str) -> None:
    """T48: tuspy sends it empty."""
    url = tus.new(5, metadata=metadata)

    assert "upload-metadata" not in tus.head(url)


@pytest.mark.parametrize("metadata", BAD_METADATA, ids=shown)
def test_malformed_metadata_creates_nothing(
    tus: Tus, records: Records, metadata: str | bytes
) -> None:
    """T48, T49, T50, T51, T52, T53."""
    with records.nothing_created():
        reply = tus.create(5, fields={"Upload-Metadata": metadata})

    assert reply.status == 400
    assert reply.problem()["code"] == "malformed_metadata"


@pytest.mark.parametrize("lines", [["a YQ==", "a Yg=="], ["a YQ==", ""]], ids=shown)
def test_repeated_lines_are_one_list(tus: Tus, records: Records, lines: list[str]) -> None:
    """T47, T53: a key in two lines is there twice, an empty line is an empty member."""
    with records.nothing_created():
        assert tus.create(5, fields={"Upload-Metadata": lines}).status == 400


def test_metadata_larger_than_a_head_may_be_is_431(tus: Tus, records: Records) -> None:
    """T46."""
    with records.nothing_created():
        reply = tus.create(5, metadata=f"a {b64encode(bytes(30_000)).decode()}")

    assert reply.status == 431
    assert reply.problem()["code"] == "headers_too_large"


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a\r\nSet-Cookie: b=c", "a\0b", 'q"uo"te', "/abs", "..", "\u202egpj.exe"],
    ids=shown,
)
@pytest.mark.parametrize("key", ["filename", "name", "filetype", "type"])
def test_metadata_reaches_no_path_and_no_other_field(
    tus: Tus, records: Records, name: str, key: str
) -> None:
    """T55."""
    content = b"<script>alert(1)</script>"
    encoded = b64encode(name.encode()).decode()
    url = tus.stored(content, metadata=f"{key} {encoded}")

    reply = tus.get(url)

    assert reply.body == content
    assert reply["x-content-type-options"] == "nosniff"
    assert reply["content-type"] == "application/octet-stream"
    assert reply["content-disposition"].startswith("attachment")
    assert "set-cookie" not in reply
    assert not {"..", "/", "\\"} & set(re.split(r"[\"']", reply["content-disposition"]))
    assert [path.name for path in records.files(url)] == [url.rpartition("/")[2]]
