from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Tail, Upload
from tus_server.wire.headers import Fields
from tus_server.wire.tus import (
    AppendFields,
    CreationFields,
    check_version,
    parse_append,
    parse_creation,
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


def creation(
    *fields: tuple[bytes, bytes], has_body: bool = False, max_metadata_bytes: int = 100
) -> CreationFields:
    return parse_creation(Fields(fields), has_body=has_body, max_metadata_bytes=max_metadata_bytes)


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


def test_a_version_given_twice_is_malformed() -> None:
    with pytest.raises(MalformedHeader):
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


@pytest.mark.parametrize("name", [b"upload-checksum", b"upload-concat"])
def test_what_is_not_offered_is_refused_rather_than_ignored(name: bytes) -> None:
    with pytest.raises(MalformedHeader, match="does not offer"):
        creation(LENGTH, (name, b"partial"))
    with pytest.raises(MalformedHeader, match="does not offer"):
        parse_append(Fields([OCTETS, OFFSET, (name, b"sha1 x")]))


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


NAMES = st.sampled_from(
    [
        b"content-type",
        b"upload-length",
        b"upload-offset",
        b"upload-defer-length",
        b"upload-metadata",
        b"upload-concat",
    ]
)
VALUES = st.binary(max_size=30) | st.sampled_from([b"1", b"7", OCTETS[1], b"a YQ=="])


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
        b"tus-max-size": b"5",
        b"accept-patch": b"application/offset+octet-stream",
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
