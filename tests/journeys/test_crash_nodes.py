"""kill -9 between every two steps from the client's word to the settled delivery, on two nodes.

Nothing about the servers is special. Uploads stand still in node a, each at another moment: at a
gate in the database, in a proxy before S3, at a webhook whose receiver does not answer. Then it is
killed, and node a started again, or node b goes on: every upload is verified once, its job is in
the outbox once, and is delivered.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.conftest import check_log
from tests.journeys.gates import Gates
from tests.journeys.sent import Put
from tests.journeys.site import Nodes, open_nodes
from tests.support.api import state_of
from tests.support.s3 import S3Service, versitygw_binary
from tests.support.s3_proxy import Held, S3Proxy

# In an order in which none keeps later ones from their moment: who settles does so for all, and
# so does who claims.
MOMENTS = [
    "ListParts",
    "ListParts answered",
    "record a part",
    "commit completed",
    "CompleteMultipartUpload",
    "CompleteMultipartUpload answered",
    "HeadObject answered",
    "GetObject",
    "commit verified",
    "while it is delivered",
    "settle",
    "claim",
]
# Until then nobody but the client knows that the upload is complete.
UNKNOWN = MOMENTS[:4]
# The statement of a dead sender may take effect, and does so behind its back.
LATE = {"record a part", "commit completed", "commit verified", "settle", "claim"}


@dataclass
class Crash:
    """What came over a crash: the uploads, by the moment at which it came."""

    site: Nodes
    is_late: bool
    survivor: str
    sent: dict[str, Put] = field(default_factory=dict)


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest) -> S3Service:
    """The strictest S3 service that is there."""
    service: S3Service = request.getfixturevalue("versitygw" if versitygw_binary() else "_swift")
    return service


@pytest.fixture(
    scope="module",
    params=[
        "lost, a",
        "late, b",
        pytest.param("late, a", marks=pytest.mark.full),
        pytest.param("lost, b", marks=pytest.mark.full),
    ],
)
def crash(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_url: str,
    store: S3Service,
) -> Iterator[Crash]:
    """A node that was killed with an upload at each moment, and the one that goes on.

    lost: what it was saying to Postgres never took effect, and what it was saying to S3 arrives
    when all is over. late: both arrive after its death.
    """
    when, _, survivor = request.param.partition(", ")
    folder = tmp_path_factory.mktemp("crash")
    with ExitStack() as stack:
        proxy = stack.enter_context(S3Proxy(store))
        opened = open_nodes(folder, postgres_url, store, endpoint=proxy.endpoint)
        site = stack.enter_context(opened)
        gates = stack.enter_context(Gates(site.environment["TUS_STATE_URL"]))
        # Nobody gives up while the others get to their moments.
        site.environment["TUS_STATE_TIMEOUT_S"] = "120"
        crash = Crash(site, when == "late", survivor)
        node = site.server("a")
        held = _reach_all(crash, proxy, gates, stack.enter_context(ThreadPoolExecutor(20)))
        node.kill()
        letters = [len(site.letters(crash.sent[moment].id)) for moment in MOMENTS]
        assert letters == [0] * 9 + [1] * 3
        if when == "late":
            gates.open()
            for one in held:
                one.release()
        else:
            gates.lose()
        site.server(survivor)
        site.forget_claims()  # nobody has to wait until the time of the dead is over

        yield crash

        for one in held:
            one.release()
        for upload in crash.sent.values():
            assert site.download(upload.id, survivor) == upload.content
        assert site.sink.refused == []
        site.check_clean()
        for server in site.servers.values():
            check_log(server.log)


def _reach_all(
    crash: Crash, proxy: S3Proxy, gates: Gates, threads: ThreadPoolExecutor
) -> list[Held]:
    """Let node a get to each moment with an upload; give the requests that S3 has not got."""
    held: list[Held] = []
    waiting = 0
    for moment in MOMENTS:
        upload = crash.sent[moment] = Put(crash.site)
        wait: Callable[[], None]
        if moment in LATE:
            gates.close(moment, upload.id)
            waiting += 1
            wait = lambda: gates.wait_reached(waiting)  # noqa: B023, E731 - called at once
        elif moment == "while it is delivered":
            wait = crash.site.sink.hold(upload.id).wait_arrived
        else:
            operation, _, answered = moment.partition(" ")
            one = proxy.hold(operation, answer=bool(answered))
            wait = one.wait_arrived
            held.append(one)
        threads.submit(upload.try_complete, "a")
        wait()
    return held


@pytest.mark.parametrize("moment", MOMENTS)
def test_wherever_a_node_is_killed_an_upload_is_verified_and_told_of_once(
    crash: Crash, moment: str
) -> None:
    site, upload = crash.site, crash.sent[moment]
    api = site.api(crash.survivor)
    if moment in UNKNOWN:
        was_late = crash.is_late and moment == "commit completed"
        assert was_late or state_of(api.find(upload.id)) in ("initiated", "receiving")
        assert api.post(upload.id, "complete").status_code in (200, 202)

    api.wait_for(upload.id, "verified")

    site.check_verified_once(upload.id, upload.content, name=crash.survivor)
    # At least once: what nobody has written down is told again.
    is_again = moment == "while it is delivered" or (moment == "settle" and not crash.is_late)
    assert len(site.sink.of(upload.id)) == (2 if is_again else 1)
