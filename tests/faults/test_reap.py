"""A reaper that is killed in the middle of its work: the next one leaves nothing, nothing twice."""

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.faults.conftest import run_fleet
from tests.faults.fleet import MIB, PREFIX, Fleet
from tests.support.postgres import run_apart
from tests.support.s3 import S3Service
from tests.support.s3_proxy import S3Proxy
from tests.support.server import REPOSITORY
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

FULL = os.environ.get("TUS_TEST_FULL") == "1"
COUNT = 200 if FULL else 24
KILLS = 20 if FULL else 3
# One with its parts in S3, one whose bytes are on the disk of its node alone.
LARGE, SMALL = pattern(6 * MIB), pattern(1000)


class Site:
    """A fleet whose node has stopped, with uploads that have expired and others."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.node = fleet.node("a")
        tus = Tus(self.node.port)
        self.expired = [tus.stored(SMALL, length=2000) for _ in range(COUNT)]
        self.expired += [tus.stored(LARGE, length=9 * MIB) for _ in range(3)]
        self.fleet.query(
            "UPDATE uploads SET expires_at = expires_at - interval '8 days'"
            " WHERE state = 'receiving'"
        )
        self.finished = tus.stored(SMALL)
        self.alive = tus.stored(SMALL, length=2000)
        self.node.stop()
        self.foreign = run_apart(self._put_foreign())

    def start_reap(self, **env: str) -> "subprocess.Popen[bytes]":
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TUS_")}
        return subprocess.Popen(
            [sys.executable, "-m", "tus_server", "reap", "--json"],
            # As the node, whose other processes know at once when it has ended.
            env=inherited
            | self.fleet.environment
            | {"TUS_DATA_DIR": str(self.node.data_dir), "TUS_NODE_NAME": "a"}
            | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )

    def reap(self) -> dict[str, int]:
        """Run a pass to its end; give what it did."""
        with self.start_reap() as process:
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        done: dict[str, int] = json.loads(out)
        return done

    def wait_begun(self, process: "subprocess.Popen[bytes]") -> None:
        """Return when a pass has ended one more upload, or itself."""
        before = self.count("state = 'expired'")
        wait_until(
            lambda: process.poll() is not None or self.count("state = 'expired'") > before,
            "it has begun",
        )

    def count(self, condition: str) -> int:
        rows = self.fleet.query(f"SELECT count(*) FROM uploads WHERE {condition}")
        return int(rows[0][0])

    def check_reaped(self) -> None:
        """Check that all that expired is freed, was told of once, and nothing else is gone."""
        wait_until(
            lambda: (
                self.reap()["expired"] == 0
                and not self.count("freed_at IS NULL AND state = 'expired'")
            ),
            "all is freed",
        )
        self.node.start()  # which sweeps its own disk
        tus = Tus(self.node.port)
        for url in self.expired:
            assert self.fleet.events(url) == ["expired"]
            assert tus.head(url).status == 410
        assert self.fleet.content(self.finished) == SMALL
        assert tus.offset(self.alive) == len(SMALL)
        wait_until(lambda: len(self.fleet.tail_files()) == 1, "the other tails are swept")
        assert set(self.fleet.keys()) == {self.fleet.key(self.finished), f"{PREFIX}film"}
        assert self.fleet.multiparts() == [self.foreign]

    async def _put_foreign(self) -> str:
        """Let another application have an object and a multipart upload under our prefix."""
        key = f"{PREFIX}{'0' * 32}"
        async with self.fleet.s3.client() as client:
            await client.put_object(Bucket=self.fleet.bucket, Key=f"{PREFIX}film", Body=b"x")
            await client.create_multipart_upload(Bucket=self.fleet.bucket, Key=key)
        return key


@pytest.fixture
def site(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, store: S3Service
) -> Iterator[Site]:
    with run_fleet(tmp_path_factory.mktemp("fleet"), postgres_url, store) as fleet:
        yield Site(fleet)


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param("ListMultipartUploads", marks=pytest.mark.full),
        "AbortMultipartUpload",
        "DeleteObject",
        pytest.param("ListObjects", marks=pytest.mark.full),
    ],
)
def test_a_reaper_killed_while_it_asks_the_store(
    site: Site, s3_proxy: S3Proxy, operation: str
) -> None:
    process = site.start_reap(TUS_S3_ENDPOINT_URL=s3_proxy.endpoint)
    held = s3_proxy.hold(operation)
    held.wait_arrived()
    while not site.count("state = 'expired'"):
        # The start asks the store for things too.
        held.release()
        held = s3_proxy.hold(operation)
        held.wait_arrived()
    kill(process)
    held.release()

    site.check_reaped()


def test_a_reaper_killed_again_and_again(site: Site) -> None:
    rng = random.Random(1)
    moment = threading.Event()
    for _ in range(KILLS):
        process = site.start_reap()
        site.wait_begun(process)
        moment.wait(rng.uniform(0, 0.05))  # never set: a random moment
        kill(process)

    site.check_reaped()


def test_reapers_beside_each_other_end_everything_once(site: Site) -> None:
    processes = [site.start_reap() for _ in range(2)]
    outs = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert sum(json.loads(out)["expired"] for out in outs) == len(site.expired)
    site.check_reaped()
