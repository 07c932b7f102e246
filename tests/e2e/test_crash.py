"""The real server, ended in the middle of its work: what it acknowledged is there when it is back.

`kill -9` keeps the page cache, so this proves the order of effects and the recovery at start (P1,
P2, P5, P6); what is fsynced before what is a matter of the contract tests.
"""

import hashlib
import itertools
import os
import random
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import check_log
from tests.support.http import Connection, ConnectionEnded, Fields, Reply
from tests.support.records import Records, upload_id
from tests.support.server import ServerProcess
from tests.support.tus import BODY_TYPE, Tus, pattern
from tus_server.core.states import UploadState as S
from tus_server.ports import Letters
from tus_server.state.sqlite import lookups
from tus_server.state.sqlite.schema import connect

FULL = os.environ.get("TUS_TEST_FULL") == "1"
CLIENTS = 24
DEADLINE_S = 60.0  # of whatever must come to an end; nothing measures it
KIB, MIB = 1024, 1024 * 1024
# The smallest there is: many commits within one request.
PART_SIZE = MIB
# Every content is a slice of this, so that a misplaced byte shows and nothing is copied.
POOL = memoryview(random.Random(20161).randbytes(64 * MIB))


@pytest.fixture
def seed() -> int:
    """TUS_TEST_SEED repeats the choices of a run, though not what the machine makes of them."""
    number = int(os.environ.get("TUS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"TUS_TEST_SEED={number}")  # pytest shows it when the test fails
    return number


# --- what a client sends, and what it was told ---------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How one upload is made. Sizes in bytes.

    with_creation: what goes into the POST, None for a POST without a body. step: most in one PATCH.
    peek: in the middle of a PATCH another connection asks for the offset. hang_up: the client
    itself goes away there. delete_at: DELETE at this offset, from another connection if a PATCH
    is running.
    """

    length: int
    with_creation: int | None = None
    step: int = 64 * MIB
    block: int = 128 * KIB
    chunked: bool = False
    deferred: bool = False
    slow: bool = False
    peek: bool = False
    hang_up: bool = False
    delete_at: int | None = None


def draw_plan(rng: random.Random) -> Plan:
    """Draw what the next upload is like."""
    weights = {"small": 6, "together": 5, "stepped": 4, "large": 3, "peeked": 2}
    weights |= {"chunked": 3, "slow": 3, "hung": 2, "deleted": 4}
    kind = rng.choices(list(weights), list(weights.values()))[0]
    small = rng.choice((0, 1, rng.randrange(2, 64 * KIB), 16 * KIB))
    middle = rng.randrange(1, 3 * MIB)
    large = rng.randrange(6 * MIB, 40 * MIB)
    match kind:
        case "small":
            return Plan(small)
        case "together":
            length = rng.choice((small, middle))
            return Plan(length, with_creation=rng.choice((length, rng.randint(0, length))))
        case "stepped":
            step = rng.randrange(16 * KIB, 512 * KIB)
            return Plan(middle, step=step, deferred=rng.random() < 0.3)
        case "large":
            return Plan(large)
        case "peeked":
            return Plan(large, peek=True)
        case "chunked":
            length = rng.choice((small, middle, large // 4))
            first = rng.choice((None, length, length // 2))
            return Plan(length, first, chunked=True, deferred=rng.random() < 0.5)
        case "slow":
            return Plan(rng.randrange(1, 96 * KIB), block=rng.randrange(200, 4000), slow=True)
        case "hung":
            return Plan(rng.choice((middle, large // 2)), hang_up=True)
        case _:
            length = rng.choice((small, middle, large // 4))
            return Plan(length, delete_at=rng.choice((0, length, rng.randint(0, length))))


@dataclass(eq=False)
class Upload:
    """One upload as its client knows it. acknowledged: the highest Upload-Offset of any reply."""

    plan: Plan
    content: memoryview
    url: str = ""  # "" until a 201 was read
    acknowledged: int = 0
    length_told: bool = False
    delete_sent: bool = False
    deleted: bool = False  # a 204 was read, or a 404 after delete_sent

    @property
    def is_complete(self) -> bool:
        return self.length_told and self.acknowledged == self.plan.length

    def acknowledge(self, reply: Reply, *, sent: int) -> None:
        offset = int(reply["upload-offset"])
        assert self.acknowledged <= offset <= sent, (
            f"{self.url}: {self.acknowledged} acknowledged, now {offset}, {sent} sent; {self.plan}"
        )
        self.acknowledged = offset


# --- the clients ---------------------------------------------------------------------------------


class CutOff(Exception):
    """The server let go of the request, or is about to stop: look at the offset and go on."""


@dataclass
class Crowd:
    """Clients, each on a thread, that upload while the gate is open; start with `working`."""

    server: ServerProcess
    rng: random.Random
    uploads: list[Upload] = field(default_factory=list)
    changed: set[Upload] = field(default_factory=set)  # perhaps, since the last check
    lost_creations: int = 0  # POSTs whose reply was not read: nobody knows their uploads
    finishing: bool = False
    failures: list[BaseException] = field(default_factory=list)
    _turn: threading.Condition = field(default_factory=threading.Condition)
    _shut: threading.Event = field(default_factory=threading.Event)
    _due: threading.Event = field(default_factory=threading.Event)
    _at_work: int = 0
    _acknowledgements: Iterator[int] = field(default_factory=itertools.count)
    _last_acknowledgement: int = -1
    _bytes_left: int = 0

    def __post_init__(self) -> None:
        self.tus = Tus(self.server.port)

    @contextmanager
    def working(self, seed: int) -> Iterator[None]:
        """Let clients work; at the end they finish what they began, and all is compared."""
        self._shut.set()
        with ThreadPoolExecutor(CLIENTS) as threads:
            running = [
                threads.submit(self._run_client, random.Random(f"{seed}/{number}"))
                for number in range(CLIENTS)
            ]
            try:
                yield
                self.finishing = True
                self.open()
            except BaseException as exc:
                self._fail(exc)
                raise
        for client in running:
            client.result()
        self.check(self.uploads)
        assert all(upload.is_complete or upload.deleted for upload in self.uploads)

    # --- moments

    def open(self) -> None:
        """Let the clients go on."""
        self._due.clear()
        self._shut.clear()
        with self._turn:
            self._turn.notify_all()

    def work_until_random_moment(self) -> None:
        """Let the clients work, and shut the gate when enough happened or time has passed."""
        acknowledged = next(self._acknowledgements)
        self._last_acknowledgement, self._bytes_left, seconds = -1, 1 << 62, DEADLINE_S
        match self.rng.randrange(3):
            case 0:
                self._last_acknowledgement = acknowledged + self.rng.randrange(1, 150)
            case 1:
                self._bytes_left = self.rng.randrange(1, 32 * MIB)
            case _:
                seconds = self.rng.uniform(0, 0.4)
        self.open()
        self._due.wait(seconds)
        self._shut.set()

    def stand_still(self) -> None:
        """Wait until every client waits at the gate, its connection lost."""
        with self._turn:
            assert self._turn.wait_for(lambda: self._at_work == 0, DEADLINE_S)
        for failure in self.failures:
            raise failure

    def _count_acknowledgement(self) -> None:
        if next(self._acknowledgements) == self._last_acknowledgement:
            self._due.set()

    def _count_bytes(self, size: int) -> None:
        self._bytes_left -= size  # a lost update only shifts the random moment
        if self._bytes_left <= 0:
            self._due.set()

    @contextmanager
    def _through_the_gate(self) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: not self._shut.is_set() or self.failures)
            self._at_work += 1
        try:
            yield
        finally:
            with self._turn:
                self._at_work -= 1
                self._turn.notify_all()

    # --- a client

    def _run_client(self, rng: random.Random) -> None:
        try:
            while not (self.finishing or self.failures):
                plan = draw_plan(rng)
                start = rng.randrange(len(POOL) - plan.length)
                upload = Upload(plan, POOL[start : start + plan.length])
                self.uploads.append(upload)
                while not (self.failures or self._make(upload, rng)):
                    pass
        except BaseException as exc:
            self._fail(exc)
            raise

    def _fail(self, failure: BaseException) -> None:
        """Let everybody stop."""
        self.failures.append(failure)
        self._due.set()
        with self._turn:
            self._turn.notify_all()

    def _make(self, upload: Upload, rng: random.Random) -> bool:
        """Go on with `upload` over one connection; tell whether that got to the end."""
        with self._through_the_gate():
            self.changed.add(upload)
            try:
                with self.tus.connect() as connection:
                    self._go_on(upload, connection, rng)
                return True
            except (ConnectionEnded, ConnectionError, CutOff):
                if not self._shut.is_set():
                    assert self.server.process is not None
                    assert self.server.process.poll() is None, "the server died by itself"
                    self._shut.wait(0.005)  # it has just started, or is storing what it got
                return False

    def _go_on(self, upload: Upload, connection: Connection, rng: random.Random) -> None:
        plan = upload.plan
        if not upload.url:
            self._create(upload, connection)
        else:
            self.look(upload)
        while not (upload.deleted or self.failures):
            if plan.delete_at is not None and upload.acknowledged >= plan.delete_at:
                self._delete(upload)
            elif upload.is_complete:
                return
            else:
                self._append(upload, connection, hang_up=plan.hang_up and rng.random() < 0.5)

    def _create(self, upload: Upload, connection: Connection) -> None:
        plan = upload.plan
        length = {"Upload-Defer-Length": "1"} if plan.deferred else length_field(plan)
        try:
            reply = self._send(
                connection, "POST", "/files/", length, upload, size=plan.with_creation
            )
        except (ConnectionEnded, ConnectionError, CutOff):
            self.lost_creations += 1
            raise
        assert reply.status == 201, (reply, plan)
        upload.url = reply["location"]
        upload.length_told = not plan.deferred
        upload.acknowledge(reply, sent=plan.with_creation or 0)
        assert upload.acknowledged == (plan.with_creation or 0)
        self._count_acknowledgement()

    def look(self, upload: Upload) -> None:
        """HEAD, and compare the reply with what is known."""
        reply = self.tus.head(upload.url)
        if upload.deleted or (upload.delete_sent and reply.status == 404):
            assert reply.status == 404, (reply, upload.plan)
            upload.deleted = True
            return
        assert reply.status == 200, (reply, upload.url, upload.acknowledged, upload.plan)
        upload.acknowledge(reply, sent=upload.plan.length)
        if "upload-length" in reply:
            assert int(reply["upload-length"]) == upload.plan.length
            upload.length_told = True
        else:
            assert reply["upload-defer-length"] == "1"
            assert not upload.length_told
        self._count_acknowledgement()

    def _append(self, upload: Upload, connection: Connection, *, hang_up: bool) -> None:
        plan, start = upload.plan, upload.acknowledged
        end = min(start + plan.step, plan.length)
        meddle: Callable[[], None] | None = None
        if plan.delete_at is not None and plan.delete_at < end:
            meddle = partial(self._delete, upload)
        elif plan.peek:
            meddle = partial(self.look, upload)
        elif hang_up:
            meddle = partial(self._hang_up, connection)
        fields = {"Upload-Offset": str(start)}
        if plan.deferred and end == plan.length:
            fields |= length_field(plan)
        reply = self._send(
            connection, "PATCH", upload.url, fields, upload, size=end - start, meddle=meddle
        )
        if reply.status == 204:
            upload.acknowledge(reply, sent=end)
            assert upload.acknowledged == end
            upload.length_told = upload.length_told or "Upload-Length" in fields
            self._count_acknowledgement()
            return
        # Where a connection cannot be closed without a reply, it tells who has to let go.
        assert reply.status in ((404, 409) if meddle else ()), (reply, plan)
        raise CutOff

    def _hang_up(self, connection: Connection) -> None:
        connection.reset()
        raise CutOff

    def _delete(self, upload: Upload) -> None:
        upload.delete_sent = True
        reply = self.tus.delete(upload.url)
        assert reply.status == 204, (reply, upload.plan)
        upload.deleted = True
        self._count_acknowledgement()

    def _send(
        self,
        connection: Connection,
        method: str,
        url: str,
        fields: Fields,
        upload: Upload,
        *,
        size: int | None,
        meddle: Callable[[], None] | None = None,
    ) -> Reply:
        """Send what follows the acknowledged bytes, `meddle` in its middle, and give the reply."""
        given = self.tus.fields | dict(fields)
        if size is not None:
            framing = ("Transfer-Encoding", "chunked")
            if not upload.plan.chunked:
                framing = ("Content-Length", str(size))
            given |= dict([framing]) | {"Content-Type": BODY_TYPE}
        connection.send_head(method, url, given)
        with suppress(ConnectionResetError, BrokenPipeError):  # refused half-way: read why
            if size is not None:
                self._send_body(connection, upload, size, meddle)
        reply = connection.read_reply()
        if reply.status == 503 and self._shut.is_set():
            raise CutOff  # shutting down
        return reply

    def _send_body(
        self,
        connection: Connection,
        upload: Upload,
        size: int,
        meddle: Callable[[], None] | None,
    ) -> None:
        plan, start = upload.plan, upload.acknowledged
        send = connection.send_chunk if plan.chunked else connection.send
        for at in range(start, start + size, plan.block):
            block = upload.content[at : min(at + plan.block, start + size)]
            send(block)
            self._count_bytes(len(block))
            if plan.slow:
                self._shut.wait(0.01)
            if meddle is not None and 2 * (at - start + len(block)) >= size:
                meddle()
                meddle = None
        if plan.chunked:
            connection.end_chunks()

    # --- what must hold while all clients stand still

    def check_after_restart(self) -> None:
        """Compare what may have changed, and a sample of the rest."""
        rest = [upload for upload in self.uploads if upload not in self.changed]
        self.check([*self.changed, *self.rng.sample(rest, min(20, len(rest)))])
        self.changed.clear()

    def check(self, uploads: list[Upload]) -> None:
        """Compare the server with what the clients were told."""
        for upload in uploads:
            if not upload.url:
                continue
            self.look(upload)
            reply = self.tus.get(upload.url)
            if upload.is_complete and not upload.deleted:
                assert reply.status == 200, (reply, upload.url, upload.plan)
                assert sha256(reply.body) == sha256(upload.content), (upload.url, upload.plan)
            else:
                assert reply.status == 404, (reply.status, upload.url, upload.plan)
        contents = {upload_id(each.url): each.content for each in self.uploads if each.url}
        assert check_storage(self.server.data_dir, contents) <= self.lost_creations


def length_field(plan: Plan) -> dict[str, str]:
    return {"Upload-Length": str(plan.length)}


def sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


# --- what must hold on disk while nothing runs ---------------------------------------------------

HISTORY = re.compile(
    r"initiated( receiving)?( canceled| completed( canceled| verified( deleted)?))?"
)
EVERYTHING = 1 << 40


def check_storage(data_dir: Path, contents: dict[str, memoryview]) -> int:
    """Compare files, rows, history and outbox; give the number of uploads not in `contents`.

    contents: by id, of the uploads whose clients got their URL.
    """
    with closing(connect(data_dir / "state.db", durable=True, read_only=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        uploads = lookups.select(db, None, EVERYTHING, None)
        histories = {upload.id: lookups.history(db, upload.id)[::-1] for upload in uploads}
        told = [
            event
            for kind in (Letters.PENDING, Letters.DELIVERED)  # nobody wants them
            for event in lookups.list_events(db, kind, EVERYTHING, None, None)
        ]
    events = Counter((event.upload_id, event.kind) for event in told)

    expected: dict[str, int] = {}  # size by file name
    for upload in uploads:
        steps = [change.state for change in histories[upload.id]]
        assert HISTORY.fullmatch(" ".join(steps)), upload
        assert steps[-1] == upload.state
        for kind in (S.VERIFIED, S.CANCELED, S.DELETED):
            assert events.pop((upload.id, kind), 0) == steps.count(kind), (upload, kind)
        if upload.state is S.VERIFIED:
            assert upload.committed_bytes == upload.length
            expected[upload.id] = upload.committed_bytes
        elif upload.state in (S.CANCELED, S.DELETED):
            assert upload.freed_at is not None
        else:
            assert upload.state in (S.INITIATED, S.RECEIVING), upload
            if upload.committed_bytes:
                expected[f"{upload.id}.partial"] = upload.committed_bytes
    assert not events
    ids = {str(upload.id) for upload in uploads}
    assert contents.keys() <= ids

    found = {path.name: path for path in (data_dir / "objects").rglob("*") if path.is_file()}
    assert {name: path.stat().st_size for name, path in found.items()} == expected
    for name, path in found.items():
        key, partial, _ = name.partition(".partial")
        if partial and key in contents:
            assert path.read_bytes() == contents[key][: expected[name]], name
    return len(ids - contents.keys())


# --- the tests -----------------------------------------------------------------------------------


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("number", "rounds"),
    [
        pytest.param(signal.SIGKILL, 25 if FULL else 8, id="kill"),
        pytest.param(signal.SIGTERM, 10 if FULL else 2, id="term"),
    ],
)
def test_nothing_acknowledged_is_lost_when_the_server_is_ended(
    tmp_path: Path, body_path: str, seed: int, number: signal.Signals, rounds: int
) -> None:
    """Both body paths together: 100 times kill -9 in full, 20 times as a sample."""
    server = ServerProcess(
        tmp_path / "data", TUS_BODY_PATH=body_path, TUS_PART_SIZE_BYTES=str(PART_SIZE)
    )
    with server:
        crowd = Crowd(server, random.Random(seed))
        with crowd.working(seed):
            for _ in range(rounds):
                crowd.work_until_random_moment()
                if number is signal.SIGKILL:
                    server.kill()
                else:
                    assert server.stop() == 0
                crowd.stand_still()
                server.start()
                crowd.check_after_restart()
        assert server.stop() == 0
    check_log(server.log)


def test_every_byte_sent_before_a_sigterm_is_kept(tmp_path: Path, body_path: str) -> None:
    content = pattern(6 * MIB)
    with ServerProcess(tmp_path / "data", TUS_BODY_PATH=body_path) as server:
        tus = Tus(server.port)
        stalled = {}
        with ExitStack() as connections:
            for size in (1, 10_000, 300_000, 5 * MIB + 1):
                for declared in (len(content), None):
                    url = tus.new(len(content))
                    held = tus.hold(url, 0, content[:size], declared=declared)
                    connections.enter_context(held)
                    stalled[url] = size

            assert server.stop() == 0
        server.start()

        offsets = {url: tus.offset(url) for url in stalled}
        assert offsets == stalled
        for url in stalled:
            assert tus.finish(url, content) == content
        assert server.stop() == 0
    check_log(server.log)
    contents = {upload_id(url): memoryview(content) for url in stalled}
    assert check_storage(server.data_dir, contents) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,mode=700", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: a file that is still open must not keep it there for ever.
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the space that is left; give the file that does."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(64 * KIB)):
            pass
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(b"\0"):
            pass
    return path


@pytest.mark.needs_root
def test_a_full_disk_stops_uploads_and_loses_nothing(small_disk: Path, body_path: str) -> None:
    content, full = pattern(24 * MIB), (503, 507)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(20 * MIB))
    server = ServerProcess(small_disk, TUS_BODY_PATH=body_path, TUS_PART_SIZE_BYTES=str(PART_SIZE))
    with server:
        tus = Tus(server.port)
        finished = tus.stored(content[:MIB])
        url = tus.new(len(content))

        reply = tus.patch(url, 0, content)

        assert reply.status in full
        assert reply.problem()["code"] == "storage_full"
        offset = tus.offset(url)
        assert 0 < offset < len(content)
        partial = Records(small_disk).files(url)
        assert [path.read_bytes() for path in partial] == [content[:offset]]

        filler = fill(small_disk)
        assert tus.patch(url, offset, content[offset : offset + 100_000]).status in full
        assert tus.create(10).status in (*full, 201)
        assert tus.offset(url) == offset
        assert tus.content(finished) == content[:MIB]
        assert tus.request("GET", "/healthz").status == 200
        assert tus.request("GET", "/readyz").status == 503
        deletion = tus.delete(finished)
        assert deletion.status in (204, *full)
        if deletion.status != 204:
            assert deletion.problem()["code"] == "storage_full"

        filler.unlink()
        ballast.unlink()
        assert tus.request("GET", "/readyz").status == 200
        assert tus.finish(url, content) == content
        if deletion.status != 204:
            assert tus.delete(finished).status == 204
        assert tus.head(finished).status == 404
        assert server.stop() == 0
    check_log(server.log)
