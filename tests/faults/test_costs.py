"""What uploads cost: requests to S3, counted on the wire, and statements, counted by Postgres."""

import re

import pytest

from tests.faults.fleet import KIB, MIB, Fleet
from tests.support.postgres import PostgresServer
from tests.support.s3_proxy import S3Proxy
from tests.support.tus import Tus, pattern
from tus_server.state.postgres.rows import SQL

PART = 8 * MIB
# What runs beside the requests.
_BACKGROUND = {
    "beat",
    "holders_of_node",
    "claim_unfinished",
    "ready_finals",
    "claim_duty",
    "find_expired",
    "purge",
    "forget_nodes",
    "find_auto_complete",
    "purge_events",
    "claim_events",
    "settle_events",
}


@pytest.fixture
def tus(fleet: Fleet, s3_proxy: S3Proxy) -> Tus:
    """A server whose requests to S3 go through the proxy, with the usual size of parts."""
    node = fleet.node(TUS_S3_ENDPOINT_URL=s3_proxy.endpoint, TUS_PART_SIZE_BYTES=str(PART))
    s3_proxy.forget()  # what the start has asked
    return Tus(node.port)


def send(tus: Tus, content: bytes, step: int) -> str:
    """Upload in PATCHes of `step` bytes."""
    url = tus.new(len(content))
    for start in range(0, len(content), step):
        tus.append(url, start, content[start : start + step])
    return url


def multipart(parts: int) -> dict[str, int]:
    """Give the requests of an upload of that many parts."""
    return {"CreateMultipartUpload": 1, "UploadPart": parts, "CompleteMultipartUpload": 1}


def test_creating_and_looking_ask_s3_for_nothing(tus: Tus, s3_proxy: S3Proxy) -> None:
    url = tus.new(PART)

    assert tus.offset(url) == 0
    assert tus.append(url, 0, b"x" * 1000) == 1000
    assert tus.offset(url) == 1000
    assert s3_proxy.requests == []


@pytest.mark.parametrize(
    ("length", "step", "expected"),
    [
        pytest.param(4 * KIB, 4 * KIB, {"PutObject": 1}, id="4 KiB"),
        pytest.param(PART, PART, {"PutObject": 1}, id="exactly one part"),
        pytest.param(PART, MIB, {"PutObject": 1}, id="one part, in steps of 1 MiB"),
        pytest.param(PART + 1, PART + 1, multipart(2), id="one part and a byte"),
        pytest.param(64 * MIB, 64 * MIB, multipart(8), id="64 MiB at once"),
        # What is at least a part for S3 goes there at the end of each request.
        pytest.param(40 * MIB, 5 * MIB, multipart(8), id="steps of 5 MiB"),
        # Four steps are kept as a tail, with the fifth it is enough for a part.
        pytest.param(40 * MIB, MIB, multipart(8), id="steps of 1 MiB"),
        pytest.param(64 * MIB, 7 * MIB, multipart(10), id="steps of 7 MiB", marks=pytest.mark.full),
    ],
)
def test_an_upload_costs_its_parts_and_two_requests(
    tus: Tus, s3_proxy: S3Proxy, fleet: Fleet, length: int, step: int, expected: dict[str, int]
) -> None:
    content = pattern(length)

    url = send(tus, content, step)

    assert s3_proxy.counts() == expected
    assert fleet.content(url) == content


@pytest.mark.parametrize("length", [0, 4 * KIB, MIB])
def test_a_creation_with_its_whole_body_costs_one_request(
    tus: Tus, s3_proxy: S3Proxy, fleet: Fleet, length: int
) -> None:
    content = pattern(length)

    reply = tus.create(length, body=content)

    assert reply.status == 201
    assert s3_proxy.counts() == {"PutObject": 1}
    assert fleet.content(reply["location"]) == content


# --- round trips to the state ---------------------------------------------------------------------


class StatementLog:
    """The statements of requests that a server of Postgres has logged for one database."""

    def __init__(self, server: PostgresServer) -> None:
        self._path = server.log
        self._seen = self._path.stat().st_size
        # By all their words: some begin alike.
        self._names = {_words(sql): name for name, sql in SQL.items()}

    def take(self) -> list[str]:
        """Give the names of the statements since the last look, without those of the background."""
        with self._path.open("rb") as file:
            file.seek(self._seen)
            text = file.read().decode(errors="replace")
            self._seen = file.tell()
        found = re.findall(r"LOG: +execute [^:]*: ((?:.*)(?:\n\t.*)*)", text)
        names = [self._names.get(_words(sql), sql) for sql in found]
        return [name for name in names if name not in _BACKGROUND]


def _words(sql: str) -> str:
    lines = [line for line in sql.splitlines() if not line.lstrip().startswith("--")]
    return " ".join(" ".join(lines).split())


def test_requests_cost_one_or_two_round_trips_to_the_state(
    fleet: Fleet, postgres: PostgresServer | None
) -> None:
    if postgres is None:
        pytest.skip("the log of the server at TEST_DATABASE_URL cannot be read")
    name = fleet.database_url.rpartition("/")[2]
    fleet.query(f"ALTER DATABASE {name} SET log_statement = 'all'")
    # One connection: what it has prepared is prepared for all.
    node = fleet.node("logged", TUS_STATE_POOL_SIZE="1", TUS_PART_SIZE_BYTES=str(PART))
    tus = Tus(node.port)
    send(tus, pattern(2000), 1000)
    log = StatementLog(postgres)

    costs: dict[str, list[str]] = {}
    url = tus.new(3000)
    costs["POST"] = log.take()
    tus.offset(url)
    costs["HEAD"] = log.take()
    tus.append(url, 0, bytes(1000))
    costs["first PATCH"] = log.take()
    tus.append(url, 1000, bytes(1000))
    costs["PATCH"] = log.take()
    tus.create(4 * KIB, body=bytes(4 * KIB))
    costs["POST with its body"] = log.take()
    tus.create(4 * KIB, body=bytes(100))
    costs["POST with some bytes"] = log.take()

    assert costs == {
        "POST": ["create_upload"],
        "HEAD": ["observe_upload"],
        "first PATCH": ["claim_upload", "commit"],
        "PATCH": ["claim_upload", "commit"],
        "POST with its body": ["create_upload", "commit"],
        "POST with some bytes": ["create_upload", "commit"],
    }
