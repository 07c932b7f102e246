"""Servers under test that keep uploads in S3, started with all that is behind them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.database import Database
from bench.job import Reap
from bench.row import Mode
from bench.s3_places import S3Place, real_place, sink_place
from bench.servers import REPOSITORY, CannotStart, Endpoint, Launch, free_port, started

_MIGRATE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class S3Peer:
    """A peer with a real S3 server behind it."""

    name: str
    launch: Callable[[int, S3Place], Launch]
    mode: Mode = Mode.S3

    @contextmanager
    def running(self, folder: Path) -> Iterator[Endpoint]:
        port = free_port()
        temporary = folder / "temporary"
        temporary.mkdir()
        with real_place(folder) as place:
            launch = self.launch(port, place)
            # Peers keep parts that are not full yet in temporary files; with ours they are where
            # the data folder is.
            behind = {**place.environment, "TMPDIR": str(temporary)}
            launch = replace(launch, environment={**launch.environment, **behind})
            with started(self.name, launch, port, folder / "server.log") as pid:
                yield Endpoint(url=launch.url(port), pid=pid, owns_folder=place.is_ours)


@dataclass(frozen=True, slots=True, kw_only=True)
class OurS3Server:
    """tus_server with Postgres and S3, otherwise as a newcomer runs it.

    sink: throw the bodies away. nodes: how many share the state; the second is
    Endpoint.other_url. counted: count the calls to S3 (a sink) and Postgres. expires_after_s: other
    than a newcomer's. settings: more of them.
    """

    name: str
    database: Database
    sink: bool = False
    nodes: int = 1
    counted: bool = False
    expires_after_s: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    mode: Mode = Mode.S3

    @contextmanager
    def running(self, folder: Path) -> Iterator[Endpoint]:
        with ExitStack() as stack:
            direct_url = stack.enter_context(self.database.fresh())
            place = stack.enter_context(self._place(folder))
            state_port = place.state_port or self.database.port
            environment = {
                **place.environment,
                "TUS_STATE_URL": self.database.through(direct_url, state_port),
                "TUS_STORE_URL": f"s3://{place.bucket}/",
                "TUS_S3_ENDPOINT_URL": place.endpoint,
                "TUS_BASE_PATH": "/files/",
                "TUS_LOG_LEVEL": "warning",
                **self.settings,
            }
            if self.sink or self.counted:
                # A sink cannot pass the probe, and is to cost us what a store that does costs.
                environment["TUS_S3_CHECKSUM"] = "full-object"
            if self.expires_after_s is not None:
                environment["TUS_EXPIRES_AFTER_S"] = str(self.expires_after_s)
            _migrate({**environment, "TUS_STATE_URL": direct_url})
            nodes = [
                stack.enter_context(self._node(folder, node, environment))
                for node in "abcdefgh"[: self.nodes]
            ]
            url, pid = nodes[0]
            yield Endpoint(
                url=url,
                pid=pid,
                owns_folder=place.is_ours,
                other_url=nodes[-1][0] if self.nodes > 1 else None,
                counts_url=place.counts_url if self.counted else None,
                state_port=state_port,
                reap=Reap(
                    command=[sys.executable, "-m", "tus_server", "reap"],
                    environment={**environment, **_own_settings(folder, "a")},
                ),
            )

    def _place(self, folder: Path) -> AbstractContextManager[S3Place]:
        if self.counted:
            return sink_place(folder, postgres_port=self.database.port)
        return sink_place(folder) if self.sink else real_place(folder)

    @contextmanager
    def _node(
        self, folder: Path, node: str, environment: dict[str, str]
    ) -> Iterator[tuple[str, int]]:
        port = free_port()
        Path(_own_settings(folder, node)["TUS_DATA_DIR"]).mkdir()
        launch = Launch(
            command=[
                *(sys.executable, "-m", "tus_server", "serve"),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            environment={**environment, **_own_settings(folder, node)},
            ready=("GET", "/readyz"),
        )
        with started(f"{self.name} {node}", launch, port, folder / f"node-{node}.log") as pid:
            yield launch.url(port), pid


def _own_settings(folder: Path, node: str) -> dict[str, str]:
    """What the nodes do not share."""
    return {"TUS_DATA_DIR": str(folder / f"node-{node}"), "TUS_NODE_NAME": node}


def _migrate(environment: dict[str, str]) -> None:
    try:
        result = subprocess.run(
            [sys.executable, "-m", "tus_server", "migrate"],
            env={**os.environ, **environment},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=_MIGRATE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise CannotStart(f"tus-server migrate took over {_MIGRATE_TIMEOUT_S:g} s") from exc
    if result.returncode:
        # Some messages come in a frame.
        said = [line for line in result.stderr.splitlines() if any(map(str.isalnum, line))]
        raise CannotStart("\n".join(["tus-server migrate failed:", *said]))
