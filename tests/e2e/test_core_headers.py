"""Core protocol: the fields of requests and replies (T1-T14)."""

import pytest

from tests.e2e.replies import DOWNLOADS, REPLIES, expected_status
from tests.e2e.values import BAD_NUMBERS, MAX_SIZE, UNKNOWN, shown
from tests.support.http import FieldValue
from tests.support.records import Records
from tests.support.tus import Tus, pattern

CONTENT = pattern(64)
OTHER_VERSIONS = ["0.2.2", "1.0", "1.0.1", "1.0.00", "v1.0.0", "1.0.0,1.0.0", "2.0.0", "", "1"]


# --- numbers


@pytest.mark.parametrize("offset", [*BAD_NUMBERS, None], ids=shown)
@pytest.mark.parametrize("body", [CONTENT[10:20], b""], ids=["body", "empty"])
def test_a_malformed_upload_offset_is_400_and_changes_nothing(
    tus: Tus, offset: FieldValue, body: bytes
) -> None:
    """T1, T124, T128."""
    url = tus.stored(CONTENT[:10], length=64)

    with tus.unchanged(url, CONTENT):
        reply = tus.patch(url, 10, body, fields={"Upload-Offset": offset})

        assert reply.status == 400
        assert reply.problem()["code"] == "malformed_header"


@pytest.mark.parametrize("length", BAD_NUMBERS, ids=shown)
def test_a_malformed_upload_length_creates_nothing(
    tus: Tus, records: Records, length: FieldValue
) -> None:
    """T2, T128."""
    with records.nothing_created():
        reply = tus.create(5, fields={"Upload-Length": length})

    assert reply.status == 400
    assert reply.problem()["code"] == "malformed_header"


@pytest.mark.parametrize("length", BAD_NUMBERS, ids=shown)
def test_a_malformed_upload_length_on_patch_changes_nothing(tus: Tus, length: FieldValue) -> None:
    """T2, T128."""
    url = tus.new()
    tus.append(url, 0, CONTENT[:10])

    with tus.unchanged(url):
        reply = tus.patch(url, 10, CONTENT[10:], fields={"Upload-Length": length})

        assert reply.status == 400
    assert tus.patch(url, 10, CONTENT[10:], length=64).status == 204
    assert tus.content(url) == CONTENT


@pytest.mark.parametrize("number", ["9" * 19, str(MAX_SIZE + 1), str(2**63)])
def test_a_well_formed_number_that_is_too_large_is_no_syntax_error(tus: Tus, number: str) -> None:
    """T128."""
    url = tus.new(5)

    with tus.unchanged(url, b"hello"):
        assert tus.create(number).status == 413
        assert tus.patch(url, number, b"hello").status == 409


# --- versions


def test_the_supported_versions_are_listed(tus: Tus) -> None:
    """T3, T35."""
    assert tus.options()["tus-version"] == "1.0.0"
    assert tus.head(UNKNOWN, {"Tus-Resumable": "0.2.2"})["tus-version"] == "1.0.0"


@pytest.mark.parametrize("name", REPLIES | DOWNLOADS)
def test_every_reply_names_the_version(tus: Tus, name: str) -> None:
    """T4, T5."""
    reply = (REPLIES | DOWNLOADS)[name](tus)

    assert reply.status == expected_status(name)
    assert reply["tus-resumable"] == "1.0.0"


@pytest.mark.parametrize(
    ("version", "overridden"),
    [*((version, False) for version in [*OTHER_VERSIONS, None]), ("0.2.2", True), (None, True)],
    ids=shown,
)
@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
def test_another_version_is_412_and_nothing_is_done(
    tus: Tus, records: Records, method: str, version: str | None, overridden: bool
) -> None:
    """T6, T7, T8."""
    url = tus.stored(b"he", length=5)
    target = tus.base if method == "POST" else url
    fields: dict[str, FieldValue] = {
        "Tus-Resumable": version,
        "Upload-Length": "5",
        "Upload-Offset": "2",
        "Content-Type": "application/offset+octet-stream",
    }
    if overridden:
        fields["X-HTTP-Method-Override"] = method

    with records.nothing_created(), tus.unchanged(url):
        sent = "GET" if overridden else method
        reply = tus.request(sent, target, fields, b"llo" if method == "PATCH" else b"")

        assert reply.status == 412
        assert reply["tus-version"] == "1.0.0"
        assert "upload-offset" not in reply
        assert "location" not in reply
    assert tus.finish(url, b"hello") == b"hello"


@pytest.mark.parametrize("blanks", [("  ", ""), ("", " "), ("", "\t"), (" \t", "\t ")], ids=shown)
def test_blanks_around_a_value_are_not_part_of_it(tus: Tus, blanks: tuple[str, str]) -> None:
    """T1, T2, T6: RFC 9110, 5.5."""
    before, after = blanks

    def padded(value: str) -> str:
        return f"{before}{value}{after}"

    fields = {"Tus-Resumable": padded("1.0.0"), "Upload-Length": padded("5")}
    created = tus.create(5, fields=fields)
    assert created.status == 201
    fields = {
        "Tus-Resumable": padded("1.0.0"),
        "Upload-Offset": padded("0"),
        "Content-Type": padded("application/offset+octet-stream"),
    }
    assert tus.patch(created["location"], 0, b"hello", fields=fields).status == 204


