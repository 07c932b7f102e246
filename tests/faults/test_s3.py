"""S3 that fails, lies or goes away in the middle of uploads: nothing is lost or invented."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import check_log
from tests.faults.conftest import run_fleet
from tests.faults.crowd import Crowd
from tests.faults.fleet import MIB, Fleet, PatientClient
from tests.support.fault_proxy import FaultProxy
from tests.support.http import ConnectionEnded, request
from tests.support.s3 import S3Service, run_swift
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

FULL = os.environ.get("TUS_TEST_FULL") == "1"
AWAY_S = 20.0 if FULL else 1.0
CLIENTS = 4
PART = {"method": "PUT", "query": "partNumber="}
CREATE = {"method": "POST", "query": "uploads"}
COMPLETE = {"method": "POST", "query": "uploadId="}
OBJECT = {"method": "PUT", "path": "/up/"}
ERROR = {"status": 500, "code": "InternalError"}
SLOW_DOWN = {"status": 503, "code": "SlowDown"}
# Half-closed answers say nothing either.
CUT = {"after": True, "truncate": 10}


@pytest.fixture
def node(swift_fleet: Fleet) -> ServerProcess:
    """A node that soon gives up an S3 that does not answer."""
    return swift_fleet.node("a", TUS_S3_READ_TIMEOUT_S="2", TUS_S3_ATTEMPTS="2")


FAULTS: dict[str, list[dict[str, Any]]] = {
    "part: 500": [PART | ERROR | {"times": 3}],
    "part: 503 SlowDown": [PART | SLOW_DOWN | {"times": 3}],
    "part: slow": [PART | {"delay": 0.5, "times": 3}],
    "part: answer cut": [PART | CUT | {"times": 3}],
    "part: done but 500": [PART | ERROR | {"after": True, "times": 3}],
    "create: 500": [CREATE | ERROR | {"times": 3}],
    "create: answer cut": [CREATE | CUT | {"times": 3}],
    "create: done but 500": [CREATE | ERROR | {"after": True, "times": 3}],
    "complete: 500": [COMPLETE | ERROR | {"times": 3}],
    "complete: 503 SlowDown": [COMPLETE | SLOW_DOWN | {"times": 3}],
    "complete: answer cut": [COMPLETE | CUT | {"times": 3}],
    "complete: done but 500": [COMPLETE | ERROR | {"after": True, "times": 3}],
    "complete: 200 with an error": [COMPLETE | ERROR | {"status": 200, "times": 3}],
    "complete: done but 200 with an error": [
        COMPLETE | ERROR | {"status": 200, "after": True, "times": 3}
    ],
}
SMALL_FAULTS: dict[str, list[dict[str, Any]]] = {
    "500": [OBJECT | ERROR | {"times": 3}],
    "503 SlowDown": [OBJECT | SLOW_DOWN | {"times": 3}],
    "slow": [OBJECT | {"delay": 0.5, "times": 3}],
    "answer cut": [OBJECT | CUT | {"times": 3}],
    "done but 500": [OBJECT | ERROR | {"after": True, "times": 3}],
}


def sampled(faults: Iterable[str], always: str) -> list[Any]:
    """Give the names of faults; those without the text `always` are for the long run."""
    marks = {True: (), False: (pytest.mark.full,)}
    return [pytest.param(name, marks=marks[always in name]) for name in faults]


@pytest.mark.parametrize("fault", sampled(FAULTS, "done but"))
def test_a_multipart_upload_lives_through(
    swift_fleet: Fleet, node: ServerProcess, swift: S3Service, fault: str
) -> None:
    # The last PATCHes bring a tail, a part with the tail in it, and the end.
    client = PatientClient([node.port], pattern(19 * MIB + 1), step=6 * MIB)
    client.create()
    client.reach(MIB)
    swift.set_faults(*FAULTS[fault])

    client.finish()

    assert swift.fault_hits()
    swift_fleet.check_whole(client)


@pytest.mark.parametrize("fault", sampled(SMALL_FAULTS, "done but"))
def test_an_upload_within_one_part_lives_through(
    swift_fleet: Fleet, node: ServerProcess, swift: S3Service, fault: str
) -> None:
    client = PatientClient([node.port], pattern(3 * MIB), step=2 * MIB)
    client.create()
    client.reach(2 * MIB)
    swift.set_faults(*SMALL_FAULTS[fault])

    client.finish()

    assert swift.fault_hits()
    swift_fleet.check_whole(client)


# --- away for a while -----------------------------------------------------------------------------


class Service:
    """A Swift of a test's own, which is stopped, or killed and started again on its data."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._running = ExitStack()
        self.now = self._start(0)

    def _start(self, port: int) -> S3Service:
        swift = run_swift(directory=self._folder, port=port, min_part_size=1)
        self._running = self._stack.enter_context(ExitStack())
        return self._running.enter_context(swift)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        port = self.now.address[1]
        self._signal(signal.SIGKILL)
        self._running.close()
        yield
        self.now = self._start(port)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.now.pids.values():
            os.kill(pid, number)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(tmp_path_factory.mktemp("swift"), stack)


