"""Postgres that goes away in the middle of uploads: nothing is lost, nobody dies, all heals.

tus clients hear 503, and 423 to a HEAD, each with Retry-After.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.faults.crowd import Crowd
from tests.faults.fleet import KIB, MIB, Fleet, PatientClient
from tests.support.fault_proxy import FaultProxy
from tests.support.http import request
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.tus import BODY_TYPE, VERSION, Tus, pattern
from tests.support.waiting import wait_until

FULL = os.environ.get("TUS_TEST_FULL") == "1"
CLIENTS = 4


@pytest.fixture
def node(fleet: Fleet) -> ServerProcess:
    """A node that soon gives up a Postgres that does not answer."""
    return fleet.node("a", TUS_STATE_TIMEOUT_S="0.5", TUS_STATE_CONNECT_TIMEOUT_S="1")


@pytest.fixture
def breakable(fleet: Fleet, breakable_postgres: PostgresServer) -> PostgresServer:
    """The server of the fleet's database; it runs again at the end."""
    return breakable_postgres


def readiness(node: ServerProcess) -> int:
    return request(node.port, "GET", "/readyz").status


def check_same_process(node: ServerProcess) -> None:
    """Check that the node has lived through it, and is ready again by itself."""
    wait_until(lambda: readiness(node) == 200, "the node is ready again")
    assert node.process is not None
    assert node.process.poll() is None


Away = tuple[Callable[[PostgresServer], None], Callable[[PostgresServer], None]]
WAYS: dict[str, Away] = {
    "stopped": (PostgresServer.stop, PostgresServer.start),
    "killed": (PostgresServer.kill9, PostgresServer.start),
    "frozen": (PostgresServer.freeze, PostgresServer.thaw),
}


@pytest.mark.parametrize("way", WAYS)
def test_while_postgres_is_away_clients_are_told_to_wait(
    fleet: Fleet, node: ServerProcess, breakable: PostgresServer, way: str
) -> None:
    go, come_back = WAYS[way]
    tus = Tus(node.port)
    content = pattern(6 * MIB)
    url = tus.stored(content[:MIB], length=len(content))

    go(breakable)
    assert readiness(node) == 503
    assert request(node.port, "GET", "/healthz").status == 200
    refused = {
        "POST": tus.create(100),
        "HEAD": tus.head(url),
        "PATCH": tus.patch(url, MIB, content[MIB:]),
    }
    come_back(breakable)

    assert {verb: reply.status for verb, reply in refused.items()} == {
        "POST": 503,
        "HEAD": 423,
        "PATCH": 503,
    }
    assert all("retry-after" in reply for reply in refused.values())
    check_same_process(node)
    client = PatientClient([node.port], content, url=url, acknowledged=MIB)
    client.finish()
    fleet.check_whole(client)


@pytest.mark.parametrize("way", WAYS)
def test_a_body_in_flight_is_committed_when_postgres_is_back(
    fleet: Fleet, node: ServerProcess, breakable: PostgresServer, way: str
) -> None:
    """It has been received meanwhile; its parts are in S3."""
    go, come_back = WAYS[way]
    tus = Tus(node.port)
    content = pattern(23 * MIB)
    url = tus.new(len(content))
    with tus.hold(url, 0, content[:MIB], declared=18 * MIB) as running:
        go(breakable)
        running.send(content[MIB : 18 * MIB])
        wait_until(lambda: fleet.multiparts(), "parts are on their way")
        come_back(breakable)
        reply = running.read_reply()

    assert reply.status == 204
    assert reply["upload-offset"] == str(18 * MIB)
    client = PatientClient([node.port], content, url=url, acknowledged=18 * MIB)
    client.finish()
    fleet.check_whole(client)
    check_same_process(node)


def test_uploads_live_through_postgres_going_away_again_and_again(
    fleet: Fleet, node: ServerProcess, breakable: PostgresServer
) -> None:
    crowd = Crowd([node.port], count=CLIENTS, seed=2)
    moment = threading.Event()

    with crowd.working():
        for number in range(30 if FULL else 3):
            moment.wait(0.3)  # never set: some moment
            go, come_back = list(WAYS.values())[number % len(WAYS)]
            go(breakable)
            moment.wait(0.2)
            come_back(breakable)
            assert not crowd.failures

    fleet.check_whole(*crowd.clients)
    check_same_process(node)


def test_uploads_live_through_sessions_that_are_ended(fleet: Fleet, node: ServerProcess) -> None:
    crowd = Crowd([node.port], count=CLIENTS, seed=3)
    moment = threading.Event()

    with crowd.working():
        for _ in range(100 if FULL else 15):
            moment.wait(0.05)  # never set: some moment
            fleet.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert not crowd.failures

    fleet.check_whole(*crowd.clients)
    check_same_process(node)


def test_a_node_cut_off_from_postgres_loses_its_uploads_to_another_and_no_byte(
    fleet: Fleet,
) -> None:
    """S3 goes on working for it."""
    with FaultProxy(port_of(fleet.database_url)) as to_postgres:
        url = fleet.database_url.replace(
            f":{port_of(fleet.database_url)}/", f":{to_postgres.port}/"
        )
        cut_off = fleet.node("b", TUS_STATE_URL=url, TUS_STATE_TIMEOUT_S="1", TUS_STATE_RETRY_S="2")
        there = fleet.node("a")
        client = PatientClient([there.port], pattern(17 * MIB))
        client.create()
        client.reach(5 * MIB)
        with Tus(cut_off.port).hold(
            client.url, 5 * MIB, client.content[5 * MIB : 6 * MIB], declared=7 * MIB
        ) as running:
            to_postgres.refusing = True
            to_postgres.reset_all()
            running.send(client.content[6 * MIB : 12 * MIB])
            assert running.read_reply().status == 503
        fleet.expire_lease(client.url)
        client.finish()
        to_postgres.refusing = False
        check_same_process(cut_off)

        fleet.check_whole(client)


@pytest.mark.parametrize("pool_size", [2, pytest.param(10, marks=pytest.mark.full)])
def test_a_few_connections_carry_many_uploads_at_once(fleet: Fleet, pool_size: int) -> None:
    """No connection is held while a body streams, nor while a part is stored."""
    node = fleet.node(f"pool-{pool_size}", TUS_STATE_POOL_SIZE=str(pool_size))
    tus = Tus(node.port)
    count = 1000 if FULL else 300
    content = pattern(3 * KIB)
    head = {
        "Tus-Resumable": VERSION,
        "Content-Type": BODY_TYPE,
        "Upload-Offset": "0",
        "Content-Length": str(len(content)),
    }
    with ThreadPoolExecutor(16) as threads:
        urls = list(threads.map(lambda _: tus.new(len(content)), range(count)))
        with ExitStack() as stack:
            running = [stack.enter_context(tus.connect()) for _ in urls]
            # All begin, and only then does one of them end.
            for connection, url in zip(running, urls, strict=True):
                connection.send_head("PATCH", url, head)
                connection.send(content[:KIB])
            list(threads.map(lambda one: one.send(content[KIB:]), running))
            statuses = {one.read_reply().status for one in running}

    assert statuses == {204}
    assert fleet.content(urls[-1]) == content
    fleet.check_clean()


def port_of(url: str) -> int:
    return int(url.rpartition("@")[2].partition(":")[2].partition("/")[0])
