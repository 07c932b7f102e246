"""RUFH: creation, with and without content, in every version."""

import pytest

from tests.support.http import Fields
from tests.support.records import Records
from tests.support.rufh import INTEROP, NEW, WIRES, Rufh, Wire, parse_limits
from tests.support.tus import encode_metadata, pattern

MIB = 1024 * 1024
ORDINARY = [wire for wire in WIRES if wire.interop is not None]


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 70_000, 2 * MIB + 5])
def test_a_whole_upload_in_one_request_is_answered_as_its_target_would(
    rufh: Rufh, records: Records, size: int, chunked: bool
) -> None:
    """R25, R28, R32, R35, R54: one completion event, also of an empty one."""
    content = pattern(size)

    reply = rufh.create(content, done=True, chunked=chunked)

    assert reply.status == 201
    assert rufh.is_done(reply)
    assert reply["upload-offset"] == str(size)
    rufh.check_common(reply)
    url = reply["location"]
    assert rufh.content(url) == content
    assert records.events(rufh.path(url)) == ["verified"]


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 70_000, 2 * MIB + 5])
def test_a_creation_that_completes_nothing_gives_the_url_and_the_offset(
    rufh: Rufh, records: Records, size: int, chunked: bool
) -> None:
    """R26, R27, R28, R32, R35."""
    content = pattern(size)

    reply = rufh.create(content, done=False, chunked=chunked)

    assert reply.status == 201
    assert not rufh.is_done(reply)
    assert reply["upload-offset"] == str(size)
    rufh.check_common(reply)
    assert ("upload-limit" in reply) == (rufh.wire.lifetime_key is not None)
    url = reply["location"]
    assert records.events(rufh.path(url)) == []
    assert rufh.finish(url, content + b"!") == content + b"!"


def test_all_bytes_without_the_flag_are_not_complete(rufh: Rufh, records: Records) -> None:
    """R7: offset = length is not enough; an empty append with the flag completes."""
    reply = rufh.create(b"hello", done=False, length=5)

    assert not rufh.is_done(reply)
    url = reply["location"]
    head = rufh.head(url)
    assert (head["upload-offset"], head["upload-length"]) == ("5", "5")
    assert not rufh.is_done(head)
    assert records.events(rufh.path(url)) == []
    last = rufh.append(url, 5, done=True)
    assert last.status == 201
    assert rufh.is_done(last)
    assert records.events(rufh.path(url)) == ["verified"]


def test_the_url_is_absolute(rufh: Rufh) -> None:
    """R31: the Go example client uses Location as it comes."""
    reply = rufh.create(done=False)

    assert reply["location"].startswith(f"http://127.0.0.1:{rufh.port}/files/")


def test_the_url_has_the_host_the_client_named(rufh: Rufh) -> None:
    """R31."""
    reply = rufh.create(done=False, fields={"Host": "uploads.example:8443"})

    assert reply["location"].startswith("http://uploads.example:8443/files/")


def test_forwarded_fields_of_a_stranger_do_not_reach_the_url(rufh: Rufh) -> None:
    """R31."""
    fields = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}

    reply = rufh.create(done=False, fields=fields)

    assert reply["location"].startswith(f"http://127.0.0.1:{rufh.port}/files/")


def test_the_length_is_recorded_from_its_field(rufh: Rufh) -> None:
    """R29."""
    url = rufh.new(length=50)

    assert rufh.head(url)["upload-length"] == "50"


def test_what_nobody_told_is_not_known(rufh: Rufh) -> None:
    """R29, R40: Content-Length of a creation that is not the end says nothing of the whole."""
    url = rufh.stored(b"hello")

    assert "upload-length" not in rufh.head(url)


@pytest.mark.parametrize("length", [4, 6])
def test_length_and_content_that_disagree_create_nothing(
    rufh: Rufh, records: Records, length: int
) -> None:
    """R9, R10."""
    with records.nothing_created():
        reply = rufh.create(b"hello", done=True, length=length)

    rufh.check_standing(reply, 400, None)
    assert rufh.problem(reply)["type"] == "inconsistent-upload-length"


