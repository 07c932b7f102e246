"""The name of a node: one data directory at a time has it."""

import pytest

from tests.support.nodes import MIB, Cluster
from tests.support.tus import pattern

WHOLE = pattern(12 * MIB)
SENT = 7 * MIB
COMMITTED = 5 * MIB


@pytest.mark.full
def test_a_name_that_another_node_runs_under_is_refused_at_start(pair: Cluster) -> None:
    with pytest.raises(RuntimeError, match="TUS_NODE_NAME"):
        pair.node("twin", TUS_NODE_NAME="a")

    assert "twin" not in pair.nodes
    url = pair.tus("a").stored(WHOLE[:MIB], length=len(WHOLE))
    assert pair.tus("a").finish(url, WHOLE) == WHOLE


@pytest.mark.full
def test_a_node_that_lost_its_disk_says_so_and_takes_what_has_no_tail(cluster: Cluster) -> None:
    cluster.start_pair(TUS_PART_SIZE_BYTES=str(5 * MIB))
    here = cluster.tus("a")
    with_tail = here.stored(WHOLE[:SENT], length=len(WHOLE))
    without = here.stored(WHOLE[:COMMITTED], length=len(WHOLE))
    assert cluster.nodes["a"].stop() == 0
    cluster.node("new", TUS_NODE_NAME="a")
    new = cluster.tus("new")

    refused = new.patch(with_tail, SENT, WHOLE[SENT:])
    assert (refused.status, refused.find("tus-error")) == (503, "tus_tail_missing")
    assert refused.problem()["committed_bytes"] == COMMITTED
    # Its disk is this node's by name, so a tail need not be parked.
    offset = new.append(without, COMMITTED, WHOLE[COMMITTED:SENT])
    assert len(cluster.tail_files("new")) == 1
    assert new.append(without, offset, WHOLE[offset:]) == len(WHOLE)
    assert cluster.content(without) == WHOLE

    # The old disk is found again, and needs its name.
    with pytest.raises(RuntimeError, match="TUS_NODE_NAME"):
        cluster.nodes["a"].start()
    cluster.drop_node("new")
    cluster.nodes["a"].start()
    assert here.finish(with_tail, WHOLE) == WHOLE
    assert cluster.content(with_tail) == WHOLE
