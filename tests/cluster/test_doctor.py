"""`tus-server doctor`: what it finds where all is well, and where something is not."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.commands import Commands
from tests.support.nodes import Cluster
from tests.support.pooler import PGBOUNCER, run_pgbouncer
from tests.support.postgres import execute, with_database
from tests.support.s3_users import SECRET, S3Users
from tests.support.server import ServerProcess
from tus_server.state.postgres.schema import VERSION

ALL_RIGHTS = {
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:PutObject",
    "s3:GetObject",
    "s3:DeleteObject",
    "s3:ListMultipartUploadParts",
    "s3:AbortMultipartUpload",
}


class Doctor:
    """Runs the command in an environment, and gives its lines by what they are about."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir()
        self.data_dir = folder / "data"
        self._commands = Commands(folder)
        self._commands.env |= {
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_CONFIG_FILE": str(folder / "none"),
            "TUS_DATA_DIR": str(self.data_dir),
        } | environment

    def findings(self, *, status: int = 0, **env: str) -> dict[str, dict[str, Any]]:
        out, _ = self._run("--json", status=status, env=env)
        lines = [json.loads(line) for line in out.splitlines()]
        for line in lines:
            assert bool(line["fix"]) == (line["result"] in ("failed", "warning")), line
        assert (status == 1) == any(line["result"] == "failed" for line in lines)
        return {line["check"]: line for line in lines}

    def text(self, *, status: int = 0, **env: str) -> str:
        return self._run(status=status, env=env)[0]

    def failed(self, **env: str) -> dict[str, dict[str, Any]]:
        """Give the failures alone."""
        found = self.findings(status=1, **env)
        return {what: line for what, line in found.items() if line["result"] == "failed"}

    def _run(self, *arguments: str, status: int, env: dict[str, str]) -> tuple[str, str]:
        saved = self._commands.env
        self._commands.env = saved | env
        try:
            out, err = self._commands.run("doctor", *arguments, status=status)
        finally:
            self._commands.env = saved
        assert err == ""
        assert "hunter2" not in out
        return out, err


@pytest.fixture
def doctor(tmp_path: Path, cluster: Cluster) -> Doctor:
    """With settings that are all right."""
    return Doctor(tmp_path / "doctor", cluster.environment)


@pytest.fixture
def plain(tmp_path: Path) -> Doctor:
    """Without any setting but the data directory."""
    return Doctor(tmp_path / "plain", {})


# --- all is well


def test_a_healthy_cluster(doctor: Doctor, cluster: Cluster) -> None:
    found = doctor.findings()

    # The Postgres of the tests runs without fsync.
    bad = {what for what, line in found.items() if line["result"] not in ("ok", "note")}
    assert bad == {"Postgres durability"}
    assert {"data dir: fsync", "Postgres notifications", "S3 checksums", "node name"} <= set(found)
    assert cluster.bucket.find_keys() == []
    assert cluster.multiparts() == []
    assert not doctor.data_dir.exists()
    assert cluster.query("SELECT count(*) FROM nodes") == [(0,)]


@pytest.mark.full
def test_a_report_for_people_has_a_line_for_each_thing(doctor: Doctor) -> None:
    lines = doctor.text().splitlines()

    (warning,) = (at for at, line in enumerate(lines) if line.startswith("warning "))
    assert "fsync off" in lines[warning]
    assert lines[warning + 1].strip().startswith("fix: switch all of them on")
    assert any(line.startswith("ok       S3 bucket") for line in lines)
    assert lines[-1] == "Failures: 0, warnings: 1."


@pytest.mark.full
def test_beside_a_server_that_runs(doctor: Doctor, cluster: Cluster) -> None:
    node = cluster.node("a")

    found = doctor.findings(TUS_DATA_DIR=str(node.data_dir), TUS_NODE_NAME="a")

    assert f":{node.port}/files/" in found["server"]["detail"]
    assert found["node"]["detail"].startswith("a, id ")
    assert found["node name"]["result"] == "ok"
    assert found["data dir"]["result"] == "ok"
    tus = cluster.tus("a")
    assert tus.offset(tus.stored(b"abc", length=3)) == 3


