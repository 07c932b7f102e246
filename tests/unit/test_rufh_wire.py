from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tus_server.core.errors import (
    LengthInconsistent,
    MalformedHeader,
    UnsupportedMediaType,
    UploadTooLarge,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.wire.headers import Fields
from tus_server.wire.limits import render_limits
from tus_server.wire.rufh import (
    check_no_body_fields,
    parse_append,
    parse_creation,
    render_digests,
    render_progress,
    render_status,
)
from tus_server.wire.rufh_versions import (
    INTEROP,
    NEWEST,
    SERVED,
    V3,
    V5,
    V6,
    V8,
    VERSIONS,
    Version,
    find_version,
)

MAX = 1000
ALL = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: f"v{version.number}")


def fields(**given: str) -> Fields:
    """Make fields; `_` in a name is `-`."""
    return Fields([(name.replace("_", "-").encode(), v.encode()) for name, v in given.items()])


def flagged(version: Version, *, done: bool, **given: str) -> Fields:
    name, value = version.render_flag(done=done)
    return fields(**{name.decode(): value.decode()}, **given)


def appending(version: Version, *, done: bool | None, offset: int = 2, **given: str) -> Fields:
    kind = {"content-type": "application/partial-upload", "upload-offset": str(offset)}
    if done is None:
        return fields(**kind, **given)
    return flagged(version, done=done, **kind, **given)


def an_upload(**changes: Any) -> Upload:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    upload = Upload(
        id=UploadId("0" * 32),
        protocol=Protocol.RUFH,
        state=UploadState.RECEIVING,
        created_at=now,
        state_on=now,
        committed_bytes=5,
    )
    return replace(upload, **changes)


# --- versions


@pytest.mark.parametrize("number", [3, 5, 6, 8, 9, 10])
def test_a_served_version_is_found_and_repeated(number: int) -> None:
    version = find_version(Fields([(INTEROP, b"%d" % number)]))

    assert version is SERVED[number]
    assert version.fields == [(INTEROP, b"%d" % number)]


def test_no_version_is_the_newest_text_and_has_no_field() -> None:
    assert find_version(Fields([])) is NEWEST
    assert NEWEST.fields == []


@pytest.mark.parametrize("value", [b"11", b"12", b"999999999999999"])
def test_a_later_version_is_the_newest_text(value: bytes) -> None:
    assert find_version(Fields([(INTEROP, value)])) is NEWEST


@pytest.mark.parametrize(
    "value", [b"0", b"1", b"2", b"4", b"7", b"-6", b"6.0", b'"6"', b"", b"six"]
)
def test_any_other_version_is_none(value: bytes) -> None:
    assert find_version(Fields([(INTEROP, value)])) is None


def test_version_3_has_the_inverse_flag() -> None:
    assert V3.render_flag(done=True) == (b"upload-incomplete", b"?0")
    assert V3.render_flag(done=False) == (b"upload-incomplete", b"?1")
    assert V5.render_flag(done=True) == (b"upload-complete", b"?1")
    assert NEWEST.render_flag(done=False) == (b"upload-complete", b"?0")


# --- creation


@ALL
@pytest.mark.parametrize("done", [True, False])
def test_a_creation_says_whether_it_is_all(version: Version, done: bool) -> None:
    found = parse_creation(flagged(version, done=done), version, body_size=5, max_size=MAX)

    assert found.completes is done
    assert found.length == (5 if done else None)  # R29
    assert (found.content, found.whole, found.metadata) == ({}, {}, None)


@ALL
def test_a_chunked_creation_says_nothing_of_the_length(version: Version) -> None:
    given = flagged(version, done=True)

    assert parse_creation(given, version, body_size=None, max_size=MAX).length is None


@ALL
def test_a_creation_needs_the_flag_of_its_own_version(version: Version) -> None:
    """D2."""
    other = V8 if version is V3 else V3
    with pytest.raises(MalformedHeader):
        parse_creation(flagged(other, done=True), version, body_size=5, max_size=MAX)


@pytest.mark.parametrize(
    ("length", "size", "error"),
    [("6", 5, LengthInconsistent), ("1001", 5, UploadTooLarge), ("6", 1001, UploadTooLarge)],
)
def test_lengths_that_disagree_are_refused(length: str, size: int, error: type[Exception]) -> None:
    """R9; D8: the maximum goes first."""
    given = flagged(V8, done=True, upload_length=length)
    with pytest.raises(error):
        parse_creation(given, V8, body_size=size, max_size=MAX)


@pytest.mark.parametrize(("offset", "refused"), [("0", False), ("x", False), ("7", True)])
def test_an_offset_of_a_creation_is_0_or_none(offset: str, refused: bool) -> None:
    """D3."""
    given = flagged(V8, done=True, upload_offset=offset)
    if refused:
        with pytest.raises(MalformedHeader):
            parse_creation(given, V8, body_size=0, max_size=MAX)
    else:
        parse_creation(given, V8, body_size=0, max_size=MAX)


