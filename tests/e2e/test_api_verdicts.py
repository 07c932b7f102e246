"""The JSON API: the application accepts and rejects, and what is not possible changes nothing."""

import pytest

from tests.support.api import Api, code_of, state_of, states_of
from tests.support.records import Records
from tests.support.server import ServerProcess


def verified(api: Api) -> str:
    return api.upload(b"hello", require_acceptance=True)


@pytest.mark.parametrize(("verb", "state"), [("accept", "accepted"), ("reject", "rejected")])
def test_a_verdict_is_for_good_and_has_a_note(verb: str, state: str, api: Api) -> None:
    upload_id = verified(api)
    assert api.find(upload_id)["completed_at"] is None

    first = api.post(upload_id, verb, {"note": "Größe geprüft"})
    again = api.post(upload_id, verb, {"note": "another one"})

    assert first.status_code == again.status_code == 200
    view = first.json()
    assert view["status"]["current"]["state"] == state
    assert view["status"]["current"]["note"] == "Größe geprüft"
    assert view["completed_at"]
    assert again.json() == view
    assert all("note" not in change for change in view["status"]["prior"])


@pytest.mark.parametrize("body", [None, {}, {"note": None}, {"note": ""}])
def test_a_note_need_not_be(body: object, api: Api) -> None:
    reply = api.post(verified(api), "accept", body)

    assert (reply.status_code, "note" in reply.json()["status"]["current"]) == (200, False)


@pytest.mark.parametrize(("first", "then"), [("accept", "reject"), ("reject", "accept")])
def test_the_other_verdict_comes_too_late(first: str, then: str, api: Api) -> None:
    upload_id = verified(api)
    view = api.post(upload_id, first).json()

    reply = api.post(upload_id, then)

    assert code_of(reply) == (409, "illegal_step")
    assert reply.json()["state"] == state_of(view)
    assert api.find(upload_id) == view


@pytest.mark.parametrize("verb", ["accept", "reject"])
@pytest.mark.parametrize("state", ["initiated", "receiving", "canceled", "error"])
def test_only_a_verified_upload_is_judged(verb: str, state: str, api: Api) -> None:
    wrong = {"algorithm": "md5", "value": "AAAAAAAAAAAAAAAAAAAAAA=="}
    upload_id = api.begin("single", 5, checksum=wrong)["id"]
    if state != "initiated":
        api.send_all(upload_id, b"hello")
    if state == "canceled":
        api.delete(upload_id)
    elif state == "error":
        api.post(upload_id, "complete", fields={"Prefer": "wait=30"})
    before = api.find(upload_id)
    assert state_of(before) == state

    reply = api.post(upload_id, verb)

    assert code_of(reply) == (409, "illegal_step")
    assert api.find(upload_id) == before


def test_every_state_is_an_event_once(api: Api, api_server: ServerProcess) -> None:
    upload_id = verified(api)
    for _ in range(2):
        api.post(upload_id, "accept")
    for _ in range(2):
        api.delete(upload_id)

    assert states_of(api.find(upload_id)) == [
        "initiated", "receiving", "completed", "verified", "accepted", "deleted",
    ]  # fmt: skip
    assert Records(api_server.data_dir).events(upload_id) == ["verified", "accepted", "deleted"]


@pytest.mark.parametrize("note", ["x" * 1001, 7, ["x"], "a\0b"])
def test_a_note_is_a_text(note: object, api: Api) -> None:
    upload_id = verified(api)

    assert code_of(api.post(upload_id, "accept", {"note": note})) == (400, "malformed_request")
    assert state_of(api.find(upload_id)) == "verified"
