"""Writers that stand still in the middle of their work, lose their lease, and wake up (P3).

Each is stopped at an exact point: with a request to S3, or a statement to Postgres, that has left
it but not arrived. Then its time is over, another process takes the upload, and what was under way
arrives late: nothing of it may count.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.fleet import MIB, Fleet, PatientClient
from tests.support.fault_proxy import FaultProxy
from tests.support.http import Connection, ConnectionEnded
from tests.support.s3_proxy import Held, S3Proxy
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

# When what was under way arrives: while the new writer is at work, or when it has finished.
MOMENTS = pytest.mark.parametrize("finished", [False, True], ids=["meanwhile", "afterwards"])


@pytest.fixture(scope="module")
def to_postgres(fleet: Fleet) -> Iterator[FaultProxy]:
    """The way of node a to Postgres."""
    with FaultProxy(port_of(fleet.database_url)) as proxy:
        yield proxy


@dataclass(frozen=True)
class Places:
    """The node of the process that stands still, and the node where the client goes on."""

    stale: ServerProcess
    new: ServerProcess


@pytest.fixture(params=["another node", "the same node"])
def places(
    request: pytest.FixtureRequest, fleet: Fleet, s3_proxy: S3Proxy, to_postgres: FaultProxy
) -> Places:
    """Another node, or another process of the same one."""
    if request.param == "another node":
        return apart(fleet, s3_proxy, to_postgres)
    both = fleet.node("c", TUS_WORKERS="2", TUS_S3_ENDPOINT_URL=s3_proxy.endpoint)
    return Places(both, both)


def apart(fleet: Fleet, s3_proxy: S3Proxy, to_postgres: FaultProxy) -> Places:
    """Give two nodes; the first one's ways to S3 and to Postgres can be held up."""
    stale = fleet.node(
        "a",
        TUS_S3_ENDPOINT_URL=s3_proxy.endpoint,
        TUS_STATE_URL=behind(fleet.database_url, to_postgres),
    )
    return Places(stale, fleet.node("b"))


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Stop a process; it wakes up at the end."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def begin_patch(
    node: ServerProcess, url: str, start: int, body: bytes, *, declared: int | None = None
) -> Connection:
    """Send a PATCH whose answer somebody may read later; the server has all of `body`.

    declared: its size, where more is to come.
    """
    return Tus(node.port).hold(url, start, body, declared=declared or len(body))


def end_patch(stale: Connection) -> int:
    """Give the status the stale writer answers with; 0 where it closes the connection."""
    with stale:
        try:
            return stale.read_reply().status
        except ConnectionEnded:
            return 0


def check_nothing_counts(
    fleet: Fleet,
    node: ServerProcess,
    client: PatientClient,
    stale: Connection,
    *,
    arrive: "Held | FaultProxy",
    finished: bool,
    goal: int,
) -> None:
    """Take the upload over, let the late call arrive, wake its writer, and look at everything.

    arrive: what holds the call, or the statement, that is under way. client: the one that goes on
    elsewhere, up to `goal` before that arrives, or, with `finished`, to the end.
    """
    with standing_still(holder_pid(fleet, node, client.url)):
        fleet.expire_lease(client.url)
        if finished:
            client.finish()
        else:
            client.reach(goal)
        row = fleet.row(client.url)
        parts = {} if finished or row[5] is None else fleet.parts(client.url)
        if isinstance(arrive, Held):
            arrive.release()
            arrive.wait_answered()
    if isinstance(arrive, FaultProxy):
        arrive.stalled = False
    assert end_patch(stale) != 204
    # The epoch, lease and `unclean` move on with recovery; what the new writer wrote does not.
    assert fleet.row(client.url) == row
    if not finished:
        now = fleet.parts(client.url) if row[5] else {}
        assert {number: now.get(number) for number in parts} == parts
    client.finish()
    fleet.check_whole(client)


@MOMENTS
@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart"])
def test_a_late_part_changes_nothing(
    fleet: Fleet,
    s3_proxy: S3Proxy,
    places: Places,
    operation: str,
    finished: bool,
) -> None:
    client = PatientClient([places.new.port], pattern(17 * MIB))
    url = client.create()
    held = s3_proxy.hold(operation)
    stale = begin_patch(places.stale, url, 0, pattern(6 * MIB, seed=1))
    held.wait_arrived()

    check_nothing_counts(
        fleet, places.stale, client, stale, arrive=held, finished=finished, goal=6 * MIB
    )


@MOMENTS
@pytest.mark.full
def test_a_late_part_of_a_multipart_upload_both_know_changes_nothing(
    fleet: Fleet,
    s3_proxy: S3Proxy,
    places: Places,
    finished: bool,
) -> None:
    client = PatientClient([places.new.port], pattern(27 * MIB))
    client.create()
    client.reach(5 * MIB)
    held = s3_proxy.hold("UploadPart")
    stale = begin_patch(places.stale, client.url, 5 * MIB, pattern(6 * MIB, seed=1))
    held.wait_arrived()

    check_nothing_counts(
        fleet, places.stale, client, stale, arrive=held, finished=finished, goal=16 * MIB
    )


@MOMENTS
def test_a_late_object_changes_nothing(
    fleet: Fleet,
    s3_proxy: S3Proxy,
    places: Places,
    finished: bool,
) -> None:
    """Of an upload within one part, which is one object from the start."""
    client = PatientClient([places.new.port], pattern(3 * MIB))
    url = client.create()
    held = s3_proxy.hold("PutObject")
    stale = begin_patch(places.stale, url, 0, pattern(3 * MIB, seed=1))
    held.wait_arrived()

    check_nothing_counts(
        fleet, places.stale, client, stale, arrive=held, finished=finished, goal=MIB
    )


