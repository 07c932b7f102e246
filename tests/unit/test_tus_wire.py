from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.digests import ALGORITHMS, SIZES, new_hasher
from tus_server.core.errors import (
    HeadersTooLarge,
    MalformedHeader,
    MalformedMetadata,
    MalformedRequest,
    TusServerError,
    UnsupportedMediaType,
    UnsupportedVersion,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import TERMINAL, UploadState
from tus_server.core.upload import Protocol, Tail, Upload
from tus_server.wire.checksum import parse_checksum
from tus_server.wire.headers import Fields
from tus_server.wire.tus import (
    EXTENSIONS,
    AppendFields,
    CreationFields,
    check_version,
    extensions,
    parse_append,
    parse_creation,
    parse_late_checksum,
    render_expires,
    render_options,
    render_status,
)

OCTETS = (b"content-type", b"application/offset+octet-stream")
LENGTH = (b"upload-length", b"7")
DEFER = (b"upload-defer-length", b"1")
OFFSET = (b"upload-offset", b"3")
UPLOAD = Upload(
    id=UploadId("0" * 32),
    protocol=Protocol.TUS,
    state=UploadState.RECEIVING,
    created_at=datetime(2024, 1, 1, tzinfo=UTC),
    state_on=datetime(2024, 1, 1, tzinfo=UTC),
    committed_bytes=3,
)


HELLO = bytes.fromhex("aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d")  # SHA-1 of "hello"
CHECKSUM = (b"upload-checksum", b"sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=")
CHUNKED = (b"transfer-encoding", b"chunked")
ANNOUNCED = (b"trailer", b"Upload-Checksum")
PARTIAL = (b"upload-concat", b"partial")
FINAL = (b"upload-concat", b"final;/files/a /files/b")


def creation(
    *fields: tuple[bytes, bytes],
    has_body: bool = False,
    max_metadata_bytes: int = 100,
    has_trailers: bool = True,
) -> CreationFields:
    return parse_creation(
        Fields(fields),
        has_body=has_body,
        max_metadata_bytes=max_metadata_bytes,
        has_trailers=has_trailers,
    )


def append(*fields: tuple[bytes, bytes], has_trailers: bool = True) -> AppendFields:
    return parse_append(Fields([OCTETS, OFFSET, *fields]), has_trailers=has_trailers)


# --- version


def test_version_1_0_0_is_spoken() -> None:
    check_version(Fields([(b"tus-resumable", b"1.0.0")]))


@pytest.mark.parametrize(
    "value", [b"", b"1", b"1.0", b"1.0.1", b"0.2.2", b"1.0.0,1.0.0", b"01.0.0"]
)
def test_any_other_version_is_refused(value: bytes) -> None:
    with pytest.raises(UnsupportedVersion, match=r"speaks tus 1\.0\.0"):
        check_version(Fields([(b"tus-resumable", value)]))


def test_a_missing_version_is_refused_in_other_words() -> None:
    with pytest.raises(UnsupportedVersion, match="missing"):
        check_version(Fields([]))


def test_a_version_given_twice_is_not_the_version() -> None:
    with pytest.raises(UnsupportedVersion):
        check_version(Fields([(b"tus-resumable", b"1.0.0")] * 2))


# --- POST


def test_a_creation_with_a_length() -> None:
    assert creation(LENGTH) == CreationFields(7, None)


def test_a_creation_with_a_deferred_length() -> None:
    assert creation(DEFER) == CreationFields(None, None)


def test_a_creation_with_length_0() -> None:
    assert creation((b"upload-length", b"0")) == CreationFields(0, None)


def test_a_creation_needs_a_length_or_a_promise_of_one() -> None:
    with pytest.raises(MalformedRequest, match="is needed"):
        creation()


def test_a_creation_cannot_have_both() -> None:
    with pytest.raises(MalformedRequest, match="exclude"):
        creation(LENGTH, DEFER)


@pytest.mark.parametrize("value", [b"", b"0", b"2", b"true", b"1,1", b"01", b"-1"])
def test_a_deferred_length_takes_only_the_value_1(value: bytes) -> None:
    with pytest.raises(MalformedHeader, match="only the value 1"):
        creation((b"upload-defer-length", value))
    with pytest.raises(MalformedHeader, match="only the value 1"):
        creation(LENGTH, (b"upload-defer-length", value))


@pytest.mark.parametrize("value", [b"-1", b"abc", b"1.5", b""])
def test_a_creation_with_a_malformed_length_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedHeader, match="Upload-Length"):
        creation((b"upload-length", value))


