"""The real server and an application beside it: told by webhooks, asked by hooks and checks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.conftest import check_log
from tests.support.commands import Commands
from tests.support.records import Records, upload_id
from tests.support.rufh import Rufh, Wire
from tests.support.server import REPOSITORY, ServerProcess
from tests.support.sink import Received, Reply, Sink, SinkThread
from tests.support.tus import Tus, encode_metadata
from tests.support.waiting import wait_until

SECRET = "whsec_" + "A" * 40
HERE = "tests.support.callables"
Start = Callable[..., ServerProcess]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with SinkThread() as sink:
        yield sink


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers that may tell an application on this machine."""
    started: list[ServerProcess] = []
    with ExitStack() as stack:

        def start(**env: str) -> ServerProcess:
            local = {"TUS_WEBHOOK_ALLOW_PRIVATE": "true", "TUS_WEBHOOK_SECRET": SECRET}
            server = ServerProcess(tmp_path / f"data-{len(started)}", **(local | env))
            started.append(server)
            return stack.enter_context(server)

        yield start
    for server in started:
        check_log(server.log)


@pytest.fixture(scope="module")
def _hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Sink]]:
    folder = tmp_path_factory.mktemp("hooked") / "data"
    with SinkThread() as sink:
        env = {"TUS_HOOKS_URL": sink.url("/hooks"), "TUS_HOOKS_TIMEOUT_S": "1"}
        with ServerProcess(folder, **env) as server:
            yield server, sink
            check_log(server.log)


@pytest.fixture
def hooked(_hooked: tuple[ServerProcess, Sink]) -> Iterator[tuple[ServerProcess, Sink]]:
    """A server with all hooks, shared by the tests of the module, and who answers them."""
    server, sink = _hooked
    sink.decide = None
    yield server, sink
    # What is still to be told of this test is not the next one's.
    sink.decide = lambda got: Reply()
    wait_until(lambda: not pending(server), "all was told")
    sink.received.clear()


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def received(sink: Sink, count: int = 1) -> list[Received]:
    wait_until(lambda: len(sink.received) >= count, f"{count} requests have come")
    assert len(sink.received) == count
    return sink.received


# --- webhooks


def test_success_and_failure_are_told_by_signed_webhooks(start: Start, sink: Sink) -> None:
    server = start(
        TUS_SUCCESS_JOB=json.dumps({"name": sink.url("/good"), "kwargs": {"n": 1}}),
        TUS_FAILURE_JOB=sink.url("/bad"),
        TUS_PUBLIC_URL="https://files.example.com",
    )
    tus = Tus(server.port)
    good = tus.create(3, body=b"abc", metadata=encode_metadata({"filename": "ü.txt"}))["location"]
    (told,) = received(sink)
    bad = tus.create(3)["location"]
    tus.delete(bad)

    received(sink, 2)
    assert told.path == "/good"
    message = Webhook(SECRET).verify(told.body, dict(told.fields))
    assert (message["type"], message["data"]["outcome"]) == ("upload.verified", "success")
    assert message["data"]["job"] == {"name": sink.url("/good"), "kwargs": {"n": 1}}
    shown = message["data"]["upload"]
    assert (shown["id"], shown["filename"]) == (upload_id(good), "ü.txt")
    assert shown["object"]["url"] == good
    failed = sink.received[1].document
    assert sink.received[1].path == "/bad"
    assert (failed["type"], failed["data"]["outcome"]) == ("upload.canceled", "failure")
    assert failed["data"]["upload"]["id"] == upload_id(bad)


def test_each_upload_is_told_once_when_all_goes_well(start: Start, sink: Sink) -> None:
    tus = Tus(start(TUS_SUCCESS_JOB=sink.url()).port)
    urls = [tus.create(0)["location"] for _ in range(50)]
    for url in urls[::2]:
        tus.delete(url)  # after success: an event, no job

    wait_until(lambda: len(sink.received) >= 50, "all have come")

    ids = [got.fields["webhook-id"] for got in sink.received]
    assert sorted(ids) == sorted(f"{upload_id(url)}.verified" for url in urls)


def test_a_receiver_that_comes_back_is_told(start: Start, sink: Sink) -> None:
    sink.script.extend([Reply(503), Reply(cuts=True)])
    tus = Tus(start(TUS_SUCCESS_JOB=sink.url()).port)

    url = tus.create(0)["location"]

    first, *others = received(sink, 3)
    assert {one.fields["webhook-id"] for one in others} == {first.fields["webhook-id"]}
    assert first.document["data"]["upload"]["id"] == upload_id(url)


def test_by_default_no_webhook_goes_to_this_machine(start: Start, sink: Sink) -> None:
    server = start(
        TUS_SUCCESS_JOB=f"https://localhost:{sink.port}/", TUS_WEBHOOK_ALLOW_PRIVATE="false"
    )
    Tus(server.port).create(0)

    wait_until(lambda: "is a private address" in server.log, "it was refused")

    assert sink.received == []


