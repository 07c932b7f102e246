"""The JSON of tusd's hooks, field by field."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.support.fakes import FakeClock, make_upload
from tus_server.core.upload import Upload
from tus_server.jobs.tusd_wire import AnswerUnclear, Hook, HookAnswer, parse_answer, render_hook
from tus_server.ports import Credentials

STORAGE = {"Type": "filestore", "Path": "/srv/objects/a/b/ab"}
REQUEST = Credentials(
    method="POST",
    path="/files/",
    headers={"host": "localhost:8080", "tus-resumable": "1.0.0", "x-http-method-override": "PATCH"},
    client="127.0.0.1",
)


@pytest.fixture
def upload() -> Upload:
    metadata = "filename c2NyZWVuc2hvdC5wbmc=,filetype aW1hZ2UvcG5n,empty"
    return make_upload(FakeClock(), length=432724, metadata=metadata)


def rendered(hook: Hook, upload: Upload, request: Credentials | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        render_hook(hook, upload, request=request, path=f"/files/{upload.id}", storage=STORAGE)
    )
    return found


def test_a_new_upload_is_told_as_tusd_tells_it(upload: Upload) -> None:
    # The fields and their types are those of tusd 2: hooks.HookRequest, handler.HookEvent,
    # handler.FileInfo and handler.HTTPRequest.
    assert rendered(Hook.PRE_CREATE, upload, REQUEST) == {
        "Type": "pre-create",
        "Event": {
            "Upload": {
                "ID": "",
                "Size": 432724,
                "SizeIsDeferred": False,
                "Offset": 0,
                "MetaData": {"filename": "screenshot.png", "filetype": "image/png", "empty": ""},
                "IsPartial": False,
                "IsFinal": False,
                "PartialUploads": None,
                "Storage": None,
            },
            "HTTPRequest": {
                "Method": "POST",
                "URI": "/files/",
                "RemoteAddr": "127.0.0.1:0",
                "Header": {
                    "Host": ["localhost:8080"],
                    "Tus-Resumable": ["1.0.0"],
                    "X-Http-Method-Override": ["PATCH"],
                },
            },
        },
    }


def test_a_finished_upload_has_its_id_and_its_place(upload: Upload) -> None:
    whole = replace(upload, committed_bytes=432724)

    told = rendered(Hook.POST_FINISH, whole)["Event"]

    assert told["Upload"] == {
        "ID": upload.id,
        "Size": 432724,
        "SizeIsDeferred": False,
        "Offset": 432724,
        "MetaData": {"filename": "screenshot.png", "filetype": "image/png", "empty": ""},
        "IsPartial": False,
        "IsFinal": False,
        "PartialUploads": None,
        "Storage": STORAGE,
    }
    assert told["HTTPRequest"] == {
        "Method": "",
        "URI": f"/files/{upload.id}",
        "RemoteAddr": "",
        "Header": {},
    }


def test_a_deferred_length_is_zero_and_said_so(upload: Upload) -> None:
    told = rendered(Hook.PRE_CREATE, replace(upload, length=None))["Event"]["Upload"]

    assert (told["Size"], told["SizeIsDeferred"]) == (0, True)


def test_an_upload_is_told_as_created_with_offset_0_however_far_it_is(upload: Upload) -> None:
    later = replace(upload, committed_bytes=1000)

    assert rendered(Hook.POST_CREATE, later)["Event"]["Upload"]["Offset"] == 0
    assert rendered(Hook.POST_RECEIVE, later)["Event"]["Upload"]["Offset"] == 1000


def test_partial_and_final_uploads_are_told_apart(upload: Upload) -> None:
    first, second = "0" * 32, "1" * 32
    concat = f"final;/files/{first} https://example.com/files/{second}/"

    partial = rendered(Hook.PRE_CREATE, replace(upload, concat="partial"))["Event"]["Upload"]
    final = rendered(Hook.POST_FINISH, replace(upload, concat=concat))["Event"]["Upload"]

    assert (partial["IsPartial"], partial["IsFinal"]) == (True, False)
    assert partial["PartialUploads"] is None
    assert (final["IsPartial"], final["IsFinal"]) == (False, True)
    assert final["PartialUploads"] == [first, second]


@pytest.mark.parametrize(
    ("client", "shown"), [("::1", "[::1]:0"), ("10.0.0.7", "10.0.0.7:0"), (None, "")]
)
def test_the_address_of_the_client_has_the_form_of_go(
    upload: Upload, client: str | None, shown: str
) -> None:
    told = rendered(Hook.PRE_CREATE, upload, replace(REQUEST, client=client))

    assert told["Event"]["HTTPRequest"]["RemoteAddr"] == shown


# --- answers


@pytest.mark.parametrize("content", [b"", b" \n", b"{}", b'{"HTTPResponse": null}'])
def test_nothing_said_is_nothing_wanted(content: bytes) -> None:
    assert parse_answer(content) == HookAnswer()


def test_a_refusal_has_status_body_and_fields() -> None:
    answer = parse_answer(
        b"""{
            "HTTPResponse": {
                "StatusCode": 413,
                "Body": "{\\"message\\":\\"too big\\"}",
                "Header": {"Content-Type": "application/json", "X-Reason": "quota"}
            },
            "RejectUpload": true
        }"""
    )

    assert answer.rejects_upload
    assert not answer.rejects_termination
    assert answer.status == 413
    assert answer.body == '{"message":"too big"}'
    assert answer.fields == {"content-type": "application/json", "x-reason": "quota"}


def test_names_are_read_in_any_case_as_go_does() -> None:
    answer = parse_answer(b'{"rejectTermination": true, "httpresponse": {"statuscode": 403}}')

    assert answer.rejects_termination
    assert answer.status == 403


@pytest.mark.parametrize("status", [0, 200, 302, 399, 600, -1])
def test_a_status_that_no_refusal_can_have_is_none(status: int) -> None:
    answer = parse_answer(json.dumps({"HTTPResponse": {"StatusCode": status}}).encode())

    assert answer.status is None


def test_metadata_replace_those_of_the_client_also_by_none() -> None:
    told = parse_answer(b'{"ChangeFileInfo": {"MetaData": {"owner": "me"}}}')
    emptied = parse_answer(b'{"ChangeFileInfo": {"MetaData": {}}}')
    kept = parse_answer(b'{"ChangeFileInfo": {"MetaData": null}}')

    assert told.metadata == {"owner": "me"}
    assert emptied.metadata == {}
    assert kept.metadata is None


def test_what_is_not_done_is_named() -> None:
    answer = parse_answer(
        b'{"ChangeFileInfo": {"ID": "mine", "Storage": {"Path": "/x"}}, "StopUpload": true}'
    )

    assert answer.unknown == ("ChangeFileInfo.ID", "ChangeFileInfo.Storage", "StopUpload")


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "Transfer-Encoding",
        "connection",
        "Access-Control-Allow-Origin",
        "Tus-Resumable",
        "Cache-Control",
    ],
)
def test_fields_that_are_the_servers_to_say_are_left_out(name: str) -> None:
    answer = parse_answer(json.dumps({"HTTPResponse": {"Header": {name: "x"}}}).encode())

    assert answer.fields == {}


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"\xff",
        b"[]",
        b'"no"',
        b"[" * 100_000,
        b'{"RejectUpload": "yes"}',
        b'{"RejectUpload": 1}',
        b'{"HTTPResponse": []}',
        b'{"HTTPResponse": {"StatusCode": "400"}}',
        b'{"HTTPResponse": {"StatusCode": true}}',
        b'{"HTTPResponse": {"Body": {}}}',
        b'{"HTTPResponse": {"Header": {"X": ["a"]}}}',
        b'{"HTTPResponse": {"Header": {"X Y": "a"}}}',
        b'{"HTTPResponse": {"Header": {"X": "a\\r\\nSet-Cookie: b"}}}',
        b'{"HTTPResponse": {"Header": {"X": "\\u20ac"}}}',
        b'{"ChangeFileInfo": {"MetaData": {"n": 1}}}',
    ],
)
def test_what_cannot_be_understood_is_no_answer(content: bytes) -> None:
    with pytest.raises(AnswerUnclear):
        parse_answer(content)