def test_metadata_are_kept_byte_for_byte() -> None:
    raw = b"filename d29ybGQ= , empty ,k YQ=="
    parsed = creation(LENGTH, (b"upload-metadata", raw))

    assert parsed.metadata == raw.decode("latin-1")


def test_metadata_on_several_lines_are_one_list() -> None:
    parsed = creation(LENGTH, (b"upload-metadata", b"a YQ=="), (b"upload-metadata", b"b Yg=="))

    assert parsed.metadata == "a YQ==,b Yg=="


@pytest.mark.parametrize("raw", [b"", b" ", b"\t"])
def test_empty_metadata_are_none(raw: bytes) -> None:
    assert creation(LENGTH, (b"upload-metadata", raw)).metadata is None


@pytest.mark.parametrize("raw", [b"a ###", b"a YQ==,a YQ==", b",", b"a  YQ==", b"\xff YQ=="])
def test_malformed_metadata_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedMetadata):
        creation(LENGTH, (b"upload-metadata", raw))


def test_metadata_beyond_the_limit_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(HeadersTooLarge, match="100 bytes"):
        creation(LENGTH, (b"upload-metadata", b"#" * 101))


def test_a_body_needs_its_content_type() -> None:
    assert creation(LENGTH, OCTETS, has_body=True) == CreationFields(7, None)
    for wrong in ([], [(b"content-type", b"text/plain")], [(b"content-type", b"")]):
        with pytest.raises(UnsupportedMediaType):
            creation(LENGTH, *wrong, has_body=True)


def test_without_a_body_any_content_type_will_do() -> None:
    assert creation(LENGTH, (b"content-type", b"text/plain")) == CreationFields(7, None)


# --- POST of partial and final uploads


def test_a_partial_upload_has_a_length_of_its_own() -> None:
    """T99."""
    assert creation(PARTIAL, LENGTH) == CreationFields(7, None, concat="partial")
    assert creation(PARTIAL, DEFER) == CreationFields(None, None, concat="partial")


def test_a_final_upload_names_what_it_consists_of() -> None:
    """T101: and keeps what was said, for HEAD (T113)."""
    parsed = creation(FINAL, (b"upload-metadata", b"a YQ=="))

    assert parsed.members == ("/files/a", "/files/b")
    assert parsed.concat == "final;/files/a /files/b"
    assert (parsed.length, parsed.metadata) == (None, "a YQ==")


@pytest.mark.parametrize("field", [LENGTH, DEFER, (b"upload-length", b"0")])
def test_a_final_upload_has_no_length_of_its_own(field: tuple[bytes, bytes]) -> None:
    """T104."""
    with pytest.raises(MalformedRequest, match="that of its partial ones"):
        creation(FINAL, field)


def test_a_final_upload_with_a_malformed_length_is_malformed() -> None:
    with pytest.raises(MalformedHeader):
        creation(FINAL, (b"upload-length", b"x"))
    with pytest.raises(MalformedHeader):
        creation(FINAL, (b"upload-defer-length", b"2"))


@pytest.mark.parametrize("value", [b"", b"final", b"final;", b"Partial", b"other", b"final;\xff"])
def test_any_other_upload_concat_is_malformed(value: bytes) -> None:
    """T115."""
    with pytest.raises(MalformedHeader, match="Upload-Concat"):
        creation(LENGTH, (b"upload-concat", value))


def test_upload_concat_appears_once() -> None:
    with pytest.raises(MalformedHeader, match="more than once"):
        creation(LENGTH, PARTIAL, PARTIAL)


def test_a_partial_upload_needs_a_length_or_a_promise_of_one() -> None:
    with pytest.raises(MalformedRequest, match="is needed"):
        creation(PARTIAL)


# --- PATCH


def test_an_append_names_its_offset() -> None:
    assert parse_append(Fields([OCTETS, OFFSET])) == AppendFields(3, None)


def test_an_append_may_settle_the_length() -> None:
    assert parse_append(Fields([OCTETS, OFFSET, LENGTH])) == AppendFields(3, 7)


def test_an_append_without_an_offset_is_refused() -> None:
    with pytest.raises(MalformedHeader, match="Upload-Offset is missing"):
        parse_append(Fields([OCTETS]))


