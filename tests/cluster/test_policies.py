"""What becomes of tails when a node is lost: refused, given up, or never on one node alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http import Reply
from tests.support.nodes import MIB, Cluster, checked, log_lines, run_cluster
from tests.support.records import upload_id
from tests.support.s3 import S3Service
from tests.support.server import REPOSITORY
from tests.support.tus import pattern
from tests.support.waiting import wait_until

WHOLE = pattern(12 * MIB)
SENT = 7 * MIB  # a part and a tail
COMMITTED = 5 * MIB
PARTS = {"TUS_PART_SIZE_BYTES": str(5 * MIB)}


Folder = pytest.TempPathFactory


@pytest.fixture(scope="module")
def _rewinding(tmp_path_factory: Folder, postgres_url: str, store: S3Service) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("rewind"), postgres_url, store) as made:
        made.start_pair(
            **PARTS,
            TUS_TAIL_POLICY="rewind",
            TUS_NODE_DEAD_AFTER_S=str(DEAD_AFTER_S),
        )
        yield made


@pytest.fixture
def rewinding(_rewinding: Cluster) -> Iterator[Cluster]:
    """Nodes a and b that give up the tails of a node that was silent for some seconds."""
    _rewinding.ensure_running()
    with checked(_rewinding):
        yield _rewinding


@pytest.fixture(scope="module")
def _sharing(tmp_path_factory: Folder, postgres_url: str, store: S3Service) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("shared"), postgres_url, store) as made:
        made.start_pair(**PARTS, TUS_TAIL_POLICY="shared")
        yield made


@pytest.fixture
def sharing(_sharing: Cluster) -> Iterator[Cluster]:
    """Nodes a and b that have no tail of their own."""
    _sharing.ensure_running()
    with checked(_sharing):
        yield _sharing


DEAD_AFTER_S = 8


def make_silent(cluster: Cluster, name: str, seconds: int) -> None:
    """Let a node that does not run have been silent for that long."""
    cluster.query(
        "UPDATE nodes SET seen_at = now() - make_interval(secs => $2) WHERE label = $1",
        name,
        seconds,
    )


def check_refused(reply: Reply) -> None:
    assert (reply.status, reply.find("tus-error")) == (503, "tus_tail_missing")


def test_strict_never_gives_a_tail_up(pair: Cluster) -> None:
    here, there = pair.tus("a"), pair.tus("b")
    url = here.stored(WHOLE[:SENT], length=len(WHOLE))
    pair.nodes["a"].kill()
    make_silent(pair, "a", 10**6)

    check_refused(there.patch(url, SENT, WHOLE[SENT:]))

    assert there.offset(url) == SENT
    assert pair.notes(url) == []
    pair.nodes["a"].start()
    assert here.finish(url, WHOLE) == WHOLE
    assert pair.content(url) == WHOLE


def test_rewind_gives_a_tail_up_once_its_node_was_silent_for_long(rewinding: Cluster) -> None:
    here, there = rewinding.tus("a"), rewinding.tus("b")
    url = here.stored(WHOLE[:SENT], length=len(WHOLE))
    unstarted = here.stored(WHOLE[:1000], length=len(WHOLE))

    make_silent(rewinding, "a", DEAD_AFTER_S - 3)  # it lives, and shows it again
    check_refused(there.patch(url, SENT, WHOLE[SENT:]))
    rewinding.nodes["a"].kill()
    make_silent(rewinding, "a", 0)
    check_refused(there.patch(url, SENT, WHOLE[SENT:]))
    assert there.offset(url) == SENT
    make_silent(rewinding, "a", DEAD_AFTER_S + 1)
    # Another offset than the row's is no reason to look at the tail.
    assert there.patch(url, 0, WHOLE).status == 409
    assert there.offset(url) == SENT

    def try_again() -> Reply | None:
        reply = there.patch(url, SENT, WHOLE[SENT:])
        return None if reply.status == 503 else reply

    # Who has not been heard for as long itself does not call others dead.
    rewound = wait_until(try_again, "the tail is given up", timeout_s=3 * DEAD_AFTER_S)

    assert (rewound.status, rewound["upload-offset"]) == (409, str(COMMITTED))
    assert there.offset(url) == COMMITTED
    (note,) = rewinding.notes(url)
    assert f"{SENT} to {COMMITTED}" in note
    (line,) = log_lines(rewinding.nodes["b"], "upload.rewound")
    assert (line["upload"], line["given_up"]) == (upload_id(url), SENT - COMMITTED)
    assert there.patch(unstarted, 1000, b"x").status == 409
    assert there.offset(unstarted) == 0
    for each in (url, unstarted):
        assert there.finish(each, WHOLE) == WHOLE
        assert rewinding.content(each) == WHOLE
    # The files of node a are swept when it is back; its word counts no more.
    rewinding.nodes["a"].start()
    rewinding.wait_clean()
    assert here.offset(url) == len(WHOLE)


@pytest.mark.full
def test_rewind_does_not_give_up_what_a_node_has_lost_by_itself(rewinding: Cluster) -> None:
    here = rewinding.tus("a")
    url = here.stored(WHOLE[:SENT], length=len(WHOLE))
    path = rewinding.tail_file("a")
    saved = path.read_bytes()
    path.unlink()

    check_refused(here.patch(url, SENT, WHOLE[SENT:]))

    assert here.offset(url) == SENT
    path.write_bytes(saved)
    assert here.finish(url, WHOLE) == WHOLE


def rewind_by_hand(cluster: Cluster, data_dir: Path, *ids: str) -> list[dict[str, object]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TUS_")}
    environment |= cluster.environment | {"TUS_DATA_DIR": str(data_dir), "TUS_LOG_FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-m", "tus_server", "uploads", "rewind", "--yes", "--json", *ids],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("beside", ["a", "b"], ids=["on-its-node", "on-another-node"])
@pytest.mark.full
def test_an_operator_gives_a_tail_up(pair: Cluster, beside: str) -> None:
    here, there = pair.tus("a"), pair.tus("b")
    url = here.stored(WHOLE[:SENT], length=len(WHOLE))
    if beside == "b":
        pair.nodes["a"].kill()

    nodes = pair.query("SELECT id, label, stopped_at FROM nodes ORDER BY id")

    (told,) = rewind_by_hand(pair, pair.nodes[beside].data_dir, upload_id(url))

    assert (told["offset"], told["given_up_bytes"]) == (COMMITTED, SENT - COMMITTED)
    assert there.offset(url) == COMMITTED
    (note,) = pair.notes(url)
    assert f"{SENT} to {COMMITTED}" in note
    assert there.finish(url, WHOLE) == WHOLE
    assert pair.content(url) == WHOLE
    # The command does not know the name of the server it runs beside.
    assert pair.query("SELECT id, label, stopped_at FROM nodes ORDER BY id") == nodes
    if beside == "b":
        pair.nodes["a"].start()
    pair.wait_clean()


@pytest.mark.full
def test_with_shared_tails_any_node_goes_on(sharing: Cluster) -> None:
    url = sharing.tus("a").new(len(WHOLE))
    offset, names = 0, "abbaab"
    for turn, step in enumerate((1, 1000, 3 * MIB, 2 * MIB, 65_536, 4 * MIB)):
        tus = sharing.tus(names[turn])
        offset = tus.append(url, offset, WHOLE[offset : offset + step])

        assert sharing.tail_files() == []
        assert len(sharing.parked()) <= 1, "an old one goes when its successor is committed"

    assert sharing.parked()
    assert sharing.tus("b").finish(url, WHOLE) == WHOLE
    assert sharing.content(url) == WHOLE
    sharing.wait_clean()


@pytest.mark.full
def test_with_shared_tails_the_death_of_a_node_loses_nothing(sharing: Cluster) -> None:
    here, there = sharing.tus("a"), sharing.tus("b")
    sizes = (1000, 3 * MIB, 7 * MIB)
    urls = {here.stored(WHOLE[:size], length=len(WHOLE)): size for size in sizes}
    stalled = here.stored(WHOLE[:1000], length=len(WHOLE))
    with here.hold(stalled, 1000, WHOLE[1000 : 2 * MIB], declared=4 * MIB):
        sharing.nodes["a"].kill()

        for url, size in urls.items():
            assert there.offset(url) == size
            assert there.append(url, size, WHOLE[size:]) == len(WHOLE)

    for url in urls:
        assert sharing.content(url) == WHOLE
    # What was never acknowledged may be gone; the lease of the dead runs out.
    sharing.query("UPDATE uploads SET lease_until = now() WHERE lease_until IS NOT NULL")
    wait_until(lambda: there.head(stalled).status == 200, "the lease of the dead is over")
    assert there.offset(stalled) == 1000
    assert there.finish(stalled, WHOLE) == WHOLE
    assert sharing.content(stalled) == WHOLE
    sharing.wait_clean()


@pytest.mark.full
def test_a_policy_may_change_while_there_are_tails(pair: Cluster) -> None:
    node, tus = pair.nodes["a"], pair.tus("a")
    url = tus.stored(WHOLE[:1000], length=len(WHOLE))
    assert len(pair.tail_files("a")) == 1
    try:
        node.env["TUS_TAIL_POLICY"] = "shared"
        node.stop()
        node.start()

        assert tus.append(url, 1000, WHOLE[1000:2000]) == 2000
        assert (len(pair.tail_files()), len(pair.parked())) == (0, 1)
        assert pair.tus("b").append(url, 2000, WHOLE[2000:3000]) == 3000
    finally:
        del node.env["TUS_TAIL_POLICY"]
        node.stop()
        node.start()

    assert tus.append(url, 3000, WHOLE[3000:4000]) == 4000
    assert (len(pair.tail_files("a")), len(pair.parked())) == (1, 0)
    assert tus.finish(url, WHOLE) == WHOLE
    assert pair.content(url) == WHOLE


@pytest.mark.full
def test_a_parked_tail_that_is_lost_is_refused_loudly(sharing: Cluster) -> None:
    here = sharing.tus("a")
    url = here.stored(WHOLE[:SENT], length=len(WHOLE))
    (key,) = sharing.parked()
    sharing.bucket.delete(key)

    refused = here.patch(url, SENT, WHOLE[SENT:])

    check_refused(refused)
    assert refused.problem()["committed_bytes"] == COMMITTED
    assert here.offset(url) == SENT
    assert here.delete(url).status == 204
