"""Servers over one pair of stores, with a sink for their webhooks: what the journeys go through.

The same tests run over SQLite and a local disk, where one process is all there is, and over
Postgres and an S3 service, where the requests of a journey go to two nodes by turns.
"""

import re
import sqlite3
import uuid
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.api import Api
from tests.support.bucket import Bucket
from tests.support.postgres import execute, run_apart, with_database
from tests.support.s3 import S3Service
from tests.support.server import ServerProcess
from tests.support.tus import Tus
from tests.support.waiting import wait_until
from tests.support.webhook_sink import WebhookSink
from tus_server.state.postgres import PostgresOptions, migrate

KIB, MIB = 1024, 1024 * 1024
PREFIX = "up/"
FINISHED = "state IN ('verified', 'accepted', 'rejected')"
CLEAN_S = 15.0  # two passes of recovery, and time to spare


@dataclass(frozen=True, slots=True)
class Letter:
    """A row of the outbox."""

    kind: str
    outcome: str | None
    attempts: int
    is_delivered: bool


class Site:
    """Servers that are started when they are asked for, and what can be seen from outside.

    part_size: of direct uploads. environment: of every server.
    """

    name: str
    part_size: int

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.sink = stack.enter_context(WebhookSink())
        self.servers: dict[str, ServerProcess] = {}
        self.environment = dict(self.sink.environment)
        self._folder = folder
        self._stack = stack
        self._apis: dict[int, Api] = {}

    def server(self, name: str = "a", **env: str) -> ServerProcess:
        """Give the server of that name, which runs then. env: for its first start."""
        name = self._known(name)
        server = self.servers.get(name)
        if server is None:
            server = self.servers[name] = self._make(name, env)
            self._stack.enter_context(server)
        elif server.process is None or server.process.poll() is not None:
            server.start()
        return server

    def api(self, name: str = "a") -> Api:
        port = self.server(name).port
        if port not in self._apis:
            self._apis[port] = self._stack.enter_context(Api(port))
        return self._apis[port]

    def tus(self, name: str = "a") -> Tus:
        return Tus(self.server(name).port)

    def download(self, upload_id: str, name: str = "a") -> bytes:
        return self.tus(name).content(f"/files/{upload_id}")

    # --- seen from outside

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, with $1, $2 for its values, on a connection of its own."""
        raise NotImplementedError

    def states(self, upload_id: str) -> list[str]:
        """Give the history of an upload, oldest first."""
        sql = (
            "SELECT state FROM status_history WHERE upload_seq ="
            " (SELECT seq FROM uploads WHERE id = $1) ORDER BY id"
        )
        return [str(row[0]) for row in self.query(sql, upload_id)]

    def letters(self, upload_id: str) -> list[Letter]:
        """Give the events of an upload in the outbox, oldest first."""
        sql = (
            "SELECT kind, outcome, attempts, delivered_at IS NOT NULL FROM outbox"
            " WHERE upload_id = $1 ORDER BY id"
        )
        return [
            Letter(kind, outcome, attempts, bool(delivered))
            for kind, outcome, attempts, delivered in self.query(sql, upload_id)
        ]

    def field(self, upload_id: str, column: str) -> Any:
        """Give one column of the row of an upload."""
        return self.query(f"SELECT {column} FROM uploads WHERE id = $1", upload_id)[0][0]

    def forget_claims(self) -> None:
        """Let the time of all be over who have claimed an event, or hold an upload."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Give what no upload that has ended should leave in the store."""
        raise NotImplementedError

    # --- checks

    def wait_delivered(self, upload_id: str, *, count: int = 1) -> None:
        """Return when `count` events of an upload are delivered, and there are no others."""
        wait_until(
            lambda: (
                len(letters := self.letters(upload_id)) == count
                and all(letter.is_delivered for letter in letters)
            ),
            f"{count} events are delivered",
        )

    def check_verified_once(self, upload_id: str, content: bytes, *, name: str = "a") -> None:
        """Check an upload to its end: one way there, one job, told of, the bytes that were sent."""
        self.wait_delivered(upload_id)
        (letter,) = self.letters(upload_id)
        assert (letter.kind, letter.outcome) == ("verified", "success")
        states = self.states(upload_id)
        assert [state for state in states if state != "receiving"] == [
            "initiated",
            "completed",
            "verified",
        ], states
        assert states.count("receiving") <= 1
        told = self.sink.of(upload_id)
        assert told, "it was delivered, but not here"
        assert {one.id for one in told} == {f"{upload_id}.verified"}
        assert all(one.body["data"]["outcome"] == "success" for one in told)
        assert self.field(upload_id, "completed_at") is not None
        assert self.download(upload_id, name) == content

    def check_clean(self, *, but: Collection[str] = ()) -> None:
        """Wait until nothing is left over but what was before; it may be the recovery loop's work.

        Raises AssertionError.
        """
        left: set[str] = set()

        def is_clean() -> bool:
            left.clear()
            left.update(self.leftovers())
            return left.issubset(but)

        with suppress(AssertionError):
            wait_until(is_clean, "nothing is left over", timeout_s=CLEAN_S)
        assert left.issubset(but), "what an upload left that has ended"

    # ---

    def _known(self, name: str) -> str:
        return name

    def _make(self, name: str, env: dict[str, str]) -> ServerProcess:
        raise NotImplementedError