@pytest.mark.parametrize("name", [b"upload-offset", b"upload-length"])
@pytest.mark.parametrize("value", [b"-1", b"", b"1_0", b"9" * 20])
def test_an_append_with_a_malformed_number_is_refused(name: bytes, value: bytes) -> None:
    others = [field for field in (OFFSET, LENGTH) if field[0] != name]
    with pytest.raises(MalformedHeader, match="plain decimal"):
        parse_append(Fields([OCTETS, *others, (name, value)]))


@pytest.mark.parametrize(
    "value", [b"", b"application/octet-stream", b"application/offset", b"text/plain"]
)
def test_an_append_with_another_content_type_is_refused_first(value: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        parse_append(Fields([(b"content-type", value), (b"upload-offset", b"-1")]))


def test_an_append_without_a_content_type_is_refused() -> None:
    with pytest.raises(UnsupportedMediaType):
        parse_append(Fields([OFFSET]))


def test_parameters_of_the_content_type_do_not_count() -> None:
    fields = Fields([(OCTETS[0], b"Application/Offset+Octet-Stream; x=y"), OFFSET])

    assert parse_append(fields) == AppendFields(3, None)


def test_an_append_does_not_look_at_upload_concat() -> None:
    """T99: tus-js-client sends it with the PATCH of a partial upload too."""
    assert append((b"upload-concat", b"nonsense")) == AppendFields(3, None)


# --- checksums


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum_is_read_for_every_algorithm(algorithm: str) -> None:
    """T79."""
    hasher = new_hasher(algorithm)
    hasher.update(memoryview(b"hello"))
    value = f"{algorithm} {b64encode(hasher.digest()).decode()}".encode()

    assert parse_checksum(value) == (algorithm, hasher.digest())


MALFORMED = {
    "empty": b"",
    "no digest": b"sha1",
    "empty digest": b"sha1 ",
    "no algorithm": b" qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "two spaces": b"sha1  qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "a tab": b"sha1\tqvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "three words": b"sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00= x",
    "upper case": b"SHA1 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "unknown": b"sha3 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "with a hyphen": b"sha-1 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "list": b"sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=,md5 XUFAKrxLKna5cZ2REBfFkg==",
    "no padding": b"sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00",
    "more padding": b"sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00==",
    "stray bits": b"sha1 qvTGHdzF6KLavt4PO0gs2a6pQ01=",
    "url alphabet": b"crc32 __-_-A==",
    "junk inside": b"sha1 qvTGHdzF6KLavt4P*O0gs2a6pQ00=",
    "not ascii": b"sha1 qvTGHdzF6KLavt4PO0gs2a6pQ0\xff=",
    "hex": b"sha1 aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d",
    "too short": b"sha1 qvTGHQ==",
    "too long": b"crc32 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "quoted": b'sha1 "qvTGHdzF6KLavt4PO0gs2a6pQ00="',
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_checksum_is_refused(case: str) -> None:
    """T81, T83, T88."""
    with pytest.raises(MalformedHeader, match="Upload-Checksum"):
        parse_checksum(MALFORMED[case])
    with pytest.raises(MalformedHeader, match="Upload-Checksum"):
        append((b"upload-checksum", MALFORMED[case]))
    with pytest.raises(MalformedHeader, match="Upload-Checksum"):
        creation(LENGTH, (b"upload-checksum", MALFORMED[case]))


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=70))
def test_a_digest_of_the_right_length_is_read_back(algorithm: str, digest: bytes) -> None:
    value = f"{algorithm} {b64encode(digest).decode()}".encode()
    if len(digest) == SIZES[algorithm]:
        assert parse_checksum(value) == (algorithm, digest)
    else:
        with pytest.raises(MalformedHeader, match=f"{algorithm} has {SIZES[algorithm]}|a digest"):
            parse_checksum(value)


@given(st.binary(max_size=60))
def test_any_checksum_gives_a_value_or_a_printable_error(value: bytes) -> None:
    try:
        algorithm, digest = parse_checksum(value)
    except MalformedHeader as error:
        shown = error.detail
    else:
        shown = f"{algorithm} {b64encode(digest).decode()}"
        assert shown.encode() == value

    assert shown.isprintable()


def test_a_checksum_in_the_head_is_of_the_body() -> None:
    """T88, T92."""
    assert append(CHECKSUM).checksum == ("sha1", HELLO)
    assert creation(LENGTH, CHECKSUM).checksum == ("sha1", HELLO)
    assert creation(LENGTH, OCTETS, CHECKSUM, has_body=True).checksum == ("sha1", HELLO)
    assert append(LENGTH).checksum is None