def test_get_needs_no_version(tus: Tus) -> None:
    """T8."""
    url = tus.stored(b"hello")

    assert tus.get(url).body == b"hello"
    assert tus.get(url, {"Tus-Resumable": "0.2.2"}).body == b"hello"
    assert tus.get(UNKNOWN).status == 404


def test_head_without_version_is_that_of_a_download_once_finished(tus: Tus) -> None:
    """T8, C3."""
    url = tus.new(5)
    bare: dict[str, FieldValue] = {"Tus-Resumable": None}

    unfinished = tus.head(url, bare)
    tus.append(url, 0, b"hello")
    finished = tus.head(url, bare)

    assert unfinished.status == 412
    assert "upload-offset" not in unfinished
    assert finished.status == 200
    assert finished["content-length"] == "5"
    assert "upload-offset" not in finished
    assert tus.head(UNKNOWN, bare).status == 404


# --- what the server tells of itself


def test_exactly_what_works_is_advertised(tus: Tus) -> None:
    """T9, T10, T38, T56, T63, T64, T70, T78, T79, T80, T90, T93, T98, T105."""
    reply = tus.options()

    assert reply["tus-extension"] == (
        "creation,creation-with-upload,creation-defer-length,termination,checksum,"
        "checksum-trailer,expiration,concatenation,concatenation-unfinished"
    )
    assert reply["tus-checksum-algorithm"] == "sha1,sha256,sha512,md5,crc32,crc32c,crc64nvme"


def test_the_maximum_told_is_the_one_enforced(tus: Tus) -> None:
    """T11, T12, T44, T131."""
    maximum = int(tus.options()["tus-max-size"])

    at_most = tus.create(maximum)
    above = tus.create(maximum + 1)

    assert maximum == MAX_SIZE
    assert at_most.status == 201
    assert tus.head(at_most["location"])["upload-length"] == str(maximum)
    assert above.status == 413


# --- X-HTTP-Method-Override


@pytest.mark.parametrize("sent", ["POST", "GET", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("spelling", ["PATCH", "patch", "Patch"])
def test_the_override_is_the_method_for_patch(tus: Tus, sent: str, spelling: str) -> None:
    """T13, T14."""
    url = tus.new(5)
    fields = {
        "X-HTTP-Method-Override": spelling,
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": "0",
    }

    reply = tus.request(sent, url, fields, b"hello")

    assert reply.status == 204
    assert reply["upload-offset"] == "5"
    assert tus.content(url) == b"hello"


@pytest.mark.parametrize("sent", ["POST", "GET", "PUT", "PATCH"])
def test_the_override_is_the_method_for_head(tus: Tus, sent: str) -> None:
    """T13, T14: what is sent as another method has an empty body and says so."""
    url = tus.stored(b"he", length=5)

    reply = tus.request(sent, url, {"X-HTTP-Method-Override": "HEAD"})

    assert reply.status == 200
    assert reply["upload-offset"] == "2"
    assert reply["content-length"] == "0"
    assert reply.body == b""


@pytest.mark.parametrize("sent", ["POST", "GET", "HEAD"])
def test_the_override_is_the_method_for_delete(tus: Tus, sent: str) -> None:
    """T13, T14."""
    url = tus.new(5)

    reply = tus.request(sent, url, {"X-HTTP-Method-Override": "DELETE"})

    assert reply.status == 204
    assert tus.head(url).status == 404


def test_the_override_is_the_method_for_post(tus: Tus) -> None:
    """T14."""
    fields = {"X-HTTP-Method-Override": "POST", "Upload-Length": "5"}

    reply = tus.request("PUT", tus.base, fields)

    assert reply.status == 201


@pytest.mark.parametrize("sent", ["GET", "POST"])
@pytest.mark.parametrize("versioned", [True, False], ids=["tus", "download"])
def test_an_overridden_head_of_a_finished_upload_leaves_the_connection_usable(
    tus: Tus, sent: str, versioned: bool
) -> None:
    """T13: no Content-Length announces bytes that do not come."""
    url = tus.stored(b"hello")
    fields = {"X-HTTP-Method-Override": "HEAD"}

    with tus.connect() as connection:
        connection.send_head(sent, url, fields | (tus.fields if versioned else {}))
        reply = connection.read_reply()
        connection.send_head("OPTIONS", tus.base)
        following = connection.read_reply()

    assert reply.status == 200
    assert reply.body == b""
    assert following.status == 204


@pytest.mark.parametrize("method", ["PUT", "BREW", "", "PATCH, PATCH", "TRACE", "CONNECT"])
@pytest.mark.parametrize("target", ["collection", "upload"])
def test_an_unknown_override_is_405(tus: Tus, method: str, target: str) -> None:
    """T14."""
    url = tus.base if target == "collection" else tus.new(5)

    reply = tus.request("POST", url, {"X-HTTP-Method-Override": method, "Upload-Length": "5"})

    assert reply.status == 405
    assert "POST" in reply["allow"] or "PATCH" in reply["allow"]
