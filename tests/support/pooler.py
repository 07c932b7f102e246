"""A PgBouncer in transaction mode before the test's database."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.waiting import wait_until

PGBOUNCER = shutil.which(
    "pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
)


@pytest.fixture
def bouncer_url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """URL of the test's database by way of a PgBouncer with two connections for all."""
    with run_pgbouncer(database_url, tmp_path) as url:
        yield url


@contextmanager
def run_pgbouncer(database_url: str, tmp_path: Path, *more: str) -> Iterator[str]:
    """Run one before a database; give the URL. more: lines of its settings."""
    there = urlsplit(database_url)
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    users = tmp_path / "users.txt"
    users.write_text('"postgres" ""\n')
    settings = tmp_path / "pgbouncer.ini"
    settings.write_text(
        "[databases]\n"
        f"* = host={there.hostname} port={there.port}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {users}\n"
        "pool_mode = transaction\ndefault_pool_size = 2\n" + "".join(f"{line}\n" for line in more)
    )
    command = [str(PGBOUNCER), "-q"]
    if os.geteuid() == 0:  # it refuses root, and reads its files as somebody else
        command += ["-u", pwd.getpwnam("nobody").pw_name]
        for path in (settings, users):
            path.chmod(0o644)
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(folder.stat().st_mode | 0o011)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, str(settings)], stdout=log, stderr=log)
    try:

        def listens() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            with closing(socket.socket()) as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, "pgbouncer listens")
        yield there._replace(netloc=f"postgres@127.0.0.1:{port}").geturl()
    finally:
        process.terminate()
        process.wait(10)
