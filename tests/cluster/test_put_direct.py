"""`put --direct` with Postgres and S3: parts go to the store itself, interrupted and repeated."""

import http.client
import os
import signal
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.support.commands import TIMEOUT_S, Commands
from tests.support.http_proxy import HttpProxy, Seen
from tests.support.nodes import MIB, Cluster
from tests.support.s3 import S3Service
from tests.support.waiting import wait_until
from tus_server.core.checksums import crc64

PART = 5 * MIB
PARTS = 8
PART_QUERY = "partNumber=.*X-Amz-Signature="  # the server's own are signed in a header
TOKEN = "t0ken-of-the-application"


@pytest.fixture
def store(request: pytest.FixtureRequest, store: S3Service) -> S3Service:
    """The service that suits, or the one that a test names."""
    name = getattr(request, "param", None)
    return request.getfixturevalue(name) if name else store


@pytest.fixture
def s3(cluster: Cluster) -> Iterator[HttpProxy]:
    """Before the S3 service; server and clients reach it this way."""
    with HttpProxy(cluster.s3.address[1]) as proxy:
        cluster.environment |= {
            "TUS_S3_ENDPOINT_URL": proxy.url,
            "TUS_DIRECT_PART_SIZE": str(PART),
            "TUS_API_TOKEN": TOKEN,
        }
        yield proxy


@pytest.fixture
def commands(tmp_path: Path, cluster: Cluster, s3: HttpProxy) -> Commands:
    made = Commands(tmp_path)
    # Of the servers, for those commands that look into the database.
    made.env |= cluster.environment
    return made


