"""Expiry as an operator sees it: what a restart ends, `tus-server reap`, and clocks that jump."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Commands
from tests.support.records import Records, upload_id
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

CONTENT = pattern(100_000)
SOON = {"TUS_EXPIRES_AFTER_S": "0.5"}
FAKETIME = [
    Path(os.environ.get("TUS_TEST_FAKETIME", "")),
    *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
]


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


class Site:
    """A data directory with uploads: one finished, one with half of its bytes, one of others."""

    def __init__(self, server: ServerProcess, commands: Commands) -> None:
        self.server = server
        self.commands = commands
        self.records = Records(server.data_dir)
        self.tus = Tus(server.port)
        self.finished = self.tus.stored(CONTENT)
        self.half = self.tus.stored(CONTENT[:50_000], length=len(CONTENT))
        # What is no file of ours stays, wherever it is.
        folder = self.records.files(self.half)[0].parent
        self.foreign = folder / "film.partial"
        self.foreign.write_bytes(b"somebody's")

    def reap(self, *arguments: str, status: int = 0) -> tuple[list[dict[str, Any]], str]:
        """Run `reap --json`; give what it printed, and its complaints."""
        out, err = self.commands.run(
            "reap", "--json", "--data-dir", self.server.data_dir, *arguments, status=status
        )
        return [json.loads(line) for line in out.splitlines()], err

    def make_older(self, seconds: float) -> None:
        """Make all uploads of a server that does not run older."""
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(self.server.data_dir / "state.db")) as db:
            for column in ("created_at", "state_on", "expires_at"):
                db.execute(f"UPDATE uploads SET {column} = {column} - ?", (int(seconds * 1e6),))
            db.commit()

    def check_expired(self) -> None:
        """Check that the half upload is gone, once, and nothing else."""
        assert self.records.state(self.half) == "expired"
        assert self.records.events(self.half) == ["expired"]
        assert self.records.files(self.half) == []
        self.check_rest()

    def check_rest(self) -> None:
        (path,) = self.records.files(self.finished)
        assert path.read_bytes() == CONTENT
        assert self.records.events(self.finished) == ["verified"]
        assert self.foreign.read_bytes() == b"somebody's"


@pytest.fixture
def site(tmp_path: Path, commands: Commands) -> Iterator[Site]:
    """A site whose server has stopped; uploads live for a week."""
    with ServerProcess(tmp_path / "data") as server:
        made = Site(server, commands)
        server.stop()
        yield made


# --- the server


def test_a_server_that_starts_ends_what_expired_while_it_was_down(
    tmp_path: Path, commands: Commands
) -> None:
    with ServerProcess(tmp_path / "data", **SOON) as server:
        site = Site(server, commands)
        wait_until(lambda: site.tus.head(site.half).status == 410, "it has expired")
        assert site.tus.patch(site.half, 50_000, CONTENT[50_000:]).status == 410
        server.kill()

        server.start()

        wait_until(lambda: not site.records.files(site.half), "its bytes are freed")
        site.check_expired()
        assert site.tus.head(site.half).status == 410
        assert site.tus.delete(site.half).status == 410
        assert site.tus.get(site.half).status == 410
        assert site.tus.content(site.finished) == CONTENT


def test_finished_uploads_are_removed_where_they_have_a_time(
    tmp_path: Path, commands: Commands
) -> None:
    with ServerProcess(tmp_path / "data", TUS_KEEP_FINISHED_S="0.2") as server:
        site = Site(server, commands)
        server.kill()
        site.make_older(1.0)

        server.start()

        wait_until(lambda: not site.records.files(site.finished), "its bytes are freed")
        assert site.records.events(site.finished) == ["verified", "deleted"]
        assert site.tus.head(site.finished).status == 404
        assert site.tus.offset(site.half) == 50_000


# --- the command


def test_without_a_server_the_command_ends_what_has_expired(site: Site) -> None:
    assert site.reap()[0] == [
        dict.fromkeys(
            ("expired", "deleted", "freed_bytes", "purged", "events", "nodes", "postponed"), 0
        )
    ]
    site.make_older(8 * 86400)

    (done,), _ = site.reap()

    assert (done["expired"], done["freed_bytes"]) == (1, 50_000)
    site.check_expired()
    (shown,) = site.commands.uploads("show", upload_id(site.half), server=site.server)
    assert shown["history"][0]["note"] == "by tus-server reap"
    assert site.reap()[0][0]["expired"] == 0


def test_a_dry_run_tells_what_and_since_when_and_changes_nothing(site: Site) -> None:
    site.make_older(8 * 86400)

    listed, err = site.reap("--dry-run")

    (one,) = listed
    due_at = datetime.fromisoformat(one.pop("due_at"))
    assert abs((datetime.now(UTC) - due_at).total_seconds() - 86400) < 600
    created_at = datetime.fromisoformat(one.pop("created_at"))
    assert created_at < due_at
    assert one == {
        "action": "expire",
        "id": upload_id(site.half),
        "state": "receiving",
        "bytes": 50_000,
    }
    assert err == ""
    assert site.records.state(site.half) == "receiving"
    assert len(site.records.files(site.half)) == 1
    out, err = site.commands.run("reap", "--dry-run", "--data-dir", site.server.data_dir)
    assert out.startswith(f"expire  {upload_id(site.half)}  receiving  48.8 KiB  due ")
    assert "would end 1 uploads of 48.8 KiB; nothing was changed." in err


def test_it_says_in_a_sentence_what_it_did(site: Site) -> None:
    site.make_older(8 * 86400)

    out, _ = site.commands.run("reap", "--data-dir", site.server.data_dir)

    assert out == (
        "Uploads: 1 expired, 0 kept for long enough; 48.8 KiB freed. Forgotten: 0 uploads that"
        " ended long ago, 0 delivered events, 0 nodes.\n"
    )


def test_idle_uploads_are_given_up_before_their_time_where_that_is_wanted(site: Site) -> None:
    site.make_older(3 * 86400)

    assert site.reap("--older-than", "4d")[0][0]["expired"] == 0
    assert len(site.reap("--older-than", "2d", "--dry-run")[0]) == 1
    assert site.reap("--older-than", "2d")[0][0]["expired"] == 1
    site.check_expired()


def test_files_that_a_crash_left_go_with_it(site: Site) -> None:
    (path,) = site.records.files(site.finished)
    left = path.with_name(f"{path.name}.partial")
    left.write_bytes(b"left")

    site.reap()

    assert not left.exists()
    site.check_rest()


def test_beside_a_server_on_the_same_data_it_leaves_the_work_to_that(site: Site) -> None:
    site.make_older(8 * 86400)
    site.server.start()
    wait_until(lambda: not site.records.files(site.half), "the server has done it")

    listed, err = site.reap()
    assert listed == []
    assert err.startswith("tus-server: nothing to do, the server that runs on ")
    assert "stop it, or use" in site.reap("--older-than", "1d", status=1)[1]
    assert site.reap("--dry-run") == ([], "")
    site.check_expired()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--older-than", "2"], "--older-than '2' is no duration such as 90m, 36h or 2d."),
        (["--older-than", "0d"], "is no duration"),
    ],
)
def test_a_wrong_duration_is_refused(site: Site, arguments: list[str], sentence: str) -> None:
    assert sentence in site.reap(*arguments, status=2)[1]


def test_where_uploads_do_not_expire_none_is_too_idle(site: Site) -> None:
    site.commands.env["TUS_EXPIRES_AFTER_S"] = "0"

    _, err = site.reap("--older-than", "2d", status=2)

    assert err == (
        "tus-server: --older-than needs uploads that expire, and TUS_EXPIRES_AFTER_S is 0.\n"
    )


def test_a_slip_in_the_settings_makes_no_folder(commands: Commands) -> None:
    for more in ([], ["--dry-run"]):
        _, err = commands.run("reap", "--data-dir", "nowhere", *more, status=1)

        assert "There is no state database at" in err
    assert not (commands.folder / "nowhere").exists()


# --- clocks


@pytest.fixture
def faketime(tmp_path: Path) -> Path:
    """A file that says how far the clock of processes with `clock_env` is ahead."""
    if not any(library.is_file() for library in FAKETIME):
        pytest.skip("no libfaketime: apt-get install faketime, or set TUS_TEST_FAKETIME")
    path = tmp_path / "faketime"
    path.write_text("+0")
    return path


def clock_env(faketime: Path) -> dict[str, str]:
    library = next(path for path in FAKETIME if path.is_file())
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(faketime),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.needs_apt
def test_a_clock_that_jumps_ends_only_what_nobody_is_sending(
    tmp_path: Path, commands: Commands, faketime: Path
) -> None:
    with ServerProcess(tmp_path / "data", **clock_env(faketime)) as server:
        site = Site(server, commands)
        sent = site.tus.new(10)
        with site.tus.hold(sent, 0, b"12345", declared=10) as sending:
            faketime.write_text("+8d")

            assert site.tus.head(site.half).status == 410
            assert site.tus.content(site.finished) == CONTENT
            sending.send(b"67890")
            assert sending.read_reply().status == 204
        assert site.tus.content(sent) == b"1234567890"

        # Back again before any pass: nothing was ended that would have to come back.
        faketime.write_text("+0")
        assert site.tus.offset(site.half) == 50_000

        faketime.write_text("+8d")
        server.stop()
        commands.env |= clock_env(faketime)
        assert site.reap()[0][0]["expired"] == 1
        site.check_expired()
        server.start()
        assert site.tus.content(sent) == b"1234567890"
        assert site.tus.content(site.finished) == CONTENT