# --- callables


def test_a_callable_of_the_application_is_called(start: Start, tmp_path: Path) -> None:
    module = tmp_path / "app" / "theirs.py"
    module.parent.mkdir()
    module.write_text(
        "import json, pathlib\n"
        "def note(message, where):\n"
        "    pathlib.Path(where).write_text(json.dumps(message))\n"
    )
    noted = tmp_path / "noted.json"
    job = {"name": "theirs.note", "kwargs": {"where": str(noted)}}
    server = start(
        TUS_SUCCESS_JOB=json.dumps(job),
        TUS_JOB_PREFIXES="theirs",
        PYTHONPATH=os.pathsep.join([str(module.parent), str(REPOSITORY)]),
    )

    url = Tus(server.port).create(0)["location"]

    wait_until(lambda: noted.exists() and noted.read_text(), "it was called")
    assert json.loads(noted.read_text())["data"]["upload"]["id"] == upload_id(url)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"TUS_SUCCESS_JOB": f"{HERE}.missing"}, f"TUS_SUCCESS_JOB: {HERE}.missing cannot be"),
        ({"TUS_FAILURE_JOB": f"{HERE}.NOT_CALLABLE"}, "is not callable."),
        ({"TUS_SUCCESS_JOB": "os.system"}, "it is not in what TUS_JOB_PREFIXES allows"),
        ({"TUS_VERIFIER": f"{HERE}.missing"}, f"TUS_VERIFIER: {HERE}.missing cannot be imported"),
        ({"TUS_VERIFIER": f"{HERE}.plain"}, "it is no coroutine function (async def)."),
        ({"TUS_HOOKS_URL": "here"}, "TUS_HOOKS_URL is 'here': give an http:// or https:// URL."),
    ],
)
def test_what_leads_nowhere_stops_the_start_with_a_sentence(
    tmp_path: Path, env: dict[str, str], words: str
) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TUS_")}
    own = {"TUS_DATA_DIR": str(tmp_path / "data"), "TUS_PORT": "0", "TUS_JOB_PREFIXES": HERE}

    done = subprocess.run(
        [sys.executable, "-m", "tus_server", "serve"],
        env=bare | own | env,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- checks


def test_a_check_of_the_application_decides_what_is_verified(start: Start, sink: Sink) -> None:
    server = start(
        TUS_VERIFIER=f"{HERE}.refuses_x", TUS_JOB_PREFIXES=HERE, TUS_FAILURE_JOB=sink.url()
    )
    tus, records = Tus(server.port), Records(server.data_dir)
    good, bad = tus.create(3)["location"], tus.create(3)["location"]

    assert tus.patch(good, 0, b"abc").status == 204
    refused = tus.patch(bad, 0, b"xbc")

    assert (refused.status, json.loads(refused.body)["code"]) == (400, "has_x")
    assert (records.state(good), records.state(bad)) == ("verified", "error")
    assert tus.head(bad).status == 404
    (told,) = received(sink)
    assert told.document["data"]["upload"]["error"] == {
        "code": "has_x",
        "message": "It begins with x.",
    }
    wait_until(lambda: not records.files(bad), "its bytes are gone")


# --- hooks


def says(**document: Any) -> Reply:
    return Reply(200, json.dumps(document).encode())


def pending(server: ServerProcess) -> int:
    sql = "SELECT count(*) FROM outbox WHERE delivered_at IS NULL"
    return int(Records(server.data_dir).query(sql)[0][0])


def answer(sink: Sink, hook: str, reply: Reply) -> None:
    """Let `hook` be answered so, and any other one by nothing."""
    sink.decide = lambda got: reply if got.document["Type"] == hook else Reply()


def told(sink: Sink, *hooks: str) -> list[dict[str, Any]]:
    """Wait until each of `hooks` was told; give what was, in order."""

    def found() -> list[dict[str, Any]]:
        return [got.document for got in sink.received]

    for hook in hooks:
        wait_until(lambda hook=hook: hook in [one["Type"] for one in found()], hook)
    return found()


def test_the_life_of_an_upload_is_told_as_tusd_tells_it(
    hooked: tuple[ServerProcess, Sink],
) -> None:
    server, sink = hooked
    tus = Tus(server.port)
    url = tus.create(6, metadata=encode_metadata({"filename": "a"}))["location"]
    tus.patch(url, 0, b"abc")
    tus.patch(url, 3, b"def")
    tus.delete(url)

    documents = told(sink, "post-terminate")

    kinds = [one["Type"] for one in documents]
    assert [kind for kind in kinds if kind.startswith("post")] == [
        "post-create",
        "post-receive",
        "post-finish",
        "post-terminate",
    ]
    assert [kind for kind in kinds if kind.startswith("pre")] == [
        "pre-create",
        "pre-finish",
        "pre-terminate",
    ]
    for one in documents:
        upload, request = one["Event"]["Upload"], one["Event"]["HTTPRequest"]
        assert set(upload) == {
            "ID", "Size", "SizeIsDeferred", "Offset", "MetaData", "IsPartial", "IsFinal",
            "PartialUploads", "Storage",
        }  # fmt: skip
        assert set(request) == {"Method", "URI", "RemoteAddr", "Header"}
        assert upload["ID"] == ("" if one["Type"] == "pre-create" else upload_id(url))
        assert (upload["Size"], upload["MetaData"]) == (6, {"filename": "a"})
    before = documents[0]["Event"]["HTTPRequest"]
    assert (before["Method"], before["URI"]) == ("POST", "/files/")
    assert before["Header"]["Tus-Resumable"] == ["1.0.0"]
    (finished,) = [one for one in documents if one["Type"] == "post-finish"]
    assert finished["Event"]["Upload"]["Offset"] == 6


def test_a_finished_upload_is_told_where_it_is(hooked: tuple[ServerProcess, Sink]) -> None:
    server, sink = hooked
    Tus(server.port).create(3, body=b"abc")

    finished = told(sink, "post-finish")[-1]

    storage = finished["Event"]["Upload"]["Storage"]
    assert storage["Type"] == "filestore"
    assert Path(storage["Path"]).read_bytes() == b"abc"


def test_a_refused_creation_is_answered_in_the_words_of_the_hook(
    hooked: tuple[ServerProcess, Sink],
) -> None:
    server, sink = hooked
    fields = {"Content-Type": "application/json", "X-Reason": "quota", "Content-Length": "3"}
    said = {"StatusCode": 413, "Body": '{"message":"too big"}', "Header": fields}
    answer(sink, "pre-create", says(RejectUpload=True, HTTPResponse=said))
    records = Records(server.data_dir)

    with records.nothing_created():
        reply = Tus(server.port).create(3, body=b"abc")

    assert (reply.status, reply.body) == (413, b'{"message":"too big"}')
    assert reply["content-type"] == "application/json"
    assert reply["x-reason"] == "quota"
    assert reply["content-length"] == str(len(reply.body))
    assert reply["tus-resumable"] == "1.0.0"


def test_a_refusal_without_words_is_a_problem_document(
    hooked: tuple[ServerProcess, Sink],
) -> None:
    server, sink = hooked
    answer(sink, "pre-create", says(RejectUpload=True))

    reply = Tus(server.port).create(3)

    assert reply.status == 400
    assert reply["content-type"] == "application/problem+json"
    assert json.loads(reply.body)["code"] == "refused_by_hook"


def test_in_rufh_a_refusal_has_the_same_words(
    hooked: tuple[ServerProcess, Sink], wire: Wire
) -> None:
    server, sink = hooked
    said = {"StatusCode": 403, "Body": "not you", "Header": {"X-Reason": "who"}}
    answer(sink, "pre-create", says(RejectUpload=True, HTTPResponse=said))

    reply = Rufh(server.port, wire).create(b"abc", done=True)

    assert (reply.status, reply.body, reply["x-reason"]) == (403, b"not you", "who")


def test_a_hook_that_gives_no_answer_is_503_and_the_client_may_come_again(
    hooked: tuple[ServerProcess, Sink],
) -> None:
    server, sink = hooked
    tus = Tus(server.port)
    replies = []
    for given in (Reply(500), Reply(hangs=True), Reply()):
        answer(sink, "pre-create", given)
        replies.append(tus.create(3))

    assert [reply.status for reply in replies] == [503, 503, 201]
    assert replies[0]["retry-after"] == "1"


def test_metadata_that_a_hook_changes_are_those_of_the_upload(
    hooked: tuple[ServerProcess, Sink],
) -> None:
    server, sink = hooked
    changed = {"filename": "b", "user": "7"}
    answer(sink, "pre-create", says(ChangeFileInfo={"MetaData": changed}))
    tus = Tus(server.port)

    url = tus.create(3, metadata=encode_metadata({"filename": "a"}))["location"]

    assert tus.head(url)["upload-metadata"] == encode_metadata(changed)
    assert told(sink, "post-create")[-1]["Event"]["Upload"]["MetaData"] == changed


def test_a_refused_deletion_changes_nothing(hooked: tuple[ServerProcess, Sink]) -> None:
    server, sink = hooked
    said = {"StatusCode": 409, "Body": "in use"}
    answer(sink, "pre-terminate", says(RejectTermination=True, HTTPResponse=said))
    tus = Tus(server.port)
    url = tus.create(3, body=b"abc")["location"]

    reply = tus.delete(url)

    assert (reply.status, reply.body) == (409, b"in use")
    assert tus.get(url).body == b"abc"


# --- tus-server jobs


def kill_letters(server: ServerProcess) -> None:
    """Let whatever waits for delivery be a dead letter."""
    import sqlite3

    with sqlite3.connect(server.data_dir / "state.db") as db:
        db.execute("UPDATE outbox SET given_up_at = due_at WHERE delivered_at IS NULL")
    db.close()


def listed(commands: Commands, server: ServerProcess, *arguments: object) -> list[dict[str, Any]]:
    out, _ = commands.run("jobs", *arguments, "--json", "--data-dir", server.data_dir)
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def away(start: Start, sink: Sink) -> ServerProcess:
    """A server with three uploads that could not be told of."""
    sink.otherwise = Reply(503, b"away")
    server = start(TUS_SUCCESS_JOB=sink.url())
    for _ in range(3):
        Tus(server.port).create(0)
    wait_until(lambda: len(sink.received) >= 3, "all were tried")
    return server


def test_jobs_are_listed_and_shown(away: ServerProcess, commands: Commands) -> None:
    jobs = wait_until(
        lambda: [one for one in listed(commands, away, "ls") if one["error"]], "they failed"
    )

    assert {job["delivery"] for job in jobs} == {"pending"}
    assert "answered 503: away" in jobs[0]["error"]
    (shown,) = listed(commands, away, "show", jobs[0]["id"])
    assert shown["upload"] == jobs[0]["upload"]
    assert (shown["event"], shown["outcome"]) == ("verified", "success")
    assert len(listed(commands, away, "ls", "--upload", jobs[0]["upload"])) == 1
    assert listed(commands, away, "ls", "--kind", "delivered", "--kind", "dead") == []
    out, err = commands.run("jobs", "ls", "--limit", "2", "--data-dir", away.data_dir)
    assert len(out.splitlines()) == 3
    assert "--limit shows more" in err
    out, _ = commands.run("jobs", "show", jobs[0]["id"], "--data-dir", away.data_dir)
    assert "(success: the server's)" in out


def test_what_was_given_up_is_retried_by_the_server_that_runs(
    away: ServerProcess, commands: Commands, sink: Sink
) -> None:
    away.stop()
    kill_letters(away)
    sink.otherwise = Reply()
    tried = len(sink.received)
    away.start()
    first, *others = [job["id"] for job in listed(commands, away, "ls", "--kind", "dead")]

    out, _ = commands.run("jobs", "retry", first, "--data-dir", away.data_dir)
    assert out == f"{first}\n"
    wait_until(lambda: len(sink.received) == tried + 1, "it was delivered")
    assert listed(commands, away, "retry", "--all") == [
        {"id": other, "retried": True, "error": None} for other in others
    ]
    wait_until(lambda: len(sink.received) == tried + 3, "all were delivered")
    assert listed(commands, away, "ls", "--kind", "dead") == []
    _, err = commands.run("jobs", "retry", "--all", "--data-dir", away.data_dir)
    assert "nothing was given up" in err


def test_what_was_given_up_is_retried_without_a_server(
    away: ServerProcess, commands: Commands
) -> None:
    away.stop()
    kill_letters(away)

    done = listed(commands, away, "retry", "--all")

    assert [one["retried"] for one in done] == [True] * 3
    assert {job["delivery"] for job in listed(commands, away, "ls")} == {"pending"}
    assert {job["attempts"] for job in listed(commands, away, "ls")} == {0}


def test_the_servers_token_is_shown_where_it_has_one(
    start: Start, sink: Sink, commands: Commands
) -> None:
    sink.otherwise = Reply(410)
    server = start(TUS_SUCCESS_JOB=sink.url(), TUS_API_TOKEN="t" * 32)
    Tus(server.port).create(0)
    wait_until(lambda: Records(server.data_dir).query("SELECT 1 FROM outbox WHERE given_up_at"), "")
    dead = "jobs", "retry", "--all", "--data-dir", server.data_dir

    _, err = commands.run(*dead, status=1)
    assert "answered POST with 401" in err
    assert "(or stop the server)" in err
    commands.env["TUS_API_TOKEN"] = "t" * 32
    out, _ = commands.run(*dead)
    assert out == "1\n"


def test_what_cannot_be_retried_is_told_one_by_one(away: ServerProcess, commands: Commands) -> None:
    where = "--data-dir", away.data_dir
    _, err = commands.run("jobs", "retry", "1", "99", *where, status=1)
    assert "1: it was not given up." in err
    assert "99: there is no such event." in err
    _, err = commands.run("jobs", "show", "99", *where, status=1)
    assert "there is no event 99." in err
    for wrong in ((), ("1", "--all")):
        _, err = commands.run("jobs", "retry", *wrong, *where, status=2)
        assert "name events, or give --all." in err
