"""Starting and stopping: what arrived is stored, and operators are told the truth."""

import json
import signal
from contextlib import ExitStack

import pytest

from tests.conftest import ServerFactory
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern

MIB = 1024 * 1024


def test_a_stop_stores_what_has_arrived_and_the_next_server_goes_on(
    fresh_server: ServerFactory, body_path: str
) -> None:
    """T28, T32: every running PATCH is asked to let go, whatever it still waits for."""
    server = fresh_server(TUS_SHUTDOWN_TIMEOUT_S="20")
    tus, records = Tus(server.port), Records(server.data_dir)
    content = pattern(3 * MIB)
    urls = [tus.new(len(content)), tus.new(len(content)), tus.new()]
    sent = [2 * MIB + 5, 70_000, 1]
    declared = [len(content), None, None]
    quiet = [
        tus.stored(b"he", length=5, metadata="filename YQ==,b"),
        tus.new(),
        tus.stored(b"hello"),
        tus.stored(b""),
        tus.stored(b"hello"),
    ]
    tus.delete(quiet[4])
    before = [tus.status(url) for url in quiet]

    with ExitStack() as stack:
        idle, half_head = (stack.enter_context(tus.connect()) for _ in range(2))
        idle.send_head("OPTIONS", "/files/")
        idle.read_reply()
        half_head.send(b"PATCH /files/abc HTTP/1.1\r\nHost: a\r\n")
        half_head.wait_taken()
        holders = [
            stack.enter_context(tus.hold(url, 0, content[:count], declared=size))
            for url, count, size in zip(urls, sent, declared, strict=True)
        ]
        status = server.stop(signal.SIGTERM, timeout_s=30)

        assert status == 0
        assert idle.read_until_closed() == half_head.read_until_closed() == b""
        for holder in holders:
            if body_path == "plain":
                reply = holder.read_reply()
                assert reply.status == 503
                assert int(reply["retry-after"]) >= 1
                assert reply.problem()["code"] == "shutting_down"
            assert holder.read_until_closed() == b""

    server.start()
    assert [tus.offset(url) for url in urls] == sent
    assert [tus.status(url) for url in quiet] == before
    tus.patch(urls[2], 1, length=len(content))
    for url in urls:
        assert tus.finish(url, content) == content
    assert tus.finish(quiet[0], b"hello") == b"hello"
    assert [records.events(url) for url in quiet[2:]] == [
        ["verified"],
        ["verified"],
        ["verified", "deleted"],
    ]
    assert server.stop(signal.SIGINT, timeout_s=30) == 0


def test_a_second_server_on_the_same_data_is_refused(
    server: ServerProcess, tus: Tus, body_path: str
) -> None:
    second = ServerProcess(server.data_dir, TUS_PORT="0", TUS_BODY_PATH=body_path)
    second.log_path = server.data_dir.parent / "second.log"

    with pytest.raises(RuntimeError, match="in use by another server"):
        second.start()

    assert second.process is not None
    assert second.process.returncode not in (0, None)
    assert tus.create(5).status == 201


def test_healthz_says_that_the_process_is_alive(tus: Tus) -> None:
    reply = tus.request("GET", "/healthz")

    assert reply.status == 200
    assert json.loads(reply.body)["status"] == "alive"
    assert tus.request("HEAD", "/healthz").status == 200


def test_readyz_says_that_uploads_can_be_taken(tus: Tus) -> None:
    url = tus.new(100)
    assert json.loads(tus.request("GET", "/readyz").body) == {"status": "ready", "leases": 0}

    with tus.hold(url, 0, b"x"):
        reply = tus.request("GET", "/readyz")

        assert reply.status == 200
        assert json.loads(reply.body)["leases"] == 1


@pytest.mark.parametrize("target", ["/healthz", "/readyz"])
def test_the_endpoints_of_operators_take_nothing_else(tus: Tus, target: str) -> None:
    assert tus.request("POST", target).status == 405
    assert tus.request("DELETE", target).status == 405


def test_the_root_says_where_uploads_go(tus: Tus) -> None:
    reply = tus.request("GET", "/")

    assert reply.status == 200
    assert b"/files/" in reply.body


def test_the_end_of_a_connection_that_never_spoke_is_nothing(tus: Tus) -> None:
    for _ in range(20):
        tus.connect().close()
        connection = tus.connect()
        connection.reset()

    assert tus.create(5).status == 201