# --- append


@ALL
def test_a_last_append_tells_the_length(version: Version) -> None:
    """R9, R59."""
    found = parse_append(appending(version, done=True), version, body_size=3, max_size=MAX)

    assert (found.offset, found.completes, found.length) == (2, True, 5)


@ALL
def test_an_append_that_is_not_the_last_tells_only_what_it_names(version: Version) -> None:
    given = appending(version, done=False)
    named = appending(version, done=False, upload_length="50")

    assert parse_append(given, version, body_size=3, max_size=MAX).length is None
    assert parse_append(named, version, body_size=3, max_size=MAX).length == 50


@ALL
def test_without_a_flag_the_version_decides(version: Version) -> None:
    """Section 2.1, D1."""
    given = appending(version, done=None)
    if version is V3:
        assert parse_append(given, version, body_size=3, max_size=MAX).completes is True
    elif version in (V5, V6):
        assert parse_append(given, version, body_size=3, max_size=MAX).completes is None
    else:
        with pytest.raises(MalformedHeader):
            parse_append(given, version, body_size=3, max_size=MAX)


@pytest.mark.parametrize("name", ["upload_incomplete", "upload_complete"])
@pytest.mark.parametrize("value", ["1", "true", "?", "", "?1, ?1", "?1;", "?0"])
def test_where_no_flag_means_the_end_one_that_cannot_be_read_does_not(
    name: str, value: str
) -> None:
    """D1: version 3 completes an upload without it, and nobody has said so here."""
    if (name, value) == ("upload_incomplete", "?0"):
        return
    given = appending(V3, done=None, **{name: value})

    with pytest.raises(MalformedHeader):
        parse_append(given, V3, body_size=3, max_size=MAX)


@ALL
def test_the_media_type_counts_from_version_6_on(version: Version) -> None:
    """R46."""
    given = flagged(version, done=True, upload_offset="2", content_type="text/plain")
    if version in (V3, V5):
        parse_append(given, version, body_size=3, max_size=MAX)
    else:
        with pytest.raises(UnsupportedMediaType):
            parse_append(given, version, body_size=3, max_size=MAX)


@pytest.mark.parametrize("name", ["upload-offset", "upload-complete", "upload-length"])
def test_other_requests_have_no_such_fields(name: str) -> None:
    """D4."""
    with pytest.raises(MalformedHeader):
        check_no_body_fields(fields(**{name: "1"}))
    check_no_body_fields(fields(accept="*/*"))


# --- replies


@ALL
@pytest.mark.parametrize(
    ("state", "done"),
    [
        (UploadState.INITIATED, False),
        (UploadState.RECEIVING, False),
        (UploadState.COMPLETED, False),
        (UploadState.VERIFIED, True),
        (UploadState.ACCEPTED, True),
        (UploadState.REJECTED, True),
    ],
)
def test_complete_is_what_is_verified(version: Version, state: UploadState, done: bool) -> None:
    """R7, P5."""
    rendered = render_progress(an_upload(state=state, length=5), version)

    assert rendered == [(b"upload-offset", b"5"), version.render_flag(done=done)]


def test_a_length_is_told_if_it_is_known() -> None:
    """R40."""
    assert b"upload-length" not in dict(render_status(an_upload(), V8))
    assert dict(render_status(an_upload(length=9), V8))[b"upload-length"] == b"9"


def test_digests_are_told_once_they_are_known() -> None:
    """R79; others than those of RFC 9530 are nobody's business here."""
    upload = an_upload(digests={"sha256": None, "sha512": b"\1" * 64, "md5": b"\2" * 16})

    ((name, value),) = render_digests(upload)

    assert name == b"repr-digest"
    assert value.startswith(b"sha-512=:AQEB")
    assert render_digests(an_upload()) == []


@pytest.mark.parametrize(
    ("append", "left_s", "expected"),
    [
        (None, None, b"min-size=0, max-size=7"),
        (None, 3.99, b"min-size=0, max-size=7, max-age=3"),
        (None, -5.0, b"min-size=0, max-size=7, max-age=0"),
        (5, 3.99, b"min-size=0, max-size=7, max-append-size=5, max-age=3"),
        (2**53 - 1, None, b"min-size=0, max-size=7, max-append-size=999999999999999"),
    ],
)
def test_limits_are_a_dictionary_of_integers(
    append: int | None, left_s: float | None, expected: bytes
) -> None:
    """R11, R12, R18, T131."""
    key = b"max-age"
    limits = render_limits(max_size=7, max_append_size=append, lifetime_key=key, left_s=left_s)

    assert limits == (b"upload-limit", expected)


def test_no_limit_has_more_than_15_digits() -> None:
    """T131."""
    size, key = 2**53 - 1, b"expires"
    _, value = render_limits(max_size=size, max_append_size=None, lifetime_key=key, left_s=None)

    assert value == b"min-size=0, max-size=999999999999999"
