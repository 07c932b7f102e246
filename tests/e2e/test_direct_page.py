"""What docs/direct-uploads.md says, tried: pasted as it is, run as a program, or looked up."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ServerFactory
from tests.e2e.test_readme import WALK_THROUGH
from tests.support.api import Api, state_of
from tests.support.commands import Commands
from tests.support.server import REPOSITORY, ServerProcess
from tests.support.tus import pattern
from tests.support.waiting import wait_until
from tus_server.broker import Broker
from tus_server.http.errors import STATUSES
from tus_server.settings.table import settings_table

PAGE = (REPOSITORY / "docs" / "direct-uploads.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MIB = 1024 * 1024


@pytest.fixture(scope="session")
def body_path() -> str:
    """One body path is enough: the page says nothing of it."""
    return "fast"


def blocks(language: str, word: str = "") -> list[str]:
    """Give the examples in a language that have a word in them."""
    found = [text for name, text in BLOCK.findall(PAGE) if name == language and word in text]
    assert found, f"the page has no {language} with {word!r}"
    return found


def block(language: str, word: str) -> str:
    (found,) = blocks(language, word)
    return found


def shell(name: str) -> list[str]:
    if shutil.which(name) is None or shutil.which("curl") is None:
        pytest.skip(f"the walk-through needs {name} and curl")
    return {"bash": ["bash", "--noprofile", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}[name]


# --- pasted


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_the_walk_through_downloads_what_it_uploaded(
    server: ServerProcess, tmp_path: Path, name: str
) -> None:
    """Interactive, because there zsh takes `#` for a word and `!` for history."""
    command = shell(name)
    pasted = "\n".join(WALK_THROUGH.findall(PAGE)).replace(":8080", f":{server.port}")

    done = subprocess.run(
        command,
        input=pasted,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "LANG": "C.UTF-8"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        start_new_session=True,  # an interactive shell wants a terminal: it shall find none
        check=False,
    )

    for sent, got in (("photo.bin", "copy.bin"), ("film.bin", "copy-2.bin")):
        (original,), (copy,) = tmp_path.rglob(sent), tmp_path.rglob(got)
        assert copy.read_bytes() == original.read_bytes(), done
        assert f"{got} is the same file" in done.stdout, done
    said = re.findall(r"^(?:verified|complete|\[1, 2, 3\])$", done.stdout, re.MULTILINE)
    assert said == ["verified", "[1, 2, 3]", "verified", "complete"], done
    assert "Traceback" not in done.stderr, done


def test_the_command_that_does_all_of_that(server: ServerProcess, tmp_path: Path) -> None:
    arguments = re.search(r"`tus-server (put --direct \S+ )http://127.0.0.1:8080/`", PAGE)
    assert arguments is not None
    (tmp_path / "film.bin").write_bytes(content := pattern(MIB))

    out, _ = Commands(tmp_path).run(*arguments[1].split(), f"http://127.0.0.1:{server.port}/")

    (url,) = re.findall(r"http://\S+/files/\S+", out)
    assert httpx.get(url).content == content


# --- run


@pytest.fixture
def application(tmp_path: Path) -> Iterator[str]:
    """The FastAPI application of the page under uvicorn; give its URL."""
    (tmp_path / "app.py").write_text(block("python", "FastAPI"))
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "__init__.py").touch()
    (tmp_path / "myapp" / "jobs.py").write_text(
        "def uploaded(message, film):\n"
        "    with open('told', 'a') as file:\n"
        "        print(film, message['data']['outcome'], file=file)\n"
    )
    log_path = tmp_path / "log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TUS_")}
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
            stdout=log,
            stderr=log,
        )
    try:
        running = re.compile(r"Uvicorn running on (http://\S+)")
        found = wait_until(lambda: running.search(log_path.read_text()), "it listens")
        yield found[1]
    finally:
        process.kill()
        process.wait()


def test_the_application_that_begins_and_completes_in_python(
    application: str, tmp_path: Path
) -> None:
    content = pattern(17 * MIB)
    with httpx.Client(base_url=application, timeout=60.0) as client:
        begun = client.post("/films", params={"name": "metropolis", "size": len(content)}).json()
        session, parts = begun["session"], begun["parts"]
        size = session["multipart"]["part_size_bytes"]
        etags = []
        for part in parts:
            start = (part["part_number"] - 1) * size
            sent = client.request(
                part["method"],
                part["url"],
                content=content[start : start + size],
                headers=part["headers"],
            )
            assert sent.status_code == 200, sent.text
            etags.append(sent.headers["etag"])

        done = client.post(f"/films/{session['id']}/complete", json=etags)

        assert (done.status_code, done.json()) == (200, {"state": "verified"})
        assert client.get(f"/uploads/files/{session['id']}").content == content
    told = tmp_path / "told"
    wait_until(told.exists, "the job was called")
    assert told.read_text() == "metropolis success\n"


def test_the_check_that_finds_a_virus(fresh_server: ServerFactory, tmp_path: Path) -> None:
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "__init__.py").touch()
    (tmp_path / "myapp" / "checks.py").write_text(block("python", "EICAR"))
    named = re.search(r"`(TUS_VERIFIER)=(\S+)`", PAGE)
    assert named is not None
    server = fresh_server(
        **{named[1]: named[2], "TUS_JOB_PREFIXES": "myapp"}, PYTHONPATH=str(tmp_path)
    )

    with Api(server.port) as api:
        clean = api.upload(b"clean")
        found = api.begin("single", 9)
        api.send(found["put"], b"an EICAR!")
        view = api.post(found["id"], "complete", fields={"Prefer": "wait=30"}).json()

        assert state_of(api.find(clean)) == "verified"
    assert state_of(view) == "error"
    assert view["error"] == {"code": "virus_found", "message": "The file has a virus."}


@pytest.mark.needs_node
def test_the_javascript_that_sends_parts(server: ServerProcess, tmp_path: Path) -> None:
    _needs_node()
    content = pattern(33 * MIB)
    (tmp_path / "film.bin").write_bytes(content)
    with Api(server.port) as api:
        begun = api.begin("multipart", len(content))
        (tmp_path / "send.mjs").write_text(
            f"{block('js', 'sendParts')}\n"
            "import { openAsBlob } from 'node:fs'\n"
            f"const url = 'http://127.0.0.1:{server.port}/api/uploads/'\n"
            "const sign = async (id, numbers) => (await (await fetch(`${url}${id}/parts/sign`, {\n"
            "  method: 'POST', headers: { 'Content-Type': 'application/json' },\n"
            "  body: JSON.stringify({ part_numbers: numbers }) })).json()).parts\n"
            "const file = await openAsBlob('film.bin')\n"
            f"const begun = {json.dumps(begun)}\n"
            "console.log(JSON.stringify({ parts: await sendParts(file, begun, sign) }))\n"
        )
        done = subprocess.run(
            ["node", "send.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

        fields = {"Prefer": "wait=30"}
        reply = api.post(begun["id"], "complete", json.loads(done.stdout), fields=fields)

        assert state_of(reply.json()) == "verified", reply.text
        assert httpx.get(reply.json()["object"]["url"]).content == content


@pytest.mark.needs_node
@pytest.mark.parametrize("number", range(len(blocks("js"))))
def test_javascript_can_be_read(number: int, tmp_path: Path) -> None:
    _needs_node()
    path = tmp_path / "example.mjs"
    path.write_text(blocks("js")[number])

    done = subprocess.run(["node", "--check", path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def _needs_node() -> None:
    if shutil.which("node") is None:
        pytest.skip("JavaScript needs node")


# --- looked up


def test_an_upload_is_shown_as_the_api_shows_it(server: ServerProcess) -> None:
    (shown,) = (json.loads(text) for text in blocks("json", '"status"'))
    with Api(server.port) as api:
        checksum = {"algorithm": "crc64nvme", "value": "AAAAAAAAAAA="}
        upload_id = api.upload(b"", "multipart", checksum=checksum, file_id="film-7")
        view = api.find(upload_id)
        assert api.delete(upload_id).status_code == 200

    _check_shape(shown, view)


def _check_shape(shown: Any, real: Any, path: str = "") -> None:
    """Check that what is shown is there, in the same form: the page leaves things out."""
    if isinstance(shown, dict) and real is not None:
        assert shown.keys() <= real.keys(), path
        for name, value in shown.items():
            _check_shape(value, real[name], f"{path}.{name}")
    elif isinstance(shown, list):
        for value in shown:
            _check_shape(value, real[0], f"{path}[]")
    else:
        assert real is None or shown is None or isinstance(real, type(shown)), path


def test_json_can_be_read() -> None:
    for text in blocks("json"):
        json.loads(text)


def test_every_setting_there_is_one() -> None:
    known = {row.name for row in settings_table()}

    named = set(re.findall(r"\bTUS_[A-Z_]+[A-Z]", PAGE))

    assert named - known == set()


def test_every_error_is_answered_with_that_status() -> None:
    statuses = {error.code: status for error, status in STATUSES.items()}
    rows = re.findall(r"^\| ([0-9, ]+) \| ((?:`\w+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    assert len(rows) > 8

    for numbers, codes in rows:
        told = [int(number) for number in numbers.split(",")]
        for place, code in enumerate(re.findall(r"\w+", codes)):
            assert statuses[code] == told[min(place, len(told) - 1)], code


def test_every_path_is_one_of_the_api(server: ServerProcess) -> None:
    with Api(server.port) as api:
        known = {path.replace("upload_id", "id") for path in api.document.document["paths"]}
    named = set(re.findall(r"`(?:GET|POST|DELETE) (/api/[^`?]*)", PAGE))
    assert named

    assert named - known == set()


def test_every_method_is_one_of_the_broker() -> None:
    listed = re.search(r"((?:`\w+`,? (?:and\n)?)+\n?`list`) are the others", PAGE)
    assert listed is not None
    names = re.findall(r"\w+", listed[1].replace("and", ""))
    assert len(names) > 8

    assert [name for name in names if not callable(getattr(Broker, name, None))] == []


def test_commands_take_what_they_are_shown_with(server: ServerProcess, tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    commands.env["TUS_DATA_DIR"] = str(server.data_dir)
    shown = re.findall(r"`tus-server (jobs [^`]+)`", PAGE)
    assert len(shown) > 1

    for line in shown:
        if "ID" not in line:
            commands.run(*line.split())
        else:
            out, _ = commands.run(*line.split()[:2], "--help")
            assert "ID" in out
