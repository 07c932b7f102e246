"""Nodes of the real server over a real Postgres and a real S3 service; a patient client."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.http import ConnectionEnded, Reply
from tests.support.postgres import run_apart
from tests.support.records import upload_id
from tests.support.s3 import S3Service
from tests.support.server import ServerProcess
from tests.support.tus import Tus
from tests.support.waiting import wait_until

KIB, MIB = 1024, 1024 * 1024
PREFIX = "up/"
DEADLINE_S = 90.0  # of whatever must come to an end; nothing measures it
BACK_OFF_S = 0.05  # of a client that was told to come again
# What a client repeats: the server, its state, its store or its lease is not there just now.
_AGAIN = {409, 423, 503, 507}


class Fleet:
    """Nodes that share a database and a bucket, and what can be seen of them from outside.

    environment: of every node that is not told otherwise.
    """

    def __init__(
        self, folder: Path, stack: ExitStack, *, database_url: str, s3: S3Service, bucket: str
    ) -> None:
        self.s3 = s3
        self.bucket = bucket
        self.database_url = database_url
        self.nodes: dict[str, ServerProcess] = {}
        self.environment = {
            "TUS_STATE_URL": database_url,
            "TUS_STORE_URL": f"s3://{bucket}/{PREFIX}",
            "TUS_S3_ENDPOINT_URL": s3.endpoint,
            # The least there is: many parts in few bytes.
            "TUS_PART_SIZE_BYTES": str(5 * MIB),
            **s3.environment,
        }
        self._folder = folder
        self._stack = stack

    def node(self, name: str = "a", *, data_dir: Path | None = None, **env: str) -> ServerProcess:
        """Give the node of that name, which runs until the last test of the module has ended.

        data_dir, env: for its first start.
        """
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = ServerProcess(
                data_dir or self._folder / name / "data",
                **(self.environment | {"TUS_NODE_NAME": name} | env),
            )
            self._stack.enter_context(node)
        elif node.process is None or node.process.poll() is not None:
            node.start()
        return node

    # --- the database

    def query(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own."""

        async def run() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.database_url)
            try:
                return [tuple(row) for row in await connection.fetch(sql, *args)]
            finally:
                await connection.close()

        return run_apart(run())

    def field(self, url: str, column: str) -> Any:
        """Give one column of the row of an upload."""
        return self.query(f"SELECT {column} FROM uploads WHERE id = $1", upload_id(url))[0][0]

    def row(self, url: str) -> tuple[Any, ...]:
        """Give all that a writer may change in the row of an upload."""
        columns = (
            "state, length, committed_bytes, crc64, next_part_number, multipart_id, tail_length,"
            " tail_crc64, tail_node, tail_generation, generation"
        )
        return self.query(f"SELECT {columns} FROM uploads WHERE id = $1", upload_id(url))[0]

    def events(self, url: str) -> list[str]:
        """Give the events of an upload in the outbox, oldest first."""
        sql = "SELECT kind FROM outbox WHERE upload_id = $1 ORDER BY id"
        return [row[0] for row in self.query(sql, upload_id(url))]

    def expire_lease(self, url: str) -> None:
        """Let the time of whoever holds an upload be over."""
        held = self.query(
            "UPDATE uploads SET lease_until = clock_timestamp() - interval '1 second'"
            " WHERE id = $1 AND lease_holder IS NOT NULL RETURNING 1",
            upload_id(url),
        )
        assert held, "nobody has the lease"

    # --- the store

    def keys(self) -> list[str]:
        """Give the keys of all objects in the bucket."""

        async def keys() -> list[str]:
            async with self.s3.client() as client:
                answer = await client.list_objects_v2(Bucket=self.bucket)
                return [item["Key"] for item in answer.get("Contents", [])]

        return run_apart(keys())

    def multiparts(self) -> list[str]:
        """Give the keys of all multipart uploads that were neither completed nor aborted.

        Swift, killed inside a Complete, goes on listing the upload beside its object; an abort
        would break that. So there the ones that verified objects were made of are left out.
        """
        listed = self._list_multiparts("")
        if not listed:
            return []
        made_of: set[str] = set()
        if self.s3.name == "swift":
            sql = "SELECT multipart_id FROM uploads WHERE state = 'verified'"
            made_of = {row[0] for row in self.query(sql)}
        return [key for key, found in listed if found["UploadId"] not in made_of]

    def parts(self, url: str) -> dict[int, int]:
        """Give number and size of the parts that the store has of the row's multipart upload."""
        return self.all_parts(url).get(self.field(url, "multipart_id"), {})

    def all_parts(self, url: str) -> dict[str, dict[int, int]]:
        """Give the parts of every multipart upload with the key of an upload, by its id."""
        return {
            listed["UploadId"]: {
                part["PartNumber"]: part["Size"] for part in listed.get("Parts", [])
            }
            for _, listed in self._list_multiparts(self.key(url))
        }

    def _list_multiparts(self, prefix: str) -> list[tuple[str, Any]]:
        """Give the key of each multipart upload, and what S3 lists of its parts."""

        async def look() -> list[tuple[str, Any]]:
            found = []
            async with self.s3.client() as client:
                answer = await client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix)
                for one in answer.get("Uploads", []):
                    # Swift goes on listing one if it was killed while it removed it; another
                    # process of it would see to that, which does not run here.
                    with suppress(client.exceptions.NoSuchUpload):
                        listed = await client.list_parts(
                            Bucket=self.bucket, Key=one["Key"], UploadId=one["UploadId"]
                        )
                        found.append((one["Key"], listed))
            return found

        return run_apart(look())

    def key(self, url: str) -> str:
        """Give the key of the object of an upload."""
        return f"{PREFIX}{upload_id(url)[:32]}"

    def content(self, url: str) -> bytes:
        """Give the object of an upload, read from the store itself."""

        async def read() -> bytes:
            async with self.s3.client() as client:
                answer: Any = await client.get_object(Bucket=self.bucket, Key=self.key(url))
                content: bytes = await answer["Body"].read()
                return content

        return run_apart(read())

    # --- the disks

    def tail_files(self) -> list[Path]:
        """Give the tail files of all nodes."""
        folders = {node.data_dir / "tails" for node in self.nodes.values()}
        return [path for folder in folders for path in folder.glob("*.tail*")]

    def leftovers(self) -> list[str]:
        """Give what no finished upload should leave: multipart uploads, tails, parked ones."""
        parked = [key for key in self.keys() if ".tail." in key]
        return self.multiparts() + parked + [str(path) for path in self.tail_files()]

    def check_clean(self) -> None:
        """Wait until nothing is left over of uploads that have all ended."""
        wait_until(lambda: not self.leftovers(), f"nothing is left over: {self.leftovers()}")

    def check_whole(self, *clients: "PatientClient") -> None:
        """Check that uploads are what their clients sent, told of once, and leave nothing."""
        for client in clients:
            assert self.content(client.url) == client.content
            assert self.events(client.url) == ["verified"], client.url
        self.check_clean()


