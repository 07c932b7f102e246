"""RUFH: offset retrieval, append and cancellation, in every version."""

import pytest

from tests.e2e.values import UNKNOWN, shown
from tests.support.records import Records
from tests.support.rufh import NEW, OLD, WIRES, Rufh, Wire, parse_limits
from tests.support.tus import pattern

MIB = 1024 * 1024
TYPED = [wire for wire in WIRES if wire.needs_type]
UNTYPED = [wire for wire in WIRES if not wire.needs_type]
BY_LENGTH = WIRES[1:3]  # 5 and 6: no flag, and the length decides
NO_INTEGERS = ["", "-1", "1.5", "5.0", "abc", '"5"', "?1", "9" * 16, "5, 5", ["5", "5"]]


# --- retrieval


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_unfinished_upload_tells_its_offset(rufh: Rufh, method: str) -> None:
    """R38, R39, R40, R41, R42, R43, R44, R45."""
    url = rufh.stored(b"hello", length=11)

    reply = rufh.request(method, url)

    assert reply.status == 204
    assert reply["upload-offset"] == "5"
    assert not rufh.is_done(reply)
    assert reply["upload-length"] == "11"
    assert reply["cache-control"] == "no-store"
    assert reply.body == b""
    rufh.check_common(reply)
    key = rufh.wire.lifetime_key
    assert ("upload-limit" in reply) == (key is not None)
    if key is not None:
        assert 0 < parse_limits(reply["upload-limit"])[key] <= 7 * 86_400 + 60


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_finished_upload_tells_that_it_is(rufh: Rufh, method: str) -> None:
    """R38, R39, R40, R41, R45: GET has the content too."""
    url = rufh.finished(b"hello")

    reply = rufh.request(method, url)

    assert reply.status == (200 if method == "GET" else 204)
    assert reply.body == (b"hello" if method == "GET" else b"")
    assert reply["upload-offset"] == reply["upload-length"] == "5"
    assert rufh.is_done(reply)
    rufh.check_common(reply)
    if rufh.wire.lifetime_key is not None:
        # It does not expire any more.
        assert set(parse_limits(reply["upload-limit"])) == {"min-size", "max-size"}


def test_a_range_of_a_finished_upload(rufh: Rufh) -> None:
    """R45."""
    reply = rufh.get(rufh.finished(b"hello"), {"Range": "bytes=1-2"})

    assert (reply.status, reply.body) == (206, b"el")
    assert rufh.is_done(reply)


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE"])
@pytest.mark.parametrize(
    "field", ["Upload-Offset", "Upload-Complete", "Upload-Incomplete", "Upload-Length"]
)
def test_what_only_a_body_may_say_is_400_elsewhere(rufh: Rufh, method: str, field: str) -> None:
    """D4: a MUST up to version 6, harmless later."""
    url = rufh.stored(b"he")
    value = "?0" if "omplete" in field else "2"

    with rufh.unchanged(url, b"hello"):
        reply = rufh.request(method, url, {field: value})

        assert reply.status == 400
        assert "upload-offset" not in reply


@pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "DELETE"])
def test_what_is_not_there_is_404(rufh: Rufh, method: str) -> None:
    """R66."""
    ended = rufh.stored(b"he")
    assert rufh.delete(ended).status == 204

    for url in (UNKNOWN, f"{rufh.base}nonsense", ended):
        fields = rufh.append_fields(0, True) if method == "PATCH" else {}
        reply = rufh.request(method, url, fields, b"hello" if method == "PATCH" else b"")

        assert reply.status == 404
        for name in ("upload-offset", rufh.wire.flag, "upload-limit", "location"):
            assert name not in reply


# --- append


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("length", [None, 2 * MIB + 5], ids=["unknown", "known"])
def test_an_upload_in_pieces_is_whole(
    rufh: Rufh, records: Records, length: int | None, chunked: bool
) -> None:
    """R46, R48, R53, R54, R55, R56, R59, R64."""
    content = pattern(2 * MIB + 5)
    url = rufh.new(length)

    offset = 0
    for end in (1, 70_000, MIB + 1, len(content) - 1):
        reply = rufh.append(url, offset, content[offset:end], done=False, chunked=chunked)
        assert reply.status == rufh.wire.appended
        assert reply["upload-offset"] == str(end)
        assert not rufh.is_done(reply)
        assert "location" not in reply
        rufh.check_common(reply)
        offset = end
    last = rufh.append(url, offset, content[offset:], done=True, chunked=chunked)

    assert last.status == 201
    assert last["location"] == url
    assert last["upload-offset"] == str(len(content))
    assert rufh.is_done(last)
    rufh.check_common(last)
    assert rufh.content(url) == content
    assert records.events(rufh.path(url)) == ["verified"]


