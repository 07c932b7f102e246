"""The servers the bench knows how to start: ours and the peers from the registries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.database import Database
from bench.direct_servers import BooksServer
from bench.extension_rows import BOOKS, S3_WEBHOOKS, WEBHOOKS
from bench.install import (
    APPS,
    TUSD,
    install_go_program,
    install_tus_node,
    install_tus_node_s3,
    install_tuspyserver,
)
from bench.row import Mode
from bench.s3_places import S3Place, install_real_place
from bench.s3_rows import COUNTED, EXPIRING, PAIR, PEER, REAL, SINK
from bench.s3_servers import OurS3Server, S3Peer
from bench.servers import ExternalServer, Launch, Server, StartedServer
from bench.webhook_servers import WebhookServer

OURS = "ours"

# Makes a server, installing it if need be. Raises: CannotInstall.
Make = Callable[[Database], Server]


def ours(_: Database) -> Server:
    """tus_server as a newcomer runs it: fsync and SQLite synchronous=FULL are its defaults.

    It logs as little as the peers do: warnings.
    """
    return _ours(OURS, {})


def ours_webhooks(_: Database) -> Server:
    """The same, and a webhook for every upload."""
    return WebhookServer(WEBHOOKS, Mode.DISK, lambda settings: _ours(WEBHOOKS, settings))


def ours_s3_webhooks(database: Database) -> Server:
    """Ours with a sink, and a webhook for every upload."""

    def make(settings: Mapping[str, str]) -> Server:
        return OurS3Server(name=S3_WEBHOOKS, database=database, sink=True, settings=settings)

    return WebhookServer(S3_WEBHOOKS, Mode.S3, make)


def _ours(name: str, settings: Mapping[str, str]) -> Server:
    def launch(port: int, files: Path) -> Launch:
        serve = ["-m", "tus_server", "serve", "--host", "127.0.0.1", "--port", str(port)]
        return Launch(
            command=[sys.executable, *serve],
            environment={
                "TUS_DATA_DIR": str(files),
                "TUS_BASE_PATH": "/files/",
                "TUS_LOG_LEVEL": "warning",
                **settings,
            },
            ready=("GET", "/readyz"),
        )

    return StartedServer(name, launch)


def ours_s3(database: Database) -> Server:
    """Ours with a real S3 server."""
    install_real_place()
    return OurS3Server(name=REAL, database=database)


def ours_s3_sink(database: Database) -> Server:
    """Ours with a sink, to see what it costs itself."""
    return OurS3Server(name=SINK, database=database, sink=True)


def ours_s3_nodes(database: Database) -> Server:
    """Ours on two nodes."""
    return OurS3Server(name=PAIR, database=database, sink=True, nodes=2)


def ours_s3_counted(database: Database) -> Server:
    """Ours with a sink, and a relay before Postgres."""
    return OurS3Server(name=COUNTED, database=database, counted=True)


def ours_s3_expiring(database: Database) -> Server:
    """Ours with a sink, and uploads that expire while one waits."""
    return OurS3Server(name=EXPIRING, database=database, sink=True, expires_after_s=15)


def tuspyserver(_: Database) -> Server:
    """tuspyserver under uvicorn with uvloop and httptools. It does not fsync."""
    python = install_tuspyserver()

    def launch(port: int, files: Path) -> Launch:
        options = ["--port", str(port), "--no-access-log", "--log-level", "warning"]
        app = ["--app-dir", str(APPS), "tuspyserver_app:app"]
        return Launch(
            command=[str(python), "-m", "uvicorn", *options, *app],
            environment={"BENCH_FILES_DIR": str(files)},
        )

    return StartedServer("tuspyserver", launch)


def tus_node(_: Database) -> Server:
    """@tus/server with its file store. It does not fsync."""
    script = install_tus_node()

    def launch(port: int, files: Path) -> Launch:
        return Launch(
            command=["node", str(script)],
            environment={"BENCH_FILES_DIR": str(files), "BENCH_PORT": str(port)},
        )

    return StartedServer("@tus/server", launch)


def tus_node_s3(_: Database) -> Server:
    """@tus/server with @tus/s3-store. Its state is in memory and S3 alone."""
    install_real_place()
    script = install_tus_node_s3()

    def launch(port: int, place: S3Place) -> Launch:
        return Launch(
            command=["node", str(script)],
            environment={
                "BENCH_PORT": str(port),
                "BENCH_S3_ENDPOINT": place.endpoint,
                "BENCH_S3_BUCKET": place.bucket,
            },
        )

    return S3Peer(PEER, launch)


def tusd_s3(_: Database) -> Server:
    """tusd with S3. Its locks are in memory."""
    install_real_place()
    binary = install_go_program(TUSD)

    def launch(port: int, place: S3Place) -> Launch:
        listen = ["-host", "127.0.0.1", "-port", str(port), "-base-path", "/files/"]
        s3 = ["-s3-bucket", place.bucket, "-s3-endpoint", place.endpoint]
        quiet = ["-verbose=false", "-expose-metrics=false"]
        return Launch(command=[str(binary), *listen, *s3, *quiet])

    return S3Peer("tusd-s3", launch)


# In the order of the table.
DISK_SERVERS: dict[str, Make] = {
    OURS: ours,
    WEBHOOKS: ours_webhooks,
    "tuspyserver": tuspyserver,
    "@tus/server": tus_node,
}
S3_SERVERS: dict[str, Make] = {
    REAL: ours_s3,
    SINK: ours_s3_sink,
    PAIR: ours_s3_nodes,
    COUNTED: ours_s3_counted,
    EXPIRING: ours_s3_expiring,
    S3_WEBHOOKS: ours_s3_webhooks,
    BOOKS: lambda database: BooksServer(BOOKS, database),
    PEER: tus_node_s3,
    "tusd-s3": tusd_s3,
}
SERVERS = {**DISK_SERVERS, **S3_SERVERS}
MODES = {
    **dict.fromkeys(DISK_SERVERS, Mode.DISK),
    **dict.fromkeys(S3_SERVERS, Mode.S3),
}


def external(text: str) -> ExternalServer:
    """A running peer from NAME=URL or NAME=URL@PID; it keeps uploads in S3 if it is named so.

    Raises: ValueError.
    """
    name, equals, url = text.partition("=")
    if not name or not equals or not url.startswith("http://"):
        raise ValueError(f"not NAME=http://... : {text}")
    mode = Mode.S3 if name.endswith("-s3") else Mode.DISK
    address, at, pid = url.rpartition("@")
    if at and pid.isdigit():
        return ExternalServer(name, address, int(pid), mode)
    return ExternalServer(name, url, None, mode)
