"""S3 that fails while a direct upload is begun, looked at and completed: it is verified once."""

from typing import Any

import pytest

from tests.journeys.sent import Sent, webhook
from tests.journeys.site import Nodes
from tests.support.api import code_of, state_of
from tests.support.s3 import S3Service
from tests.support.waiting import wait_until

COMPLETE = {"method": "POST", "query": "uploadId"}
LOOK = {"method": "GET", "query": "uploadId"}
FOR_EVER = 10_000
PASSING: dict[str, list[dict[str, Any]]] = {
    "an error": [COMPLETE | {"status": 500}],
    "busy, twice": [COMPLETE | {"status": 503, "code": "SlowDown", "times": 2}],
    "an error with status 200": [COMPLETE | {"status": 200, "code": "InternalError"}],
    "done, and an error": [COMPLETE | {"status": 500, "after": True}],
    "done, and no answer": [COMPLETE | {"after": True, "truncate": 0}],
    "done, and an error with status 200": [COMPLETE | {"status": 200, "after": True}],
    "no look at the object": [{"method": "HEAD", "path": "/up/", "status": 503, "times": 2}],
    "no bytes for the look at the type": [LOOK, {"method": "GET", "path": "/up/", "status": 503}],
}


@pytest.mark.parametrize("rules", PASSING.values(), ids=PASSING.keys())
def test_what_passes_while_it_completes_is_not_noticed(
    nodes: Nodes, swift: S3Service, rules: list[dict[str, Any]]
) -> None:
    sent = Sent(nodes, 1, 2)
    swift.set_faults(*rules)

    sent.complete()
    view = nodes.api("a").wait_for(sent.id, "verified")

    assert len(swift.fault_hits()) >= len(rules)
    assert view["error"] is None
    nodes.check_verified_once(sent.id, sent.content)


def test_what_does_not_pass_leaves_it_completed_until_it_does(
    nodes: Nodes, swift: S3Service
) -> None:
    sent = Sent(nodes, 1, 2)
    swift.set_faults(COMPLETE | {"status": 500, "times": FOR_EVER})

    reply = nodes.api("b").post(sent.id, "complete", fields={"Prefer": "wait=1"})

    assert (reply.status_code, state_of(reply.json())) == (202, "completed")
    assert reply.json()["progress"] == "in_progress"
    wait_until(lambda: len(swift.fault_hits()) >= 3, "it was tried again and again")
    assert nodes.letters(sent.id) == []
    swift.set_faults()
    nodes.api("a").wait_for(sent.id, "verified")
    nodes.check_verified_once(sent.id, sent.content)


def test_who_cancels_while_the_store_completes_waits_and_deletes_what_was_verified(
    nodes: Nodes, swift: S3Service
) -> None:
    sent = Sent(nodes, 1, 2)
    swift.set_faults(COMPLETE | {"delay": 1.5})
    assert nodes.api("b").post(sent.id, "complete").status_code == 202
    wait_until(swift.fault_hits, "the store completes it")

    reply = nodes.api("a").delete(sent.id)

    assert (reply.status_code, state_of(reply.json())) == (200, "deleted")
    nodes.wait_delivered(sent.id, count=2)
    told = [(one.kind, one.outcome) for one in nodes.letters(sent.id)]
    assert told == [("verified", "success"), ("deleted", None)]
    assert [one.outcome for one in nodes.sink.of(sent.id)] == ["success"]


def test_what_the_store_never_completes_can_be_canceled(nodes: Nodes, swift: S3Service) -> None:
    sent = Sent(nodes, 1, 2)
    swift.set_faults(COMPLETE | {"status": 500, "times": FOR_EVER})
    assert nodes.api("b").post(sent.id, "complete").status_code == 202
    wait_until(swift.fault_hits, "it was tried")

    wait_until(lambda: nodes.api("a").delete(sent.id).status_code == 200, "it is canceled")

    swift.set_faults()
    assert state_of(nodes.api("b").find(sent.id)) == "canceled"
    nodes.wait_delivered(sent.id)
    assert [one.outcome for one in nodes.sink.of(sent.id)] == ["failure"]
    nodes.check_clean()


def test_a_store_that_cannot_be_looked_at_changes_nothing(nodes: Nodes, swift: S3Service) -> None:
    sent = Sent(nodes, 1, 2)
    swift.set_faults(LOOK | {"status": 503, "times": FOR_EVER})

    reply = nodes.api("b").post(sent.id, "complete")

    assert code_of(reply) == (503, "store_unavailable")
    assert "retry-after" in reply.headers
    sent.check_unchanged()
    swift.set_faults()
    sent.check_mended()


def test_an_upload_that_the_store_does_not_begin_is_begun_later(
    nodes: Nodes, swift: S3Service
) -> None:
    swift.set_faults({"method": "POST", "query": "uploads", "status": 503, "times": FOR_EVER})

    view = nodes.api("a").begin("single", 5, success_job=webhook(nodes))

    assert view["put"] is None
    assert code_of(nodes.api("b").post(view["id"], "sign")) == (503, "store_unavailable")
    swift.set_faults()
    (signed,) = nodes.api("b").post(view["id"], "sign").json()["parts"]
    assert nodes.api("a").send(signed, b"hello").status_code == 200
    nodes.api("a").post(view["id"], "complete")
    nodes.check_verified_once(view["id"], b"hello")
