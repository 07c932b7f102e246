"""Many clients at once that ask any node, look on in the middle, and hang up.

What must hold for each of them at any time: an offset told is never taken back, a refusal says
where to go, and in the end the object is what was sent.
"""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pytest

from tests.support.http import Connection, ConnectionEnded, Reply
from tests.support.nodes import FULL, MIB, Cluster
from tests.support.tus import BODY_TYPE, Tus, pattern

CLIENTS = 8
UPLOADS = 160 if FULL else 24
KIB = 1024
POOL = memoryview(pattern(32 * MIB, seed=7))


@pytest.fixture
def seed() -> int:
    """TUS_TEST_SEED repeats the choices of a run, though not what the machine makes of them."""
    number = int(os.environ.get("TUS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"TUS_TEST_SEED={number}")  # pytest shows it when the test fails
    return number


@dataclass
class Client:
    """One upload, from its creation to its end."""

    clients: dict[str, Tus]
    rng: random.Random
    url: str = ""
    acknowledged: int = 0
    node: str = "a"

    def run(self) -> None:
        rng = self.rng
        length = rng.choice((0, 1, rng.randrange(64 * KIB), 5 * MIB, rng.randrange(14 * MIB)))
        start = rng.randrange(len(POOL) - length)
        self.content = bytes(POOL[start : start + length])
        self.deferred = rng.random() < 0.3
        self.step = rng.choice((length + 1, 3 * MIB, 64 * KIB if length < MIB else MIB))
        self.turn()
        self.url = self.clients[self.node].new(None if self.deferred else length)
        self.turn()
        while self.acknowledged < length or self.deferred:
            self.go_on()

    def turn(self) -> None:
        """Go to any node."""
        self.node = self.rng.choice(list(self.clients))

    def go_on(self) -> None:
        """Send the next bytes and take what comes of it."""
        start = self.acknowledged
        end = min(start + self.step, len(self.content))
        fields = {"Content-Type": BODY_TYPE, "Upload-Offset": str(start)}
        ends = self.deferred and end == len(self.content)
        if ends:
            fields["Upload-Length"] = str(end)
        reply = self.send(fields, self.content[start:end])
        if reply is None or reply.status in (409, 423):
            self.turn()
            self.look()
            return
        if reply.status == 503:
            assert reply.find("tus-error") == "tus_tail_missing", reply
            assert reply.problem()["this_node"] == self.node
            assert reply.problem()["tail_node"] != self.node
            self.node = reply.problem()["tail_node"]
            return
        assert (reply.status, reply.find("upload-offset")) == (204, str(end)), reply
        self.acknowledged = end
        self.deferred = self.deferred and not ends
        self.turn()

    def send(self, fields: dict[str, str], body: bytes) -> Reply | None:
        """PATCH with something in its middle, maybe; None where the connection ended first."""
        tus = self.clients[self.node]
        chunked = self.rng.random() < 0.3
        fields |= (
            {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": f"{len(body)}"}
        )
        with tus.connect() as connection, suppress(ConnectionEnded):
            connection.send_head("PATCH", self.url, tus.fields | fields)
            middle = self.rng.randrange(len(body) + 1)
            with suppress(ConnectionResetError, BrokenPipeError):  # refused: read why
                put(connection, body[:middle], chunked=chunked)
                match self.rng.choice(("go on", "go on", "look", "hang up")):
                    case "look":
                        self.look(node=self.rng.choice(list(self.clients)))
                    case "hang up":
                        connection.reset()
                        return None
                put(connection, body[middle:], chunked=chunked)
                if chunked:
                    connection.end_chunks()
            return connection.read_reply()
        return None

    def look(self, node: str | None = None) -> None:
        reply = self.clients[node or self.node].head(self.url)
        if reply.status == 423:
            return
        assert reply.status == 200, reply
        offset = int(reply["upload-offset"])
        assert self.acknowledged <= offset <= len(self.content)
        if node is None:  # nothing of ours is under way
            self.acknowledged = offset
            self.deferred = self.deferred and "upload-length" not in reply


def put(connection: Connection, body: bytes, *, chunked: bool) -> None:
    if chunked:
        connection.send_chunk(body)
    else:
        connection.send(body)


@pytest.fixture(params=["strict", "shared"])
def crowded(request: pytest.FixtureRequest) -> Cluster:
    """Nodes a and b by how they keep tails."""
    if request.param == "strict":
        shared: Cluster = request.getfixturevalue("pair")
        return shared
    made: Cluster = request.getfixturevalue("cluster")
    made.start_pair(TUS_PART_SIZE_BYTES=str(5 * MIB), TUS_TAIL_POLICY="shared")
    return made


@pytest.mark.full
def test_clients_that_ask_any_node(crowded: Cluster, seed: int) -> None:
    nodes = {name: crowded.tus(name) for name in "ab"}
    clients = [Client(nodes, random.Random(f"{seed} {at}")) for at in range(UPLOADS)]

    with ThreadPoolExecutor(CLIENTS) as threads:
        for _ in threads.map(Client.run, clients):
            pass

    for client in clients:
        assert crowded.content(client.url) == client.content
        assert crowded.events(client.url) == ["verified"]
        offsets = {tus.offset(client.url) for tus in nodes.values()}
        assert offsets == {len(client.content)}