def test_more_content_than_the_length_creates_nothing(rufh: Rufh, records: Records) -> None:
    """R9, R60: the header fields tell it already."""
    with records.nothing_created():
        reply = rufh.create(b"hello!", done=False, length=5)

    rufh.check_standing(reply, 400, None)
    assert rufh.problem(reply)["type"] == "inconsistent-upload-length"


@pytest.mark.parametrize("length", [4, 6])
def test_a_chunked_creation_that_disagrees_with_its_length_is_not_complete(
    rufh: Rufh, length: int
) -> None:
    """R9: seen only at the end of the body."""
    reply = rufh.create(b"hello", done=True, length=length, chunked=True)

    assert reply.status == 400
    assert not rufh.is_done(reply)
    assert rufh.problem(reply)["type"] == "inconsistent-upload-length"
    assert "location" not in reply


@pytest.mark.parametrize("value", [None, "1", "true", '"?1"', "?2", "", "?1, ?1"])
@pytest.mark.parametrize("wire", ORDINARY, ids=str)
def test_a_creation_without_a_flag_is_400(
    rufh: Rufh, records: Records, wire: Wire, value: str | None
) -> None:
    """R5, D2: a value of another type is no flag."""
    with records.nothing_created():
        reply = rufh.create(b"hello", done=True, fields={wire.flag: value})

    rufh.check_standing(reply, 400, None)


@pytest.mark.parametrize("value", ["1", "true", "", "?3"])
@pytest.mark.parametrize("wire", [WIRES[-1]], ids=str)
def test_a_flag_that_is_none_is_400_without_a_version_too(
    rufh: Rufh, records: Records, value: str
) -> None:
    """R5: the field is a mark of RUFH, whatever it says."""
    with records.nothing_created():
        reply = rufh.create(b"hello", done=True, fields={"Upload-Complete": value})

    rufh.check_standing(reply, 400, None)


@pytest.mark.parametrize(
    ("value", "status"), [("0", 201), ("abc", 201), ('"5"', 201), ("5", 400), ("1", 400)]
)
def test_an_offset_on_a_creation_must_be_0(rufh: Rufh, value: str, status: int) -> None:
    """R4, D3."""
    reply = rufh.create(b"hello", done=True, fields={"Upload-Offset": value})

    assert reply.status == status


@pytest.mark.parametrize("value", ["abc", "-1", "5.0", '"5"', "?1", "9" * 16])
def test_a_length_that_is_none_is_not_known(rufh: Rufh, value: str) -> None:
    """R6."""
    reply = rufh.create(b"hello", done=False, length=value)

    assert reply.status == 201
    assert "upload-length" not in rufh.head(reply["location"])


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "HEAD", "GET"])
def test_only_post_creates(rufh: Rufh, records: Records, method: str) -> None:
    """R21."""
    with records.nothing_created():
        body = b"" if method in ("HEAD", "GET") else b"hello"
        reply = rufh.request(method, rufh.base, rufh.flag(True), body)

    assert reply.status == 405
    assert reply["allow"] == "POST, OPTIONS"
    assert "upload-offset" not in reply
    assert rufh.wire.flag.lower() not in reply