@dataclass
class PatientClient:
    """Uploads `content` whatever happens, and watches that what it was told stays true.

    acknowledged: the highest offset of any reply. ports: where to try, one after the other.
    """

    ports: Sequence[int]
    content: bytes
    step: int = 64 * MIB
    url: str = ""
    acknowledged: int = 0
    troubles: list[str] = field(default_factory=list)  # what came instead of success
    _turn: int = 0

    @property
    def is_complete(self) -> bool:
        return self.acknowledged == len(self.content) and bool(self.url)

    def create(self) -> str:
        """POST until it succeeds. (One whose answer is lost leaves an upload nobody knows.)"""
        self._until(self._create)
        return self.url

    def reach(self, offset: int) -> None:
        """Append until `offset` is acknowledged."""
        self._until(lambda: self._append(offset))

    def finish(self) -> None:
        """Append until all is there."""
        if not self.url:
            self.create()
        self.reach(len(self.content))

    def look(self) -> int:
        """HEAD until an offset is told."""
        self._until(self._look)
        return self.acknowledged

    # --- one try each; True once it is done

    def try_look(self) -> bool:
        return self._tried(self._look)

    def try_append(self, offset: int) -> bool:
        return self._tried(lambda: self._append(offset))

    def _create(self) -> bool:
        reply = self.tus.create(len(self.content))
        if reply.status == 201:
            self.url = reply["location"]
        return self._is_fine(reply, 201)

    def _look(self) -> bool:
        reply = self.tus.head(self.url)
        if not self._is_fine(reply, 200):
            return False
        self._acknowledge(reply, most=len(self.content))
        return True

    def _append(self, goal: int) -> bool:
        if not self._look():
            return False
        while self.acknowledged < goal:
            start = self.acknowledged
            end = min(goal, start + self.step)
            reply = self.tus.patch(self.url, start, self.content[start:end])
            if not self._is_fine(reply, 204):
                return False
            self._acknowledge(reply, most=end)
        return True

    def _acknowledge(self, reply: Reply, *, most: int) -> None:
        offset = int(reply["upload-offset"])
        assert self.acknowledged <= offset <= most, (
            f"{self.url}: {self.acknowledged} was acknowledged, now it is {offset} of {most}"
        )
        self.acknowledged = offset

    def _is_fine(self, reply: Reply, status: int) -> bool:
        if reply.status == status:
            return True
        self.troubles.append(f"{reply.status} {reply.body.decode()}")
        assert reply.status in _AGAIN, reply
        if reply.status in (423, 503, 507):
            assert "retry-after" in reply, reply
        return False

    @property
    def tus(self) -> Tus:
        self._turn += 1
        return Tus(self.ports[self._turn % len(self.ports)])

    def _tried(self, attempt: Any) -> bool:
        try:
            return bool(attempt())
        except (OSError, ConnectionEnded) as exc:
            self.troubles.append(repr(exc))
            return False

    def _until(self, attempt: Any) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        reached = self.acknowledged
        while not self._tried(attempt):
            if self.acknowledged > reached:
                deadline_s, reached = time.monotonic() + DEADLINE_S, self.acknowledged
            assert time.monotonic() < deadline_s, (
                f"{self.url}: {self.acknowledged} of {len(self.content)} bytes,"
                f" {Counter(self.troubles).most_common(8)}"
            )
            time.sleep(BACK_OFF_S)
