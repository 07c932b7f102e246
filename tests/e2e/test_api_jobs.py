"""POST /api/jobs/{id}/retry: a dead letter is tried again, and nothing else is touched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import check_log
from tests.support.api import Api, code_of
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.sink import Reply, Sink, SinkThread
from tests.support.waiting import wait_until


@pytest.fixture
def sink() -> Iterator[Sink]:
    with SinkThread(otherwise=Reply(410)) as sink:
        yield sink


@pytest.fixture
def server(tmp_path: Path, sink: Sink) -> Iterator[ServerProcess]:
    """A server whose receiver refuses everything for good."""
    env = {"TUS_SUCCESS_JOB": sink.url(), "TUS_WEBHOOK_ALLOW_PRIVATE": "true"}
    with ServerProcess(tmp_path / "data", **env) as server:
        yield server
    check_log(server.log)


def dead(server: ServerProcess) -> list[int]:
    sql = "SELECT id FROM outbox WHERE given_up_at IS NOT NULL"
    return [row[0] for row in Records(server.data_dir).query(sql)]


def test_a_dead_letter_is_delivered_again(server: ServerProcess, sink: Sink) -> None:
    with Api(server.port) as api:
        job = {"name": sink.url("/own"), "kwargs": {"n": 1}}
        upload = api.begin("tus", 0, success_job=job)["id"]  # without bytes it is complete at once
        (event,) = wait_until(lambda: dead(server), "it was given up")
        sink.otherwise = Reply()

        reply = api.request("POST", f"/jobs/{event}/retry")

        assert reply.status_code == 200
        shown = reply.json()
        assert (shown["id"], shown["upload"], shown["event"]) == (event, upload, "verified")
        assert (shown["outcome"], shown["job"], shown["delivery"]) == ("success", job, "pending")
        wait_until(lambda: len(sink.received) == 2, "it was delivered")
        wait_until(lambda: not dead(server), "and settled")
        again = api.request("POST", f"/jobs/{event}/retry")
        assert again.status_code == 200
        assert again.json()["delivery"] in ("pending", "delivered")
    assert [got.path for got in sink.received] == ["/own", "/own"]


def test_what_was_delivered_is_not_delivered_again(server: ServerProcess, sink: Sink) -> None:
    sink.otherwise = Reply()
    with Api(server.port) as api:
        api.begin("tus", 0)
        sql = "SELECT id FROM outbox WHERE delivered_at IS NOT NULL"
        ((event,),) = wait_until(lambda: Records(server.data_dir).query(sql), "it was delivered")

        reply = api.request("POST", f"/jobs/{event}/retry")

        assert reply.json()["delivery"] == "delivered"
        assert reply.json()["attempts"] == 1


def test_an_event_that_is_not_there_is_404(server: ServerProcess) -> None:
    with Api(server.port) as api:
        for event in ("99", str(2**63 - 1)):
            assert code_of(api.request("POST", f"/jobs/{event}/retry")) == (404, "not_found")


def test_what_is_no_id_of_an_event_is_400(server: ServerProcess) -> None:
    with Api(server.port) as api:
        for event in ("0", "-1", "x", str(2**63), "1.5"):
            reply = api.request("POST", f"/jobs/{event}/retry")
            assert code_of(reply) == (400, "malformed_request")


def test_a_job_that_leads_nowhere_is_refused_when_it_is_named(server: ServerProcess) -> None:
    with Api(server.port) as api:
        for name in ("os.system", "procrastinate:task", "ftp://example.com/"):
            reply = api.try_to_begin("single", 5, success_job={"name": name})

            assert code_of(reply) == (400, "job_refused")
            assert "give the https:// URL of a webhook" in reply.json()["detail"]
        too_much = {"name": "https://example.com/", "kwargs": {"a": "x" * 40_000}}
        refused = api.try_to_begin("single", 5, failure_job=too_much)
        assert code_of(refused) == (400, "job_refused")
        assert api.page()["uploads"] == []
