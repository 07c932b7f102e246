"""What every row needs: where to send, how much, and what it created."""

from __future__ import annotations

from collections.abc import Iterable

from bench.job import Job
from bench.load.closed_loop import ClosedLoop, Script
from bench.load.connection import Connection
from bench.load.meter import Meter
from bench.load.replies import Reply, created_path, expect
from bench.load.requests import Requests


class Session:
    """One run of one row; remembers the paths of the uploads it created."""

    def __init__(self, job: Job) -> None:
        self.sizes = job.sizes
        self.url = job.url
        self.requests = Requests(job.url)
        self.address = self.requests.address
        self.created: list[bytes] = []
        self.other = Requests(job.other_url or job.url)
        self.counts_url = job.counts_url
        self.state_port = job.state_port
        self.reap = job.reap
        self.pid = job.pid

    def connect(self) -> Connection:
        return Connection(self.address)

    def connect_other(self) -> Connection:
        """A connection to the other node, where there is one; its requests are in `other`."""
        return Connection(self.other.address)

    def meter(self) -> Meter:
        """A meter that has just started."""
        return Meter(self.pid)

    def note_created(self, reply: Reply) -> bytes:
        """The path of the upload this 201 created, noted for delete_created."""
        path = created_path(reply)
        self.created.append(path)
        return path

    def create(self, connection: Connection, length: int) -> bytes:
        """Create an upload of length bytes and return its path."""
        return self.note_created(connection.exchange(self.requests.post(length=length)))

    def terminate(self, connection: Connection, path: bytes) -> None:
        """Delete one upload that this row created, to make room for others."""
        expect(connection.exchange(self.requests.delete(path)), 204)
        self.created.remove(path)

    def create_many(self, count: int, length: int) -> list[bytes]:
        """Create count uploads of length bytes over the row's usual number of connections."""
        before = len(self.created)
        post = self.requests.post(length=length)

        def client(share: int) -> Script:
            for _ in range(share):
                self.note_created((yield post))

        clients = self.sizes.clients
        self.run_all(client(count // clients + (i < count % clients)) for i in range(clients))
        return self.created[before:]

    def delete_created(self) -> None:
        """Terminate everything this row created, whatever the server says to it."""
        paths = iter(self.created)

        def client() -> Script:
            for path in paths:
                yield self.requests.delete(path)

        self.run_all(client() for _ in range(self.sizes.clients))

    def run_all(self, scripts: Iterable[Script]) -> None:
        """Run every script to its end."""
        loop = ClosedLoop(self.address, scripts)
        try:
            loop.run()
        finally:
            loop.close()
