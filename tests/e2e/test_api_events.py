"""The JSON API: what becomes of an upload, as server-sent events."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.conftest import ServerFactory
from tests.support.api import PART_SIZE, Api, code_of, state_of
from tests.support.http import Connection
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until
from tus_server.http.api.streams import MOST

UNKNOWN = "0123456789abcdef" * 2


@pytest.fixture(scope="session")
def body_path() -> str:
    """One body path is enough: nothing here depends on it."""
    return "fast"


@dataclass(frozen=True)
class Event:
    """An event as a browser's EventSource takes it."""

    kind: str
    data: dict[str, Any]
    last_id: str

    @property
    def state(self) -> str:
        return state_of(self.data)


def parse(lines: Iterator[str]) -> Iterator[Event]:
    """Give the events of a stream (HTML, 9.2.6)."""
    kind, data, last_id = "message", [], ""
    for line in lines:
        if not line:
            if data:
                yield Event(kind, json.loads("\n".join(data)), last_id)
            kind, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id = value


@contextmanager
def follow(api: Api, upload_id: str, last_id: str | None = None) -> Iterator[Iterator[Event]]:
    fields = {} if last_id is None else {"Last-Event-ID": last_id}
    path = f"{api.prefix}/api/uploads/{upload_id}/events"
    with api.client.stream("GET", path, headers=fields) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-accel-buffering"] == "no"
        yield parse(reply.iter_lines())


def all_of(api: Api, upload_id: str, last_id: str | None = None) -> list[Event]:
    with follow(api, upload_id, last_id) as events:
        return list(events)


# --- what is told


def test_every_change_is_told_as_it_happens_and_then_the_stream_ends(
    api: Api, api_server: ServerProcess
) -> None:
    upload_id = api.begin("tus", 6)["id"]
    tus, url = Tus(api_server.port), f"/files/{upload_id}"
    with follow(api, upload_id) as events:
        first = next(events)
        tus.patch(url, 0, b"ab")
        second = next(events)
        tus.patch(url, 2, b"cd")
        third = next(events)
        tus.patch(url, 4, b"ef")
        rest = list(events)

    assert (first.kind, first.state, first.last_id) == ("status", "initiated", "1")
    assert (second.kind, second.state, second.last_id) == ("status", "receiving", "2")
    assert second.data["committed_bytes"] == 2
    assert third.kind == "progress"
    assert third.data == {"committed_bytes": 4, "length": 6, "progress": "in_progress"}
    assert third.last_id == "2"  # progress has no place in the history
    assert [(event.state, event.last_id) for event in rest] == [
        ("completed", "3"), ("verified", "4"),
    ]  # fmt: skip
    assert rest[-1].data == api.find(upload_id)


def test_a_client_that_comes_back_hears_what_it_has_missed_and_nothing_twice(api: Api) -> None:
    upload_id = api.upload(require_acceptance=True)

    for last_id in range(4):
        with follow(api, upload_id, str(last_id)) as events:
            heard = [next(events) for _ in range(4 - last_id)]
        assert [event.last_id for event in heard] == [str(n) for n in range(last_id + 1, 5)]
        assert [len(event.data["status"]["prior"]) for event in heard] == list(range(last_id, 4))
    with follow(api, upload_id, "4") as events:
        api.post(upload_id, "accept")
        heard = [event for event in events if event.kind == "status"]
    assert [(event.state, event.last_id) for event in heard] == [("accepted", "5")]


@pytest.mark.parametrize("last_id", ["x", "", "-1", "1.5", "99999999999999999999", "\xe9", "77"])
def test_an_id_that_is_none_of_ours_begins_with_the_current_state(last_id: str, api: Api) -> None:
    upload_id = api.upload()

    path = f"/api/uploads/{upload_id}/events"
    fields = {"Last-Event-ID": last_id.encode("latin-1")}
    with api.client.stream("GET", path, headers=fields) as reply:
        (event,) = parse(reply.iter_lines())

    assert (event.state, event.last_id) == ("verified", "4")


def test_a_browser_is_told_not_to_come_back_when_nothing_is_to_come(api: Api) -> None:
    upload_id = api.upload()
    assert [event.last_id for event in all_of(api, upload_id)] == ["4"]

    reply = api.request("GET", f"/uploads/{upload_id}/events", headers={"Last-Event-ID": "4"})

    assert (reply.status_code, reply.content) == (204, b"")


