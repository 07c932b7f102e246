"""The supervisor as a process, over workers that only tell who they are."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until
from tus_server.core.errors import DataDirInUse
from tus_server.datadir import DataDir, find_server

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 30


class Supervised:
    """A supervisor, its log and its workers."""

    def __init__(self, data_dir: Path, *, workers: int, port: int, do: str) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        arguments = [str(data_dir), str(port), str(workers), do]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fake_workers", *arguments],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [line for line in self.log.splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    @property
    def workers(self) -> list[int]:
        """Processes of the workers that were started and have not ended."""
        started = [event["worker_pid"] for event in self.events("worker.started")]
        return [pid for pid in started if is_alive(pid)]

    @property
    def port(self) -> int:
        return int(self.url().split(":")[2].split("/")[0])

    def url(self) -> str:
        """Wait until it announces itself."""

        def look() -> str | None:
            assert self.process.poll() is None, self.log
            try:
                return find_server(self.data_dir)
            except DataDirInUse:
                return None

        url = wait_until(look, "the supervisor announces itself")
        assert url is not None
        return url

    def ask(self) -> int:
        """Give the process id of the worker that answers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as asked:
            return int(asked.recv(100))

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


def is_alive(pid: int) -> bool:
    try:
        # Orphans are reaped late in some containers: a zombie has ended.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(*, workers: int = 2, port: int = 0, do: str = "answer") -> Supervised:
            made = Supervised(tmp_path / "data", workers=workers, port=port, do=do)
            stack.callback(made.process.wait)
            stack.callback(made.process.kill)
            return made

        yield start


def test_every_worker_answers_on_the_one_address(start: Start) -> None:
    supervised = start(workers=3)
    supervised.url()

    workers = set(supervised.workers)

    assert len(workers) == 3
    assert supervised.ask() in workers
    assert json.loads((supervised.data_dir / "server.lock").read_text())["pid"] == (
        supervised.process.pid
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_workers_and_the_status_is_0(number: int, start: Start) -> None:
    supervised = start()
    supervised.url()
    workers = supervised.workers

    status = supervised.end(number)

    assert status == 0
    assert not any(map(is_alive, workers))
    assert supervised.events("worker.killed") == []
    with DataDir(supervised.data_dir):
        pass


@pytest.mark.full
def test_the_interrupt_of_a_terminal_reaches_the_supervisor_only(start: Start) -> None:
    supervised = start()
    supervised.url()
    for pid in supervised.workers:
        os.kill(pid, signal.SIGINT)

    assert supervised.ask() in supervised.workers
    os.killpg(supervised.process.pid, signal.SIGINT)

    assert supervised.process.wait(TIMEOUT_S) == 0
    assert "KeyboardInterrupt" not in supervised.log


def test_a_killed_worker_is_replaced_and_the_others_go_on(start: Start) -> None:
    supervised = start()
    supervised.url()
    killed, other = supervised.workers

    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: len(supervised.events("worker.started")) == 3, "a worker is started")

    (ended,) = supervised.events("worker.ended")
    assert (ended["worker_pid"], ended["status"]) == (killed, "SIGKILL")
    assert ended["restart_in_s"] > 0
    assert other in supervised.workers
    assert supervised.ask() in supervised.workers
    assert supervised.end(signal.SIGTERM) == 0


@pytest.mark.full
def test_workers_end_with_a_killed_supervisor_and_the_next_one_gets_the_port(
    start: Start,
) -> None:
    first = start()
    port = first.port
    workers = first.workers
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # nor does a stopped one stay

    first.end(signal.SIGKILL)
    second = start(port=port)

    assert second.port == port
    assert second.ask() not in workers
    wait_until(lambda: not any(map(is_alive, workers)), "the first workers have ended")


@pytest.mark.full
def test_a_worker_that_does_not_stop_is_killed_in_the_end(start: Start) -> None:
    supervised = start(do="stubborn")
    supervised.url()
    workers = supervised.workers
    supervised.process.send_signal(signal.SIGTERM)
    wait_until(lambda: supervised.events("supervisor.stopping"), "it stops")
    assert len(supervised.workers) == 2

    assert supervised.end(signal.SIGTERM) == 0  # the second signal does not wait

    assert not any(map(is_alive, workers))
    assert {event["worker_pid"] for event in supervised.events("worker.killed")} == set(workers)


@pytest.mark.full
def test_what_keeps_the_first_workers_from_starting_ends_it_all(start: Start) -> None:
    supervised = start(do="refuse")

    assert supervised.process.wait(TIMEOUT_S) == 2

    lines = [line for line in supervised.log.splitlines() if not line.startswith("{")]
    assert lines == ["TUS_STATE_URL is wrong: give another one."]
    assert supervised.workers == []


@pytest.mark.full
def test_what_keeps_a_later_worker_from_starting_is_waited_for(start: Start) -> None:
    supervised = start(do="refuse-later")
    supervised.url()
    (supervised.data_dir / "first").touch()
    killed, other = supervised.workers
    os.kill(killed, signal.SIGKILL)

    wait_until(lambda: len(supervised.events("worker.ended")) >= 2, "the new one has ended")

    refused = supervised.events("worker.ended")[1]
    assert refused["why"] == "TUS_STATE_URL is wrong: give another one."
    assert supervised.ask() == other
    (supervised.data_dir / "first").unlink()
    wait_until(lambda: len(supervised.workers) == 2, "there are two workers again")
    assert supervised.end(signal.SIGTERM) == 0


@pytest.mark.full
def test_workers_that_crash_at_start_are_tried_again_ever_more_slowly(start: Start) -> None:
    supervised = start(workers=1, do="crash")

    wait_until(lambda: len(supervised.events("worker.ended")) == 2, "it was tried again")

    assert [event["status"] for event in supervised.events("worker.ended")] == [7, 7]
    assert [event["restart_in_s"] for event in supervised.events("worker.ended")] == [0.5, 1.0]
    assert supervised.end(signal.SIGTERM) == 0


@pytest.mark.full
def test_an_address_that_stays_taken_is_refused(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        supervised = start(port=taken.getsockname()[1])

        assert supervised.process.wait(TIMEOUT_S) == 2

    assert "TUS_PORT" in supervised.log