@pytest.mark.parametrize(
    ("fields", "disposition", "kind"),
    [
        (
            {"Content-Disposition": 'attachment; filename="a b.png"', "Content-Type": "image/png"},
            'inline; filename="a b.png"',
            "image/png",
        ),
        (
            {"Content-Disposition": "attachment; filename=x.txt; filename*=UTF-8''%e2%82%ac.txt"},
            "attachment; filename=\"_.txt\"; filename*=UTF-8''%E2%82%AC.txt",
            "application/octet-stream",
        ),
        (
            {
                "Content-Type": "application/partial-upload",
                "Upload-Metadata": encode_metadata({"filename": "m.mp4", "filetype": "video/mp4"}),
            },
            'inline; filename="m.mp4"',
            "video/mp4",
        ),
        (
            {
                "Content-Disposition": 'attachment; filename="d.png"',
                "Upload-Metadata": encode_metadata({"filename": "m.png"}),
            },
            'attachment; filename="m.png"',
            "application/octet-stream",
        ),
        (
            {
                "Content-Disposition": 'attachment; filename="d.png"',
                "Upload-Metadata": "filename ###",
            },
            'attachment; filename="d.png"',
            "application/octet-stream",
        ),
        (
            {"Content-Disposition": 'attachment; filename="../../etc/pass\\"wd"'},
            "attachment; filename=\"pass_wd\"; filename*=UTF-8''pass%22wd",
            "application/octet-stream",
        ),
    ],
    ids=["fields", "extended", "tus-js", "both", "invalid", "hostile"],
)
@pytest.mark.parametrize("wire", NEW[:1], ids=str)
def test_a_file_is_served_as_what_its_creation_called_it(
    rufh: Rufh, fields: Fields, disposition: str, kind: str
) -> None:
    """D5, R82."""
    reply = rufh.create(b"hello", done=True, fields=fields)

    got = rufh.get(reply["location"])
    assert got["content-disposition"] == disposition
    assert got["content-type"] == kind


@pytest.mark.parametrize("wire", NEW[:1], ids=str)
def test_a_coded_body_is_stored_as_sent_and_its_coding_repeated(rufh: Rufh) -> None:
    """R77: offset and length count coded bytes; they need not even be what the coding says."""
    content = pattern(1000)

    reply = rufh.create(content, done=True, fields={"Content-Encoding": "gzip"})

    assert reply["upload-offset"] == "1000"
    got = rufh.get(reply["location"])
    assert got.body == content
    assert got["content-encoding"] == "gzip"


def test_every_url_is_new(rufh: Rufh) -> None:
    """R1, R81."""
    urls = {rufh.new() for _ in range(5)}

    assert len(urls) == 5
    for url in urls:
        assert len(url.rpartition("/")[2].partition(".")[0]) == 32  # hex digits: 128 bits


def test_the_limits_of_a_creation_tell_how_long_it_lives(rufh: Rufh) -> None:
    """R27, R41."""
    key = rufh.wire.lifetime_key
    reply = rufh.create(done=False)

    if key is None:
        assert "upload-limit" not in reply
        return
    limits = parse_limits(reply["upload-limit"])
    assert next(iter(limits)) == "min-size"
    assert limits["min-size"] == 0
    week_s = 7 * 86_400
    assert week_s - 60 <= limits[key] <= week_s
    assert set(limits) == {"min-size", "max-size", key}


@pytest.mark.parametrize("wire", [WIRES[-1]], ids=str)
@pytest.mark.parametrize("number", ["11", "12", "999999"])
def test_a_later_version_is_served_as_the_newest_known(rufh: Rufh, number: str) -> None:
    """R85: the upload works, only the early URL is missing."""
    reply = rufh.create(b"hello", done=True, fields={INTEROP: number})

    assert reply.status == 201
    assert reply.interim == ()
    assert INTEROP not in reply
    assert reply["upload-complete"] == "?1"


@pytest.mark.parametrize("wire", [WIRES[-1]], ids=str)
@pytest.mark.parametrize("number", ["0", "2", "4", "7", "-3", "6.0", '"6"', "abc", "", "6, 6"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "HEAD", "DELETE"])
def test_a_version_that_nobody_serves_is_400(
    rufh: Rufh, records: Records, number: str, method: str
) -> None:
    """Section 1: neither read nor guessed at."""
    url = rufh.stored(b"he")
    fields = rufh.append_fields(2, True) if method == "PATCH" else rufh.flag(True)
    target = rufh.base if method == "POST" else url
    with records.nothing_created(), rufh.unchanged(url, b"hello"):
        body = b"llo" if method in ("POST", "PATCH") else b""
        reply = rufh.request(method, target, dict(fields) | {INTEROP: number}, body)

        assert reply.status == 400
        assert reply.interim == ()
        assert INTEROP not in reply
        assert "tus-resumable" not in reply
        assert "upload-offset" not in reply
