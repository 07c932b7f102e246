"""SQLite and S3: one process, whose tails are on its disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import check_log
from tests.support.bucket import Bucket
from tests.support.nodes import MIB, PREFIX
from tests.support.records import Records, upload_id
from tests.support.s3 import S3Service
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

WHOLE = pattern(12 * MIB)


@pytest.fixture
def bucket(store: S3Service) -> Iterator[Bucket]:
    with Bucket(store, store.make_bucket()) as bucket:
        yield bucket


@pytest.fixture
def alone(tmp_path: Path, bucket: Bucket) -> Iterator[ServerProcess]:
    with ServerProcess(
        tmp_path / "data",
        TUS_STORE_URL=f"s3://{bucket.name}/{PREFIX}",
        TUS_S3_ENDPOINT_URL=bucket.service.endpoint,
        TUS_PART_SIZE_BYTES=str(5 * MIB),
        **bucket.service.environment,
    ) as server:
        yield server
    check_log(server.log)


def leftovers(server: ServerProcess, bucket: Bucket) -> list[str]:
    tails = [str(path) for path in (server.data_dir / "tails").glob("*.tail*")]
    parked = [key for key in bucket.find_keys() if ".tail." in key]
    return tails + parked + [key for key, _ in bucket.find_multiparts()]


@pytest.mark.full
def test_uploads_in_steps_over_restarts(alone: ServerProcess, bucket: Bucket) -> None:
    tus = Tus(alone.port)
    url, offset = tus.new(len(WHOLE)), 0
    assert len(upload_id(url)) == 32, "there is no other node to tell from"

    for step in (1, 3 * MIB, 4 * MIB, 1000, len(WHOLE)):
        assert tus.offset(url) == offset
        offset = tus.append(url, offset, WHOLE[offset : offset + step])
        alone.kill()
        alone.start()

    assert bucket.read(f"{PREFIX}{upload_id(url)}") == WHOLE
    assert tus.content(url) == WHOLE
    assert Records(alone.data_dir).events(url) == ["verified"]
    assert leftovers(alone, bucket) == []


def test_a_kill_in_the_middle_of_a_request(alone: ServerProcess, bucket: Bucket) -> None:
    tus = Tus(alone.port)
    url = tus.stored(WHOLE[:1000], length=len(WHOLE))
    with tus.hold(url, 1000, WHOLE[1000 : 11 * MIB], declared=len(WHOLE) - 1000):
        alone.kill()
    alone.start()

    offset = tus.offset(url)

    assert offset in (1000, 5 * MIB, 10 * MIB), "what was acknowledged, and parts"
    assert tus.finish(url, WHOLE) == WHOLE
    assert bucket.read(f"{PREFIX}{upload_id(url)}") == WHOLE
    wait_until(lambda: not leftovers(alone, bucket), "nothing is left over")


@pytest.mark.full
def test_a_lost_tail_is_refused_loudly(alone: ServerProcess, bucket: Bucket) -> None:
    tus = Tus(alone.port)
    url = tus.stored(WHOLE[:1000], length=len(WHOLE))
    (path,) = (alone.data_dir / "tails").iterdir()
    path.unlink()

    refused = tus.patch(url, 1000, WHOLE[1000:])

    assert (refused.status, refused.find("tus-error")) == (503, "tus_tail_missing")
    assert tus.offset(url) == 1000
    assert tus.delete(url).status == 204
    assert leftovers(alone, bucket) == []
