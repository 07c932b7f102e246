"""`put --direct` as a process against the real server on a disk: interrupted, refused, repeated."""

import json
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.conftest import check_log
from tests.support.commands import TIMEOUT_S, Commands
from tests.support.http_proxy import HttpProxy
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

MIB = 1024 * 1024
PART = MIB
PARTS = r"^/direct/"
API = "/api/uploads"
TOKEN = "t0ken-of-the-application"


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    made = Commands(tmp_path)
    made.env |= {"TUS_API_TOKEN": TOKEN, "HOME": str(tmp_path)}
    return made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data", **environment()) as server:
        yield server
        check_log(server.log)


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[HttpProxy]:
    """Before the server; what it signs leads here, too."""
    with HttpProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of eight parts."""
    path = tmp_path / "big file.bin"
    path.write_bytes(os.urandom(8 * PART - 17))
    return path


def environment(**more: str) -> dict[str, str]:
    """What a server has. With a token: past a proxy nobody gets without."""
    return {"TUS_DIRECT_PART_SIZE": str(PART), "TUS_API_TOKEN": TOKEN, **more}


def root(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.port}/"


def download(url: str, server: ServerProcess) -> bytes:
    """Fetch past any proxy."""
    with requests.Session() as session:
        session.trust_env = False
        reply = session.get(root(server) + "files/" + _id(url), timeout=TIMEOUT_S)
    assert reply.status_code == 200
    return reply.content


def direct(commands: Commands, *arguments: object, status: int = 0) -> dict[str, Any]:
    """Run `put --direct --json` of one file; give its result."""
    (result,) = commands.put("--direct", *arguments, status=status)
    return result


def only_upload(commands: Commands, server: ServerProcess) -> dict[str, Any]:
    (listed,) = commands.uploads("ls", server=server)
    (shown,) = commands.uploads("show", listed["id"], server=server)
    return shown


def sent_parts(proxy: HttpProxy, start: int = 0) -> Counter[int]:
    """Count by number the parts that were sent well, from the `start`th request on."""
    return Counter(
        int(urlsplit(seen.target).path.rpartition("/")[2])
        for seen in proxy.seen[start:]
        if seen.method == "PUT" and seen.status == 200
    )


def _id(url: str) -> str:
    return url.rpartition("/")[2]


# --- the journey


def test_a_large_file_arrives_in_parallel_and_is_verified(
    commands: Commands, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(100 * MIB))
    # On one machine nobody needs a token.
    del commands.env["TUS_API_TOKEN"]
    with ServerProcess(tmp_path / "data", TUS_DIRECT_PART_SIZE=str(8 * MIB)) as server:
        out, err = commands.run("put", "--direct", path, root(server))

        url, name = out.rstrip("\n").split("  ", 1)
        upload = only_upload(commands, server)
        assert download(url, server) == path.read_bytes()
    assert (name, err) == (str(path), "")
    assert url == f"{root(server)}files/{upload['id']}"
    assert (upload["kind"], upload["state"], upload["progress"]) == (
        "multipart",
        "verified",
        "complete",
    )
    assert (upload["part_count"], upload["parts_arrived"]) == (13, 13)


def test_the_result_as_json_has_id_kind_and_state(
    commands: Commands, server: ServerProcess, big: Path
) -> None:
    sent = direct(commands, big, root(server))

    assert sent == {
        "file": str(big),
        "ok": True,
        "url": f"{root(server)}files/{sent['id']}",
        "size_bytes": 8 * PART - 17,
        "resumed_at": 0,
        "seconds": sent["seconds"],
        "error": None,
        "id": sent["id"],
        "kind": "multipart",
        "state": "verified",
    }
    stored = commands.folder / "state" / "tus-server" / "uploads.json"
    assert json.loads(stored.read_text()) == {}


SIZES = [0, PART + 1, *(pytest.param(size, marks=pytest.mark.full) for size in (1, PART - 1, PART))]


@pytest.mark.parametrize("size", SIZES)
def test_files_of_any_size_arrive(size: int, commands: Commands, server: ServerProcess) -> None:
    path = commands.folder / "file.txt"
    path.write_bytes(os.urandom(size))

    sent = direct(commands, path, root(server))

    assert download(sent["url"], server) == path.read_bytes()


def test_several_files_are_sent_with_their_names_types_and_metadata(
    commands: Commands, server: ServerProcess
) -> None:
    for name in ("ä b.txt", "second.png"):
        (commands.folder / name).write_text(name)

    sent = commands.put(
        "--direct", "ä b.txt", "second.png", f"{root(server)}files/", "--metadata", "album=a, b=c"
    )

    first, second = (commands.uploads("show", each["id"], server=server)[0] for each in sent)
    assert first["metadata"] == {"filename": "ä b.txt", "filetype": "text/plain", "album": "a, b=c"}
    assert (second["content_type"], second["metadata"]["filename"]) == ("image/png", "second.png")
    assert [download(each["url"], server).decode() for each in sent] == ["ä b.txt", "second.png"]


def test_as_many_parts_as_asked_for_are_on_their_way_at_once(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("PUT")
    put = commands.start("put", "--direct", "--parallel", 3, big, proxy.url)

    wait_until(lambda: len(held.targets) == 3, "three parts are on their way")
    held.release()
    commands.finish(put)

    assert sent_parts(proxy) == dict.fromkeys(range(1, 9), 1)


def test_memory_does_not_grow_with_the_part(commands: Commands, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(512 * MIB)

    wide = environment(TUS_DIRECT_PART_SIZE=str(256 * MIB))
    with ServerProcess(tmp_path / "data", **wide) as server:
        put = commands.start("put", "--direct", "--quiet", path, root(server))
        peaks = [0]
        # Not of getrusage(): there the process that has started it counts, too.
        while put.poll() is None:
            peaks.append(peak_memory_kib(put.pid) or peaks[-1])
        commands.finish(put)

    assert 0 < peaks[-1] < 128 * 1024


def peak_memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int((re.findall(r"VmHWM:\s*(\d+) kB", status) or [0])[0])


# --- interruptions


def test_only_what_a_killed_run_had_not_sent_is_sent_by_the_next(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("PUT", after=3)
    first = commands.start("put", "--direct", big, proxy.url)
    wait_until(lambda: proxy.count("PUT") == 3, "three parts have arrived")
    held.wait_reached()
    first.kill()
    first.communicate(timeout=TIMEOUT_S)
    held.drop()

    out, err = commands.run("put", "--direct", big, proxy.url)

    assert sent_parts(proxy) == dict.fromkeys(range(1, 9), 1)
    assert "big file.bin: resumed at 3.0 MiB of 8.0 MiB" in err
    assert download(out.split()[0], server) == big.read_bytes()
    assert len(commands.uploads("ls", server=server)) == 1


def test_a_run_goes_on_by_itself_when_the_server_is_killed_and_comes_back(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("PUT", after=3)
    # A server takes its time to start where others keep the machine busy.
    put = commands.start("put", "--direct", "--json", "--retries", 9, big, proxy.url)
    wait_until(lambda: proxy.count("PUT") == 3, "three parts have arrived")
    held.wait_reached()
    server.kill()
    held.drop()
    server.start()

    out, err = commands.finish(put)

    result = json.loads(out)
    assert "attempt 1 in" in err
    assert (result["state"], result["resumed_at"]) == ("verified", 0)
    assert download(result["url"], server) == big.read_bytes()
    assert sent_parts(proxy) == dict.fromkeys(range(1, 9), 1)


def test_an_interrupted_run_ends_with_130_and_says_how_to_go_on(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    (commands.folder / "small").write_bytes(b"small")
    held = proxy.hold("PUT", after=3)
    put = commands.start("put", "--direct", "small", big, proxy.url)
    wait_until(lambda: proxy.count("PUT") == 3, "a file and two parts have arrived")
    held.wait_reached()
    put.send_signal(signal.SIGINT)

    out, err = commands.finish(put, status=130)
    held.drop()

    assert out.endswith("  small\n")
    assert re.search(r"interrupted at \S+ (MiB|B) of 8.0 MiB of big file.bin", err)
    assert f"run it again for '{big}'" in err
    sent = direct(commands, big, proxy.url)
    assert sent["resumed_at"] == 2 * PART
    assert download(sent["url"], server) == big.read_bytes()


def test_an_upload_whose_verification_was_not_waited_for_is_found_by_the_next_run(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("POST", target="/complete")
    put = commands.start("put", "--direct", big, proxy.url)
    held.wait_reached()
    put.send_signal(signal.SIGINT)
    commands.finish(put, status=130)
    held.release()
    wait_until(lambda: proxy.count("POST", "/complete"), "it is completed all the same")

    sent = direct(commands, big, proxy.url)

    assert sent["state"] == "verified"
    assert proxy.count("PUT") == 8
    assert len(commands.uploads("ls", server=server)) == 1


def test_an_upload_whose_beginning_was_not_answered_is_no_other_upload(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    proxy.lose_answer("POST")
    failed = direct(commands, "--file-id", "f", big, proxy.url, status=1)

    sent = direct(commands, "--file-id", "f", big, proxy.url)

    assert failed["error"].endswith("does not answer (it has closed the connection)")
    assert sent["state"] == "verified"
    assert len(commands.uploads("ls", server=server)) == 1


@pytest.mark.parametrize("change", ["file", "metadata", "fresh", "removed"])
def test_what_is_no_longer_the_same_upload_begins_anew(
    change: str, commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("PUT", after=3)
    put = commands.start("put", "--direct", big, proxy.url)
    held.wait_reached()
    put.send_signal(signal.SIGINT)
    commands.finish(put, status=130)
    held.drop()
    (half,) = commands.uploads("ls", server=server)
    more: tuple[str, ...] = ()
    if change == "file":
        with big.open("r+b") as file:  # same length, same start
            file.seek(4 * PART)
            file.write(b"changed")
    elif change == "metadata":
        more = ("--metadata", "a=b")
    elif change == "fresh":
        more = ("--fresh",)
    else:
        commands.uploads("rm", half["id"], "--yes", server=server)

    sent = direct(commands, big, proxy.url, *more)

    assert sent["resumed_at"] == 0
    assert sent["id"] != half["id"]
    assert download(sent["url"], server) == big.read_bytes()
    states = {each["id"]: each["state"] for each in commands.uploads("ls", server=server)}
    is_ended = change in ("fresh", "removed")
    assert states[half["id"]] == ("canceled" if is_ended else "receiving")


def test_a_file_that_is_changed_while_it_is_sent_is_given_up(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("PUT", after=3)
    put = commands.start("put", "--direct", "--json", "--file-id", "f", big, proxy.url)
    held.wait_reached()
    with big.open("r+b") as file:
        file.write(b"changed")
    held.release()

    out, _ = commands.finish(put, status=1)

    assert "it was changed while it was sent" in json.loads(out)["error"]
    assert only_upload(commands, server)["state"] == "canceled"
    # Its file_id is free again, too.
    sent = direct(commands, "--file-id", "f", big, proxy.url)
    assert sent["resumed_at"] == 0
    assert download(sent["url"], server) == big.read_bytes()


def test_a_file_that_becomes_shorter_is_given_up(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("PUT", after=1)
    put = commands.start("put", "--direct", "--json", "--parallel", 1, big, proxy.url)
    held.wait_reached()
    with big.open("r+b") as file:
        file.truncate(3 * PART)
    held.release()

    out, _ = commands.finish(put, status=1)

    assert "it was changed while it was sent" in json.loads(out)["error"]
    assert only_upload(commands, server)["state"] == "canceled"


# --- what goes wrong at the other side


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PUT", ""),
        ("POST", f"{API}$"),
        pytest.param("POST", "/sign", marks=pytest.mark.full),
        ("POST", "/complete"),
        pytest.param("GET", "/parts", marks=pytest.mark.full),
    ],
)
def test_a_server_that_is_busy_is_asked_again(
    method: str, target: str, commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    proxy.answer(method, 503, target=target, times=2)

    out, err = commands.run("put", "--direct", "--parallel", 1, big, proxy.url)

    assert "answered" in err
    assert "attempt 2 in 1 s" in err
    assert download(out.split()[0], server) == big.read_bytes()
    assert sent_parts(proxy) == dict.fromkeys(range(1, 9), 1)


def test_a_part_whose_answer_is_lost_is_sent_again(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    proxy.lose_answer("PUT", after=2)

    out, _ = commands.run("put", "--direct", big, proxy.url)

    assert download(out.split()[0], server) == big.read_bytes()


def test_a_completion_whose_answer_is_lost_is_looked_at(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    proxy.lose_answer("POST", target="/complete")

    out, err = commands.run("put", "--direct", big, proxy.url)

    assert "attempt 1 in" in err
    assert "resumed" not in err
    assert download(out.split()[0], server) == big.read_bytes()
    assert sent_parts(proxy) == dict.fromkeys(range(1, 9), 1)


def test_a_store_that_stays_busy_ends_the_run_and_the_next_goes_on(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    busy = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
    proxy.answer(
        "PUT", 503, after=3, times=12, body=busy, headers={"Content-Type": "application/xml"}
    )

    failed = direct(commands, "--parallel", 2, "--retries", 1, big, proxy.url, status=1)

    assert "answered PUT with 503" in failed["error"]
    assert failed["error"].endswith("Reduce your request rate")
    assert "signature" not in failed["error"]
    assert failed["state"] == "initiated"
    sent = direct(commands, "--retries", 8, big, proxy.url)
    assert sent["id"] == failed["id"]
    assert sent["resumed_at"] == 3 * PART
    assert download(sent["url"], server) == big.read_bytes()


def test_a_request_that_has_expired_is_signed_again(
    commands: Commands, tmp_path: Path, big: Path
) -> None:
    with (
        ServerProcess(tmp_path / "data", **environment(TUS_SIGN_EXPIRES_S="4")) as server,
        HttpProxy(server.port) as proxy,
    ):
        held = proxy.hold("PUT", times=4)
        put = commands.start("put", "--direct", big, proxy.url)
        wait_until(lambda: len(held.targets) == 4, "four requests wait")
        wait_until(lambda: all(map(has_expired, held.targets)), "they have expired")
        held.release()

        out, err = commands.finish(put)

        assert [seen.status for seen in proxy.seen if seen.method == "PUT"].count(403) == 4
        assert err == ""
        assert download(out.split()[0], server) == big.read_bytes()


def has_expired(target: str) -> bool:
    (expires,) = parse_qs(urlsplit(target).query)["expires"]
    return time.time() > int(expires) + 1


def test_a_store_that_refuses_what_was_just_signed_ends_the_run(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    denied = b"<Error><Code>AccessDenied</Code><Message>No right to do so.</Message></Error>"
    proxy.answer("PUT", 403, times=99, body=denied, headers={"Content-Type": "application/xml"})

    failed = direct(commands, "--parallel", 1, big, proxy.url, status=1)

    assert failed["error"].endswith("answered PUT with 403 Forbidden: No right to do so")
    assert len(proxy.seen) == 1 + 1 + 4  # begun, listed; signed, refused, and once more


def test_another_part_than_was_sent_is_sent_again(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("POST", target="/complete", times=1)
    put = commands.start("put", "--direct", big, proxy.url)
    held.wait_reached()
    first = next(seen.target for seen in proxy.find("PUT") if "/1?" in seen.target)
    with requests.Session() as session:
        session.trust_env = False
        forged = session.put(f"{root(server)}{first[1:]}", data=bytes(PART), timeout=TIMEOUT_S)
    assert forged.status_code == 200
    held.release()

    out, err = commands.finish(put)

    assert "Part 1" in err
    assert sent_parts(proxy)[1] == 2
    assert download(out.split()[0], server) == big.read_bytes()


def test_an_upload_that_is_canceled_meanwhile_is_said_to_be_gone(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("PUT", after=3)
    put = commands.start("put", "--direct", "--json", big, proxy.url)
    held.wait_reached()
    (upload,) = commands.uploads("ls", server=server)
    commands.uploads("rm", upload["id"], "--yes", server=server)
    held.release()

    out, _ = commands.finish(put, status=1)

    result = json.loads(out)
    assert result["error"] == f"upload {upload['id']} is canceled by now"
    assert direct(commands, big, proxy.url)["id"] != upload["id"]


def test_what_the_server_finds_wrong_is_said_in_its_words(
    commands: Commands, tmp_path: Path, big: Path
) -> None:
    (tmp_path / "checks.py").write_text(
        "from tus_server.ports import Verdict\n"
        "async def refuse(upload, open_stream):\n"
        "    return Verdict('virus_found', 'The file has a virus.')\n"
    )
    checking = environment(
        PYTHONPATH=str(tmp_path), TUS_JOB_PREFIXES="checks", TUS_VERIFIER="checks.refuse"
    )
    with ServerProcess(tmp_path / "data", **checking) as server:
        failed = direct(commands, big, root(server), status=1)
        again = direct(commands, big, root(server), status=1)
        (shown,) = commands.uploads("show", failed["id"], server=server)

    assert failed["error"] == "the server has refused it: The file has a virus"
    assert (failed["state"], failed["url"]) == ("error", None)
    assert again["id"] != failed["id"]
    assert (shown["error_code"], shown["outcome"]) == ("virus_found", "failure")


def test_a_verification_that_takes_long_is_waited_for(
    commands: Commands, tmp_path: Path, big: Path
) -> None:
    (tmp_path / "checks.py").write_text(
        "import asyncio\n"
        "from pathlib import Path\n"
        "from tus_server.ports import Verdict\n"
        "async def wait(upload, open_stream):\n"
        f"    while not Path({str(tmp_path / 'go-on')!r}).exists():\n"
        "        await asyncio.sleep(0.01)\n"
        "    return Verdict()\n"
    )
    checking = environment(
        PYTHONPATH=str(tmp_path), TUS_JOB_PREFIXES="checks", TUS_VERIFIER="checks.wait"
    )
    with ServerProcess(tmp_path / "data", **checking) as server, HttpProxy(server.port) as proxy:
        proxy.lose_answer("POST", target="/complete")  # or it would take as long as that waits
        put = commands.start("put", "--direct", "--json", big, proxy.url)
        wait_until(lambda: proxy.count("GET", f"{API}/[^/]+$") >= 3, "it is asked how it goes")
        (waiting,) = commands.uploads("ls", server=server)
        (tmp_path / "go-on").touch()

        out, err = commands.finish(put)

    assert waiting["state"] == "completed"
    assert json.loads(out)["state"] == "verified"
    assert err.count("the server is verifying it") == 1


# --- file_id


def test_a_file_id_that_is_taken_is_refused_by_the_name_of_the_upload_that_has_it(
    commands: Commands, server: ServerProcess, big: Path
) -> None:
    first = direct(commands, "--file-id", "film 7", big, root(server))

    second = direct(commands, "--file-id", "film 7", big, root(server), status=1)

    assert first["id"] in second["error"]
    assert "verified" in second["error"]
    assert (second["id"], second["state"]) == (None, None)
    listed = commands.uploads("ls", "--file-id", "film 7", server=server)
    assert [(each["id"], each["file_id"]) for each in listed] == [(first["id"], "film 7")]


def test_who_begins_anew_gives_the_file_id_back_first(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    held = proxy.hold("PUT", after=3)
    put = commands.start("put", "--direct", "--file-id", "f", big, proxy.url)
    held.wait_reached()
    put.send_signal(signal.SIGINT)
    commands.finish(put, status=130)
    held.drop()

    sent = direct(commands, "--file-id", "f", "--fresh", big, proxy.url)

    assert (sent["resumed_at"], sent["state"]) == (0, "verified")


# --- who may


def test_the_token_is_shown_to_the_server_and_never_to_the_store(
    commands: Commands, tmp_path: Path, proxy: HttpProxy, big: Path
) -> None:
    # requests looks for passwords in there.
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    commands.env["TUS_API_TOKEN"] = "wr0ng-token-of-somebody"
    _, err = commands.run("put", "--direct", big, proxy.url, status=1)
    commands.env["TUS_API_TOKEN"] = TOKEN
    first = direct(commands, big, proxy.url)
    del commands.env["TUS_API_TOKEN"]
    second = direct(commands, big, proxy.url, "--header", f"Authorization: Bearer {TOKEN}")

    assert "401" in err
    assert "TUS_API_TOKEN" in err
    assert "wr0ng" not in err
    assert (first["state"], second["state"]) == ("verified", "verified")
    shown = {
        seen.headers.get("Authorization") for seen in proxy.seen if seen.target.startswith(API)
    }
    assert shown == {f"Bearer {TOKEN}", "Bearer wr0ng-token-of-somebody"}
    assert proxy.count("PUT", PARTS) == 16
    assert all("Authorization" not in seen.headers for seen in proxy.find("PUT", PARTS))


def test_a_redirect_is_not_followed(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    proxy.answer("POST", 307, headers={"Location": f"{root(server)}api/uploads"})

    failed = direct(commands, big, proxy.url, status=1)

    assert failed["error"] == (
        f"{proxy.url}{API} answered POST with 307 Temporary Redirect, "
        "so it seems to have no API for direct uploads"
    )
    assert len(proxy.seen) == 1


def test_a_part_is_not_sent_where_a_redirect_leads(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    proxy.answer("PUT", 307, headers={"Location": "/elsewhere"})

    failed = direct(commands, "--parallel", 1, big, proxy.url, status=1)

    assert "307" in failed["error"]
    assert proxy.count("PUT", "elsewhere") == 0


def test_a_server_without_the_api_is_said_to_have_none(
    commands: Commands, tmp_path: Path, big: Path
) -> None:
    with ServerProcess(tmp_path / "data", TUS_API="off", TUS_API_TOKEN=TOKEN) as server:
        failed = direct(commands, big, root(server), status=1)

    assert "404" in failed["error"]


def test_a_run_ends_at_once_when_nothing_listens(commands: Commands, big: Path) -> None:
    with socket.socket() as bound:  # bound, not listening: refused
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"

        failed = direct(commands, big, url, status=1)

    assert failed["error"] == f"{url}{API} does not answer (Connection refused)"


# --- wrong use


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent", "http://h/", "--direct"], "there is no file 'absent'"),
        (["file", "nowhere", "--direct"], "'nowhere' is no URL"),
        (["file", "http://u:s3cret@h/", "--direct"], "the URL has a password"),
        (["file", "file", "http://h/", "--direct", "--file-id", "x"], "--file-id is of one file"),
        (["file", "http://h/", "--direct", "--file-id", ""], "--file-id is no text"),
        (["file", "http://h/", "--direct", "--chunk-size", "1 MiB"], "--chunk-size is not for"),
        (["file", "http://h/", "--direct", "--parallel", "0"], "--parallel 0 is no number"),
        (["file", "http://h/", "--direct", "--metadata", "x"], "--metadata 'x' is not KEY=VALUE"),
        (["file", "http://h/", "--file-id", "x"], "--file-id is for --direct only"),
        (["file", "http://h/", "--parallel", "2"], "--parallel is for --direct only"),
    ],
)
def test_wrong_use_ends_with_2_and_one_sentence(
    arguments: list[str], words: str, commands: Commands
) -> None:
    (commands.folder / "file").touch()

    _, err = commands.run("put", *arguments, status=2)

    assert len(err.splitlines()) == 1
    assert words in err
    assert "s3cret" not in err


# --- looking at uploads


def test_a_direct_upload_is_listed_and_shown_while_it_is_sent(
    commands: Commands, server: ServerProcess, proxy: HttpProxy, big: Path
) -> None:
    (commands.folder / "small.txt").write_text("small")
    held = proxy.hold("PUT", after=3)
    put = commands.start("put", "--direct", "--file-id", "f 1", big, proxy.url)
    wait_until(lambda: proxy.count("PUT") == 3, "three parts have arrived")
    commands.run("put", "small.txt", f"{root(server)}files/")

    upload, _ = (
        commands.uploads("ls", "--kind", kind, server=server) for kind in ("multipart", "tus")
    )
    listed, _ = commands.run("uploads", "ls", "--data-dir", server.data_dir)
    id = upload[0]["id"]
    shown, _ = commands.run("uploads", "show", id, "--data-dir", server.data_dir)
    held.release()
    commands.finish(put)

    assert [(each["kind"], each["state"]) for each in upload] == [("multipart", "receiving")]
    assert upload[0]["committed_bytes"] == 3 * PART
    head, tus, row = listed.splitlines()
    assert head.split() == ["ID", "STATE", "RECEIVED", "CREATED", "KIND", "FILE", "ID", "NAME"]
    assert row.startswith(f"{id}  receiving  3.0 MiB of 8.0 MiB")
    assert "multipart  f 1" in row
    assert "tus" in tus
    facts = dict(line.split("  ", 1) for line in shown.splitlines() if "  " in line)
    assert facts["parts"].strip() == "3 of 8 have arrived, of 1.0 MiB each"
    assert facts["progress"].strip() == "in_progress"
    (done,) = commands.uploads("show", id, server=server)
    assert (done["outcome"], done["parts_arrived"]) == ("success", 8)
    assert done["completed_at"] is not None
    assert done["detected_type"] is None
    assert [step["state"] for step in done["history"]] == [
        "verified",
        "completed",
        "receiving",
        "initiated",
    ]


def test_what_is_deleted_later_has_been_a_success_all_the_same(
    commands: Commands, server: ServerProcess, big: Path
) -> None:
    sent = direct(commands, big, root(server))
    commands.uploads("rm", "--yes", sent["id"], server=server)

    (shown,) = commands.uploads("show", sent["id"], server=server)

    assert (shown["state"], shown["outcome"], shown["progress"]) == (
        "deleted",
        "success",
        "complete",
    )