def test_a_checksum_appears_once() -> None:
    with pytest.raises(MalformedHeader, match="more than once"):
        append(CHECKSUM, CHECKSUM)


@pytest.mark.parametrize(
    "value",
    [b"Upload-Checksum", b"upload-checksum", b"ETag, UPLOAD-CHECKSUM ,x", b" Upload-Checksum\t"],
)
def test_a_checksum_may_be_announced_to_follow(value: bytes) -> None:
    """T89."""
    announced = (b"trailer", value)

    assert append(CHUNKED, announced) == AppendFields(3, None, None, checksum_follows=True)
    assert creation(LENGTH, CHUNKED, announced).checksum_follows
    assert append(CHUNKED, (b"trailer", b"etag"), announced).checksum_follows


@pytest.mark.parametrize("value", [b"", b"Upload-Checksums", b"Upload Checksum", b"checksum"])
def test_other_announcements_say_nothing_of_a_checksum(value: bytes) -> None:
    assert not append(CHUNKED, (b"trailer", value)).checksum_follows


def test_what_cannot_follow_is_not_waited_for() -> None:
    """T90: no chunks, or no server that delivers trailers; the header then counts as it is."""
    assert append(ANNOUNCED) == AppendFields(3, None)
    assert append(CHUNKED, ANNOUNCED, has_trailers=False) == AppendFields(3, None)
    assert append(CHUNKED, ANNOUNCED, CHECKSUM, has_trailers=False).checksum == ("sha1", HELLO)
    assert append(ANNOUNCED, CHECKSUM).checksum == ("sha1", HELLO)


def test_a_checksum_comes_before_or_after_the_body() -> None:
    """T91."""
    with pytest.raises(MalformedHeader, match="not both"):
        append(CHUNKED, ANNOUNCED, CHECKSUM)
    with pytest.raises(MalformedHeader, match="not both"):
        creation(LENGTH, CHUNKED, ANNOUNCED, CHECKSUM)


def test_a_late_checksum_is_read_as_an_early_one() -> None:
    assert parse_late_checksum(Fields([CHECKSUM])) == ("sha1", HELLO)


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_late_checksum_is_refused(case: str) -> None:
    with pytest.raises(MalformedHeader, match="Upload-Checksum"):
        parse_late_checksum(Fields([(b"upload-checksum", MALFORMED[case])]))


def test_a_late_checksum_that_does_not_come_or_comes_twice_is_malformed() -> None:
    """T89."""
    with pytest.raises(MalformedHeader, match="is missing"):
        parse_late_checksum(Fields([]))
    with pytest.raises(MalformedHeader, match="more than once"):
        parse_late_checksum(Fields([CHECKSUM, CHECKSUM]))


NAMES = st.sampled_from(
    [
        b"content-type",
        b"upload-length",
        b"upload-offset",
        b"upload-defer-length",
        b"upload-metadata",
        b"upload-concat",
        b"upload-checksum",
        b"transfer-encoding",
        b"trailer",
    ]
)
VALUES = st.binary(max_size=30) | st.sampled_from(
    [b"1", b"7", OCTETS[1], b"a YQ==", CHECKSUM[1], b"chunked", ANNOUNCED[1], b"partial", FINAL[1]]
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.booleans())
def test_any_fields_give_values_or_a_documented_error(
    raw: list[tuple[bytes, bytes]], has_body: bool
) -> None:
    for parse in (lambda: creation(*raw, has_body=has_body), lambda: parse_append(Fields(raw))):
        try:
            shown = repr(parse())
        except TusServerError as error:
            shown = str(error)

        assert shown.isprintable()


# --- replies


def test_options_tell_what_the_server_can_do() -> None:
    assert dict(render_options(max_size=5, extensions=("creation", "termination"))) == {
        b"tus-version": b"1.0.0",
        b"tus-extension": b"creation,termination",
        b"tus-checksum-algorithm": b"sha1,sha256,sha512,md5,crc32,crc32c,crc64nvme",
        b"tus-max-size": b"5",
    }


def test_only_what_is_on_is_advertised() -> None:
    """T9, T70, T90."""
    everything = extensions(expires=True, has_trailers=True)

    assert ",".join(everything) == (
        "creation,creation-with-upload,creation-defer-length,termination,checksum,"
        "checksum-trailer,expiration,concatenation,concatenation-unfinished"
    )
    assert everything == EXTENSIONS
    assert set(everything) - set(extensions(expires=False, has_trailers=True)) == {"expiration"}
    assert set(everything) - set(extensions(expires=True, has_trailers=False)) == {
        "checksum-trailer"
    }


