"""What an application says of an upload it begins."""

import pytest

from tus_server.broker.request import About, checked_note, make_command
from tus_server.core.errors import MalformedMetadata, MalformedRequest
from tus_server.core.jobs import Job
from tus_server.wire.metadata import parse_metadata


def digest(size: int = 1, **about: object) -> str | None:
    told: About = {"idempotency_key": "k", **about}  # type: ignore[typeddict-item]
    return make_command("single", size, told).wishes.instructions.request_digest


def test_name_and_type_are_metadata_as_tus_clients_send_it() -> None:
    about: About = {"filename": "ü.png", "content_type": "image/png", "metadata": {"a": ""}}

    command = make_command("multipart", 7, about)

    assert parse_metadata(command.metadata) == {
        "a": b"",
        "filename": "ü.png".encode(),
        "filetype": b"image/png",
    }
    assert command.length == 7
    assert command.wishes.instructions.by_application


def test_nothing_said_is_no_metadata() -> None:
    command = make_command("tus", None, {})

    assert (command.metadata, command.digests, command.length) == (None, {}, None)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"file_id": ""}, "file_id"),
        ({"file_id": "x" * 501}, "500"),
        ({"file_id": "\ud800"}, "file_id"),
        ({"file_id": "a\0b"}, "file_id"),
        ({"idempotency_key": "a b"}, "Idempotency-Key"),
        ({"idempotency_key": ""}, "Idempotency-Key"),
        ({"expires_in_s": 0.0}, "expires_in_s"),
        ({"expires_in_s": float("nan")}, "expires_in_s"),
        ({"expires_in_s": 1e12}, "ten years"),
        ({"checksum": ("sha3", b"")}, "sha256"),
        ({"checksum": ("sha256", b"x")}, "32 bytes"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(about: About, words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        make_command("single", 1, about)


def test_more_metadata_than_a_head_can_repeat_is_refused() -> None:
    assert make_command("tus", 1, {"metadata": {"a": "x" * 6000}}).metadata

    with pytest.raises(MalformedMetadata, match="8192"):
        make_command("tus", 1, {"metadata": {"a": "x" * 6200}})


@pytest.mark.parametrize("note", ["x" * 1001, "a\0b", "\ud800"])
def test_a_note_is_a_text_that_can_be_kept(note: str) -> None:
    assert checked_note("x" * 1000) == "x" * 1000
    assert checked_note("") is None

    with pytest.raises(MalformedRequest, match="1000"):
        checked_note(note)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(MalformedRequest, match="-1"):
        make_command("single", -1, {})


def test_a_part_size_is_for_uploads_of_many_parts() -> None:
    assert make_command("multipart", 7, {"part_size_bytes": 5}).part_size == 5
    for kind in ("single", "tus"):
        with pytest.raises(MalformedRequest, match="multipart"):
            make_command(kind, 7, {"part_size_bytes": 5})  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "a b", "a,b", "ü", "a\n"])
def test_names_of_metadata_are_those_tus_takes(key: str) -> None:
    with pytest.raises(MalformedMetadata):
        make_command("tus", 1, {"metadata": {key: "x"}})


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(MalformedMetadata):
        make_command("tus", 1, {"filename": "\udcff"})


def test_the_same_request_has_the_same_digest_and_another_one_has_not() -> None:
    job = Job("https://example.com/", {"b": 1, "a": [2]})
    same = Job("https://example.com/", {"a": [2], "b": 1})

    assert digest(success_job=job) == digest(success_job=same)
    assert digest(metadata={"a": "1", "b": "2"}) == digest(metadata={"b": "2", "a": "1"})
    assert digest(file_id=None) == digest()
    others = [
        digest(),
        digest(size=2),
        digest(file_id="f"),
        digest(success_job=job),
        digest(failure_job=job),
        digest(require_acceptance=True),
        digest(auto_complete=True),
        digest(checksum=("md5", bytes(16))),
        digest(expires_in_s=5.0),
        digest(metadata={"a": "1"}),
    ]
    assert len(set(others)) == len(others)
    assert None not in others


def test_without_a_key_there_is_nothing_to_compare() -> None:
    assert make_command("single", 1, {}).wishes.instructions.request_digest is None
