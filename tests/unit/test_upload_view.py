"""An upload as applications see it."""

import json
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.fakes import FakeClock, make_upload
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.ports import SignedRequest, StatusChange
from tus_server.wire.metadata import render_metadata
from tus_server.wire.upload_view import find_progress, render, view_signed, view_upload

S = UploadState
CLOCK = FakeClock()
BASE = "https://files.example.com/files/"


def shown(upload: Upload, *history: StatusChange) -> dict[str, object]:
    view = view_upload(upload, history, base_url=BASE, now=CLOCK.now())
    found: dict[str, object] = json.loads(render(view))
    return found


def test_the_status_has_the_current_state_and_the_prior_ones_newest_first() -> None:
    upload = make_upload(CLOCK, length=3, committed_bytes=3, state=S.VERIFIED)
    now = CLOCK.now()
    history = [
        StatusChange(S.VERIFIED, now),
        StatusChange(S.COMPLETED, now, "by hand"),
        StatusChange(S.INITIATED, now),
    ]

    status = shown(upload, *history)["status"]

    on = now.isoformat().replace("+00:00", "Z")
    assert status == {
        "current": {"state": "verified", "state_on": on},
        "prior": [
            {"state": "completed", "state_on": on, "note": "by hand"},
            {"state": "initiated", "state_on": on},
        ],
    }


def test_what_an_upload_has_for_its_kind_is_there_and_the_rest_is_left_out() -> None:
    direct = {"length": 40, "part_size": 16, "protocol": Protocol.MULTIPART}
    multipart = shown(make_upload(CLOCK, **direct))
    tus = shown(make_upload(CLOCK))

    assert multipart["multipart"] == {
        "part_size_bytes": 16,
        "part_count": 3,
        "part_headers": {},
    }
    assert {"put", "tus"}.isdisjoint(multipart)
    assert tus["tus"] == {"url": BASE + str(tus["id"])}
    assert {"put", "multipart"}.isdisjoint(tus)


def test_metadata_and_names_are_those_of_the_client() -> None:
    metadata = render_metadata({"filename": "ü.png", "filetype": "image/png", "who": "ann"})

    view = shown(make_upload(CLOCK, metadata=metadata, content_type="image/jpeg"))

    assert (view["filename"], view["content_type"]) == ("ü.png", "image/png")
    assert view["detected_type"] == "image/jpeg"
    assert view["metadata"] == {"filename": "ü.png", "filetype": "image/png", "who": "ann"}


@pytest.mark.parametrize("state", [S.INITIATED, S.COMPLETED, S.ERROR, S.DELETED])
def test_only_a_finished_upload_has_an_object(state: UploadState) -> None:
    fields = {"error_code": "gone", "error_message": "It is."} if state is S.ERROR else {}
    upload = make_upload(CLOCK, state=state, object_key="key", **fields)
    finished = replace(upload, state=S.ACCEPTED, error_code=None)

    assert shown(upload)["object"] is None
    assert shown(finished)["object"] == {"url": BASE + upload.id, "key": "key"}


def test_an_error_is_told_with_its_code() -> None:
    upload = make_upload(CLOCK, state=S.ERROR, error_code="parts_differ", error_message="Part 2.")

    assert shown(upload)["error"] == {"code": "parts_differ", "message": "Part 2."}


def test_the_strongest_checksum_is_told_and_the_crc_once_it_is_sure() -> None:
    told = {"md5": b"m" * 16, "sha256": b"s" * 32, "sha1": None}
    upload = make_upload(CLOCK, digests=told, crc64=1)
    finished = replace(upload, digests={}, state=S.VERIFIED, length=0)

    assert shown(upload)["checksum"] == {
        "algorithm": "sha256",
        "value": b64encode(b"s" * 32).decode(),
    }
    assert shown(replace(upload, digests={}))["checksum"] is None
    assert shown(finished)["checksum"] == {
        "algorithm": "crc64nvme",
        "value": b64encode(bytes(7) + b"\1").decode(),
    }
    assert shown(replace(finished, crc64=None))["checksum"] is None


@pytest.mark.parametrize(
    ("state", "progress"),
    [
        (S.INITIATED, "in_progress"),
        (S.RECEIVING, "in_progress"),
        (S.COMPLETED, "in_progress"),
        (S.VERIFIED, "complete"),
        (S.ACCEPTED, "complete"),
        (S.REJECTED, "complete"),
        (S.DELETED, "complete"),
        (S.ERROR, "expired"),
        (S.CANCELED, "expired"),
        (S.EXPIRED, "expired"),
    ],
)
def test_progress_in_one_word(state: UploadState, progress: str) -> None:
    upload = make_upload(CLOCK, state=state)

    assert find_progress(upload, CLOCK.now()) == progress


def test_an_upload_whose_time_is_over_has_expired_before_the_reaper_comes() -> None:
    now = CLOCK.now()
    late = make_upload(CLOCK, state=S.RECEIVING, expires_at=now)

    assert find_progress(late, now) == "expired"
    assert find_progress(late, now - timedelta(seconds=1)) == "in_progress"
    assert find_progress(replace(late, state=S.COMPLETED), now) == "in_progress"


def test_a_signed_path_gets_the_origin_and_a_url_stays() -> None:
    here = SignedRequest("PUT", "/direct/a/1?x", {}, CLOCK.now())
    away = replace(here, url="https://bucket.example.com/a?partNumber=1")

    assert view_signed(1, here, origin="http://h:1").url == "http://h:1/direct/a/1?x"
    assert view_signed(1, away, origin="http://h:1").url == away.url
