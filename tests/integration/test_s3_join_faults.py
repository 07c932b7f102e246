"""Final uploads while the store fails: what passes is outlived, and nothing is left or invented."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.s3 import S3Service
from tests.support.s3_backend import SWIFT
from tests.support.s3_store import (
    confirmed,
    final_of,
    join,
    open_store,
    put_source,
    read,
    with_joined,
)
from tus_server.core.errors import StorageFull, StoreUnavailable
from tus_server.core.upload import Upload
from tus_server.objects.s3 import S3Objects

LEAST = 1000
CONTENTS = [Random(place).randbytes(size) for place, size in enumerate((5000, 10, 20, 7000, 3000))]
WHOLE = b"".join(CONTENTS)
COPY = {"method": "PUT", "query": "partNumber=1"}
SENT = {"method": "PUT", "query": "partNumber=2"}  # with the small ones in it
CREATE = {"method": "POST", "query": "uploads"}


@pytest.fixture(autouse=True)
def keys(swift: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in swift.environment.items():
        monkeypatch.setenv(name, value)
    # The pauses between attempts are real, and short.
    monkeypatch.setattr("tus_server.objects.s3.client.FIRST_PAUSE_S", 0.01)


@pytest.fixture
async def store(swift: S3Service, swift_bucket: str, tmp_path: Path) -> AsyncIterator[S3Objects]:
    async with open_store(
        swift,
        swift_bucket,
        tmp_path,
        capabilities=SWIFT,
        min_part_size=LEAST,
        part_size_bytes=2 * LEAST,
    ) as opened:
        yield opened


@pytest.fixture
async def sources(store: S3Objects) -> list[Upload]:
    return [await put_source(store, content) for content in CONTENTS]


async def left(swift: S3Service, bucket: str) -> int:
    """Count the multipart uploads in the bucket."""
    async with swift.client() as client:
        found = await client.list_multipart_uploads(Bucket=bucket)
    return len(found.get("Uploads", ()))


PASSING: list[dict[str, Any]] = [
    {"status": 500},
    {"status": 503, "code": "SlowDown", "times": 3},
    {"status": 500, "after": True},
    {"status": 200, "code": "InternalError"},
    {"status": 200, "code": "SlowDown", "after": True, "times": 2},
    {"truncate": 0, "times": 2},
    {"truncate": 0, "times": 2, "after": True},
    {"truncate": 60, "times": 2, "after": True},
]


def sampled(*rules: dict[str, Any], always: str) -> list[Any]:
    """Give rules as parameters; those without the text `always` are for the long run."""
    names = ["-".join(f"{name}={value}" for name, value in rule.items()) for rule in rules]
    marks = {True: (), False: (pytest.mark.full,)}
    return [
        pytest.param(rule, id=name, marks=marks[always in name])
        for rule, name in zip(rules, names, strict=True)
    ]


@pytest.mark.parametrize("rule", sampled(*PASSING, always="status=200"))
@pytest.mark.parametrize("call", [COPY, SENT], ids=["copied", "sent"])
async def test_a_join_outlives_what_passes(
    swift: S3Service,
    swift_bucket: str,
    store: S3Objects,
    sources: list[Upload],
    call: dict[str, Any],
    rule: dict[str, Any],
) -> None:
    if call is SENT and rule.get("status") == 200:
        pytest.skip("the answer to a part that was sent has no body")
    swift.set_faults(call | rule)

    assert await join(store, final_of(store, CONTENTS), sources) == WHOLE

    assert swift.fault_hits()
    assert await left(swift, swift_bucket) == 0


@pytest.mark.parametrize(
    "rule", sampled(*(rule for rule in PASSING if "code" not in rule), always="500-after")
)
async def test_beginning_a_join_outlives_what_passes(
    swift: S3Service,
    swift_bucket: str,
    store: S3Objects,
    sources: list[Upload],
    rule: dict[str, Any],
) -> None:
    swift.set_faults(CREATE | rule)

    # A multipart upload whose creation nobody heard of is found by the key.
    assert await join(store, final_of(store, CONTENTS), sources) == WHOLE

    assert swift.fault_hits()
    assert await left(swift, swift_bucket) == 0


async def test_a_source_whose_answer_is_cut_is_read_on(
    swift: S3Service, store: S3Objects, sources: list[Upload]
) -> None:
    swift.set_faults({"method": "GET", "path": "/", "truncate": 5, "times": 3})

    assert await join(store, final_of(store, CONTENTS), sources) == WHOLE
    assert len(swift.fault_hits()) == 3


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(COPY, id="copied"),
        pytest.param(SENT, id="sent", marks=pytest.mark.full),
        pytest.param(CREATE, id="created", marks=pytest.mark.full),
    ],
)
async def test_what_fails_for_good_leaves_nothing(
    swift: S3Service,
    swift_bucket: str,
    store: S3Objects,
    sources: list[Upload],
    call: dict[str, Any],
) -> None:
    upload = final_of(store, CONTENTS)
    swift.set_faults(call | {"status": 500, "times": 100})

    with pytest.raises(StoreUnavailable):
        await store.join(upload, sources, confirm=confirmed)

    assert await left(swift, swift_bucket) == 0
    swift.set_faults()
    assert await join(store, upload, sources) == WHOLE


async def test_a_copy_that_a_full_store_refuses_is_told_as_such(
    swift: S3Service, store: S3Objects, sources: list[Upload]
) -> None:
    swift.set_faults(COPY | {"status": 507, "code": "InsufficientStorage"})

    with pytest.raises(StorageFull):
        await store.join(final_of(store, CONTENTS), sources, confirm=confirmed)


async def test_a_copy_without_an_answer_in_time_leaves_nothing(
    swift: S3Service, swift_bucket: str, tmp_path: Path
) -> None:
    async with open_store(
        swift,
        swift_bucket,
        tmp_path,
        capabilities=SWIFT,
        min_part_size=LEAST,
        operation_timeout_s=0.5,
    ) as store:
        sources = [await put_source(store, content) for content in CONTENTS]
        upload = final_of(store, CONTENTS)
        swift.set_faults(COPY | {"delay": 2, "after": True})

        with pytest.raises(StoreUnavailable, match="in time"):
            await store.join(upload, sources, confirm=confirmed)

        assert await left(swift, swift_bucket) == 0
        assert await join(store, upload, sources) == WHOLE


async def test_what_could_not_be_aborted_is_removed_later(
    swift: S3Service, swift_bucket: str, store: S3Objects, sources: list[Upload]
) -> None:
    upload = final_of(store, CONTENTS)
    swift.set_faults(
        COPY | {"status": 500, "times": 100}, {"method": "DELETE", "status": 500, "times": 100}
    )
    with pytest.raises(StoreUnavailable):
        await store.join(upload, sources, confirm=confirmed)
    swift.set_faults()
    assert await left(swift, swift_bucket) == 1

    # The one who completes it knows of the doubt; after a crash recover() looks by itself.
    assert await join(store, upload, sources) == WHOLE
    assert await left(swift, swift_bucket) == 0


@pytest.mark.parametrize(
    "turns", [0, *(pytest.param(turns, marks=pytest.mark.full) for turns in (1, 2, 4))]
)
async def test_a_join_cancelled_while_it_begins_leaves_nothing(
    swift: S3Service, swift_bucket: str, store: S3Objects, sources: list[Upload], turns: int
) -> None:
    upload = final_of(store, CONTENTS)
    swift.set_faults(CREATE | {"delay": 0.2, "after": True})
    reached = asyncio.Event()

    def note(**_: Any) -> None:
        reached.set()

    store._bucket.client.driver.meta.events.register("before-send.s3", note)
    joining = asyncio.create_task(store.join(upload, sources, confirm=confirmed))
    await reached.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining

    assert await left(swift, swift_bucket) == 0


async def test_a_multipart_upload_that_was_swept_meanwhile_is_no_loss(
    swift: S3Service, swift_bucket: str, store: S3Objects, sources: list[Upload]
) -> None:
    upload = final_of(store, CONTENTS)
    joined = await store.join(upload, sources, confirm=confirmed)
    assert joined.multipart_id is not None
    async with swift.client() as client:
        await client.abort_multipart_upload(
            Bucket=swift_bucket, Key=upload.object_key, UploadId=joined.multipart_id
        )
    row = with_joined(upload, joined)

    # Committed parts are not there: that is a loss only once it is denied for a while.
    with pytest.raises(StoreUnavailable):
        await store.complete(row, joined.parts)

    assert await join(store, upload, sources) == WHOLE
    assert [await read(store, source) for source in sources] == CONTENTS


async def test_what_was_denied_is_asked_for_before_anything_is_copied_again(
    swift: S3Service, swift_bucket: str, store: S3Objects, sources: list[Upload]
) -> None:
    upload, lost = final_of(store, CONTENTS), sources[3]
    async with swift.client() as client:
        await client.delete_object(Bucket=swift_bucket, Key=lost.object_key)
    with pytest.raises(StoreUnavailable, match=lost.id):
        await store.join(upload, sources, confirm=confirmed)
    swift.set_faults(COPY | {"status": 500, "times": 100})

    with pytest.raises(StoreUnavailable, match=lost.id):
        await store.join(upload, sources, confirm=confirmed)

    assert swift.fault_hits() == []
    swift.set_faults()
    await put_source(store, CONTENTS[3], id=lost.id)
    assert await join(store, upload, sources) == WHOLE
