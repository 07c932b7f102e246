"""tus-js-client against a node with Postgres and S3: a core set, in every protocol it speaks."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_tus_js_parallel import check_final
from tests.e2e.tus_js.driver import DRAFTS, MIB, TUS, TusJs
from tests.support.fault_proxy import FaultProxy
from tests.support.nodes import Cluster, checked, run_cluster
from tests.support.s3 import S3Service
from tests.support.tus import Tus

pytestmark = pytest.mark.needs_node

# Three parts and a bit, of which the client knows nothing.
SIZE = 16 * MIB + 17
PART_SIZE = 5 * MIB


@pytest.fixture(scope="module")
def _node(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, _swift: S3Service, body_path: str
) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("tus-js-s3"), postgres_url, _swift) as made:
        made.node("a", TUS_BODY_PATH=body_path, TUS_PART_SIZE_BYTES=str(PART_SIZE))
        yield made


@pytest.fixture
def node(_node: Cluster) -> Iterator[Cluster]:
    """A cluster whose one node is a; each test leaves nothing over in it."""
    with checked(_node):
        yield _node


@pytest.fixture
def tus(node: Cluster) -> Tus:
    """A client of that node."""
    return node.tus("a")


@pytest.fixture(params=[TUS, pytest.param(DRAFTS[0], marks=pytest.mark.full), DRAFTS[1]])
def client(tus_js: TusJs, request: pytest.FixtureRequest) -> TusJs:
    """tus-js in each protocol, with a file of several parts."""
    return tus_js.speaking(request.param).enlarged(SIZE)


@pytest.mark.parametrize("deferred", [False, True], ids=["known", "deferred"])
def test_an_upload_into_s3_survives_a_line_that_breaks(
    client: TusJs, node: Cluster, tus: Tus, deferred: bool
) -> None:
    options: dict[str, Any] = {"chunkSize": 6 * MIB, "uploadDataDuringCreation": deferred}
    if deferred:
        options["uploadLengthDeferred"] = True

    with FaultProxy(tus.port) as proxy:
        proxy.up.cut_after(5_600_000, times=2)
        journey = client.run(proxy.port, options=options, stream=deferred)

        assert proxy.up.cuts_left == 0
    assert journey.statuses("POST") == [201]
    assert node.content(journey.path) == client.content
    assert node.state(journey.path) == "verified"
    assert node.events(journey.path) == ["verified"]
    assert tus.content(journey.path) == client.content


def test_an_aborted_upload_into_s3_is_resumed(client: TusJs, node: Cluster, tus: Tus) -> None:
    """What was too little for a part waits on the node."""
    with FaultProxy(tus.port) as proxy:
        proxy.up.bytes_per_second = 32 * MIB
        journey = client.run(proxy.port, abortAt=6_500_000)

    (head,) = journey.to("HEAD")
    assert head.offset is not None
    assert 0 < head.offset < SIZE
    assert node.content(journey.path) == client.content


def test_an_upload_into_s3_can_be_terminated_while_it_runs(
    client: TusJs, node: Cluster, tus: Tus
) -> None:
    with FaultProxy(tus.port) as proxy:
        proxy.up.bytes_per_second = 32 * MIB
        journey = client.run(proxy.port, abortAt=6_500_000, terminate=1)

    assert journey.statuses("DELETE") == [204]
    assert node.state(journey.path) == "canceled"
    node.wait_clean()


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.full), 5])
def test_a_parallel_upload_into_s3_arrives(
    tus_js: TusJs, node: Cluster, tus: Tus, count: int
) -> None:
    """T98, T102, T103: of pieces above the least size of a part, and below."""
    client = tus_js.enlarged(SIZE)
    with FaultProxy(tus.port) as proxy:
        proxy.up.cut_after(2_500_000, times=2)
        journey = client.run(proxy.port, options={"parallelUploads": count})

        assert proxy.up.cuts_left == 0
    assert node.content(journey.path) == client.content
    assert node.events(journey.path) == ["verified"]
    check_final(tus, journey, client.content, of=count)
