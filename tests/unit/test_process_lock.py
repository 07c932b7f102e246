"""Locks of processes: who lives, who has ended, and nobody waits to find out."""

import subprocess
import sys
from pathlib import Path

import pytest

from tus_server.core.errors import DataDirUnusable
from tus_server.process_lock import ProcessLock

CHILD = """
import sys
from pathlib import Path
from tus_server.process_lock import ProcessLock
with ProcessLock(Path(sys.argv[1])) as lock:
    print(lock.token, flush=True)
    sys.stdin.read()
"""


def start_child(data_dir: Path) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_a_process_has_ended_when_its_lock_is_free(end: str, tmp_path: Path) -> None:
    child, token = start_child(tmp_path)
    with child, ProcessLock(tmp_path) as lock:
        alive = lock.has_ended(token)
        if end == "kill":
            child.kill()
        else:
            child.communicate()
        child.wait()

        assert not alive
        assert lock.has_ended(token)
        assert lock.has_ended(token)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [f"{lock.token}.lock"]


def test_one_process_never_takes_itself_for_ended(tmp_path: Path) -> None:
    with ProcessLock(tmp_path) as lock, ProcessLock(tmp_path) as other:
        assert not lock.has_ended(lock.token)
        assert not lock.has_ended(other.token)
        assert len(list((tmp_path / "run").iterdir())) == 2

    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("token", ["", "../../x", "0" * 31, "G" * 32, "0" * 32 + "\n"])
def test_what_is_no_token_has_not_ended(token: str, tmp_path: Path) -> None:
    with ProcessLock(tmp_path) as lock:
        assert not lock.has_ended(token)


def test_an_unknown_process_has_ended(tmp_path: Path) -> None:
    with ProcessLock(tmp_path) as lock:
        assert lock.has_ended("0" * 32)


def test_files_of_ended_processes_are_removed_at_start(tmp_path: Path) -> None:
    child, token = start_child(tmp_path)
    with child:
        child.kill()
        child.wait()
    assert (tmp_path / "run" / f"{token}.lock").exists()

    with ProcessLock(tmp_path) as lock:
        assert [path.name for path in (tmp_path / "run").iterdir()] == [f"{lock.token}.lock"]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()

    with pytest.raises(DataDirUnusable, match=r"run/.*\.lock .*TUS_DATA_DIR"):
        with ProcessLock(tmp_path):
            pass