@pytest.mark.parametrize("offset", [0, 4, 6, 11, 12, 999_999_999_999_999])
@pytest.mark.parametrize("done", [False, True], ids=["more", "last"])
def test_another_offset_is_409_and_changes_nothing(rufh: Rufh, offset: int, done: bool) -> None:
    """R50, R51, R52."""
    url = rufh.stored(b"hello", length=11)

    with rufh.unchanged(url, b"hello world"):
        reply = rufh.append(url, offset, b" world"[: 0 if done else 6], done=done)

        rufh.check_standing(reply, 409, 5)
        problem = rufh.problem(reply)
        assert problem["type"] == "mismatching-upload-offset"
        assert (problem["expected-offset"], problem["provided-offset"]) == (5, offset)


@pytest.mark.parametrize("content", [b"", b"x"])
def test_another_offset_of_a_completed_upload_is_409_too(rufh: Rufh, content: bytes) -> None:
    """R8, R50: before anything else is said."""
    url = rufh.finished(b"hello")

    reply = rufh.append(url, 3, content, done=True)

    rufh.check_standing(reply, 409, 5)
    assert rufh.content(url) == b"hello"


@pytest.mark.parametrize("value", [None, *NO_INTEGERS], ids=shown)
def test_an_append_without_an_offset_is_400(rufh: Rufh, value: str | list[str] | None) -> None:
    """R4, R47: a value that is no integer is none."""
    url = rufh.stored(b"he")

    with rufh.unchanged(url, b"hello"):
        reply = rufh.append(url, 2, b"llo", done=True, fields={"Upload-Offset": value})

        rufh.check_standing(reply, 400, 2)


@pytest.mark.parametrize("value", [None, "1", "true", '"?1"', "?2"])
@pytest.mark.parametrize("wire", NEW, ids=str)
def test_an_append_without_a_flag_is_400(rufh: Rufh, wire: Wire, value: str | None) -> None:
    """R5, R47: from version 8 on."""
    url = rufh.stored(b"he", length=5)

    with rufh.unchanged(url, b"hello"):
        reply = rufh.append(url, 2, b"llo", done=True, fields={wire.flag: value})

        rufh.check_standing(reply, 400, 2)


@pytest.mark.parametrize("wire", WIRES[:1], ids=str)
@pytest.mark.parametrize("length", [None, 5])
def test_an_append_without_a_flag_completes_in_version_3(
    rufh: Rufh, wire: Wire, length: int | None
) -> None:
    """Section 2.1."""
    url = rufh.stored(b"he", length=length)

    reply = rufh.append(url, 2, b"llo", done=True, fields={wire.flag: None})

    assert reply.status == 201
    assert rufh.is_done(reply)
    assert rufh.content(url) == b"hello"


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("told", ["before", "now"])
@pytest.mark.parametrize("wire", BY_LENGTH, ids=str)
def test_an_append_without_a_flag_goes_by_the_length(
    rufh: Rufh, wire: Wire, told: str, chunked: bool
) -> None:
    """D1: reached is complete, not reached is not."""
    url = rufh.stored(b"he", length=5 if told == "before" else None)
    length = 5 if told == "now" else None
    fields = {wire.flag: None}

    some = rufh.append(url, 2, b"l", done=True, length=length, fields=fields, chunked=chunked)
    rest = rufh.append(url, 3, b"lo", done=True, fields=fields, chunked=chunked)

    assert (some.status, rufh.is_done(some)) == (201, False)
    assert (rest.status, rufh.is_done(rest)) == (201, True)
    assert rufh.content(url) == b"hello"


@pytest.mark.parametrize("wire", BY_LENGTH, ids=str)
def test_an_append_without_flag_and_length_is_400(rufh: Rufh, wire: Wire) -> None:
    """D1: a guess could finish a truncated file."""
    url = rufh.stored(b"he")

    with rufh.unchanged(url, b"hello"):
        reply = rufh.append(url, 2, b"llo", done=True, fields={wire.flag: None})

        rufh.check_standing(reply, 400, 2)


