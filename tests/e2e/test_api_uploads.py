"""The JSON API: uploads are begun, found, listed and deleted, and have a history."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from uuid import uuid4

import httpx
import pytest

from tests.support.api import MAX_SIZE, PART_SIZE, Api, code_of, state_of, states_of
from tests.support.server import ServerProcess
from tests.support.tus import Tus, encode_metadata, pattern
from tus_server.http.api.cursor import render_cursor

ID = re.compile(r"[0-9a-f]{32}")
UNKNOWN = "0123456789abcdef" * 2


# --- shapes


def test_a_single_upload_has_the_request_that_sends_it(api: Api) -> None:
    reply = api.try_to_begin("single", 5, filename="a.txt", content_type="text/plain")

    view = reply.json()
    assert ID.fullmatch(view["id"])
    assert reply.headers["location"] == f"{api.client.base_url}/api/uploads/{view['id']}"
    assert reply.headers["cache-control"] == "no-store"
    assert (view["kind"], view["filename"], view["content_type"]) == (
        "single", "a.txt", "text/plain",
    )  # fmt: skip
    assert (view["length"], view["committed_bytes"], view["progress"]) == (5, 0, "in_progress")
    assert view["error"] is view["object"] is view["checksum"] is view["completed_at"] is None
    assert view["metadata"] == {"filename": "a.txt", "filetype": "text/plain"}
    assert set(view["put"]) == {"method", "url", "headers", "expires_at"}
    assert view["put"]["method"] == "PUT"
    assert "multipart" not in view
    assert "tus" not in view


def test_a_multipart_upload_tells_how_it_is_cut(api: Api) -> None:
    view = api.begin("multipart", 3 * PART_SIZE + 1)

    assert view["multipart"] == {
        "part_size_bytes": PART_SIZE,
        "part_count": 4,
        "part_headers": {},
    }
    assert "put" not in view


def test_a_multipart_upload_may_be_cut_as_its_client_does(api: Api) -> None:
    view = api.begin("multipart", 10_000, part_size_bytes=4000)

    assert (view["multipart"]["part_size_bytes"], view["multipart"]["part_count"]) == (4000, 3)


def test_a_session_has_the_url_a_tus_client_sends_to(api: Api, api_server: ServerProcess) -> None:
    view = api.begin("tus", 5, filename="ü.txt")

    assert view["tus"]["url"] == f"{api.client.base_url}/files/{view['id']}"
    tus = Tus(api_server.port)
    assert tus.head(f"/files/{view['id']}")["upload-metadata"] == encode_metadata(
        {"filename": "ü.txt"}
    )
    assert tus.patch(f"/files/{view['id']}", 0, b"hello").status == 204
    view = api.wait_for(view["id"], "verified")
    assert view["object"]["url"] == view["tus"]["url"]


def test_only_a_tus_client_may_tell_the_size_later(api: Api) -> None:
    assert api.begin("tus", None)["length"] is None

    for kind in ("single", "multipart"):
        reply = api.try_to_begin(kind, None)
        assert code_of(reply) == (400, "malformed_request")
        assert "size" in reply.json()["detail"]


def test_an_empty_upload_is_complete_at_once_for_tus_and_has_one_part_else(api: Api) -> None:
    assert api.wait_for(api.begin("tus", 0)["id"], "verified")["progress"] == "complete"

    upload_id = api.upload(b"", "multipart")
    assert [part["size"] for part in api.parts(upload_id)] == [0]
    assert httpx.get(api.find(upload_id)["object"]["url"]).content == b""


def test_a_verified_upload_tells_where_it_is_and_what_it_is(api: Api) -> None:
    content = b"%PDF-1.7 " + pattern(2 * PART_SIZE)

    view = api.find(api.upload(content, "multipart", content_type="image/png"))

    assert view["object"]["url"] == f"{api.client.base_url}/files/{view['id']}"
    assert httpx.get(view["object"]["url"]).content == content
    assert view["checksum"]["algorithm"] == "crc64nvme"
    assert (view["content_type"], view["detected_type"]) == ("image/png", "application/pdf")
    assert (view["progress"], view["error"]) == ("complete", None)
    assert view["committed_bytes"] == view["length"] == len(content)


def test_the_history_has_the_current_state_and_those_before_it_newest_first(api: Api) -> None:
    upload_id = api.upload()

    status = api.find(upload_id)["status"]

    assert set(status) == {"current", "prior"}
    assert set(status["current"]) == {"state", "state_on"}
    assert [change["state"] for change in status["prior"]] == [
        "completed", "receiving", "initiated",
    ]  # fmt: skip
    times = [change["state_on"] for change in [status["current"], *status["prior"]]]
    assert all(time.endswith("Z") for time in times)
    assert sorted(map(datetime.fromisoformat, times), reverse=True) == [
        datetime.fromisoformat(time) for time in times
    ]


@pytest.mark.parametrize("kind", ["tus", "rufh"])
def test_uploads_of_ordinary_clients_are_seen_too(
    kind: str, api: Api, api_server: ServerProcess
) -> None:
    tus = Tus(api_server.port)
    if kind == "tus":
        url = tus.create(5, metadata=encode_metadata({"filename": "x"}))["location"]
        upload_id = url.rpartition("/")[2]
        assert state_of(api.find(upload_id)) == "initiated"
        tus.patch(url, 0, b"he")
        assert (state_of(api.find(upload_id)), api.find(upload_id)["committed_bytes"]) == (
            "receiving", 2,
        )  # fmt: skip
        tus.patch(url, 2, b"llo")
    else:
        reply = tus.request(
            "POST",
            "/files/",
            {"Tus-Resumable": None, "Upload-Complete": "?1"},
            b"hello",
        )
        upload_id = reply["location"].rpartition("/")[2]

    view = api.wait_for(upload_id, "verified")
    assert (view["kind"], view["length"], view["progress"]) == (kind, 5, "complete")
    assert states_of(view) == ["initiated", "receiving", "completed", "verified"] or states_of(
        view
    ) == ["initiated", "completed", "verified"]
    assert ("tus" in view) == (kind == "tus")


# --- refusals


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
@pytest.mark.parametrize("name", [UNKNOWN, "x", "%2e%2e", "0" * 33, UNKNOWN.upper(), "%00"])
def test_what_is_no_upload_is_not_found(verb: str, name: str, api: Api) -> None:
    reply = api.request(verb, f"/uploads/{name}")

    assert code_of(reply) == (404, "upload_not_found")


@pytest.mark.parametrize("verb", ["sign", "parts/sign", "complete", "accept", "reject"])
def test_no_verb_finds_an_unknown_upload(verb: str, api: Api) -> None:
    assert code_of(api.post(UNKNOWN, verb)) == (404, "upload_not_found")


@pytest.mark.parametrize("path", ["/", "/nothing", "/uploads/", f"/uploads/{UNKNOWN}/nothing"])
def test_unknown_paths_are_problem_documents(path: str, api: Api) -> None:
    assert code_of(api.request("GET", path)) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/uploads", "GET, POST"),
        ("OPTIONS", "/uploads", "GET, POST"),
        ("POST", f"/uploads/{UNKNOWN}", "DELETE, GET"),
        ("GET", f"/uploads/{UNKNOWN}/complete", "POST"),
        ("DELETE", f"/uploads/{UNKNOWN}/parts", "GET"),
        ("POST", "/openapi.json", "GET"),
        ("TRACE", "/uploads", "GET, POST"),
    ],
)
def test_unknown_methods_are_told_the_known_ones(
    method: str, path: str, allow: str, api: Api
) -> None:
    reply = api.request(method, path)

    assert code_of(reply) == (405, "method_not_allowed")
    assert reply.headers["allow"] == allow


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "kind"),
        ({"kind": "rufh", "size": 1}, "kind"),
        ({"kind": "single", "size": -1}, "size"),
        ({"kind": "single", "size": 2**53}, "size"),
        ({"kind": "single", "size": "1"}, "size"),
        ({"kind": "single", "size": True}, "size"),
        ({"kind": "single", "size": 1, "siez": 1}, "siez"),
        ({"kind": "single", "size": 1, "metadata": {"a": 1}}, "metadata.a"),
        ({"kind": "single", "size": 1, "file_id": ""}, "file_id"),
        ({"kind": "single", "size": 1, "file_id": "x" * 501}, "file_id"),
        ({"kind": "single", "size": 1, "checksum": {"algorithm": "x", "value": ""}},
         "checksum.algorithm"),
        ({"kind": "single", "size": 1, "checksum": {"algorithm": "md5", "value": "!"}},
         "checksum.value"),
        ({"kind": "single", "size": 1, "expires_in_s": 0}, "expires_in_s"),
        ({"kind": "single", "size": 1, "success_job": {"kwargs": {}}}, "success_job.name"),
        ({"kind": "single", "size": 1, "success_job": "x"}, "success_job"),
        ([], "body"),
        ("x", "body"),
        (1, "body"),
        (None, "body"),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_told_which_field(
    body: object, field: str, api: Api
) -> None:
    reply = api.request("POST", "/uploads", json=body)

    assert code_of(reply) == (400, "malformed_request")
    assert field in [error["field"] for error in reply.json()["errors"]]
    assert field in reply.json()["detail"]


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ({"checksum": {"algorithm": "sha256", "value": "AAAA"}}, "malformed_request"),
        ({"part_size_bytes": 7}, "malformed_request"),
        ({"metadata": {"a,b": "x"}}, "malformed_metadata"),
        ({"metadata": {"a": "x" * 9000}}, "malformed_metadata"),
        ({"success_job": {"name": "os.system"}}, "job_refused"),
        ({"failure_job": {"name": "https://user@example.com/"}}, "job_refused"),
    ],
)
def test_what_cannot_be_kept_is_refused(about: dict[str, object], code: str, api: Api) -> None:
    assert code_of(api.try_to_begin("single", 1, **about)) == (400, code)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff",
        b'{"kind": "single", "size": NaN}',
        b'{"kind": "single", "size": 1e999}',
        b'{"kind": "single", "size": ' + b"9" * 5000 + b"}",
        b'{"kind": "single", "size": 1, "size": 2}',
        b'{"kind": "single", "size": 1, "filename": "a\\u0000"}',
        b'{"kind": "single", "size": 1, "file_id": "\\ud800"}',
        b"[" * 100_000,
        b'{"kind": "single", "size": 1, "success_job": {"name": "https://x.example/", "kwargs": '
        + b'{"a":' * 1000
        + b"1"
        + b"}" * 1002,
    ],
)
def test_json_that_two_parsers_would_read_differently_is_refused(content: bytes, api: Api) -> None:
    reply = api.request(
        "POST", "/uploads", content=content, headers={"Content-Type": "application/json"}
    )

    assert code_of(reply) == (400, "malformed_request")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_bodies_that_any_page_could_send_are_refused(kind: str | None, api: Api) -> None:
    fields = {} if kind is None else {"Content-Type": kind}

    reply = api.request("POST", "/uploads", content=b'{"kind": "tus"}', headers=fields)

    assert code_of(reply) == (415, "unsupported_media_type")


def test_a_media_type_may_have_parameters(api: Api) -> None:
    reply = api.request(
        "POST",
        "/uploads",
        content=b'{"kind": "tus"}',
        headers={"Content-Type": "Application/JSON; charset=utf-8"},
    )

    assert reply.status_code == 201


def test_a_body_that_is_too_large_is_refused_before_it_is_read(api_server: ServerProcess) -> None:
    tus = Tus(api_server.port)
    with tus.connect() as connection:
        connection.send_head(
            "POST",
            "/api/uploads",
            {
                "Content-Type": "application/json",
                "Content-Length": str(10**9),
                "Expect": "100-continue",
            },
        )
        reply = connection.read_reply()

    assert (reply.status, reply.problem()["code"]) == (413, "request_too_large")
    assert not reply.interim  # no 100: nobody wants to see the body


def test_a_body_that_does_not_tell_its_size_is_refused_when_it_is_too_large(
    api_server: ServerProcess,
) -> None:
    reply = Tus(api_server.port).request(
        "POST",
        "/api/uploads",
        {"Content-Type": "application/json"},
        b" " * (3 * 1024 * 1024),
        chunked=True,
    )

    assert (reply.status, reply.problem()["code"]) == (413, "request_too_large")


def test_an_upload_that_is_too_large_is_refused(api: Api) -> None:
    assert code_of(api.try_to_begin("multipart", MAX_SIZE + 1)) == (413, "upload_too_large")


# --- one of a file_id


def test_a_second_upload_of_a_file_id_is_refused_and_told_of_the_first(api: Api) -> None:
    file_id = f"file-{uuid4()}"
    first = api.begin("multipart", 5, file_id=file_id)

    reply = api.try_to_begin("tus", 5, file_id=file_id)

    assert code_of(reply) == (409, "file_id_taken")
    assert (reply.json()["upload"], reply.json()["state"]) == (first["id"], "initiated")


@pytest.mark.parametrize("end", ["delete", "reject", "cancel"])
def test_when_the_first_has_ended_another_may_begin(end: str, api: Api) -> None:
    file_id = f"file-{uuid4()}"
    if end == "cancel":
        first = api.begin(file_id=file_id)["id"]
        api.delete(first)
    else:
        first = api.upload(file_id=file_id)
        api.delete(first) if end == "delete" else api.post(first, "reject")

    second = api.begin(file_id=file_id)

    found = api.page(file_id=file_id)["uploads"]
    assert [view["id"] for view in found] == [second["id"], first]


def test_of_many_that_begin_at_once_one_wins(api: Api) -> None:
    file_id = f"file-{uuid4()}"

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: api.try_to_begin(file_id=file_id), range(8)))

    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 7


# --- idempotency


def test_the_same_key_gives_the_same_upload(api: Api) -> None:
    key = str(uuid4())
    first = api.try_to_begin("multipart", 7, key=key, metadata={"a": "1", "b": "2"})

    again = api.try_to_begin("multipart", 7, key=key, metadata={"b": "2", "a": "1"})

    assert again.status_code == first.status_code == 201
    assert again.headers["location"] == first.headers["location"]
    assert again.json() == first.json()


def test_a_single_upload_is_signed_again(api: Api) -> None:
    key = str(uuid4())

    views = [api.begin("single", 5, key=key) for _ in range(2)]

    assert views[0]["id"] == views[1]["id"]
    assert api.send(views[1]["put"], b"hello").status_code == 200


def test_the_same_key_with_another_request_is_refused(api: Api) -> None:
    key = str(uuid4())
    first = api.begin("multipart", 7, key=key)

    for kind, size, about in (("multipart", 8, {}), ("tus", 7, {}), ("multipart", 7, {"a": 1})):
        more = {"metadata": {"a": "1"}} if about else {}
        reply = api.try_to_begin(kind, size, key=key, **more)
        assert code_of(reply) == (422, "idempotency_key_reused")
    assert state_of(api.find(first["id"])) == "initiated"


def test_of_two_at_once_with_one_key_both_get_the_one_upload(api: Api) -> None:
    key = str(uuid4())

    with ThreadPoolExecutor(8) as pool:
        views = list(pool.map(lambda _: api.begin("multipart", 7, key=key), range(8)))

    assert len({view["id"] for view in views}) == 1


def test_a_key_outlives_what_it_began(api: Api) -> None:
    key = str(uuid4())
    first = api.begin("tus", 7, key=key)
    api.delete(first["id"])

    again = api.begin("tus", 7, key=key)

    assert (again["id"], state_of(again)) == (first["id"], "canceled")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\xe9"])
@pytest.mark.parametrize("verb", ["", f"/{UNKNOWN}/complete", f"/{UNKNOWN}/accept"])
def test_a_key_of_another_form_is_refused(key: str, verb: str, api: Api) -> None:
    reply = api.request(
        "POST",
        f"/uploads{verb}",
        json={"kind": "tus"} if not verb else {},
        headers={"Idempotency-Key": key.encode("latin-1")},
    )

    assert code_of(reply) == (400, "malformed_request")


def test_two_keys_are_none(api: Api) -> None:
    fields = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]

    reply = api.request("POST", "/uploads", json={"kind": "tus"}, headers=fields)

    assert code_of(reply) == (400, "malformed_header")


# --- lists


def test_pages_are_stable_while_uploads_begin(api: Api) -> None:
    file_id = f"file-{uuid4()}"
    begun = []
    for _ in range(7):
        begun.append(api.begin("tus", 1, file_id=file_id)["id"])
        api.delete(begun[-1])

    found = []
    cursor: dict[str, str] = {}
    while True:
        page = api.page(file_id=file_id, limit=3, **cursor)
        found += [view["id"] for view in page["uploads"]]
        api.delete(api.begin("tus", 1, file_id=file_id)["id"])
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}

    assert found == begun[::-1]


def test_a_list_without_a_filter_has_the_newest_first(api: Api) -> None:
    begun = [api.begin("tus", 1)["id"] for _ in range(3)]

    page = api.page(limit=3)

    assert [view["id"] for view in page["uploads"]] == begun[::-1]
    assert page["next_cursor"]
    for view in page["uploads"]:
        assert api.find(view["id"]) == view


def test_a_list_can_be_of_some_states(api: Api) -> None:
    file_id = f"file-{uuid4()}"
    canceled = api.begin("tus", 1, file_id=file_id)["id"]
    api.delete(canceled)
    verified = api.upload(file_id=file_id)

    of_one = api.page(file_id=file_id, state="canceled")
    of_both = api.page(file_id=file_id, state=["canceled", "verified"])
    of_none = api.page(file_id=file_id, state="expired")
    everywhere = api.page(state="canceled", limit=1)

    assert [view["id"] for view in of_one["uploads"]] == [canceled]
    assert [view["id"] for view in of_both["uploads"]] == [verified, canceled]
    assert of_none == {"uploads": [], "next_cursor": None}
    assert [state_of(view) for view in everywhere["uploads"]] == ["canceled"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"state": "done"}, "'verified'"),
        ({"limit": "0"}, "greater than or equal to 1"),
        ({"limit": "501"}, "less than or equal to 500"),
        ({"limit": "x"}, "integer"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"cursor": ""}, "cursor"),
        ({"file_id": ""}, "file_id"),
        ({"file_id": "a\0b"}, "file_id"),
        ({"stat": "error"}, "query.stat"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(
    query: dict[str, str], words: str, api: Api
) -> None:
    reply = api.request("GET", "/uploads", params=query)

    assert code_of(reply) == (400, "malformed_request")
    assert words in reply.json()["detail"]


def test_a_cursor_of_an_upload_that_is_no_more_is_told(api: Api) -> None:
    reply = api.request("GET", "/uploads", params={"cursor": render_cursor(UNKNOWN)})

    assert code_of(reply) == (400, "malformed_request")


# --- deleting


def test_an_unfinished_upload_is_canceled_and_a_second_time_nothing_happens(api: Api) -> None:
    for kind in ("single", "multipart", "tus"):
        upload_id = api.begin(kind, 5)["id"]

        first, again = api.delete(upload_id), api.delete(upload_id)

        assert (first.status_code, state_of(first.json())) == (200, "canceled")
        assert again.json() == first.json()
        assert api.find(upload_id)["progress"] == "expired"


def test_a_finished_upload_is_deleted_with_its_bytes(api: Api) -> None:
    upload_id = api.upload()
    url = api.find(upload_id)["object"]["url"]

    view = api.delete(upload_id).json()

    assert (state_of(view), view["object"], view["progress"]) == ("deleted", None, "complete")
    assert httpx.get(url).status_code == 404
    assert state_of(api.delete(upload_id).json()) == "deleted"


def test_what_the_application_rejected_is_served_to_nobody(api: Api) -> None:
    upload_id = api.upload()
    url = api.find(upload_id)["object"]["url"]
    assert httpx.get(url).content == b"hello"

    api.post(upload_id, "reject", {"note": "not ours"})

    assert httpx.get(url).status_code == 404
