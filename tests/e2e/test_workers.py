"""One node with several processes, over real Postgres and S3."""

import json
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import check_log
from tests.support.commands import Commands
from tests.support.s3 import S3Service
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

MIB = 1024 * 1024


def environment(database_url: str, service: S3Service, bucket: str) -> dict[str, str]:
    return service.environment | {
        "TUS_STATE_URL": database_url,
        "TUS_STORE_URL": f"s3://{bucket}/files",
        "TUS_S3_ENDPOINT_URL": service.endpoint,
        # What the node of an earlier test sent last may arrive in this one.
        "TUS_NODE_NAME": secrets.token_hex(4),
    }


@pytest.fixture
def env(database_url: str, swift: S3Service, swift_bucket: str) -> dict[str, str]:
    return environment(database_url, swift, swift_bucket)


@pytest.fixture
def node(env: dict[str, str], tmp_path: Path) -> Iterator[ServerProcess]:
    # Less than a lease lasts: who has to wait until one runs out gets 423.
    with ServerProcess(tmp_path / "data", TUS_WORKERS="2", TUS_LEASE_WAIT_S="1", **env) as node:
        yield node
    check_log(node.log)


def events(node: ServerProcess, name: str) -> list[dict[str, Any]]:
    lines = [line for line in node.log.splitlines() if line.startswith("{")]
    return [event for event in map(json.loads, lines) if event["event"] == name]


def worker_pids(node: ServerProcess) -> list[int]:
    """Give the workers that were started and have not been seen to end."""
    ended = {event["worker_pid"] for event in events(node, "worker.ended")}
    started = [event["worker_pid"] for event in events(node, "worker.started")]
    return [pid for pid in started if pid not in ended]


def test_every_worker_goes_on_with_what_another_one_received(node: ServerProcess) -> None:
    content = pattern(3 * MIB)
    tus = Tus(node.port)
    url = tus.new(len(content))

    for start in range(0, len(content), MIB // 4):  # each on a connection of its own
        assert tus.append(url, start, content[start : start + MIB // 4]) == start + MIB // 4

    assert tus.content(url) == content
    assert list((node.data_dir / "tails").iterdir()) == []


def test_leases_of_killed_workers_are_free_at_once(node: ServerProcess) -> None:
    content = pattern(3 * MIB)
    tus = Tus(node.port)
    url = tus.stored(content[:MIB], length=len(content))
    stalled = tus.hold(url, MIB, content[MIB : MIB + 5], declared=2 * MIB)
    workers = worker_pids(node)

    for pid in workers:
        os.kill(pid, signal.SIGKILL)

    assert tus.offset(url) in (MIB, MIB + 5)
    stalled.close()
    assert not set(worker_pids(node)) & set(workers)
    assert tus.finish(url, content) == content


@pytest.mark.full
def test_a_stop_keeps_what_has_arrived(node: ServerProcess) -> None:
    content = pattern(3 * MIB)
    tus = Tus(node.port)
    url = tus.new(len(content))
    stalled = tus.hold(url, 0, content[: MIB + 5], declared=len(content))

    assert node.stop() == 0
    node.start()

    assert tus.offset(url) == MIB + 5
    stalled.close()
    assert tus.finish(url, content) == content


@pytest.mark.full
def test_nothing_is_lost_when_supervisor_and_workers_are_killed(node: ServerProcess) -> None:
    content = pattern(3 * MIB)
    tus = Tus(node.port)
    url = tus.stored(content[: MIB + 5], length=len(content))

    node.kill()
    node.start()  # on the same port, which the workers have just let go of

    assert tus.offset(url) == MIB + 5
    assert tus.finish(url, content) == content


@pytest.mark.full
def test_an_operator_sees_a_tail_and_gives_it_up(node: ServerProcess, tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    commands.env |= node.env
    content = pattern(3 * MIB)
    tus = Tus(node.port)
    url = tus.stored(content[:1000], length=len(content))
    upload_id = url.rpartition("/")[2]
    (node.data_dir / "tails" / next(os.walk(node.data_dir / "tails"))[2][0]).unlink()

    (shown,) = commands.uploads("show", upload_id, server=node)
    text, _ = commands.run("uploads", "show", upload_id, "--data-dir", node.data_dir)
    refused = tus.patch(url, 1000, content[1000:])
    (rewound,) = commands.uploads("rewind", "--yes", upload_id, server=node)

    node_id = json.loads((node.data_dir / "node.json").read_text())["id"]
    assert shown["tail"] == {"length": 1000, "generation": 0, "node": node_id}
    assert shown["committed_bytes"] == 0
    assert node_id in text
    assert refused["tus-error"] == "tus_tail_missing"
    assert (rewound["rewound"], rewound["offset"], rewound["given_up_bytes"]) == (True, 0, 1000)
    assert tus.finish(url, content) == content
    (finished,) = commands.uploads("show", upload_id, server=node)
    assert any("rewound" in (change["note"] or "") for change in finished["history"])


@pytest.mark.full
def test_an_upload_is_removed_with_and_without_a_server(
    node: ServerProcess, tmp_path: Path
) -> None:
    commands = Commands(tmp_path)
    commands.env |= node.env
    tus = Tus(node.port)
    ids = [tus.stored(b"some").rpartition("/")[2] for _ in range(2)]

    (first,) = commands.uploads("rm", "--yes", ids[0], server=node)
    assert node.stop() == 0
    (second,) = commands.uploads("rm", "--yes", ids[1], server=node)

    assert first["removed"]
    assert second["removed"]
    states = {upload["id"]: upload["state"] for upload in commands.uploads("ls", server=node)}
    assert states == dict.fromkeys(ids, "deleted")


def test_tables_are_made_by_migrate_and_missed_without(
    empty_database_url: str, swift: S3Service, swift_bucket: str, tmp_path: Path
) -> None:
    commands = Commands(tmp_path)
    commands.env |= environment(empty_database_url, swift, swift_bucket)
    commands.env |= {"TUS_WORKERS": "2", "TUS_PORT": "0"}

    _, err = commands.run("serve", status=1)
    assert "run `tus-server migrate`" in err.splitlines()[-1]
    assert "worker.started" not in err

    made, _ = commands.run("migrate")
    again, _ = commands.run("migrate")
    assert made.startswith("Made the tables, version ")
    assert again.startswith("Nothing to do: ")
    with ServerProcess(tmp_path / "data", **commands.env) as node:
        assert node.stop() == 0


@pytest.mark.full
def test_serve_makes_the_tables_when_told_to(
    empty_database_url: str, swift: S3Service, swift_bucket: str, tmp_path: Path
) -> None:
    env = environment(empty_database_url, swift, swift_bucket)

    with ServerProcess(tmp_path / "data", TUS_MIGRATE="true", TUS_WORKERS="2", **env) as node:
        tus = Tus(node.port)

        assert tus.content(tus.stored(b"some")) == b"some"


@pytest.mark.full
def test_workers_are_not_started_over_a_wrong_setting(env: dict[str, str], tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    commands.env |= env | {"TUS_WORKERS": "2", "TUS_PORT": "0"}
    commands.env["TUS_STORE_URL"] = "s3://no-such-bucket-of-a-test/files"

    _, err = commands.run("serve", status=2)

    assert "TUS_STORE_URL" in err.splitlines()[-1]
    assert "worker.started" not in err


@pytest.mark.full
def test_workers_wait_for_each_other_and_end_by_one_signal(
    node: ServerProcess,
) -> None:
    pids = worker_pids(node)

    assert len(pids) == 2
    assert node.stop(signal.SIGINT) == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), "they ended")