def test_without_any_configuration(plain: Doctor) -> None:
    found = plain.findings()

    assert {line["result"] for line in found.values()} <= {"ok", "note"}
    assert "made at the first start" in found["SQLite"]["detail"]
    assert not plain.data_dir.exists()
    with ServerProcess(plain.data_dir) as server:
        found = plain.findings()
        assert f":{server.port}/" in found["server"]["detail"]
    assert found["SQLite"]["result"] == "ok"
    assert not list(plain.data_dir.glob(".tus-server-doctor*"))


# --- settings and folders


@pytest.mark.full
def test_wrong_settings_are_told_one_by_one(plain: Doctor) -> None:
    text = plain.text(status=1, TUS_PORT="many", TUS_WORKERS="2")

    assert "FAILED   settings" in text
    assert "TUS_PORT" in text
    assert "fix: give a number" in text


@pytest.mark.full
def test_a_variable_that_is_no_setting_is_a_warning(plain: Doctor) -> None:
    found = plain.text(TUS_PROT="1")

    assert "TUS_PROT is no setting; did you mean TUS_PORT?" in found
    assert found.endswith("Failures: 0, warnings: 1.\n")


@pytest.mark.full
def test_a_data_directory_that_cannot_be_written(plain: Doctor, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")

    failed = plain.failed(TUS_DATA_DIR=str(file / "data"))

    assert list(failed) == ["data dir"]
    assert "cannot be written" in failed["data dir"]["detail"]


@pytest.mark.full
def test_a_damaged_identity(doctor: Doctor) -> None:
    doctor.data_dir.mkdir()
    (doctor.data_dir / "node.json").write_text("{}")

    assert list(doctor.failed()) == ["node"]


# --- Postgres


def test_postgres_away_stops_no_other_check(doctor: Doctor) -> None:
    found = doctor.findings(status=1, TUS_STATE_URL="postgresql://ann:hunter2@127.0.0.1:1/x")

    assert found["Postgres"]["result"] == "failed"
    assert found["Postgres"]["fix"] == "start Postgres, or correct the address."
    assert found["all else in Postgres"]["result"] == "skipped"
    assert found["S3 bucket"]["result"] == "ok"


@pytest.mark.full
def test_a_database_without_tables(doctor: Doctor, empty_database_url: str) -> None:
    found = doctor.findings(status=1, TUS_STATE_URL=empty_database_url)

    assert found["Postgres schema"]["result"] == "failed"
    assert "tus-server migrate" in found["Postgres schema"]["fix"]
    assert found["node name"]["result"] == found["Postgres rights"]["result"] == "skipped"
    again = doctor.findings(TUS_STATE_URL=empty_database_url, TUS_MIGRATE="true")
    assert again["Postgres schema"]["result"] == "note"


@pytest.mark.full
def test_a_schema_of_a_newer_server(doctor: Doctor, cluster: Cluster) -> None:
    sql = f"INSERT INTO schema_version (version) VALUES ({VERSION + 1})"
    execute(cluster.environment["TUS_STATE_URL"], sql)

    failed = doctor.failed()

    assert list(failed) == ["Postgres schema"]
    assert "install the version" in failed["Postgres schema"]["fix"]


@pytest.mark.full
def test_rights_in_postgres_that_are_missing(doctor: Doctor, cluster: Cluster) -> None:
    url = cluster.environment["TUS_STATE_URL"]
    database = urlsplit(url).path.lstrip("/")
    role = f"role_{database}"
    execute(
        url,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}",
    )
    try:
        failed = doctor.failed(TUS_STATE_URL=url.replace("postgres@", f"{role}@"))
    finally:
        execute(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")

    assert list(failed) == ["Postgres rights"]
    assert "DELETE on uploads" in failed["Postgres rights"]["fix"]


@pytest.mark.full
def test_a_database_that_takes_no_writes(doctor: Doctor, cluster: Cluster) -> None:
    url = cluster.environment["TUS_STATE_URL"]
    database = urlsplit(url).path.lstrip("/")
    execute(url, f"ALTER DATABASE {database} SET default_transaction_read_only = on")

    failed = doctor.failed()

    assert list(failed) == ["Postgres writes"]
    assert "primary" in failed["Postgres writes"]["fix"]


@pytest.mark.full
def test_more_connections_than_there_are(doctor: Doctor) -> None:
    found = doctor.findings(TUS_STATE_POOL_SIZE="500")

    assert found["Postgres connections"]["result"] == "warning"
    assert "max_connections" in found["Postgres connections"]["fix"]


@pytest.mark.full
def test_notifications_that_arrive_elsewhere(
    doctor: Doctor, cluster: Cluster, postgres_url: str
) -> None:
    elsewhere = with_database(postgres_url, "postgres")

    failed = doctor.failed(TUS_STATE_LISTEN_URL=elsewhere)

    assert list(failed) == ["Postgres notifications"]
    assert "TUS_STATE_LISTEN_URL" in failed["Postgres notifications"]["fix"]


@pytest.mark.full
def test_the_name_of_a_node_that_lives(doctor: Doctor, cluster: Cluster) -> None:
    cluster.node("a")

    failed = doctor.failed(TUS_NODE_NAME="a")

    assert list(failed) == ["node name"]
    assert "TUS_NODE_NAME" in failed["node name"]["fix"]
    cluster.nodes["a"].stop()
    assert doctor.findings(TUS_NODE_NAME="a")["node name"]["result"] == "ok"


@pytest.mark.needs_apt
@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
@pytest.mark.full
def test_behind_a_pooler(doctor: Doctor, bouncer_url: str, database_url: str) -> None:
    failed = doctor.failed(TUS_STATE_URL=bouncer_url)
    assert list(failed) == ["Postgres"]
    assert "TUS_STATE_PREPARED=false" in failed["Postgres"]["fix"]

    failed = doctor.failed(TUS_STATE_URL=bouncer_url, TUS_STATE_PREPARED="false")
    assert list(failed) == ["Postgres notifications"]

    doctor.findings(
        TUS_STATE_URL=bouncer_url, TUS_STATE_PREPARED="false", TUS_STATE_LISTEN_URL=database_url
    )


@pytest.mark.needs_apt
@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
@pytest.mark.full
def test_behind_a_pooler_that_lets_statements_be_prepared_and_loses_them(
    doctor: Doctor, database_url: str, tmp_path: Path
) -> None:
    line = "ignore_startup_parameters = statement_timeout"
    with run_pgbouncer(database_url, tmp_path, line) as url:
        failed = doctor.failed(TUS_STATE_URL=url, TUS_STATE_LISTEN_URL=database_url)

    assert "Postgres prepared statements" in failed
    assert "TUS_STATE_PREPARED=false" in failed["Postgres prepared statements"]["fix"]


# --- S3


def test_a_bucket_that_is_not_there(doctor: Doctor) -> None:
    found = doctor.findings(status=1, TUS_STORE_URL="s3://no-such-bucket/x")

    assert found["S3 bucket"]["fix"] == "create it, or correct TUS_STORE_URL."
    assert found["all else in S3"]["result"] == "skipped"
    assert found["Postgres notifications"]["result"] == "ok"


@pytest.mark.parametrize(
    ("right", "what"),
    [
        ("s3:PutObject", ["S3 PutObject", "S3 CreateMultipartUpload"]),
        ("s3:GetObject", ["S3 HeadObject", "S3 GetObject"]),
        ("s3:ListMultipartUploadParts", ["S3 ListParts"]),
        ("s3:ListBucketMultipartUploads", ["S3 ListMultipartUploads"]),
    ],
)
@pytest.mark.full
def test_a_right_on_the_bucket_that_is_missing(
    doctor: Doctor, s3_users: S3Users, right: str, what: list[str]
) -> None:
    bucket = s3_users.root.make_bucket()
    s3_users.allow(bucket, sorted(ALL_RIGHTS - {right}))

    failed = doctor.failed(
        TUS_STORE_URL=f"s3://{bucket}/up",
        TUS_S3_ENDPOINT_URL=s3_users.user.endpoint,
        **s3_users.user.environment,
    )

    assert list(failed) == what
    assert all(line["fix"] == f"give the access key {right}." for line in failed.values())
    assert SECRET not in json.dumps(failed)


@pytest.mark.full
def test_what_cannot_be_removed_is_told(doctor: Doctor, s3_users: S3Users) -> None:
    bucket = s3_users.root.make_bucket()
    s3_users.allow(bucket, sorted(ALL_RIGHTS - {"s3:DeleteObject"}))

    found = doctor.findings(
        status=1,
        TUS_STORE_URL=f"s3://{bucket}/up",
        TUS_S3_ENDPOINT_URL=s3_users.user.endpoint,
        **s3_users.user.environment,
    )

    assert found["S3 DeleteObject"]["result"] == "failed"
    assert "up/tus-server-doctor-" in found["S3 clean-up"]["detail"]