def test_no_announced_size_is_beyond_what_javascript_can_count() -> None:
    assert dict(render_options(max_size=2**60))[b"tus-max-size"] == b"9007199254740991"


def test_a_status_tells_offset_and_length() -> None:
    status = render_status(replace(UPLOAD, length=7))

    assert status == [(b"upload-offset", b"3"), (b"upload-length", b"7")]


def test_a_status_counts_the_tail() -> None:
    status = render_status(replace(UPLOAD, length=7, tail=Tail(2, 0, "node", 0)))

    assert dict(status)[b"upload-offset"] == b"5"


def test_a_status_without_a_length_says_that_it_is_deferred() -> None:
    assert render_status(UPLOAD) == [(b"upload-offset", b"3"), (b"upload-defer-length", b"1")]


@given(st.binary())
def test_a_status_gives_the_metadata_back_byte_for_byte(raw: bytes) -> None:
    status = render_status(replace(UPLOAD, metadata=raw.decode("latin-1")))

    assert dict(status)[b"upload-metadata"] == raw


def test_a_partial_upload_tells_what_it_is() -> None:
    """T111, T112, T113."""
    partial = replace(UPLOAD, length=7, concat="partial")

    assert render_status(partial) == [
        (b"upload-offset", b"3"),
        (b"upload-length", b"7"),
        (b"upload-concat", b"partial"),
    ]
    assert (b"upload-defer-length", b"1") in render_status(replace(partial, length=None))


@pytest.mark.parametrize("state", [UploadState.INITIATED, UploadState.COMPLETED])
def test_a_final_upload_has_no_offset_before_it_is_done(state: UploadState) -> None:
    """T109, T112: nor a deferred length, for no PATCH will ever tell it."""
    final = replace(
        UPLOAD, state=state, committed_bytes=7, concat="final;/a  /b", metadata="a YQ=="
    )

    assert render_status(final) == [
        (b"upload-metadata", b"a YQ=="),
        (b"upload-concat", b"final;/a  /b"),
    ]
    assert render_status(replace(final, length=7))[0] == (b"upload-length", b"7")
    assert b"upload-offset" not in dict(render_status(replace(final, length=7)))


@pytest.mark.parametrize("state", [UploadState.VERIFIED, UploadState.ACCEPTED])
def test_a_final_upload_that_is_done_has_offset_and_length(state: UploadState) -> None:
    """T110."""
    final = replace(UPLOAD, state=state, committed_bytes=7, length=7, concat="final;/a")

    assert render_status(final)[:2] == [(b"upload-offset", b"7"), (b"upload-length", b"7")]


# --- Upload-Expires

EXPIRES = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.mark.parametrize("state", [UploadState.INITIATED, UploadState.RECEIVING])
@pytest.mark.parametrize("concat", [None, "partial", "final;/a"])
def test_an_unfinished_upload_tells_when_it_expires(state: UploadState, concat: str | None) -> None:
    """T71, T72, T74: cut to the second, so that it does not expire before."""
    upload = replace(UPLOAD, state=state, concat=concat, expires_at=EXPIRES)

    assert render_expires(upload) == [(b"upload-expires", b"Thu, 29 Feb 2024 23:59:59 GMT")]


def test_an_expiry_is_told_in_gmt_whatever_zone_it_was_read_in() -> None:
    """T74."""
    there = timezone(timedelta(hours=5, minutes=30))
    for moment in (EXPIRES.astimezone(there), EXPIRES):
        ((_, date),) = render_expires(replace(UPLOAD, expires_at=moment))

        assert date.endswith(b" GMT")
        assert parsedate_to_datetime(date.decode()) == EXPIRES.replace(microsecond=0)


def test_what_does_not_expire_says_nothing() -> None:
    """T71, T77: nor what is complete, unless it is partial and waits to be used."""
    assert render_expires(UPLOAD) == []
    for state in (UploadState.COMPLETED, UploadState.VERIFIED, *TERMINAL):
        assert render_expires(replace(UPLOAD, state=state, expires_at=EXPIRES)) == []
    used = replace(UPLOAD, state=UploadState.VERIFIED, concat="partial", expires_at=EXPIRES)
    assert render_expires(used) != []
