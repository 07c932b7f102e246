"""The JSON API under schemathesis: no 5xx, and nothing but what its document describes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ServerFactory, check_log
from tests.support.api import Api, states_of
from tests.support.nodes import FULL, run_cluster
from tests.support.nodes import store as store
from tests.support.s3 import S3Service
from tests.support.server import REPOSITORY, ServerProcess

TOKEN = "s3cret-of-the-fuzzer"
# Of each operation. What lands is judged by the same cases every time; the full run takes more.
EXAMPLES = "16" if FULL else "8"
SETTINGS = {"TUS_API_TOKEN": TOKEN, "TUS_LEASE_WAIT_S": "2"}


@pytest.fixture(scope="session")
def body_path() -> str:
    """One body path is enough: nothing here depends on it."""
    return "fast"


def begin_some(api: Api) -> list[str]:
    """Give uploads of every kind, in every state that a client can bring about."""
    ids = [api.begin(kind, 5)["id"] for kind in ("single", "multipart", "tus")]
    ids.append(api.begin("multipart", 5)["id"])
    api.send_all(ids[-1], b"hello")
    ids += [api.upload(b"hello", "multipart", require_acceptance=True) for _ in range(5)]
    for upload_id, verb in zip(ids[-3:-1], ("accept", "reject"), strict=True):
        api.post(upload_id, verb)
    api.delete(ids[-1])
    ids.append(api.begin("tus", 5)["id"])
    api.delete(ids[-1])
    wrong = {"algorithm": "md5", "value": "AAAAAAAAAAAAAAAAAAAAAA=="}
    ids.append(api.begin("single", 5, checksum=wrong)["id"])
    api.send_all(ids[-1], b"hello")
    api.post(ids[-1], "complete", fields={"Prefer": "wait=30"})
    return ids


def fuzz(server: ServerProcess, folder: Path, ids: list[str], *choice: str) -> None:
    """Let schemathesis loose; fail with what it has found."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run"),
        f"http://127.0.0.1:{server.port}/api/openapi.json",
        *("--header", f"Authorization: Bearer {TOKEN}"),
        *("--checks", "all"),
        # What is refused for what it says is checked by well_formed_is_taken.
        *("--exclude-checks", "positive_data_acceptance"),
        *("--max-examples", EXAMPLES),
        "--generation-deterministic",
        *("--request-timeout", "60"),
        *("--warnings", "off"),
        "--no-color",
        *choice,
    ]
    done = subprocess.run(
        command,
        env=os.environ
        | {
            "SCHEMATHESIS_HOOKS": "tests.support.fuzz_checks",
            "PYTHONPATH": str(REPOSITORY),
            "TUS_FUZZ_IDS": ",".join(ids),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout or "passed" in done.stdout, done.stdout[-2000:]


def fuzz_all(server: ServerProcess, folder: Path) -> None:
    with Api(server.port, fields={"Authorization": f"Bearer {TOKEN}"}) as api:
        ids = begin_some(api)
        # A stream of an upload that is there ends when that does: of those that are not there, and
        # of those that have ended, it is tried on its own.
        stream = "followUpload"
        fuzz(server, folder, ids, "--exclude-operation-id", stream)
        ended = [ids[-1]]
        fuzz(
            server, folder, ended, "--include-operation-id", stream, "--phases", "coverage,fuzzing"
        )

        found = api.page(limit=500)["uploads"]
    # Where they end is up to what it tries; what they all have been is not.
    been = {state for view in found for state in states_of(view)}
    assert been >= {"receiving", "completed", "verified", "accepted", "rejected", "error"}
    assert len(found) > len(ids) + 10  # it has begun some itself


@pytest.mark.timeout(900)
def test_over_sqlite_and_local_disk(fresh_server: ServerFactory, tmp_path: Path) -> None:
    fuzz_all(fresh_server(**SETTINGS, TUS_DIRECT_PART_SIZE="65536"), tmp_path)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_over_postgres_and_s3(tmp_path: Path, postgres_url: str, store: S3Service) -> None:
    with run_cluster(tmp_path, postgres_url, store) as cluster:
        node = cluster.node("a", **SETTINGS)
        fuzz_all(node, tmp_path)
        check_log(node.log)