@pytest.fixture(scope="module")
def own_fleet(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, service: Service
) -> Iterator[Fleet]:
    with run_fleet(tmp_path_factory.mktemp("fleet"), postgres_url, service.now) as found:
        yield found


@pytest.mark.parametrize("way", [pytest.param("frozen", marks=pytest.mark.full), "killed"])
def test_uploads_live_through_s3_being_away(own_fleet: Fleet, service: Service, way: str) -> None:
    node = own_fleet.node("a", TUS_S3_READ_TIMEOUT_S="1", TUS_S3_TIMEOUT_S="2", TUS_S3_ATTEMPTS="2")
    crowd = Crowd([node.port], count=CLIENTS, seed=4)
    content = pattern(40 * MIB)
    with_tail = PatientClient([node.port], content, step=7 * MIB)
    with_tail.create()
    with_tail.reach(MIB)
    moment = threading.Event()

    with crowd.working():
        moment.wait(0.5)  # never set: some moment
        with getattr(service, way)():
            ends = threading.Timer(AWAY_S, moment.set)
            ends.start()
            while not moment.is_set():
                with_tail.try_append(len(content))
            ends.join()
        moment.clear()
        with_tail.finish()

    own_fleet.check_whole(with_tail, *crowd.clients)
    wait_until(
        lambda: request(node.port, "GET", "/readyz").status == 200, "the node is ready again"
    )


def test_a_tail_stays_whole_while_s3_does_not_take_the_part_it_begins(
    swift_fleet: Fleet, node: ServerProcess, swift: S3Service
) -> None:
    """PATCHes of 6 to 8 MiB arrive and cannot be stored: they become a longer tail, or nothing."""
    content = pattern(40 * MIB)
    client = PatientClient([node.port], content)
    client.create()
    client.reach(MIB)
    swift.set_faults(PART | ERROR | {"times": 1000}, CREATE | ERROR | {"times": 1000})
    tus = Tus(node.port)

    for size in (6, 7, 8):
        client.look()
        try:
            tus.patch(client.url, client.acknowledged, content[client.acknowledged :][: size * MIB])
        except ConnectionEnded:
            pass
        assert client.look() >= MIB
        length, generation = swift_fleet.query(
            "SELECT tail_length, tail_generation FROM uploads WHERE id = $1",
            client.url.rpartition("/")[2],
        )[0]
        (tail,) = [path for path in swift_fleet.tail_files() if path.stat().st_size >= length]
        assert tail.read_bytes()[:length] == content[client.acknowledged - length :][:length]
        assert generation is not None
    swift.set_faults()
    # The node itself may have ended meanwhile.
    node.kill()
    node.start()
    before = client.acknowledged
    assert client.look() == before
    client.finish()

    swift_fleet.check_whole(client)


def test_a_node_cut_off_from_s3_keeps_what_it_can_and_says_so(
    swift_fleet: Fleet, swift: S3Service
) -> None:
    """Postgres goes on working for it; another node finishes what has no tail there."""
    with FaultProxy(swift.address[1]) as to_s3:
        cut_off = swift_fleet.node(
            "b",
            TUS_S3_ENDPOINT_URL=f"http://127.0.0.1:{to_s3.port}",
            TUS_S3_ATTEMPTS="2",
            TUS_S3_CONNECT_TIMEOUT_S="1",
            TUS_S3_READ_TIMEOUT_S="1",
        )
        other = swift_fleet.node("a")
        content = pattern(12 * MIB)
        client = PatientClient([other.port], content)
        client.create()
        to_s3.refusing = True
        to_s3.reset_all()

        refused = Tus(cut_off.port).patch(client.url, 0, content)
        assert refused.status == 503
        assert request(cut_off.port, "GET", "/readyz").status == 503
        assert client.look() == 0
        client.finish()
        to_s3.refusing = False
        wait_until(
            lambda: request(cut_off.port, "GET", "/readyz").status == 200, "it is ready again"
        )

        swift_fleet.check_whole(client)
        check_log(cut_off.log)
