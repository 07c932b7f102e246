"""What somebody tries who means harm: at the JSON API, at signed URLs, and as who is asked."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ServerFactory
from tests.support.api import PART_SIZE, Api, code_of, state_of
from tests.support.http import Connection, ConnectionEnded, Reply, request
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.sink import Reply as Answer
from tests.support.sink import SinkThread
from tests.support.waiting import wait_until

TOKEN = "0123456789abcdef0123456789abcdef"
WAIT = {"Prefer": "wait=30"}
MIB = 1024 * 1024


@pytest.fixture(scope="session")
def body_path() -> str:
    """One body path is enough: nothing here depends on it."""
    return "fast"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that asks for a token, with one upload."""
    with ServerProcess(tmp_path_factory.mktemp("guarded") / "data", TUS_API_TOKEN=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def secret(guarded: ServerProcess) -> str:
    """The id of the upload there."""
    with Api(guarded.port, fields={"Authorization": f"Bearer {TOKEN}"}) as api:
        return api.upload(b"secret", file_id="secret-file")


def ask(server: ServerProcess, method: str, target: str, fields: Any = None) -> Reply | None:
    """Send a request just as it is; None: the server hung up."""
    with Connection(server.port) as connection:
        connection.send_head(method, target, dict(fields or {}))
        with suppress(ConnectionEnded):
            return connection.read_reply()
    return None


# --- where jobs lead (SSRF)


class Trap:
    """Listens where nothing may connect to; counts who did."""

    def __init__(self) -> None:
        self.caught = 0
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port: int = self._sockets[0].getsockname()[1]
        with suppress(OSError):  # a machine without IPv6
            self._sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for one in self._sockets:
            threading.Thread(target=self._listen, args=(one,), daemon=True).start()

    def _listen(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                self.caught += 1
                connection.close()

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    trap = Trap()
    yield trap
    trap.close()


def test_no_name_of_a_job_reaches_this_machine_or_the_networks_around_it(
    api: Api, api_server: ServerProcess, trap: Trap
) -> None:
    hosts = ["127.0.0.1", "localhost", "LOCALHOST", "localhost.", "ip6-localhost", "[::1]"]
    hosts += ["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.1", "2130706433", "0x7f000001"]
    hosts += ["0177.0.0.1", "0.0.0.0", "0", "[::]", "[64:ff9b::7f00:1]", "[::1%25lo]"]
    names = [f"https://{host}:{trap.port}/" for host in hosts]
    names += [f"http://127.0.0.1:{trap.port}/", f"HTTP://localhost:{trap.port}/"]
    names += [f"https://example.com@127.0.0.1:{trap.port}/", f"//127.0.0.1:{trap.port}/"]
    names += [f"https://127.0.0.1:{trap.port}\\@example.com/", f"ftp://127.0.0.1:{trap.port}/"]
    names += [
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "file:///etc/passwd",
    ]
    taken = []

    for name in names:
        reply = api.try_to_begin("single", 5, success_job={"name": name})
        if reply.status_code == 400:
            assert code_of(reply) == (400, "job_refused"), name
            continue
        # What looks public is judged by the address that it leads to.
        assert reply.status_code == 201, reply.text
        api.send(reply.json()["put"], b"hello")
        api.post(reply.json()["id"], "complete", fields=WAIT)
        taken.append(reply.json()["id"])

    assert len(names) - len(taken) >= 8
    records = Records(api_server.data_dir)
    untried = "SELECT count(*) FROM outbox WHERE upload_id = ? AND error IS NULL"
    for upload_id in taken:
        wait_until(lambda: records.query(untried, upload_id) == [(0,)], "it has failed")  # noqa: B023
    assert trap.caught == 0


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.run",
        "builtins.eval",
        "tus_server.cli.main",
        "tests.support.callables.plain",
        "procrastinate:queue/task",
        "os:system",
        "..os.system",
        "os.system\n",
        "a" * 3000 + ".b",
        "",
    ],
)
def test_no_name_of_a_job_calls_what_nobody_allowed(api: Api, name: str) -> None:
    reply = api.try_to_begin("single", 5, failure_job={"name": name})

    assert reply.status_code == 400, reply.text
    assert reply.json()["code"] in ("job_refused", "malformed_request")