@pytest.mark.parametrize("wire", BY_LENGTH, ids=str)
def test_an_empty_append_with_a_length_ends_a_stream(rufh: Rufh, wire: Wire) -> None:
    """D1: so does tus-js-client, without a flag."""
    url = rufh.stored(b"hello")

    reply = rufh.append(url, 5, done=True, length=5, fields={wire.flag: None})

    assert reply.status == 201
    assert rufh.is_done(reply)
    assert rufh.content(url) == b"hello"


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "application/partial-uploads"])
@pytest.mark.parametrize("body", [b"", b"llo"])
@pytest.mark.parametrize("wire", TYPED, ids=str)
def test_another_media_type_is_415(rufh: Rufh, kind: str | None, body: bytes) -> None:
    """R46: from version 6 on."""
    url = rufh.stored(b"he")

    with rufh.unchanged(url, b"hello"):
        reply = rufh.append(url, 2, body, done=True, fields={"Content-Type": kind})

        rufh.check_standing(reply, 415, 2)


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "text/plain"])
@pytest.mark.parametrize("wire", UNTYPED, ids=str)
def test_old_versions_take_any_media_type(rufh: Rufh, kind: str | None) -> None:
    """R46."""
    url = rufh.stored(b"he")

    assert rufh.append(url, 2, b"llo", done=True, fields={"Content-Type": kind}).status == 201
    assert rufh.content(url) == b"hello"


@pytest.mark.parametrize("kind", ["Application/Partial-Upload", "application/partial-upload; a=b"])
def test_case_and_parameters_of_the_media_type_do_not_count(rufh: Rufh, kind: str) -> None:
    """R46."""
    url = rufh.stored(b"he")

    assert rufh.append(url, 2, b"llo", done=True, fields={"Content-Type": kind}).status == 201


def test_an_empty_append_that_completes_nothing_changes_nothing(rufh: Rufh) -> None:
    """R56, R74."""
    url = rufh.stored(b"he", length=5)

    with rufh.unchanged(url, b"hello"):
        reply = rufh.append(url, 2, done=False)

        assert reply.status == rufh.wire.appended
        assert reply["upload-offset"] == "2"
        assert not rufh.is_done(reply)


def test_an_empty_last_append_of_too_little_is_inconsistent(rufh: Rufh) -> None:
    """R57: the length is known, and not reached."""
    url = rufh.stored(b"he", length=5)

    with rufh.unchanged(url, b"hello"):
        reply = rufh.append(url, 2, done=True)

        rufh.check_standing(reply, 400, 2)
        assert rufh.problem(reply)["type"] == "inconsistent-upload-length"


@pytest.mark.parametrize("size", [1, 4])
def test_a_last_append_of_another_length_is_inconsistent(rufh: Rufh, size: int) -> None:
    """R9, R10: across two requests; seen in the header fields, so nothing changes."""
    url = rufh.stored(b"he", length=5)

    with rufh.unchanged(url, b"hello"):
        reply = rufh.append(url, 2, b"xxxx"[:size], done=True)

        rufh.check_standing(reply, 400, 2)
        assert rufh.problem(reply)["type"] == "inconsistent-upload-length"


@pytest.mark.parametrize("length", [4, 6])
def test_another_length_than_before_is_inconsistent(rufh: Rufh, length: int) -> None:
    """R9, R10."""
    url = rufh.stored(b"he", length=5)

    with rufh.unchanged(url, b"hello"):
        reply = rufh.append(url, 2, b"l", done=False, length=length)

        rufh.check_standing(reply, 400, 2)
        assert rufh.problem(reply)["type"] == "inconsistent-upload-length"


def test_a_length_below_the_offset_is_inconsistent(rufh: Rufh) -> None:
    """R9."""
    url = rufh.stored(b"hello")

    with rufh.unchanged(url, b"hello!"):
        reply = rufh.append(url, 5, b"!", done=False, length=4)

        rufh.check_standing(reply, 400, 5)
        assert rufh.problem(reply)["type"] == "inconsistent-upload-length"


def test_length_and_flag_that_disagree_in_one_append_change_nothing(rufh: Rufh) -> None:
    """R9, R10."""
    url = rufh.stored(b"he")

    with rufh.unchanged(url, b"hello"):
        reply = rufh.append(url, 2, b"llo", done=True, length=6)

        rufh.check_standing(reply, 400, 2)
        assert rufh.problem(reply)["type"] == "inconsistent-upload-length"