@pytest.fixture
def url(cluster: Cluster, s3: HttpProxy) -> str:
    return f"http://127.0.0.1:{cluster.node('a').port}/"


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of eight parts."""
    path = tmp_path / "big file.bin"
    path.write_bytes(os.urandom(PARTS * PART - 17))
    return path


def direct(commands: Commands, *arguments: object, status: int = 0) -> dict[str, Any]:
    (result,) = commands.put("--direct", *arguments, status=status)
    return result


def show(commands: Commands, cluster: Cluster, id: str) -> dict[str, Any]:
    (shown,) = commands.uploads("show", id, server=cluster.nodes["a"])
    return shown


def found_parts(s3: HttpProxy) -> list[Seen]:
    return s3.find("PUT", PART_QUERY)


def part_numbers(s3: HttpProxy) -> Counter[int]:
    """Count by number the parts that S3 has taken."""
    return Counter(
        int(parse_qs(urlsplit(seen.target).query)["partNumber"][0]) for seen in found_parts(s3)
    )


def test_a_large_file_goes_past_the_server_in_parallel_and_is_verified(
    commands: Commands, cluster: Cluster, s3: HttpProxy, url: str, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(100 * MIB))

    sent = direct(commands, "--file-id", "film", path, url)

    assert sent["state"] == "verified"
    assert cluster.content(sent["url"]) == path.read_bytes()
    assert cluster.count_parts(sent["url"]) == 20
    assert part_numbers(s3) == dict.fromkeys(range(1, 21), 1)
    for seen in found_parts(s3):
        assert "Authorization" not in seen.headers
        assert TOKEN not in str(seen)
    shown = show(commands, cluster, sent["id"])
    assert (shown["parts_arrived"], shown["part_count"], shown["outcome"]) == (20, 20, "success")
    # Of each part it was reported; the store was found to have the same as a whole.
    assert checksum(url, sent["id"]) == {
        "algorithm": "crc64nvme",
        "value": b64encode(crc64(path.read_bytes()).to_bytes(8, "big")).decode(),
    }
    listed = commands.uploads(
        "ls", "--file-id", "film", "--kind", "multipart", server=cluster.nodes["a"]
    )
    assert [each["id"] for each in listed] == [sent["id"]]
    assert commands.uploads("ls", "--kind", "single", server=cluster.nodes["a"]) == []


def checksum(url: str, id: str) -> dict[str, str]:
    with requests.Session() as session:
        session.trust_env = False
        fields = {"Authorization": f"Bearer {TOKEN}"}
        reply = session.get(f"{url}api/uploads/{id}", headers=fields, timeout=TIMEOUT_S)
    found: dict[str, str] = reply.json()["checksum"]
    return found


def test_an_empty_file_arrives(
    commands: Commands, cluster: Cluster, url: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()

    sent = direct(commands, "empty", url)

    assert cluster.content(sent["url"]) == b""


def test_only_what_a_killed_run_had_not_sent_is_sent_by_the_next(
    commands: Commands, cluster: Cluster, s3: HttpProxy, url: str, big: Path
) -> None:
    held = s3.hold("PUT", target=PART_QUERY, after=3)
    first = commands.start("put", "--direct", big, url)
    wait_until(lambda: len(found_parts(s3)) == 3, "three parts have arrived")
    held.wait_reached()
    first.kill()
    first.communicate(timeout=TIMEOUT_S)
    held.drop()

    sent = direct(commands, big, url)

    assert part_numbers(s3) == dict.fromkeys(range(1, PARTS + 1), 1)
    assert sent["resumed_at"] == 3 * PART
    assert cluster.content(sent["url"]) == big.read_bytes()


def test_a_run_goes_on_while_the_server_is_killed_and_comes_back(
    commands: Commands, cluster: Cluster, s3: HttpProxy, url: str, big: Path
) -> None:
    """Parts go on to arrive; what is signed and completed waits for the server."""
    held = s3.hold("PUT", target=PART_QUERY, after=3)
    put = commands.start("put", "--direct", "--parallel", 1, "--retries", 8, big, url)
    held.wait_reached()
    cluster.nodes["a"].kill()
    held.release()
    wait_until(lambda: len(found_parts(s3)) >= 4, "a part arrives without the server")
    cluster.nodes["a"].start()

    out, _ = commands.finish(put)

    assert part_numbers(s3) == dict.fromkeys(range(1, PARTS + 1), 1)
    assert cluster.content(out.split()[0]) == big.read_bytes()


def test_an_interrupted_run_is_gone_on_with(
    commands: Commands, cluster: Cluster, s3: HttpProxy, url: str, big: Path
) -> None:
    held = s3.hold("PUT", target=PART_QUERY, after=2)
    put = commands.start("put", "--direct", big, url)
    wait_until(lambda: len(found_parts(s3)) == 2, "two parts have arrived")
    held.wait_reached()
    put.send_signal(signal.SIGINT)
    _, err = commands.finish(put, status=130)
    held.drop()

    sent = direct(commands, big, url)

    assert "the same command goes on from there" in err
    assert sent["resumed_at"] == 2 * PART
    assert cluster.content(sent["url"]) == big.read_bytes()


def test_a_store_that_is_busy_is_asked_again(
    commands: Commands, cluster: Cluster, s3: HttpProxy, url: str, big: Path
) -> None:
    slow_down = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
    s3.answer(
        "PUT",
        503,
        target=PART_QUERY,
        after=2,
        times=3,
        body=slow_down,
        headers={"Content-Type": "application/xml"},
    )
    s3.lose_answer("PUT", target=PART_QUERY, after=3)

    out, err = commands.run("put", "--direct", big, url)

    assert "503" in err
    assert "X-Amz-Signature" not in err
    assert cluster.content(out.split()[0]) == big.read_bytes()


def test_a_request_that_has_expired_is_signed_again(
    commands: Commands, cluster: Cluster, s3: HttpProxy, url: str, big: Path
) -> None:
    node = cluster.nodes["a"]
    node.stop()
    node.env["TUS_SIGN_EXPIRES_S"] = "3"
    node.start()
    held = s3.hold("PUT", target=PART_QUERY, times=4)
    put = commands.start("put", "--direct", big, url)
    wait_until(lambda: len(held.targets) == 4, "four requests wait")
    wait_until(lambda: all(map(has_expired, held.targets)), "they have expired")
    held.release()

    out, _ = commands.finish(put)

    refused = [seen.status for seen in s3.seen if seen.target in held.targets]
    # versitygw may hang up before its answer is read.
    assert len(refused) == 4
    assert set(refused) <= {403, 0}
    assert part_numbers(s3) == dict.fromkeys(range(1, PARTS + 1), 1)
    assert cluster.content(out.split()[0]) == big.read_bytes()


def has_expired(target: str) -> bool:
    fields = parse_qs(urlsplit(target).query)
    signed_at = datetime.strptime(f"{fields['X-Amz-Date'][0]}+0000", "%Y%m%dT%H%M%SZ%z")
    return time.time() > signed_at.timestamp() + int(fields["X-Amz-Expires"][0]) + 1


@pytest.mark.parametrize("store", ["_swift", "versitygw"], indirect=True)
def test_a_part_that_is_replaced_by_another_is_sent_again(
    commands: Commands, cluster: Cluster, s3: HttpProxy, url: str, big: Path
) -> None:
    """By its checksum where the store tells that, and by its ETag where not."""
    held = s3.hold("GET", target="uploadId=", times=1)  # the look of the completion
    put = commands.start("put", "--direct", big, url)
    held.wait_reached()
    first = next(seen for seen in found_parts(s3) if "partNumber=1&" in seen.target)
    assert replace_part(s3, first) == 200
    held.release()

    out, err = commands.finish(put)

    assert "Part 1" in err
    assert part_numbers(s3)[1] == 2
    assert cluster.content(out.split()[0]) == big.read_bytes()


def replace_part(s3: HttpProxy, seen: Seen) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", s3.target_port, timeout=TIMEOUT_S)
    connection.request("PUT", seen.target, bytes(seen.size), {"Host": seen.headers["Host"]})
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return reply.status