# --- paths, and who is asked


TRICKS = [
    "/api/uploads",
    "/api/uploads?file_id=secret-file",
    "//api/uploads",
    "/api//uploads",
    "/api/./uploads",
    "/api/../api/uploads",
    "/files/../api/uploads",
    "/files/%2e%2e/api/uploads",
    "/direct/../api/uploads",
    "/companion/../api/uploads",
    "/healthz/../api/uploads",
    "/%61pi/uploads",
    "/api%2fuploads",
    "/api%5cuploads",
    "/API/uploads",
    "/api/uploads/",
    "/api/uploads;a=b",
    "/api/uploads%00",
    "/api/uploads%0d%0aA:b",
    "/api\\uploads",
    "http://127.0.0.1/api/uploads",
    "/api/uploads/SECRET",
    "/api/uploads/SECRET/",
    "/api/uploads/SECRET/parts",
    "/api/uploads/SECRET/events",
    "/api/jobs/1/retry",
    "/companion/s3/multipart/SECRET?key=SECRET",
    "/companion/s3/multipart/SECRET/1?key=SECRET",
]


@pytest.mark.parametrize("target", TRICKS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_no_path_leads_past_the_guard(
    guarded: ServerProcess, secret: str, method: str, target: str
) -> None:
    target = target.replace("SECRET", secret)

    for fields in ({}, {"X-Original-URL": "/healthz"}, {"X-HTTP-Method-Override": "OPTIONS"}):
        reply = ask(guarded, method, target, {"Host": f"127.0.0.1:{guarded.port}"} | fields)

        if reply is not None:
            # 204, 412: what OPTIONS and a creation without a version are told below /files/.
            assert reply.status in (204, 400, 401, 404, 405, 412), reply
            assert secret.encode() not in reply.body.replace(target.encode(), b"")
            assert b"verified" not in reply.body
    assert Records(guarded.data_dir).state(secret) == "verified"


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}0",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Basic {TOKEN}",
        TOKEN,
        ["Bearer wrong", f"Bearer {TOKEN}"],
        [f"Bearer {TOKEN}", "Bearer wrong"],
    ],
)
def test_nothing_like_the_token_is_the_token(
    guarded: ServerProcess, authorization: str | list[str]
) -> None:
    fields = {"Host": f"127.0.0.1:{guarded.port}", "Authorization": authorization}

    reply = ask(guarded, "GET", f"/api/uploads?access_token={TOKEN}", fields)

    assert reply is not None
    assert reply.status in (400, 401), reply


def test_ids_that_are_nearly_right_are_wrong(api: Api) -> None:
    real = api.upload(b"hello")
    near = [real[:-1], f"{real}0", real.upper() + "X", f"{real}.a", f"{real}%", f"{real[:-1]}_"]
    near += [f"{real}%2f", f"%2e%2e%2f{real}", f"{real}%00", f" {real}", f"{real}%20"]

    for upload_id in near:
        assert api.client.get(f"/api/uploads/{upload_id}").status_code == 404, upload_id
        assert api.client.delete(f"/api/uploads/{upload_id}").status_code == 404
    assert state_of(api.find(real)) == "verified"


def test_a_key_gives_nobody_the_upload_of_another_request(api: Api) -> None:
    api.begin("single", 5, key="guessed", filename="theirs")

    for kind, about in (("single", {}), ("multipart", {"filename": "theirs"}), ("tus", {})):
        reply = api.try_to_begin(kind, 5, key="guessed", **about)

        assert code_of(reply) == (422, "idempotency_key_reused")
        assert "signature" not in reply.text
        assert "theirs" not in reply.text


# --- signed URLs


