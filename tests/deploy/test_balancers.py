"""Real nodes over real Postgres and S3, behind haproxy and nginx with deploy/'s files."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from tests.deploy.balancers import BALANCERS, Balancer
from tests.deploy.sender import Sender
from tests.support.http import request as ask
from tests.support.nodes import Cluster
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.needs_apt]

KIB, MIB = 1024, 1024 * 1024
UPLOADS = 100
THREADS = 8


@pytest.fixture(params=["haproxy", pytest.param("nginx", marks=pytest.mark.full)])
def balancer(
    request: pytest.FixtureRequest, tmp_path: Path, cluster: Cluster
) -> Iterator[Balancer]:
    """A balancer in front of nodes a and b, which both take requests."""
    folder = tmp_path / "balancer"
    folder.mkdir()
    ports = {name: cluster.node(name, TUS_BEHIND_PROXY="127.0.0.1").port for name in "ab"}
    with BALANCERS[request.param](folder, ports) as balancer:
        for name in ports:
            wait_for_node(balancer, name)
        yield balancer


def wait_for_node(balancer: Balancer, name: str) -> None:
    """Return when a node answers through the balancer."""
    target, fields = f"/files/{'0' * 32}.{name}", {"Tus-Resumable": "1.0.0"}
    wait_until(
        # Only a node knows that there is no such upload.
        lambda: ask(balancer.port, "DELETE", target, fields).status == 404,
        f"node {name} is used",
    )


def make_senders(balancer: Balancer, sizes: list[tuple[int, int]]) -> list[Sender]:
    """Create an upload for each (size, piece)."""
    made = [Sender.make(balancer.port, *size, seed) for seed, size in enumerate(sizes)]
    for sender in made:
        sender.create()
    return made


def make_on(balancer: Balancer, node: str, size: int, piece: int, count: int) -> list[Sender]:
    """Create uploads until `count` of them are on `node`."""
    made: list[Sender] = []
    while len(made) < count:
        sender = Sender.make(balancer.port, size, piece, len(made))
        sender.create()
        if sender.node == node:
            made.append(sender)
    return made


@contextmanager
def sending(senders: list[Sender], may_finish: threading.Event) -> Iterator[list["Future[None]"]]:
    """Send all at once, piece by piece; the last piece of each waits for `may_finish`."""

    def send(mine: list[Sender]) -> None:
        rounds = max(len(s.content) // s.piece for s in mine)
        for number in range(1, rounds):
            for sender in mine:
                sender.send_until(min(number * sender.piece, len(sender.content) - sender.piece))
        may_finish.wait(60)
        for sender in mine:
            sender.finish()

    with ThreadPoolExecutor(THREADS) as pool:
        yield [pool.submit(send, senders[n::THREADS]) for n in range(THREADS)]


def check_all(cluster: Cluster, senders: list[Sender]) -> None:
    for sender in senders:
        assert sender.tails_missed == 0, sender.seen
        assert sha256(cluster.content(sender.url)).digest() == sha256(sender.content).digest()
    cluster.wait_clean()


def test_uploads_never_miss_their_tails(balancer: Balancer, cluster: Cluster) -> None:
    small = [(160 * KIB, 40 * KIB)] * (UPLOADS - 6)
    large = [(11 * MIB, 3 * MIB)] * 6
    senders = make_senders(balancer, small + large)
    may_finish = threading.Event()
    with sending(senders, may_finish) as sent:
        wait_until(lambda: len(cluster.tail_files()) > UPLOADS / 2, "there are tails")
        may_finish.set()
        for done in sent:
            done.result()

    assert {sender.node for sender in senders} == {"a", "b"}
    assert [sender.seen for sender in senders] == [[]] * UPLOADS
    check_all(cluster, senders)


@pytest.mark.full
def test_a_rolling_restart_costs_no_upload_a_byte(balancer: Balancer, cluster: Cluster) -> None:
    senders = make_senders(balancer, [(300 * KIB, 20 * KIB)] * UPLOADS)
    may_finish = threading.Event()
    with sending(senders, may_finish) as sent:
        wait_until(lambda: sum(s.offset for s in senders) > MIB, "all are under way")
        for name in "ab":
            assert cluster.nodes[name].stop() == 0
            cluster.nodes[name].start()
            wait_for_node(balancer, name)
        may_finish.set()
        for done in sent:
            done.result()

    assert any(sender.seen for sender in senders)
    check_all(cluster, senders)


@pytest.mark.full
def test_a_node_removed_takes_only_its_tails_along(balancer: Balancer, cluster: Cluster) -> None:
    others = make_on(balancer, "a", 96 * KIB, 32 * KIB, 4)
    with_tail = make_on(balancer, "b", 96 * KIB, 32 * KIB, 4)
    untouched = make_on(balancer, "b", 96 * KIB, 32 * KIB, 2)
    in_parts = make_on(balancer, "b", 20 * MIB, 8 * MIB, 2)
    for sender in others + with_tail:
        sender.send_until(32 * KIB)
    for sender in in_parts:
        sender.send_until(8 * MIB)
    cluster.nodes["b"].kill()

    for sender in others:
        sender.finish()
    for sender in with_tail + untouched + in_parts:
        reply = sender.tus.patch(sender.url, sender.offset, b"x")
        assert reply.status == 503
        assert reply["retry-after"].isdigit()
        assert "tus-error" not in reply
        assert sender.tus.offset(sender.url) == sender.offset

    balancer.retire("b", "a")
    balancer.restart()
    wait_for_node(balancer, "a")
    for sender in untouched + in_parts:
        sender.finish()
    for sender in with_tail:
        reply = sender.tus.patch(sender.url, sender.offset, b"x")
        assert reply.status == 503
        assert reply["tus-error"] == "tus_tail_missing"
        problem = reply.problem()
        assert (problem["tail_node"], problem["this_node"]) == ("b", "a")
        assert sender.tus.offset(sender.url) == sender.offset == 32 * KIB

    # Its disk is found again.
    cluster.nodes["b"].start()
    balancer.reinstate()
    balancer.restart()
    wait_for_node(balancer, "b")
    for sender in with_tail:
        sender.finish()
    assert not any(sender.seen for sender in others + untouched + in_parts + with_tail)
    check_all(cluster, others + untouched + in_parts + with_tail)


@pytest.mark.full
def test_with_every_node_down_a_client_keeps_waiting(balancer: Balancer, cluster: Cluster) -> None:
    (sender,) = make_on(balancer, "a", 96 * KIB, 32 * KIB, 1)
    sender.send_until(32 * KIB)
    for node in cluster.nodes.values():
        assert node.stop() == 0
    head = sender.tus.head(sender.url)
    patch = sender.tus.patch(sender.url, sender.offset, b"x")

    assert head.status == 423
    assert head["retry-after"].isdigit()
    assert patch.status == 503
    assert patch["retry-after"].isdigit()

    for node in cluster.nodes.values():
        node.start()
    wait_for_node(balancer, "a")
    sender.ask()
    sender.finish()
    check_all(cluster, [sender])