class Embedded(Site):
    """SQLite and a local disk: one server, whatever name it is asked for by."""

    name = "embedded"
    part_size = 64 * KIB

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder, stack)
        self.environment["TUS_DIRECT_PART_SIZE"] = str(self.part_size)

    @property
    def state_path(self) -> Path:
        return self._folder / "data" / "state.db"

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        numbered = re.sub(r"\$(\d)", r"?\1", sql)
        with closing(sqlite3.connect(self.state_path, timeout=10.0)) as db:
            found = db.execute(numbered, values).fetchall()
            db.commit()
        return found

    def forget_claims(self) -> None:
        self.query("UPDATE outbox SET claimed_until = 0")

    def leftovers(self) -> list[str]:
        kept = {row[0] for row in self.query(f"SELECT id FROM uploads WHERE {FINISHED}")}
        found = [path for path in (self._folder / "data/objects").rglob("*") if path.is_file()]
        return [path.name for path in found if path.name not in kept]

    def _known(self, name: str) -> str:
        return "a"

    def _make(self, name: str, env: dict[str, str]) -> ServerProcess:
        return ServerProcess(self._folder / "data", **(self.environment | env))


class Nodes(Site):
    """Postgres and an S3 service: as many nodes as are asked for."""

    part_size = 5 * MIB

    def __init__(
        self, folder: Path, stack: ExitStack, *, database_url: str, s3: S3Service, endpoint: str
    ) -> None:
        super().__init__(folder, stack)
        self.name = s3.name
        self.s3 = s3
        self.bucket = stack.enter_context(Bucket(s3, s3.make_bucket()))
        self.environment |= {
            "TUS_STATE_URL": database_url,
            "TUS_STORE_URL": f"s3://{self.bucket.name}/{PREFIX}",
            "TUS_S3_ENDPOINT_URL": endpoint,
            "TUS_DIRECT_PART_SIZE": str(self.part_size),
            **s3.environment,
        }

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        async def run() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.environment["TUS_STATE_URL"])
            try:
                return [tuple(row) for row in await connection.fetch(sql, *values)]
            finally:
                await connection.close()

        return run_apart(run())

    def forget_claims(self) -> None:
        self.query("UPDATE outbox SET claimed_until = NULL WHERE claimed_until > now()")
        self.query(
            "UPDATE uploads SET lease_until = clock_timestamp() - interval '1 second'"
            " WHERE lease_holder IS NOT NULL"
        )

    def leftovers(self) -> list[str]:
        kept = {row[0] for row in self.query(f"SELECT object_key FROM uploads WHERE {FINISHED}")}
        made_of: set[str] = set()
        if self.name == "swift":
            # Killed inside a Complete it goes on listing the upload beside its object.
            sql = f"SELECT multipart_id FROM uploads WHERE {FINISHED}"
            made_of = {row[0] for row in self.query(sql)}
        multiparts = [key for key, one in self.bucket.find_multiparts() if one not in made_of]
        return multiparts + [key for key in self.bucket.find_keys() if key not in kept]

    def _make(self, name: str, env: dict[str, str]) -> ServerProcess:
        return ServerProcess(
            self._folder / name / "data", **(self.environment | {"TUS_NODE_NAME": name} | env)
        )


@contextmanager
def open_embedded(folder: Path) -> Iterator[Embedded]:
    with ExitStack() as stack:
        yield Embedded(folder, stack)


@contextmanager
def open_nodes(
    folder: Path, postgres_url: str, s3: S3Service, *, endpoint: str | None = None
) -> Iterator[Nodes]:
    """endpoint: of a proxy before the service, for the servers and those they sign URLs for."""
    name = f"site_{uuid.uuid4().hex}"
    execute(postgres_url, f"CREATE DATABASE {name}")
    url = with_database(postgres_url, name)
    run_apart(migrate(PostgresOptions(url)))
    try:
        with ExitStack() as stack:
            yield Nodes(folder, stack, database_url=url, s3=s3, endpoint=endpoint or s3.endpoint)
    finally:
        execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
