"""kill -9 in the middle of PUTs: every part that was answered is there, with the same bytes.

As test_crash.py: this proves the order of effects; what is fsynced before what is a matter of
tests/integration/test_local_direct.py.
"""

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.conftest import check_log
from tests.support.api import Api, state_of, states_of
from tests.support.http import Connection, ConnectionEnded
from tests.support.server import ServerProcess
from tests.support.tus import pattern
from tus_server.core.checksums import crc64

FULL = os.environ.get("TUS_TEST_FULL") == "1"
PART_SIZE = 192 * 1024
UPLOADS = 3
PARTS = 12
SENDERS = 8
VERSIONS = 3  # of the content of each part: a mixture of two has the CRC of none


@pytest.fixture
def seed() -> int:
    """TUS_TEST_SEED repeats the choices of a run, though not what the machine makes of them."""
    number = int(os.environ.get("TUS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"TUS_TEST_SEED={number}")  # pytest shows it when the test fails
    return number


@dataclass
class Slot:
    """One part of one upload, as its client knows it.

    told: the ETag of the last answer, None where a later request had none, or nothing was sent.
    """

    target: str
    versions: list[bytes]
    told: str | None = None
    was_told: bool = True  # whether `told` is what has to be
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def etags(self) -> set[str]:
        return {etag(content) for content in self.versions}


def etag(content: bytes) -> str:
    return f'"{crc64(content):016x}"'


def send(port: int, slot: Slot, rng: random.Random) -> bool:
    """Send a part in one of its versions; False: the server went away, or would not answer."""
    content = rng.choice(slot.versions)
    slot.was_told = False
    try:
        with Connection(port) as connection:
            fields = {"Content-Length": str(len(content))}
            connection.send_head("PUT", slot.target, fields)
            cut = rng.randrange(len(content))
            connection.send(content[:cut])
            if rng.random() < 0.1:
                return True  # the client goes away in the middle
            connection.send(content[cut:])
            reply = connection.read_reply()
    except (ConnectionEnded, OSError):
        return False
    if reply.status != 200:
        assert reply.status == 503, reply
        return False
    assert reply["etag"] == etag(content)
    slot.told, slot.was_told = reply["etag"], True
    return True


def check(api: Api, data_dir: Path, upload_id: str, slots: list[Slot]) -> None:
    """Compare what the server says of the parts with what clients were told, and with its disk."""
    folder = data_dir / "objects" / upload_id[0] / upload_id[1]
    for part, slot in zip(api.parts(upload_id), slots, strict=True):
        if part["arrived"]:
            with (folder / f"{upload_id}.partial").open("rb") as file:
                file.seek(part["start"])
                assert etag(file.read(part["size"])) == part["etag"]
        if slot.was_told:
            assert part["etag"] == slot.told
        elif part["arrived"]:
            # Of a request without an answer either nothing counts, or all of it.
            assert part["etag"] in slot.etags
            slot.told, slot.was_told = part["etag"], True
        else:
            slot.told, slot.was_told = None, True


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_no_part_that_was_answered_is_lost_when_the_server_is_ended(
    tmp_path: Path, body_path: str, seed: int, number: signal.Signals
) -> None:
    rng = random.Random(seed)
    rounds = (8 if FULL else 3) if number is signal.SIGKILL else (4 if FULL else 2)
    pool = pattern(PART_SIZE * PARTS * VERSIONS, seed)
    server = ServerProcess(
        tmp_path / "data", TUS_BODY_PATH=body_path, TUS_DIRECT_PART_SIZE=str(PART_SIZE)
    )
    with server:
        uploads = {}
        with Api(server.port) as api:
            for _ in range(UPLOADS):
                upload_id = api.begin("multipart", PARTS * PART_SIZE - 5)["id"]
                uploads[upload_id] = make_slots(api, upload_id, pool, rng)
        for _ in range(rounds):
            work_until_the_end(server, uploads, rng, number)
            server.start()
            with Api(server.port) as api:
                for upload_id, slots in uploads.items():
                    check(api, tmp_path / "data", upload_id, slots)
        with Api(server.port) as api:
            for upload_id, slots in uploads.items():
                finish(api, server.port, upload_id, slots, rng)
        assert server.stop() == 0
    check_log(server.log)
    left = sorted(path.name for path in (tmp_path / "data" / "objects").rglob("*.*"))
    assert left == []


def make_slots(api: Api, upload_id: str, pool: bytes, rng: random.Random) -> list[Slot]:
    slots = []
    for signed, part in zip(api.sign(upload_id), api.parts(upload_id), strict=True):
        starts = [rng.randrange(len(pool) - part["size"]) for _ in range(VERSIONS)]
        versions = [pool[start : start + part["size"]] for start in starts]
        url = httpx.URL(signed["url"])
        slots.append(Slot(url.raw_path.decode(), versions))
    return slots


def work_until_the_end(
    server: ServerProcess,
    uploads: dict[str, list[Slot]],
    rng: random.Random,
    number: signal.Signals,
) -> None:
    """Let clients send parts in random order, in parallel; end the server in the middle of it."""
    answers = threading.Semaphore(0)
    every = [slot for slots in uploads.values() for slot in slots]

    def work(rng: random.Random) -> None:
        while True:
            slot = rng.choice(every)
            with slot.lock:
                if not send(server.port, slot, rng):
                    return
            answers.release()

    with ThreadPoolExecutor(SENDERS) as pool:
        workers = [pool.submit(work, random.Random(rng.random())) for _ in range(SENDERS)]
        for _ in range(rng.randrange(1, 60)):
            answers.acquire()
        assert server.process is not None
        server.process.send_signal(number)
        server.process.wait()
        for worker in workers:
            worker.result()


def finish(api: Api, port: int, upload_id: str, slots: list[Slot], rng: random.Random) -> None:
    """Send what is missing, complete, and compare every byte."""
    for slot in slots:
        while slot.told is None or not slot.was_told:
            send(port, slot, rng)
    report = [{"part_number": n, "etag": slot.told} for n, slot in enumerate(slots, 1)]
    done = api.post(upload_id, "complete", {"parts": report}, fields={"Prefer": "wait=30"}).json()

    assert state_of(done) == "verified", done
    assert states_of(done) == ["initiated", "receiving", "completed", "verified"]
    content = httpx.get(done["object"]["url"]).content
    known = [{etag(one): one for one in slot.versions}[str(slot.told)] for slot in slots]
    assert content == b"".join(known)
