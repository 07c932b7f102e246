"""The JSON API: bodies that stop, that are cut, and that follow one another."""

import json
from collections.abc import Iterator

import pytest

from tests.conftest import check_log
from tests.support.api import Api
from tests.support.http import Connection
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

BODY = b'{"kind": "tus", "size": 5}'
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that gives bodies up soon."""
    with ServerProcess(
        tmp_path_factory.mktemp("bodies") / "data", TUS_BODY_IDLE_TIMEOUT_S="0.3"
    ) as server:
        yield server
        check_log(server.log)


@pytest.fixture
def connection(impatient: ServerProcess) -> Iterator[Connection]:
    with Connection(impatient.port) as made:
        yield made


def count(server: ServerProcess) -> int:
    with Api(server.port) as api:
        return len(api.page(limit=500)["uploads"])


def test_a_body_that_stops_is_given_up(connection: Connection, impatient: ServerProcess) -> None:
    before = count(impatient)
    connection.send_head("POST", "/api/uploads", {**JSON, "Content-Length": "1000"})
    connection.send(BODY)

    reply = connection.read_reply()

    assert (reply.status, reply.problem()["code"]) == (503, "body_stalled")
    assert reply.closes
    assert count(impatient) == before


def test_a_body_that_is_cut_begins_nothing(
    connection: Connection, impatient: ServerProcess
) -> None:
    before = count(impatient)
    connection.send_head("POST", "/api/uploads", {**JSON, "Content-Length": "1000"})
    connection.send(BODY)
    connection.wait_taken()
    connection.reset()

    # The server is well, and answers others.
    wait_until(lambda: count(impatient) == before, "nothing was begun")


def test_requests_may_follow_one_another(connection: Connection) -> None:
    ids = set()
    for chunked in (False, True, False):
        if chunked:
            connection.send_head("POST", "/api/uploads", {**JSON, "Transfer-Encoding": "chunked"})
            connection.send_chunk(BODY[:7])
            connection.send_chunk(BODY[7:])
            connection.end_chunks()
        else:
            fields = {**JSON, "Content-Length": str(len(BODY))}
            connection.send_head("POST", "/api/uploads", fields)
            connection.send(BODY)
        reply = connection.read_reply()
        assert reply.status == 201
        ids.add(json.loads(reply.body)["id"])

    assert len(ids) == 3


def test_requests_sent_at_once_are_answered_in_their_order(connection: Connection) -> None:
    fields = {**JSON, "Content-Length": str(len(BODY))}
    for method, path, body in (
        ("POST", "/api/uploads", BODY),
        ("GET", "/api/uploads?limit=1", b""),
        ("GET", "/api/nothing", b""),
    ):
        connection.send_head(method, path, fields if body else {})
        connection.send(body)

    begun, listed, missing = (connection.read_reply() for _ in range(3))

    assert (begun.status, listed.status, missing.status) == (201, 200, 404)
    assert json.loads(listed.body)["uploads"] == [json.loads(begun.body)]


def test_a_body_is_asked_for_when_it_is_waited_for(connection: Connection) -> None:
    fields = {**JSON, "Content-Length": str(len(BODY)), "Expect": "100-continue"}
    connection.send_head("POST", "/api/uploads", fields)
    assert connection.read_one_head().status == 100
    connection.send(BODY)

    assert connection.read_reply().status == 201