def test_a_chunked_last_append_that_falls_short_keeps_its_bytes(rufh: Rufh) -> None:
    """R9, R10: seen only at the end of the body; not complete, and usable."""
    url = rufh.stored(b"he", length=6)

    reply = rufh.append(url, 2, b"llo", done=True, chunked=True)

    rufh.check_standing(reply, 400, 5)
    assert rufh.problem(reply)["type"] == "inconsistent-upload-length"
    assert rufh.offset(url) == 5
    assert rufh.finish(url, b"hello!") == b"hello!"


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("wire", OLD, ids=str)
def test_what_goes_beyond_the_length_is_dropped_in_old_versions(rufh: Rufh, chunked: bool) -> None:
    """R60, R61: bytes up to the length are kept, the upload is not complete and stays."""
    url = rufh.stored(b"he", length=5)

    reply = rufh.append(url, 2, b"llo and more", done=False, chunked=chunked)

    assert reply.status == 400
    assert not rufh.is_done(reply)
    assert rufh.problem(reply)["type"] == "inconsistent-upload-length"
    assert rufh.offset(url) == 5
    assert not rufh.is_done(rufh.head(url))
    assert rufh.append(url, 5, done=True).status == 201
    assert rufh.content(url) == b"hello"


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("wire", NEW, ids=str)
def test_what_goes_beyond_the_length_ends_the_upload(
    rufh: Rufh, records: Records, chunked: bool
) -> None:
    """R60, R61: from version 8 on."""
    url = rufh.stored(b"he", length=5)

    reply = rufh.append(url, 2, b"llo and more", done=False, chunked=chunked)

    assert reply.status == 400
    assert not rufh.is_done(reply)
    assert rufh.problem(reply)["type"] == "inconsistent-upload-length"
    assert rufh.head(url).status == 404
    assert rufh.append(url, 2, b"llo", done=True).status == 404
    assert records.events(rufh.path(url)) == ["error"]


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire.replays], ids=str)
def test_the_reply_of_a_completed_upload_is_given_again(rufh: Rufh, records: Records) -> None:
    """R8, R58: to whoever has not heard it."""
    url = rufh.stored(b"he")
    first = rufh.append(url, 2, b"llo", done=True)

    again = rufh.append(url, 5, done=True)

    assert (again.status, again.body) == (first.status, first.body)
    kept = [field for field in first.fields if field[0].lower() != "date"]
    assert [field for field in again.fields if field[0].lower() != "date"] == kept
    assert records.events(rufh.path(url)) == ["verified"]


@pytest.mark.parametrize("wire", [wire for wire in WIRES if not wire.replays], ids=str)
@pytest.mark.parametrize("done", [False, True], ids=["more", "last"])
@pytest.mark.parametrize("body", [b"", b"x"])
def test_version_6_refuses_what_comes_after_completion(rufh: Rufh, done: bool, body: bytes) -> None:
    """R58, section 6.1."""
    url = rufh.finished(b"hello")

    reply = rufh.append(url, 5, body, done=done)

    rufh.check_standing(reply, 400, 5)
    assert rufh.problem(reply)["type"] == "completed-upload"
    assert rufh.content(url) == b"hello"


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire.replays], ids=str)
def test_more_content_for_a_completed_upload_is_inconsistent(rufh: Rufh, chunked: bool) -> None:
    """R8, R58: it is never modified, nor invalidated."""
    url = rufh.finished(b"hello")

    reply = rufh.append(url, 5, b"x", done=True, chunked=chunked)

    rufh.check_standing(reply, 400, 5)
    assert rufh.problem(reply)["type"] == "inconsistent-upload-length"
    assert rufh.content(url) == b"hello"


def test_one_upload_may_be_continued_in_another_version(rufh: Rufh) -> None:
    """Section 1: the version belongs to the request."""
    url = rufh.new()
    offset = 0
    for wire in WIRES:
        other = Rufh(rufh.port, wire)
        reply = other.append(url, offset, b"hello", done=False)
        assert reply.status == wire.appended
        other.check_common(reply)
        offset += 5

    assert rufh.finish(url, b"hello" * len(WIRES)) == b"hello" * len(WIRES)


# --- cancellation


@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_delete_ends_an_upload(rufh: Rufh, records: Records, state: str) -> None:
    """R66, R68."""
    url = rufh.finished(b"hello") if state == "finished" else rufh.stored(b"hello")

    reply = rufh.delete(url)

    assert reply.status == 204
    for name in ("upload-offset", rufh.wire.flag, "upload-limit", "location"):
        assert name not in reply
    rufh.check_common(reply)
    assert rufh.delete(url).status == rufh.head(url).status == rufh.get(url).status == 404
    assert records.files(rufh.path(url)) == []


@pytest.mark.parametrize("method", ["PUT", "POST", "TRACE"])
def test_other_methods_are_405(rufh: Rufh, method: str) -> None:
    """Section 2.3."""
    if rufh.wire.interop is None:
        pytest.skip("without a version such a request is not known to be RUFH")
    reply = rufh.request(method, rufh.new(), rufh.flag(True))

    assert reply.status == 405
    assert reply["allow"] == "GET, HEAD, PATCH, DELETE, OPTIONS"
    rufh.check_common(reply)
