"""The Broker as a server: what keeps the books of direct uploads, without any bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.database import Database
from bench.row import Mode
from bench.servers import Endpoint, Launch, free_port, started


@dataclass(frozen=True, slots=True)
class BooksServer:
    """bench/apps/direct_books.py with a database of its own."""

    name: str
    database: Database
    mode: Mode = Mode.S3

    @contextmanager
    def running(self, folder: Path) -> Iterator[Endpoint]:
        port = free_port()
        with self.database.fresh() as url:
            launch = Launch(
                command=[
                    *(sys.executable, "-m", "bench.apps.direct_books"),
                    *("--port", str(port), "--state", url),
                ],
                creation_path="/",
                ready=("GET", "/"),
            )
            with started(self.name, launch, port, folder / "server.log") as pid:
                yield Endpoint(url=launch.url(port), pid=pid, owns_folder=True)