@pytest.mark.parametrize("seed", [0, 1], ids=["the same bytes", "other bytes"])
@pytest.mark.parametrize(("size", "operation"), [(3, "PutObject"), (6, "UploadPart")])
@pytest.mark.full
def test_what_was_stored_but_never_acknowledged_is_in_nobodys_way(
    fleet: Fleet, s3_proxy: S3Proxy, places: Places, size: int, operation: str, seed: int
) -> None:
    """S3 has done it, its answer is on the way, and the writer stands still."""
    client = PatientClient([places.new.port], pattern(size * MIB))
    client.create()
    held = s3_proxy.hold(operation, answer=True)
    stale = begin_patch(places.stale, client.url, 0, pattern(size * MIB, seed=seed))
    held.wait_arrived()

    with standing_still(holder_pid(fleet, places.stale, client.url)):
        fleet.expire_lease(client.url)
        client.finish()
        row = fleet.row(client.url)
        held.release()
    end_patch(stale)

    assert fleet.row(client.url) == row
    fleet.check_whole(client)


def test_a_late_completion_changes_nothing(fleet: Fleet, s3_proxy: S3Proxy, places: Places) -> None:
    """Whoever finds the upload completed makes the object; the other one comes too late."""
    client = PatientClient([places.new.port], pattern(11 * MIB))
    client.create()
    client.reach(5 * MIB)
    held = s3_proxy.hold("CompleteMultipartUpload")
    stale = begin_patch(places.stale, client.url, 5 * MIB, client.content[5 * MIB :])
    held.wait_arrived()

    with standing_still(holder_pid(fleet, places.stale, client.url)):
        fleet.expire_lease(client.url)
        assert client.look() == 11 * MIB
        row = fleet.row(client.url)
        held.release()
        held.wait_answered()
    end_patch(stale)

    assert fleet.row(client.url) == row
    fleet.check_whole(client)


@MOMENTS
def test_a_late_commit_changes_nothing(
    fleet: Fleet, s3_proxy: S3Proxy, to_postgres: FaultProxy, finished: bool
) -> None:
    places = apart(fleet, s3_proxy, to_postgres)
    client = PatientClient([places.new.port], pattern(17 * MIB))
    url = client.create()
    body = pattern(5 * MIB, seed=1)
    stale = begin_patch(places.stale, url, 0, body[:-1], declared=len(body))
    to_postgres.stalled = True
    stale.send(body[-1:])
    # Once the part is stored, nothing is left but the commit.
    wait_until(lambda: any(fleet.all_parts(url).values()), "the part is stored")

    check_nothing_counts(
        fleet, places.stale, client, stale, arrive=to_postgres, finished=finished, goal=6 * MIB
    )


@MOMENTS
@pytest.mark.parametrize("start", [0, MIB], ids=["the first", "another"])
def test_a_late_tail_changes_nothing(
    fleet: Fleet, s3_proxy: S3Proxy, start: int, finished: bool
) -> None:
    """On the same node, where the new writer has the same disk before it."""
    node = fleet.node("c", TUS_WORKERS="2", TUS_S3_ENDPOINT_URL=s3_proxy.endpoint)
    client = PatientClient([node.port], pattern(11 * MIB))
    client.create()
    client.reach(start)
    body = pattern(2 * MIB, seed=1)
    with begin_patch(node, client.url, start, body[:-1], declared=len(body)) as stale:
        with standing_still(holder_pid(fleet, node, client.url)):
            stale.send(body[-1:])
            fleet.expire_lease(client.url)
            if finished:
                client.finish()
            else:
                client.reach(3 * MIB)
            row = fleet.row(client.url)
        assert end_patch(stale) != 204

    assert fleet.row(client.url) == row
    client.finish()
    fleet.check_whole(client)


@MOMENTS
@pytest.mark.full
def test_a_late_parked_tail_changes_nothing_and_does_not_stay(
    fleet: Fleet, s3_proxy: S3Proxy, finished: bool
) -> None:
    slow = fleet.node("d", TUS_TAIL_POLICY="shared", TUS_S3_ENDPOINT_URL=s3_proxy.endpoint)
    new = fleet.node("e", TUS_TAIL_POLICY="shared")
    client = PatientClient([new.port], pattern(11 * MIB))
    client.create()
    client.reach(MIB)
    held = s3_proxy.hold("PutObject")
    stale = begin_patch(slow, client.url, MIB, pattern(2 * MIB, seed=1))
    held.wait_arrived()

    check_nothing_counts(fleet, slow, client, stale, arrive=held, finished=finished, goal=3 * MIB)


def holder_pid(fleet: Fleet, node: ServerProcess, url: str) -> int:
    """Give the process that has the lease of an upload: who has locked its file."""
    token = fleet.field(url, "lease_holder").rpartition("/")[2]
    inode = (node.data_dir / "run" / f"{token}.lock").stat().st_ino
    locks = Path("/proc/locks").read_text().splitlines()
    return next(int(line.split()[4]) for line in locks if line.split()[5].endswith(f":{inode}"))


def port_of(url: str) -> int:
    return int(url.rpartition("@")[2].partition(":")[2].partition("/")[0])


def behind(url: str, proxy: FaultProxy) -> str:
    """Give a database URL that leads through a proxy."""
    return url.replace(f":{port_of(url)}/", f":{proxy.port}/")
