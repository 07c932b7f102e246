"""The servers the bench knows how to start: ours and the peers from the registries."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.install import APPS, install_tus_node, install_tuspyserver
from bench.servers import ExternalServer, Launch, StartedServer

OURS = "ours"


def ours() -> StartedServer:
    """tus_server as a newcomer runs it: fsync and SQLite synchronous=FULL are its defaults.

    It logs as little as the peers do: warnings.
    """

    def launch(port: int, files: Path) -> Launch:
        serve = ["-m", "tus_server", "serve", "--host", "127.0.0.1", "--port", str(port)]
        return Launch(
            command=[sys.executable, *serve],
            environment={
                "TUS_DATA_DIR": str(files),
                "TUS_BASE_PATH": "/files/",
                "TUS_LOG_LEVEL": "warning",
            },
            ready=("GET", "/readyz"),
        )

    return StartedServer(OURS, launch)


def tuspyserver() -> StartedServer:
    """tuspyserver under uvicorn with uvloop and httptools. It does not fsync.

    Raises: CannotInstall.
    """
    python = install_tuspyserver()

    def launch(port: int, files: Path) -> Launch:
        options = ["--port", str(port), "--no-access-log", "--log-level", "warning"]
        app = ["--app-dir", str(APPS), "tuspyserver_app:app"]
        return Launch(
            command=[str(python), "-m", "uvicorn", *options, *app],
            environment={"BENCH_FILES_DIR": str(files)},
        )

    return StartedServer("tuspyserver", launch)


def tus_node() -> StartedServer:
    """@tus/server with its file store. It does not fsync.

    Raises: CannotInstall.
    """
    script = install_tus_node()

    def launch(port: int, files: Path) -> Launch:
        return Launch(
            command=["node", str(script)],
            environment={"BENCH_FILES_DIR": str(files), "BENCH_PORT": str(port)},
        )

    return StartedServer("@tus/server", launch)


# Making one installs it if need be.
REGISTRY_PEERS: dict[str, Callable[[], StartedServer]] = {
    "tuspyserver": tuspyserver,
    "@tus/server": tus_node,
}


def external(text: str) -> ExternalServer:
    """A running peer from NAME=URL or NAME=URL@PID.

    Raises: ValueError.
    """
    name, equals, url = text.partition("=")
    if not name or not equals or not url.startswith("http://"):
        raise ValueError(f"not NAME=http://... : {text}")
    address, at, pid = url.rpartition("@")
    if at and pid.isdigit():
        return ExternalServer(name, address, int(pid))
    return ExternalServer(name, url, None)
