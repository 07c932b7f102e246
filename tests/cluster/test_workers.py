"""Several processes on one node: they share its tails, and die one by one or all together."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.http import Connection
from tests.support.nodes import MIB, Cluster, checked, log_lines, run_cluster
from tests.support.s3 import S3Service
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

WHOLE = pattern(12 * MIB)
WORKERS = 3
AT_ONCE_S = 1.0


@pytest.fixture(scope="module")
def _crew(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, store: S3Service
) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("crew"), postgres_url, store) as made:
        made.environment["TUS_PART_SIZE_BYTES"] = str(5 * MIB)
        made.node("a", TUS_WORKERS=str(WORKERS))
        yield made


@pytest.fixture
def crew(_crew: Cluster) -> Iterator[Cluster]:
    """A cluster with a node of three workers, shared by the tests of this module."""
    node = _crew.nodes["a"]
    _crew.ensure_running()
    wait_until(lambda: len(workers(node)) == WORKERS, "all workers run")
    with checked(_crew):
        yield _crew


@pytest.fixture
def tus(crew: Cluster) -> Tus:
    return crew.tus("a")


def is_alive(pid: int) -> bool:
    try:
        # Orphans are reaped late in some containers: a zombie has ended.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def workers(node: ServerProcess) -> list[int]:
    """Give the processes of the workers that were started and have not ended."""
    return [
        pid for line in log_lines(node, "worker.started") if is_alive(pid := line["worker_pid"])
    ]


def worker_of(connection: Connection) -> int:
    """Give the process at the other end of a connection, from the kernel's tables."""
    own, other = connection.socket.getsockname()[1], connection.port
    wanted = f"0100007F:{other:04X}", f"0100007F:{own:04X}"
    inode = next(
        fields[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if tuple((fields := line.split())[1:3]) == wanted
    )
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and f"socket:[{inode}]" in sockets(entry / "fd"):
            return int(entry.name)
    raise AssertionError("nobody has this connection")


def sockets(folder: Path) -> set[str]:
    found = set()
    try:
        for link in folder.iterdir():
            found.add(os.readlink(link))
    except OSError:
        pass  # it ended meanwhile
    return found


def on_each_worker(tus: Tus, stack: ExitStack) -> dict[int, Connection]:
    """Open connections until there is one to each worker."""
    found: dict[int, Connection] = {}

    def connect() -> bool:
        connection = stack.enter_context(tus.connect())
        connection.send_head("OPTIONS", "/files/")
        assert connection.read_reply().status == 204
        found.setdefault(worker_of(connection), connection)
        return len(found) == WORKERS

    wait_until(connect, "each worker has a connection")
    return found


def patch(tus: Tus, connection: Connection, url: str, offset: int, body: bytes) -> None:
    """PATCH on an open connection, which leads to a known worker."""
    fields = {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": str(offset),
        "Content-Length": str(len(body)),
    }
    connection.send_head("PATCH", url, tus.fields | fields)
    connection.send(body)
    reply = connection.read_reply()
    assert (reply.status, reply.find("upload-offset")) == (204, str(offset + len(body)))


@pytest.mark.full
def test_workers_of_a_node_share_its_tails(crew: Cluster, tus: Tus) -> None:
    url, offset = tus.new(len(WHOLE)), 0
    with ExitStack() as stack:
        connections = list(on_each_worker(tus, stack).values())

        for turn, step in enumerate((1000, 3 * MIB, 1, 4 * MIB, 65_536, len(WHOLE))):
            piece = WHOLE[offset : offset + step]
            patch(tus, connections[turn % WORKERS], url, offset, piece)
            offset += len(piece)
            assert len(crew.tail_files()) <= 1
            assert crew.parked() == []

    assert crew.content(url) == WHOLE


@pytest.mark.parametrize("sent", [1000, 6 * MIB], ids=["little", "a-part"])
@pytest.mark.full
def test_a_worker_takes_over_from_another_one(crew: Cluster, tus: Tus, sent: int) -> None:
    url = tus.new(len(WHOLE))
    with tus.hold(url, 0, WHOLE[:sent], declared=len(WHOLE)) as holder, ExitStack() as stack:
        others = on_each_worker(tus, stack)
        del others[worker_of(holder)]

        patch(tus, others.popitem()[1], url, sent, WHOLE[sent:])

        assert holder.read_until_closed() == b""
    assert crew.content(url) == WHOLE


@pytest.mark.full
def test_the_leases_of_a_killed_worker_are_free_at_once_on_its_node(
    crew: Cluster, tus: Tus
) -> None:
    node = crew.nodes["a"]
    url = tus.stored(WHOLE[:1000], length=len(WHOLE))
    untouched = tus.stored(WHOLE[: 3 * MIB], length=len(WHOLE))
    with tus.hold(url, 1000, WHOLE[1000 : 7 * MIB], declared=len(WHOLE) - 1000) as holder:
        victim = worker_of(holder)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not is_alive(victim), "the worker has ended")
        began_s = time.monotonic()

        offset = tus.offset(url)

        # Long before the lease runs out, recovery looks around, or a new worker is there.
        assert time.monotonic() - began_s < AT_ONCE_S
        assert tus.append(url, offset, WHOLE[offset:]) == len(WHOLE)
    assert offset in (1000, 5 * MIB), "what was acknowledged, and a part that was committed"
    assert crew.content(url) == WHOLE
    assert tus.finish(untouched, WHOLE) == WHOLE
    wait_until(lambda: len(workers(node)) == WORKERS, "the worker is replaced")
    assert victim not in workers(node)
    (ended,) = [line for line in log_lines(node, "worker.ended") if line["worker_pid"] == victim]
    assert ended["status"] == "SIGKILL"
    with ExitStack() as stack:
        assert set(on_each_worker(tus, stack)) == set(workers(node))


@pytest.mark.full
def test_sigterm_of_the_supervisor_ends_all_and_loses_nothing(crew: Cluster, tus: Tus) -> None:
    node = crew.nodes["a"]
    sizes = (1000, 300_000, 6 * MIB)
    with ExitStack() as stack:
        stalled = {}
        for size in sizes:
            url = tus.new(len(WHOLE))
            stack.enter_context(tus.hold(url, 0, WHOLE[:size], declared=len(WHOLE)))
            stalled[url] = size
        running = workers(node)

        assert node.stop() == 0

        assert not any(is_alive(pid) for pid in running)
    node.start()
    assert {url: tus.offset(url) for url in stalled} == stalled
    for url in stalled:
        assert tus.finish(url, WHOLE) == WHOLE


@pytest.mark.full
def test_kill_9_of_the_supervisor_ends_all_workers(crew: Cluster, tus: Tus) -> None:
    node = crew.nodes["a"]
    url = tus.stored(WHOLE[: 3 * MIB], length=len(WHOLE))
    running = workers(node)
    assert len(running) == WORKERS

    node.kill()

    wait_until(lambda: not any(is_alive(pid) for pid in running), "no worker is left")
    node.start()
    assert tus.finish(url, WHOLE) == WHOLE
    assert crew.content(url) == WHOLE