@pytest.mark.parametrize(
    "path",
    [
        "/direct/ID/01",
        "/direct/ID/+1",
        "/direct/ID/1/",
        "/direct/ID//1",
        "/direct//ID/1",
        "/direct/./ID/1",
        "/direct/OTHER/../ID/1",
        "/direct/OTHER/1/../../ID/1",
        "/direct/OTHER%2f1%2f..%2f..%2fID/1",
        "/direct/ID/1%20",
        "/direct/ID/1%00",
        "/direct/ID/1;2",
        "/direct/ID.a/1",
        "/direct/UPPER/1",
        "/DIRECT/ID/1",
        "/files/../direct/ID/1",
        "/direct/..%2f..%2fstate.db/1",
        "/direct/%2e%2e/1",
        "/direct/ID/2",
        "/direct/OTHER/1",
        "/direct/OTHER/2",
    ],
)
def test_a_signature_opens_no_other_path(api: Api, api_server: ServerProcess, path: str) -> None:
    about = ("multipart", 2 * PART_SIZE)
    mine, other = api.begin(*about)["id"], api.begin(*about)["id"]
    (signed,) = api.sign(mine, [1])
    query = signed["url"].partition("?")[2]
    for word, value in (("UPPER", mine.upper()), ("OTHER", other), ("ID", mine)):
        if not (word == "UPPER" and mine.upper() == mine):
            path = path.replace(word, value)

    with Connection(api_server.port) as connection:
        fields = {"Host": f"127.0.0.1:{api_server.port}", "Content-Length": str(PART_SIZE)}
        connection.send_head("PUT", f"{path}?{query}", fields | {"Expect": "100-continue"})
        reply = connection.read_reply()

    assert reply.status in (400, 403, 404, 405, 412), reply
    for upload_id in (mine, other):
        assert not any(part["arrived"] for part in api.parts(upload_id))


def test_no_other_method_sends_a_part(api: Api, api_server: ServerProcess) -> None:
    put = api.begin("single", 5)["put"]
    target = put["url"].partition(str(api_server.port))[2]
    for method in ("POST", "PATCH", "DELETE", "GET"):
        reply = httpx.request(
            method,
            f"http://127.0.0.1:{api_server.port}{target}",
            headers={"X-HTTP-Method-Override": "PUT", "Tus-Resumable": "1.0.0"},
            content=b"hello" if method in ("POST", "PATCH") else None,
        )
        assert reply.status_code == 405, (method, reply.text)


@pytest.mark.parametrize("is_verified", [False, True])
def test_who_has_a_signed_url_cannot_end_the_upload(
    api: Api, api_server: ServerProcess, is_verified: bool
) -> None:
    """Its id is in there; what /files/ allows to who knows one is for uploads that begin there."""
    view = api.begin("single", 5)
    api.send(view["put"], b"hello")
    if is_verified:
        api.post(view["id"], "complete", fields=WAIT)
    before = api.find(view["id"])
    url = f"/files/{view['id']}"
    newest = {"Upload-Draft-Interop-Version": "8"}

    for method, fields, refusal in (
        ("DELETE", {"Tus-Resumable": "1.0.0"}, (400, "protocol_mismatch")),
        ("DELETE", {}, (412, "unsupported_version")),
        ("DELETE", newest, (400, "protocol_mismatch")),
        (
            "POST",
            {"Tus-Resumable": "1.0.0", "X-HTTP-Method-Override": "DELETE"},
            (400, "protocol_mismatch"),
        ),
    ):
        reply = request(api_server.port, method, url, fields)
        assert (reply.status, reply.problem()["code"]) == refusal, reply

    assert api.find(view["id"]) == before
    assert state_of(api.delete(view["id"]).json()) in ("canceled", "deleted")


def test_a_request_is_not_turned_into_another_by_a_field(api: Api) -> None:
    upload_id = api.upload(b"hello")

    reply = api.client.post(
        f"/api/uploads/{upload_id}", headers={"X-HTTP-Method-Override": "DELETE"}
    )

    assert reply.status_code == 405
    assert state_of(api.find(upload_id)) == "verified"


