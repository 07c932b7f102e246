"""The command line as processes: a real server, real uploads, exit statuses and words."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest
import requests

from tests.conftest import ServerFactory
from tests.support.api import Api, state_of
from tests.support.commands import TIMEOUT_S, Commands
from tests.support.server import ServerProcess

MIB = 1024 * 1024


class Gate:
    """A TCP proxy in front of a server that lets `limit` bytes of requests through, then no more.

    `reached` is set when it has; what comes later waits until `open`.
    """

    def __init__(self, port: int, limit: int) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()
        self._port = port
        self._left = limit
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/files/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.open()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def open(self) -> None:
        self._opened.set()

    def cut(self) -> None:
        """Break every connection there is; what a client sent but the gate held back is lost."""
        for each in self._sockets:
            _shut(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            while chunk := _received(client):
                if not self._opened.is_set():
                    now, chunk = chunk[: self._left], chunk[self._left :]
                    self._left -= len(now)
                    if now and not _sent(server, now):
                        break
                    if self._left == 0:
                        self.reached.set()
                        self._opened.wait()
                if chunk and not _sent(server, chunk):
                    break
            _shut(server)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    while (chunk := _received(source)) and _sent(sink, chunk):
        pass
    _shut(sink)


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _sent(sink: socket.socket, chunk: bytes) -> bool:
    try:
        sink.sendall(chunk)
    except OSError:
        return False
    return True


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data", TUS_PART_SIZE_BYTES="2 MiB") as server:
        yield server


@pytest.fixture
def gate(server: ServerProcess) -> Iterator[Gate]:
    with Gate(server.port, 3 * MIB) as gate:
        yield gate


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big file.bin"
    path.write_bytes(os.urandom(8 * MIB))
    return path


def creation_url(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.port}/files/"


def download(url: str, server: ServerProcess) -> bytes:
    """Fetch past any gate."""
    with requests.Session() as session:
        session.trust_env = False
        reply = session.get(creation_url(server) + url.rpartition("/")[2], timeout=TIMEOUT_S)
    assert reply.status_code == 200
    return reply.content


# --- the program


def test_help_names_every_command(commands: Commands) -> None:
    out, _ = commands.run("--help")
    assert all(name in out for name in ("serve", "put", "migrate", "uploads"))

    out, _ = commands.run("uploads", "--help")
    assert all(name in out for name in ("ls", "show", "rm", "rewind"))


def test_help_of_serve_names_the_variable_of_each_flag(commands: Commands) -> None:
    out, _ = commands.run("serve", "--help")

    flags = {word for word in out.split() if word.startswith("--")} - {"--help"}
    assert {"--host", "--port", "--data-dir", "--log-format", "--workers", "--migrate"} <= flags
    for flag in flags:
        assert f"TUS_{flag[2:].replace('-', '_').upper()}" in out


def test_version_is_printed(commands: Commands) -> None:
    from tus_server import __version__

    assert commands.run("--version") == (f"tus-server {__version__}\n", "")


def test_the_installed_script_is_the_same_program(commands: Commands) -> None:
    script = shutil.which("tus-server", path=str(Path(sys.executable).parent))
    assert script is not None, "the package is not installed beside this Python"

    shown = subprocess.run(
        [script, "--version"], env=commands.env, capture_output=True, text=True, check=True
    )

    assert shown.stdout.startswith("tus-server ")


# --- serve


def test_wrong_settings_end_serve_with_2_and_a_line_each(commands: Commands) -> None:
    commands.env["TUS_PORT"] = "70000"

    _, err = commands.run("serve", "--durability", "never", status=2)

    assert err.splitlines() == [
        "tus-server: TUS_PORT is '70000': give a number from 0 to 65535.",
        "tus-server: TUS_DURABILITY is 'never', by --durability: give full or relaxed.",
    ]


def test_a_wrong_key_in_the_file_ends_serve_with_2(commands: Commands) -> None:
    (commands.folder / "my.toml").write_text("data_dirs = '/x'\n")

    _, err = commands.run("serve", "--config", "my.toml", status=2)

    assert err == (
        "tus-server: my.toml has the key 'data_dirs', which is no setting; did you mean data_dir?\n"
    )


def test_several_workers_over_sqlite_are_refused_in_one_sentence(commands: Commands) -> None:
    _, err = commands.run("serve", "--workers", "2", status=2)

    assert err.startswith("tus-server: TUS_WORKERS is '2', by --workers: with SQLite one process")
    assert len(err.splitlines()) == 1
    assert not (commands.folder / "tus-data").exists()


def test_postgres_over_a_disk_is_refused_in_one_sentence(commands: Commands) -> None:
    commands.env["TUS_STATE_URL"] = "postgresql://me:s3cret@127.0.0.1/tus"

    for command in (["serve"], ["migrate"], ["uploads", "ls"]):
        _, err = commands.run(*command, status=2)

        assert err.startswith("tus-server: TUS_STATE_URL is 'postgresql://***@127.0.0.1/tus': ")
        assert len(err.splitlines()) == 1
        assert not (commands.folder / "tus-data").exists()


def test_a_second_server_on_a_data_dir_is_refused_in_one_sentence(
    commands: Commands, server: ServerProcess
) -> None:
    _, err = commands.run("serve", "--port", "0", "--data-dir", server.data_dir, status=1)

    assert len(err.splitlines()) == 1
    assert f"{server.data_dir} is in use" in err


def test_a_port_in_use_is_refused_in_one_sentence(
    commands: Commands, server: ServerProcess
) -> None:
    _, err = commands.run("serve", "--port", server.port, "--data-dir", "other", status=2)

    assert len(err.splitlines()) == 1
    assert "TUS_PORT" in err


def test_a_variable_that_is_no_setting_is_a_warning(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", TUS_PROT="1") as server:
        assert server.stop() == 0

        assert "TUS_PROT is no setting; did you mean TUS_PORT?" in server.log


def test_a_setting_without_effect_is_a_warning(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", TUS_S3_REGION="eu-central-1") as server:
        assert server.stop() == 0

        assert "TUS_S3_REGION has no effect: TUS_STORE_URL is no S3 store." in server.log


# --- migrate


def test_migrate_has_nothing_to_do_with_sqlite(commands: Commands) -> None:
    out, _ = commands.run("migrate")

    assert out.startswith("Nothing to do: the state is in SQLite")
    assert not (commands.folder / "tus-data").exists()


# --- put


def test_put_uploads_files_and_prints_their_urls(
    commands: Commands, server: ServerProcess, big: Path
) -> None:
    (commands.folder / "small").write_bytes(b"small")
    (commands.folder / "empty").touch()

    out, err = commands.run("put", big, "small", "empty", creation_url(server))

    urls, names = zip(*(line.split("  ", 1) for line in out.splitlines()), strict=True)
    assert names == (str(big), "small", "empty")
    assert all(url.startswith(creation_url(server)) for url in urls)
    assert err == ""
    assert download(urls[0], server) == big.read_bytes()
    assert download(urls[1], server) == b"small"
    assert download(urls[2], server) == b""


def test_put_sends_chunks_of_the_size_asked_for(
    commands: Commands, server: ServerProcess, big: Path
) -> None:
    (sent,) = commands.put("--chunk-size", "3 MiB", big, creation_url(server))

    assert sent["size_bytes"] == 8 * MIB
    assert download(sent["url"], server) == big.read_bytes()


def test_put_names_and_types_files_and_adds_metadata(
    commands: Commands, server: ServerProcess
) -> None:
    (commands.folder / "ä b.txt").write_bytes(b"x")

    (sent,) = commands.put(
        "ä b.txt", creation_url(server), "--metadata", "album=a, b=c", "--metadata", "empty="
    )

    (upload,) = commands.uploads("show", sent["url"].rpartition("/")[2], server=server)
    assert upload["metadata"] == {
        "filename": "ä b.txt",
        "filetype": "text/plain",
        "album": "a, b=c",
        "empty": "",
    }


def test_put_takes_names_that_are_no_text(commands: Commands, server: ServerProcess) -> None:
    path = commands.folder / os.fsdecode(b"a\n\xff")
    path.write_bytes(b"x")

    out, _ = commands.run("put", path, creation_url(server))

    (line,) = out.splitlines()
    assert line.isprintable()


def test_put_goes_on_where_a_killed_run_got_to(
    commands: Commands, server: ServerProcess, gate: Gate, big: Path
) -> None:
    first = commands.start("put", big, gate.url)
    assert gate.reached.wait(TIMEOUT_S)
    first.kill()
    first.communicate(timeout=TIMEOUT_S)
    gate.cut()
    gate.open()

    out, err = commands.run("put", big, gate.url)

    assert "big file.bin: resumed at 3.0 MiB of 8.0 MiB" in err
    assert download(out.split()[0], server) == big.read_bytes()
    assert len(commands.uploads("ls", server=server)) == 1
    stored = commands.folder / "state" / "tus-server" / "uploads.json"
    assert json.loads(stored.read_text()) == {}
    assert stored.stat().st_mode & 0o77 == 0


def test_put_goes_on_by_itself_when_the_server_is_killed_and_comes_back(
    commands: Commands, server: ServerProcess, gate: Gate, big: Path
) -> None:
    put = commands.start("put", "--json", big, gate.url)
    assert gate.reached.wait(TIMEOUT_S)
    server.kill()
    gate.cut()
    server.start()
    gate.open()

    out, err = commands.finish(put)

    assert "attempt 1 in" in err
    assert download(json.loads(out)["url"], server) == big.read_bytes()


def test_an_interrupted_put_ends_with_130_and_says_how_to_go_on(
    commands: Commands, server: ServerProcess, gate: Gate, big: Path
) -> None:
    (commands.folder / "small").write_bytes(b"small")
    put = commands.start("put", "small", big, gate.url)
    assert gate.reached.wait(TIMEOUT_S)
    put.send_signal(signal.SIGINT)

    out, err = commands.finish(put, status=130)
    gate.cut()
    gate.open()

    assert out.endswith("  small\n")
    assert "interrupted at" in err
    assert f"run it again for '{big}'" in err
    (sent,) = commands.put(big, gate.url)
    assert 2 * MIB <= sent["resumed_at"] <= 3 * MIB
    assert download(sent["url"], server) == big.read_bytes()


@pytest.mark.parametrize("change", ["file", "metadata", "fresh", "removed"])
def test_what_is_no_longer_the_same_upload_begins_anew(
    change: str, commands: Commands, server: ServerProcess, gate: Gate, big: Path
) -> None:
    put = commands.start("put", big, gate.url)
    assert gate.reached.wait(TIMEOUT_S)
    put.send_signal(signal.SIGINT)
    commands.finish(put, status=130)
    gate.cut()
    gate.open()
    (half,) = commands.uploads("ls", server=server)
    more: tuple[str, ...] = ()
    if change == "file":
        # Same length, same start.
        with big.open("r+b") as file:
            file.seek(4 * MIB)
            file.write(b"changed")
    elif change == "metadata":
        more = ("--metadata", "a=b")
    elif change == "fresh":
        more = ("--fresh",)
    else:
        commands.uploads("rm", half["id"], "--yes", server=server)

    (sent,) = commands.put(big, gate.url, *more)

    assert sent["resumed_at"] == 0
    assert not sent["url"].endswith(half["id"])
    assert download(sent["url"], server) == big.read_bytes()


def test_a_damaged_list_of_urls_is_as_good_as_none(
    commands: Commands, server: ServerProcess, big: Path
) -> None:
    stored = commands.folder / "state" / "tus-server" / "uploads.json"
    stored.parent.mkdir(parents=True)
    stored.write_text("{")

    (sent,) = commands.put(big, creation_url(server))

    assert sent["ok"]


def test_put_tries_the_other_files_when_one_is_refused(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(2000))
    (tmp_path / "small").write_bytes(b"small")

    with ServerProcess(tmp_path / "data", TUS_MAX_SIZE="1 KB") as server:
        out, err = commands.run("put", "big", "small", creation_url(server), status=1)

    assert out.endswith("  small\n")
    refused, summary = err.splitlines()
    assert refused.startswith("tus-server: big: ")
    assert " 413 " in refused
    assert summary == "tus-server: 1 of 2 not uploaded; to go on, run it again for big"


class _Elsewhere(BaseHTTPRequestHandler):
    """A web site."""

    seen: list[str | None]

    def do_POST(self) -> None:
        self.seen.append(self.headers.get("X-Token"))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web_site() -> Iterator[str]:
    _Elsewhere.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}/"
        site.shutdown()


def test_put_says_when_a_url_is_no_tus_server(commands: Commands, big: Path, web_site: str) -> None:
    _, err = commands.run("put", big, web_site, "--header", "X-Token: s3cret", status=1)

    assert err == (
        f"tus-server: {big}: {web_site} answered POST with 200 OK, "
        "so it seems to be no tus server.\n"
    )
    assert _Elsewhere.seen == ["s3cret"]


def test_put_says_at_once_when_nothing_listens(commands: Commands, big: Path) -> None:
    with socket.socket() as bound:  # bound, not listening: refused
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/files/"

        (result,) = commands.put(big, url, status=1)

    assert not result["ok"]
    assert result["url"] is None
    assert result["error"] == f"{url} does not answer (Connection refused)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent", "http://h/"], "there is no file 'absent'"),
        (["folder", "http://h/"], "'folder' is a directory"),
        (["pipe", "http://h/"], "'pipe' is no regular file"),
        (["-", "http://h/"], "standard input cannot be sent"),
        (["file", "file"], "'file' is no URL"),
        (["file", "ftp://h/"], "'ftp://h/' is no URL"),
        (["file", "http://h:x/"], "'http://h:x/' is no URL"),
        (["file", "http://h/", "--metadata", "x"], "--metadata 'x' is not KEY=VALUE"),
        (["file", "http://h/", "--metadata", "a,b=c"], "is not KEY=VALUE"),
        (["file", "http://h/", "--header", "X s3cret"], "--header is not 'NAME: VALUE'"),
        (["file", "http://h/", "--header", "X: s3cret\nY: b"], "--header is not 'NAME: VALUE'"),
        (["file", "http://h/", "--chunk-size", "many"], "--chunk-size 'many' is no size"),
    ],
)
def test_wrong_use_of_put_ends_with_2_and_one_sentence(
    arguments: list[str], words: str, commands: Commands
) -> None:
    (commands.folder / "file").touch()
    (commands.folder / "folder").mkdir()
    os.mkfifo(commands.folder / "pipe")

    _, err = commands.run("put", *arguments, status=2)

    assert len(err.splitlines()) == 1
    assert words in err
    assert "s3cret" not in err


# --- uploads


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_uploads_are_listed_shown_and_removed(
    running: bool, commands: Commands, server: ServerProcess
) -> None:
    for name in ("one", "two", "three"):
        (commands.folder / name).write_text(name)
    sent = commands.put("one", "two", "three", creation_url(server))
    ids = [result["url"].rpartition("/")[2] for result in sent]
    objects = [path for path in server.data_dir.rglob("*") if path.name in ids]
    assert len(objects) == 3
    if not running:
        assert server.stop() == 0

    listed = commands.uploads("ls", server=server)
    assert [upload["id"] for upload in listed] == ids[::-1]
    assert [upload["metadata"]["filename"] for upload in listed] == ["three", "two", "one"]
    assert [u["id"] for u in commands.uploads("ls", "--limit", 1, server=server)] == ids[2:]

    (shown,) = commands.uploads("show", ids[0], server=server)
    assert (shown["state"], shown["offset"], shown["length"]) == ("verified", 3, 3)
    states = [step["state"] for step in shown["history"]]
    assert states[0] == "verified"
    assert states[-1] == "initiated"
    assert {step["note"] for step in shown["history"]} == {None}
    assert (shown["committed_bytes"], shown["tail"]) == (3, None)

    removed = commands.uploads("rm", "--yes", ids[0], ids[1], server=server)
    assert removed == [{"id": id, "removed": True, "error": None} for id in ids[:2]]
    assert [path.name for path in objects if path.exists()] == [ids[2]]
    found = commands.uploads("ls", "--state", "deleted", server=server)
    assert {upload["id"] for upload in found} == set(ids[:2])


def test_a_direct_upload_is_removed_by_who_has_the_token(
    commands: Commands, fresh_server: ServerFactory
) -> None:
    token = "0123456789abcdef-token"
    server = fresh_server(TUS_API_TOKEN=token)
    with Api(server.port, fields={"Authorization": f"Bearer {token}"}) as api:
        upload_id = api.upload(b"hello")

        where = ("--data-dir", server.data_dir)
        _, refused = commands.run("uploads", "rm", "--yes", upload_id, *where, status=1)
        assert "answered 401" in refused
        commands.env["TUS_API_TOKEN"] = token
        (removed,) = commands.uploads("rm", "--yes", upload_id, server=server)

        assert removed == {"id": upload_id, "removed": True, "error": None}
        assert state_of(api.find(upload_id)) == "deleted"


def test_tables_have_what_a_person_looks_for(commands: Commands, server: ServerProcess) -> None:
    name = "[red]\x1b[31mfile"
    (commands.folder / name).write_bytes(bytes(3 * MIB))
    out, _ = commands.run("put", name, creation_url(server))
    id = out.split()[0].rpartition("/")[2]

    listed, _ = commands.run("uploads", "ls", "--data-dir", server.data_dir)
    shown, _ = commands.run("uploads", "show", id, "--data-dir", server.data_dir)

    head, row = listed.splitlines()
    assert head.split() == ["ID", "STATE", "RECEIVED", "CREATED", "KIND", "NAME"]
    assert row.startswith(f"{id}  verified  3.0 MiB")
    assert row.rstrip().endswith(r"[red]\x1b[31mfile")
    assert "filetype" in shown
    assert "initiated" in shown
    assert "\x1b" not in listed + shown


@pytest.mark.parametrize("command", ["rm", "rewind"])
def test_what_loses_bytes_needs_yes_where_there_is_nobody_to_ask(
    command: str, commands: Commands, server: ServerProcess
) -> None:
    (commands.folder / "one").write_text("one")
    (sent,) = commands.put("one", creation_url(server))
    id = sent["url"].rpartition("/")[2]

    _, err = commands.run("uploads", command, id, "--data-dir", server.data_dir, status=2)

    assert "--yes" in err
    (upload,) = commands.uploads("ls", server=server)
    assert upload["state"] == "verified"


def test_rewind_gives_up_nothing_that_is_stored(commands: Commands, server: ServerProcess) -> None:
    (commands.folder / "one").write_text("one")
    (sent,) = commands.put("one", creation_url(server))
    id = sent["url"].rpartition("/")[2]
    rewind = ("uploads", "rewind", "--yes", "--json", id, "--data-dir", server.data_dir)

    out, err = commands.run(*rewind, status=1)
    assert json.loads(out)["rewound"] is False
    assert f"{server.data_dir} is in use" in err

    assert server.stop() == 0
    out, err = commands.run(*rewind, status=1)
    assert json.loads(out) == {
        "id": id,
        "rewound": False,
        "offset": None,
        "given_up_bytes": 0,
        "error": f"Upload {id} has no tail: every byte is in the store.",
    }
    (upload,) = commands.uploads("ls", server=server)
    assert (upload["state"], upload["offset"]) == ("verified", 3)


@pytest.mark.parametrize("command", [["show"], ["rm", "--yes"], ["rewind", "--yes"]])
def test_an_upload_that_does_not_exist_is_named(
    command: list[str], commands: Commands, server: ServerProcess
) -> None:
    unknown = "0" * 32

    _, err = commands.run("uploads", *command, unknown, "--data-dir", server.data_dir, status=1)
    assert unknown in err
    assert len(err.splitlines()) == 1

    _, err = commands.run("uploads", *command, "../x", "--data-dir", server.data_dir, status=2)
    assert "'../x' is no upload id" in err


def test_a_folder_without_uploads_is_said_to_be_one(commands: Commands) -> None:
    _, err = commands.run("uploads", "ls", "--data-dir", "nowhere", status=1)

    assert "nowhere" in err
    assert len(err.splitlines()) == 1
    assert not (commands.folder / "nowhere").exists()