@pytest.mark.parametrize("end", ["cancel", "delete", "reject", "error"])
def test_every_end_ends_the_stream(end: str, api: Api) -> None:
    if end == "error":
        wrong = {"algorithm": "md5", "value": "AAAAAAAAAAAAAAAAAAAAAA=="}
        upload_id = api.begin("single", 5, checksum=wrong)["id"]
        api.send_all(upload_id, b"hello")
    elif end == "cancel":
        upload_id = api.begin("multipart", 5)["id"]
    else:
        upload_id = api.upload(require_acceptance=True)
    with follow(api, upload_id) as events:
        next(events)
        if end == "error":
            api.post(upload_id, "complete")
        elif end == "reject":
            api.post(upload_id, "reject")
        else:
            api.delete(upload_id)
        last = list(events)[-1]

    ended = {"cancel": "canceled", "delete": "deleted", "reject": "rejected", "error": "error"}
    assert last.state == ended[end]
    assert (last.data["error"] is not None) == (end == "error")


def test_parts_that_arrive_move_the_progress_once_a_second_at_most(api: Api) -> None:
    content = pattern(8 * PART_SIZE)
    upload_id = api.begin("multipart", len(content))["id"]
    with follow(api, upload_id) as events:
        next(events)
        began_s = time.monotonic()
        report = api.send_all(upload_id, content)
        api.post(upload_id, "complete", {"parts": report})
        heard = list(events)
        took_s = time.monotonic() - began_s

    moved = [event.data["committed_bytes"] for event in heard if event.kind == "progress"]
    assert moved == sorted(set(moved))
    assert len(moved) <= took_s + 1
    assert heard[-1].state == "verified"


def test_unknown_uploads_have_no_stream(api: Api) -> None:
    reply = api.request("GET", f"/uploads/{UNKNOWN}/events")

    assert code_of(reply) == (404, "upload_not_found")


# --- what it costs


def open_streams(server: ServerProcess, upload_id: str) -> Connection:
    connection = Connection(server.port)
    connection.send_head("GET", f"/api/uploads/{upload_id}/events")
    return connection


def test_there_is_a_limit_and_who_goes_makes_room(fresh_server: ServerFactory) -> None:
    server = fresh_server()
    with Api(server.port) as api, ExitStack() as stack:
        upload_id = api.begin("tus", 5)["id"]
        streams = [stack.enter_context(open_streams(server, upload_id)) for _ in range(MOST)]
        for stream in streams:
            assert stream.read_one_head().status == 200

        refused = api.request("GET", f"/uploads/{upload_id}/events")
        assert code_of(refused) == (503, "too_many_streams")
        assert refused.headers["retry-after"]
        assert api.get(upload_id).status_code == 200

        streams[0].reset()
        streams[1].close()

        def can_follow() -> bool:
            with open_streams(server, upload_id) as one:
                return one.read_one_head().status == 200

        wait_until(can_follow, "there is room again")


@pytest.mark.parametrize("reads", [True, False])
def test_a_server_that_stops_waits_for_no_stream(reads: bool, fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_SHUTDOWN_TIMEOUT_S="60")
    with Api(server.port) as api:
        upload_id = api.begin("tus", 5)["id"]
        with open_streams(server, upload_id) as stream:
            assert stream.read_one_head().status == 200
            began_s = time.monotonic()
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            if reads:
                received = stream.read_until_closed()
                assert received.endswith(b"0\r\n\r\n")  # in order, so that clients come back
            assert server.process.wait(30) == 0
            assert time.monotonic() - began_s < 20


def test_a_stream_outlives_nothing_of_its_server(fresh_server: ServerFactory) -> None:
    server = fresh_server()
    with Api(server.port) as api:
        upload_id = api.begin("tus", 5)["id"]
        with follow(api, upload_id) as events:
            last_id = next(events).last_id
            server.kill()
            with pytest.raises(httpx.HTTPError):
                next(events)
        server.start()
        Tus(server.port).patch(f"/files/{upload_id}", 0, b"hello")

        heard = [event for event in all_of(api, upload_id, last_id) if event.kind == "status"]

    assert [event.last_id for event in heard] == ["2", "3", "4"]
