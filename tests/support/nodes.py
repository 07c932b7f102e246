"""Several nodes of the real server over one real Postgres and one real S3 service."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.conftest import check_log
from tests.support.bucket import Bucket
from tests.support.postgres import execute, run_apart, with_database
from tests.support.records import upload_id
from tests.support.s3 import S3Service, versitygw_binary
from tests.support.server import ServerProcess
from tests.support.tus import Tus
from tests.support.waiting import wait_until
from tus_server.state.postgres import PostgresOptions, migrate

FULL = os.environ.get("TUS_TEST_FULL") == "1"
MIB = 1024 * 1024
PREFIX = "up/"
CLEAN_S = 15.0  # two passes of recovery, and time to spare


class Cluster:
    """Nodes that share a database and a bucket, each with a data directory of its own.

    environment: TUS_* and AWS_* of every node; a node may have more of its own.
    """

    def __init__(
        self, folder: Path, stack: ExitStack, *, database_url: str, s3: S3Service, bucket: str
    ) -> None:
        self.s3 = s3
        self.bucket = stack.enter_context(Bucket(s3, bucket))
        self.nodes: dict[str, ServerProcess] = {}
        self.environment = {
            "TUS_STATE_URL": database_url,
            "TUS_STORE_URL": f"s3://{bucket}/{PREFIX}",
            "TUS_S3_ENDPOINT_URL": s3.endpoint,
            **s3.environment,
        }
        self._folder = folder
        self._stack = stack

    def node(self, name: str, **env: str) -> ServerProcess:
        """Start a node, or give the one of that name that was started before."""
        if name not in self.nodes:
            process = ServerProcess(
                self._folder / name / "data",
                **(self.environment | {"TUS_NODE_NAME": name} | env),
            )
            self.nodes[name] = self._stack.enter_context(process)
        return self.nodes[name]

    def start_pair(self, **env: str) -> None:
        """Start nodes a and b, which differ in how bodies get into the engine."""
        self.environment |= env
        self.node("a", TUS_BODY_PATH="fast")
        self.node("b", TUS_BODY_PATH="plain")

    def ensure_running(self) -> None:
        """Start again what a test before has ended."""
        for node in self.nodes.values():
            assert node.process is not None
            if node.process.poll() is not None:
                node.start()

    def drop_node(self, name: str) -> None:
        """End a node for good, in peace."""
        self.nodes.pop(name).stop()

    def tus(self, name: str) -> Tus:
        """Give a client of a node that runs."""
        return Tus(self.nodes[name].port)

    # --- rows

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own."""

        async def run() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.environment["TUS_STATE_URL"])
            try:
                return [tuple(row) for row in await connection.fetch(sql, *values)]
            finally:
                await connection.close()

        return run_apart(run())

    def state(self, url: str) -> str:
        """Give the state of an upload."""
        return str(self.query("SELECT state FROM uploads WHERE id = $1", upload_id(url))[0][0])

    def events(self, url: str) -> list[str]:
        """Give the events of an upload in the outbox, oldest first."""
        sql = "SELECT kind FROM outbox WHERE upload_id = $1 ORDER BY id"
        return [str(row[0]) for row in self.query(sql, upload_id(url))]

    def notes(self, url: str) -> list[str]:
        """Give the notes in the history of an upload."""
        sql = (
            "SELECT note FROM status_history JOIN uploads ON seq = upload_seq"
            " WHERE uploads.id = $1 AND note IS NOT NULL"
        )
        return [str(row[0]) for row in self.query(sql, upload_id(url))]

    # --- what is there

    def tail_files(self, name: str | None = None) -> list[Path]:
        """Give the tail files of one node, or of all."""
        nodes = [self.nodes[name]] if name else list(self.nodes.values())
        return [path for node in nodes for path in (node.data_dir / "tails").glob("*.tail*")]

    def tail_file(self, name: str) -> Path:
        """Give the one tail file that a node has."""
        (path,) = self.tail_files(name)
        return path

    def parked(self) -> list[str]:
        """Give the keys of all tails in the bucket."""
        return [key for key in self.bucket.find_keys() if ".tail." in key]

    def multiparts(self) -> list[str]:
        """Give the keys of all multipart uploads that were neither completed nor aborted."""
        return [key for key, _ in self.bucket.find_multiparts()]

    def key(self, url: str) -> str:
        """Give the key of an upload's object."""
        return f"{PREFIX}{upload_id(url)[:32]}"

    def part_sizes(self, url: str) -> list[int]:
        """Give the sizes of the parts that the store has of an unfinished upload."""
        for key, multipart_id in self.bucket.find_multiparts():
            if key == self.key(url):
                return self.bucket.part_sizes(key, multipart_id)
        return []

    def content(self, url: str) -> bytes:
        """Give the object of an upload, read from the store itself."""
        return self.bucket.read(self.key(url))

    def described(self, url: str) -> dict[str, Any]:
        """Give what the store tells of an upload's object."""
        return self.bucket.describe(self.key(url))

    def count_parts(self, url: str) -> int:
        """Tell how many parts an object was made of; 0: it was put as a whole."""
        _, dash, count = self.described(url)["ETag"].strip('"').partition("-")
        return int(count) if dash else 0

    def leftovers(self) -> list[str]:
        """Give what no finished upload should leave: multipart uploads, tails on disk or parked."""
        return self.multiparts() + self.parked() + [str(path) for path in self.tail_files()]

    def wait_clean(self) -> None:
        """Return when nothing is left over, which may be the recovery loop's work."""
        wait_until(lambda: not self.leftovers(), "nothing is left over")


