"""A server that cannot work with its settings does not start, and says why in one sentence."""

import os
import shutil
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.commands import Commands
from tests.support.nodes import Cluster
from tests.support.postgres import PostgresServer, execute
from tests.support.s3 import S3Service, make_certificate
from tests.support.s3_users import S3Users
from tests.support.server import ServerProcess
from tus_server.state.postgres.schema import VERSION

PASSWORD = "hunter2"
TIMEOUT_S = 40.0  # of a busy machine; 10 on another one
# What a start may leave behind: nothing of it keeps the next one from succeeding.
HARMLESS = {"node.json", "server.lock", "spill", "run", "state.db"}
# With sharing: a process more, and another way to check.
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


class Start:
    """Starts that are refused, on one data directory."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._folder = folder
        self._environment = {
            # Only what the test gives: no machine's own keys.
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_CONFIG_FILE": str(folder / "none"),
            **cluster.environment,
            "TUS_PORT": "0",
            "TUS_NODE_NAME": "a",
            "TUS_DATA_DIR": str(folder / "data"),
        }
        self.data_dir = folder / "data"

    def refused(self, *, status: int = 2, **env: str | None) -> str:
        """Give the one sentence with which a start ends; None: without that variable."""
        commands = Commands(self._folder)
        environment = commands.env | self._environment | env
        commands.env = {k: v for k, v in environment.items() if v is not None}
        process = commands.start("serve")
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()  # it may have started
            process.communicate()
        assert (process.returncode, out) == (status, ""), err
        # The Postgres of the tests runs without fsync, and that is warned of.
        (line,) = (one for one in err.splitlines() if "postgres.not_durable" not in one)
        assert line.startswith("tus-server: ")
        assert line.endswith(".")
        assert ". " not in line
        for secret in (PASSWORD, self._environment["AWS_SECRET_ACCESS_KEY"]):
            assert secret not in line
        if self.data_dir.exists():
            assert set(os.listdir(self.data_dir)) <= HARMLESS
        return line


@pytest.fixture
def start(tmp_path: Path, cluster: Cluster) -> Start:
    return Start(tmp_path / "refused", cluster)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "refused").mkdir()


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- S3


@WORKERS
def test_a_bucket_that_is_not_there(start: Start, workers: str) -> None:
    name = f"none-{uuid.uuid4().hex}"

    sentence = start.refused(TUS_STORE_URL=f"s3://{name}/x", TUS_WORKERS=workers)

    assert f"{name} does not exist" in sentence
    assert "TUS_STORE_URL" in sentence


@pytest.mark.full
def test_keys_that_may_nothing(start: Start, s3_users: S3Users) -> None:
    bucket = s3_users.root.make_bucket()

    sentence = start.refused(
        TUS_STORE_URL=f"s3://{bucket}",
        TUS_S3_ENDPOINT_URL=s3_users.user.endpoint,
        **s3_users.user.environment,
    )

    assert "AccessDenied" in sentence
    assert "s3:ListBucket" in sentence


@pytest.mark.full
def test_keys_that_may_only_read(start: Start, s3_users: S3Users) -> None:
    bucket = s3_users.root.make_bucket()
    s3_users.allow(bucket, ["s3:ListBucket", "s3:GetObject"])

    sentence = start.refused(
        TUS_STORE_URL=f"s3://{bucket}/up",
        TUS_S3_ENDPOINT_URL=s3_users.user.endpoint,
        **s3_users.user.environment,
    )

    assert "refuses put_object below the prefix 'up/'" in sentence
    assert "TUS_STORE_URL and the rights of the key" in sentence


def test_a_wrong_secret(start: Start) -> None:
    assert "AWS_SECRET_ACCESS_KEY" in start.refused(AWS_SECRET_ACCESS_KEY="wrong")


@pytest.mark.full
def test_an_unknown_key(start: Start) -> None:
    assert "AWS_ACCESS_KEY_ID" in start.refused(AWS_ACCESS_KEY_ID="nobody:nobody")


@pytest.mark.full
def test_no_credentials(start: Start) -> None:
    sentence = start.refused(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)

    assert "no credentials for S3" in sentence
    assert "AWS_ACCESS_KEY_ID" in sentence


@pytest.mark.full
def test_a_wrong_region(start: Start, swift: S3Service, swift_bucket: str) -> None:
    sentence = start.refused(
        TUS_STORE_URL=f"s3://{swift_bucket}",
        TUS_S3_ENDPOINT_URL=swift.endpoint,
        **swift.environment | {"AWS_DEFAULT_REGION": "eu-central-7"},
    )

    assert f"is in {swift.region}, not in eu-central-7: set TUS_S3_REGION" in sentence


@pytest.mark.full
def test_an_s3_that_nobody_answers_for(start: Start) -> None:
    endpoint = f"http://127.0.0.1:{unused_port()}"

    sentence = start.refused(TUS_S3_ENDPOINT_URL=endpoint)

    assert f"{endpoint} does not answer" in sentence
    assert "TUS_S3_ENDPOINT_URL" in sentence


@pytest.mark.full
def test_an_s3_that_is_silent(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"

        assert "does not answer (no answer in time)" in start.refused(TUS_S3_ENDPOINT_URL=endpoint)


@pytest.mark.full
def test_an_s3_that_speaks_no_tls(start: Start, cluster: Cluster) -> None:
    endpoint = cluster.s3.endpoint.replace("http://", "https://")

    sentence = start.refused(TUS_S3_ENDPOINT_URL=endpoint)

    assert "TLS with" in sentence
    assert "TUS_S3_ENDPOINT_URL" in sentence


@pytest.mark.full
def test_an_s3_whose_certificate_nobody_knows(start: Start, tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    if made is None:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*made)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(connection, server_side=True)
                except OSError:
                    pass
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            endpoint = f"https://127.0.0.1:{listener.getsockname()[1]}"
            sentence = start.refused(TUS_S3_ENDPOINT_URL=endpoint)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()

    assert "AWS_CA_BUNDLE" in sentence


# --- Postgres


def changed(url: str, **parts: object) -> str:
    """Give a URL with another user, password, port or database."""
    there = urlsplit(url)
    user = parts.get("user", there.username)
    port = parts.get("port", there.port)
    path = f"/{parts['database']}" if "database" in parts else there.path
    netloc = f"{user}:{PASSWORD}@{there.hostname}:{port}"
    return there._replace(netloc=netloc, path=path).geturl()


@WORKERS
def test_a_postgres_that_nobody_answers_for(start: Start, cluster: Cluster, workers: str) -> None:
    url = changed(cluster.environment["TUS_STATE_URL"], port=unused_port())

    sentence = start.refused(TUS_STATE_URL=url, TUS_WORKERS=workers)

    assert "TUS_STATE_URL: nothing answers" in sentence
    assert "start Postgres, or correct the address" in sentence


@pytest.mark.full
def test_a_postgres_that_is_silent(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        sentence = start.refused(TUS_STATE_URL=f"postgresql://ann:{PASSWORD}@127.0.0.1:{port}/x")

    assert "TUS_STATE_URL: " in sentence
    assert "does not answer: check" in sentence


@pytest.fixture
def role(postgres: PostgresServer | None) -> Iterator[str]:
    """A role that has to show a password."""
    if postgres is None:
        pytest.skip("the settings of the server at TEST_DATABASE_URL are not ours to change")
    rules, name = postgres.data / "pg_hba.conf", f"role_{uuid.uuid4().hex}"
    saved = rules.read_text()
    execute(postgres.url(), f"CREATE ROLE {name} LOGIN PASSWORD 'another'")
    try:
        rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{saved}")
        execute(postgres.url(), "SELECT pg_reload_conf()")
        yield name
    finally:
        rules.write_text(saved)
        execute(postgres.url(), "SELECT pg_reload_conf()", f"DROP ROLE {name}")


@pytest.mark.full
def test_a_wrong_password(start: Start, cluster: Cluster, role: str) -> None:
    url = changed(cluster.environment["TUS_STATE_URL"], user=role)

    sentence = start.refused(TUS_STATE_URL=url)

    assert f"refuses the user '{role}'" in sentence
    assert "correct user and password" in sentence


@pytest.mark.full
def test_a_database_that_is_not_there(start: Start, cluster: Cluster) -> None:
    url = changed(cluster.environment["TUS_STATE_URL"], database="nowhere")

    sentence = start.refused(TUS_STATE_URL=url)

    assert "no database 'nowhere'" in sentence
    assert "create it" in sentence


@WORKERS
@pytest.mark.full
def test_a_database_without_tables(start: Start, empty_database_url: str, workers: str) -> None:
    sentence = start.refused(TUS_STATE_URL=empty_database_url, TUS_WORKERS=workers, status=1)

    assert "TUS_STATE_URL has no tables of tus_server yet" in sentence
    assert "`tus-server migrate`" in sentence


@pytest.mark.full
def test_a_schema_of_a_newer_server(start: Start, cluster: Cluster) -> None:
    execute(
        cluster.environment["TUS_STATE_URL"],
        f"INSERT INTO schema_version (version) VALUES ({VERSION + 1})",
    )

    sentence = start.refused(status=1)

    assert f"TUS_STATE_URL has {VERSION + 1}" in sentence
    assert "install the version" in sentence


@pytest.mark.full
def test_a_postgres_that_speaks_no_tls(start: Start, cluster: Cluster) -> None:
    url = f"{changed(cluster.environment['TUS_STATE_URL'])}?sslmode=require"

    sentence = start.refused(TUS_STATE_URL=url)

    assert "TUS_STATE_URL: TLS with" in sentence
    assert "correct sslmode" in sentence


# --- afterwards


@pytest.mark.full
def test_a_start_that_was_refused_hinders_no_later_one(start: Start, cluster: Cluster) -> None:
    start.refused(TUS_STATE_URL="postgresql://ann@127.0.0.1:1/x")
    start.refused(
        TUS_STATE_URL=cluster.environment["TUS_STATE_URL"], TUS_STORE_URL="s3://no-such-bucket"
    )

    with ServerProcess(
        start.data_dir, TUS_NODE_NAME="a", **cluster.environment, TUS_WORKERS="2"
    ) as server:
        assert server.stop() == 0
    shutil.rmtree(start.data_dir)
