"""Servers of ours that tell a receiver of webhooks about every upload."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.row import Mode
from bench.servers import Endpoint, Launch, Server, free_port, started

# Signed, as in production; the receiver holds its answers for as long as a backlog takes.
_SETTINGS = {
    "TUS_WEBHOOK_SECRET": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "TUS_WEBHOOK_ALLOW_PRIVATE": "true",
    "TUS_WEBHOOK_TIMEOUT_S": "60",
}


@dataclass(frozen=True, slots=True)
class WebhookServer:
    """`make` gives the server for the settings it needs; the receiver is Endpoint.counts_url."""

    name: str
    mode: Mode
    make: Callable[[Mapping[str, str]], Server]

    @contextmanager
    def running(self, folder: Path) -> Iterator[Endpoint]:
        port = free_port()
        launch = Launch(
            command=[sys.executable, "-m", "bench.sink.webhooks", "--port", str(port)],
            ready=("GET", "/__counts"),
        )
        with started("the receiver of webhooks", launch, port, folder / "webhooks.log"):
            url = f"http://127.0.0.1:{port}"
            server = self.make({**_SETTINGS, "TUS_SUCCESS_JOB": f"{url}/done"})
            with server.running(folder) as endpoint:
                yield replace(endpoint, counts_url=url)