def log_lines(node: ServerProcess, event: str) -> list[dict[str, Any]]:
    """Give the lines about an event in the log of a node."""
    lines = (json.loads(line) for line in node.log.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


@contextmanager
def run_cluster(folder: Path, postgres_url: str, s3: S3Service) -> Iterator[Cluster]:
    """Give a cluster without nodes, with a database of its own; those started end with it."""
    name = f"cluster_{uuid.uuid4().hex}"
    execute(postgres_url, f"CREATE DATABASE {name}")
    database_url = with_database(postgres_url, name)
    run_apart(migrate(PostgresOptions(database_url)))
    try:
        with ExitStack() as stack:
            yield Cluster(folder, stack, database_url=database_url, s3=s3, bucket=s3.make_bucket())
    finally:
        execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def checked(cluster: Cluster) -> Iterator[Cluster]:
    """Check that a test leaves nothing over, and that no node logs a defect meanwhile."""
    before = set(cluster.leftovers())
    seen = {name: len(node.log) for name, node in cluster.nodes.items()}
    yield cluster
    wait_until(
        lambda: set(cluster.leftovers()) <= before, "nothing is left over", timeout_s=CLEAN_S
    )
    for name, node in cluster.nodes.items():
        check_log(node.log[seen.get(name, 0) :])


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest) -> S3Service:
    """The S3 service that suits tests of whole servers: the strictest one that is there."""
    name = "versitygw" if versitygw_binary() else "_swift"
    service: S3Service = request.getfixturevalue(name)
    return service


@pytest.fixture
def cluster(tmp_path: Path, postgres_url: str, store: S3Service) -> Iterator[Cluster]:
    """A cluster of a test's own, without nodes yet."""
    with run_cluster(tmp_path, postgres_url, store) as made, checked(made):
        yield made


@pytest.fixture(scope="session")
def shared_cluster(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, store: S3Service
) -> Iterator[Cluster]:
    """The cluster of all tests that ask for `pair`."""
    with run_cluster(tmp_path_factory.mktemp("nodes"), postgres_url, store) as made:
        made.start_pair(TUS_PART_SIZE_BYTES=str(5 * MIB))
        yield made


@pytest.fixture
def pair(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Nodes a and b with parts of 5 MiB, shared by all tests that leave them as they are.

    They differ in how bodies get into the engine.
    """
    shared_cluster.ensure_running()
    with checked(shared_cluster):
        yield shared_cluster
