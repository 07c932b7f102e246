"""Servers under test: started for one run and stopped after it, or already running."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from bench.job import Reap
from bench.row import Mode

REPOSITORY = Path(__file__).resolve().parent.parent
_READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
_LOG_LINES = 15


class CannotStart(Exception):
    """A server did not come up. The message has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a running server takes uploads. pid is None when its CPU cannot be read.

    owns_folder: its files go away with the run's folder, so nobody needs to delete uploads.
    other_url: another node of the same server. counts_url: what it asked of S3 and Postgres so
    far. state_port: of the Postgres it uses. reap: what ends its expired uploads.
    """

    url: str
    pid: int | None
    owns_folder: bool
    other_url: str | None = None
    counts_url: str | None = None
    state_port: int | None = None
    reap: Reap | None = None


class Server(Protocol):
    """Something to put under load."""

    @property
    def name(self) -> str: ...

    @property
    def mode(self) -> Mode: ...

    def running(self, folder: Path) -> AbstractContextManager[Endpoint]:
        """The server, up and ready, with its files in folder if it is ours to start.

        Raises: CannotStart.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a server on one port with one folder.

    ready: a method and path; the server is ready when it answers that with 200 or 204.
    """

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    creation_path: str = "/files/"
    ready: tuple[str, str] = ("OPTIONS", "/files/")

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}{self.creation_path}"


@dataclass(frozen=True, slots=True)
class StartedServer:
    """A server that the bench starts for every run, on a free port, with a fresh folder."""

    name: str
    launch: Callable[[int, Path], Launch]
    mode: Mode = Mode.DISK

    @contextmanager
    def running(self, folder: Path) -> Iterator[Endpoint]:
        port = free_port()
        files = folder / "files"
        files.mkdir()
        launch = self.launch(port, files)
        with started(self.name, launch, port, folder / "server.log") as pid:
            yield Endpoint(url=launch.url(port), pid=pid, owns_folder=True)


@dataclass(frozen=True, slots=True)
class ExternalServer:
    """A server somebody else runs; the bench neither stops it nor sees its files."""

    name: str
    url: str
    pid: int | None
    mode: Mode = Mode.DISK

    @contextmanager
    def running(self, folder: Path) -> Iterator[Endpoint]:
        parts = urlsplit(self.url)
        if not _answers(parts.hostname or "", parts.port or 80, "OPTIONS", parts.path):
            raise CannotStart(f"{self.name} does not answer at {self.url}")
        yield Endpoint(url=self.url, pid=self.pid, owns_folder=False)


@contextmanager
def started(name: str, launch: Launch, port: int, log: Path) -> Iterator[int]:
    """The process id of a server that is ready; it is stopped at the end.

    Raises: CannotStart.
    """
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            launch.command,
            env={**os.environ, **launch.environment},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
        )
    try:
        if not _wait_ready(process, port, launch.ready):
            tail = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
            raise CannotStart("\n".join([f"{name} did not get ready:", *tail]))
        yield process.pid
    finally:
        _stop(process)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_ready(process: subprocess.Popen[bytes], port: int, ready: tuple[str, str]) -> bool:
    """Wait until the server is ready; False if it ended or took too long."""
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        if _answers("127.0.0.1", port, *ready):
            return True
        time.sleep(0.05)
    return False


def _answers(host: str, port: int, method: str, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request(method, path, headers={"Tus-Resumable": "1.0.0"})
        return connection.getresponse().status in (200, 204)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