def test_etags_of_another_upload_complete_nothing(api: Api) -> None:
    mine, theirs = api.begin("multipart", 5), api.begin("multipart", 5)
    api.send_all(mine["id"], b"mine!")
    report = api.send_all(theirs["id"], b"their")

    reply = api.post(mine["id"], "complete", {"parts": report})

    assert code_of(reply) == (409, "parts_differ")
    assert state_of(api.find(mine["id"])) == "receiving"


# --- who answers


def rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_webhook_that_answers_without_end_costs_nothing(fresh_server: ServerFactory) -> None:
    with SinkThread(otherwise=Answer(endless=True)) as sink:
        server = fresh_server(TUS_WEBHOOK_ALLOW_PRIVATE="true")
        with Api(server.port) as api:
            api.upload(b"first", success_job={"name": sink.url()})
            wait_until(lambda: len(sink.received) == 1, "the first was told")
            before = rss_bytes(server.pid)

            ids = [api.upload(b"hello", success_job={"name": sink.url()}) for _ in range(20)]

        pending = "SELECT count(*) FROM outbox WHERE delivered_at IS NULL"
        records = Records(server.data_dir)
        wait_until(lambda: records.query(pending) == [(0,)], "all are delivered: it said 200")
        assert len(sink.received) == 1 + len(ids)
        assert rss_bytes(server.pid) - before < 20 * MIB
        assert sink.sent_bytes < 100 * MIB


CHECKS = """
import asyncio
from pathlib import Path

from tus_server.ports import Verdict

FLAG = Path(__file__).with_name("hangs")


async def scan(upload, open_stream):
    async for block in open_stream():
        if block.startswith(b"hang") and FLAG.exists():
            await asyncio.Event().wait()
    return Verdict()
"""


@pytest.fixture
def scanned(fresh_server: ServerFactory, tmp_path: Path) -> Callable[..., ServerProcess]:
    """Start a server whose check hangs at what begins with `hang`, while the file `hangs` is."""
    (tmp_path / "scans.py").write_text(CHECKS)
    (tmp_path / "hangs").touch()

    def start(timeout_s: int) -> ServerProcess:
        return fresh_server(
            TUS_VERIFIER="scans.scan",
            TUS_JOB_PREFIXES="scans",
            TUS_VERIFIER_TIMEOUT_S=str(timeout_s),
            TUS_SHUTDOWN_TIMEOUT_S="1",
            PYTHONPATH=str(tmp_path),
        )

    return start


def hang(api: Api, count: int) -> list[str]:
    """Complete uploads at which the check hangs; give their ids."""
    ids = []
    for _ in range(count):
        view = api.begin("single", 5)
        api.send(view["put"], b"hang!")
        assert api.post(view["id"], "complete").status_code == 202
        ids.append(view["id"])
    return ids


def test_a_check_that_hangs_holds_up_nobody_else(scanned: Callable[..., ServerProcess]) -> None:
    server = scanned(3600)
    with Api(server.port) as api:
        hanging = hang(api, 9)  # more than a pass of recovery looks at
        api.upload(b"fine")

        server.kill()
        server.start()

        api.upload(b"fine after a start, too")
        assert {state_of(api.find(one)) for one in hanging} == {"completed"}


def test_a_check_that_hangs_is_begun_again_and_what_it_hangs_at_can_be_canceled(
    scanned: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = scanned(1)
    with Api(server.port) as api:
        first, second = hang(api, 2)

        # Who cancels it is heard between two tries at the latest.
        wait_until(lambda: api.delete(first).status_code == 200, "it is canceled")
        (tmp_path / "hangs").unlink()
        api.wait_for(second, "verified")

    records = Records(server.data_dir)
    assert (records.events(first), records.events(second)) == (["canceled"], ["verified"])


def test_a_check_that_hangs_does_not_keep_the_server_from_stopping(
    scanned: Callable[..., ServerProcess],
) -> None:
    server = scanned(3600)
    with Api(server.port) as api:
        hanging = hang(api, 2)

        assert server.stop() == 0

        server.start()
        assert {state_of(api.find(one)) for one in hanging} == {"completed"}
        assert server.stop() == 0
