"""kill -9 at random moments while clients upload: each upload has one job, and the right one.

The clients know how each of theirs has ended, so nothing is compared with the server's own idea of
it: neither an outcome nor a byte. That it is told in order is in tests/e2e/test_delivery_crash.py.
"""

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.conftest import check_log
from tests.journeys.patient import WANTS, PatientUpload
from tests.journeys.site import Site, open_embedded, open_nodes
from tests.support.s3 import S3Service, versitygw_binary
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

FULL = os.environ.get("TUS_TEST_FULL") == "1"
# As many as there is time for; another number is a matter of patience: TUS_TEST_KILLS=200.
KILLS = int(os.environ.get("TUS_TEST_KILLS") or (12 if FULL else 6))
CLIENTS = 5
MOST_ANSWERS = 60  # between a start and the next end
MOST_WAIT_S = 10.0  # for them
POOL = random.Random(2017).randbytes(8 * 1024 * 1024)


@pytest.fixture
def seed() -> int:
    """TUS_TEST_SEED repeats the choices of a run, though not what the machine makes of them."""
    number = int(os.environ.get("TUS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"TUS_TEST_SEED={number}")  # pytest shows it when the test fails
    return number


@pytest.fixture(params=["embedded", "nodes"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """One server, or two nodes over the strictest S3 service that is there."""
    folder = tmp_path_factory.mktemp("kills")
    if request.param == "embedded":
        with open_embedded(folder) as embedded:
            yield embedded
        return
    url: str = request.getfixturevalue("postgres_url")
    name = "versitygw" if versitygw_binary() else "_swift"
    store: S3Service = request.getfixturevalue(name)
    with open_nodes(folder, url, store) as nodes:
        yield nodes


class Crowd:
    """Clients on threads, each with one upload after the other until told to finish."""

    def __init__(self, site: Site, servers: Sequence[ServerProcess], seed: int) -> None:
        self.uploads: list[PatientUpload] = []
        self.failures: list[BaseException] = []
        self._site = site
        self._ports = [server.port for server in servers]
        self._seed = seed
        self._finishing = threading.Event()
        self._answers = threading.Semaphore(0)

    def wait_for_answers(self, count: int) -> None:
        """Return when the clients got so many more answers, or do not get them."""
        while self._answers.acquire(blocking=False):
            pass
        deadline_s = time.monotonic() + MOST_WAIT_S
        for _ in range(count):
            if not self._answers.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
                return

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let them work; at the end they bring to its end what they began."""
        with ThreadPoolExecutor(CLIENTS) as threads:
            rngs = [random.Random(f"{self._seed}/{number}") for number in range(CLIENTS)]
            running = [threads.submit(self._work, rng) for rng in rngs]
            try:
                yield
            finally:
                self._finishing.set()
        for client in running:
            client.result()

    def _work(self, rng: random.Random) -> None:
        try:
            with httpx.Client(timeout=60.0) as client:
                while not (self._finishing.is_set() or self.failures):
                    upload = self._draw(rng)
                    self.uploads.append(upload)
                    upload.run(client)
        except BaseException as exc:
            self.failures.append(exc)
            raise

    def _draw(self, rng: random.Random) -> PatientUpload:
        kind = rng.choice(("single", "multipart", "multipart", "tus"))
        size = rng.randrange(1, 100_000)
        if kind == "multipart" and rng.random() < 0.4:
            size = rng.randrange(self._site.part_size, self._site.part_size + 100_000)
        start = rng.randrange(len(POOL) - size)
        content = POOL[start : start + size]
        job = self._site.sink.url
        wants = rng.choice(WANTS)
        answered = self._answers.release
        return PatientUpload(self._ports, content, kind, wants, job, rng, answered)


@pytest.mark.timeout(300 + 15 * KILLS)
def test_of_every_upload_the_right_job_is_enqueued_once(site: Site, seed: int) -> None:
    rng, moment = random.Random(seed), threading.Event()
    names = "a" if site.name == "embedded" else "ab"
    servers = [site.server(name) for name in names]
    crowd = Crowd(site, servers, seed)

    with crowd.working():
        for _ in range(KILLS):
            crowd.wait_for_answers(rng.randrange(MOST_ANSWERS))
            moment.wait(rng.uniform(0, 0.05))  # never set: a random moment
            server = rng.choice(servers)
            server.kill()
            assert not crowd.failures
            server.start()

    site.forget_claims()  # nobody waits here until the time of the killed ones is over
    pending = "SELECT count(*) FROM outbox WHERE delivered_at IS NULL"
    wait_until(lambda: site.query(pending) == [(0,)], "all is told", timeout_s=120)
    assert len({upload.id for upload in crowd.uploads}) == len(crowd.uploads) > CLIENTS
    assert site.query("SELECT count(*) FROM uploads") == [(len(crowd.uploads),)]
    for upload in crowd.uploads:
        _check(site, upload)
    assert site.sink.refused == []
    site.check_clean()
    for server in servers:
        check_log(server.log)


def _check(site: Site, upload: PatientUpload) -> None:
    """Compare what became of an upload with what its client saw."""
    rows = site.query("SELECT kind, outcome FROM outbox WHERE upload_id = $1", upload.id)
    outcomes = [outcome for _, outcome in rows if outcome is not None]
    told = site.sink.of(upload.id)
    about = (upload, rows, site.states(upload.id))
    assert len(outcomes) == 1, about
    if upload.state == "deleted" and upload.wants == "canceled":
        assert outcomes == ["success"], about  # it was verified before the client gave it up
    else:
        assert outcomes == ["success" if upload.is_success else "failure"], about
    assert len({kind for kind, _ in rows}) == len(rows), about
    assert {one.outcome for one in told} == set(outcomes), about
    assert len({one.id for one in told}) == 1, about
    assert all(one.body["data"]["job"]["kwargs"] == upload.kwargs for one in told), about
    if upload.state in ("verified", "accepted"):
        assert site.download(upload.id) == upload.content, about
