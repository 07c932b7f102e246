"""Final uploads on real S3 servers: what the store copies, what passes through, what is checked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.cluster import eventually
from tests.support.s3 import S3Service
from tests.support.s3_store import (
    confirmed,
    final_of,
    join,
    open_store,
    put_source,
    read,
    record_calls,
    with_joined,
)
from tus_server.core.checksums import crc64
from tus_server.core.errors import BytesMissing, StoreUnavailable
from tus_server.core.parts import MIB
from tus_server.objects.s3 import Capabilities, ChecksumMode, Described, S3Objects

# Just above the smallest part: the least that S3 copies a range of.
LARGE = 5 * MIB + 1
BYTES = Random(7).randbytes(4 * LARGE)
CREATE, COMPLETE = "CreateMultipartUpload", "CompleteMultipartUpload"


@pytest.fixture
def keys(s3: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


_known: dict[str, Capabilities] = {}


@pytest.fixture
async def known(s3: S3Service, bucket: str, keys: None, tmp_path: Path) -> Capabilities:
    if s3.name not in _known:
        async with open_store(s3, bucket, tmp_path) as opened:
            _known[s3.name] = opened.capabilities
    return _known[s3.name]


@pytest.fixture
async def store(
    s3: S3Service, bucket: str, known: Capabilities, tmp_path: Path
) -> AsyncIterator[S3Objects]:
    async with open_store(
        s3, bucket, tmp_path, prefix="up/", capabilities=known, lost_after_s=0
    ) as opened:
        yield opened


async def multiparts(s3: S3Service, bucket: str) -> int:
    async with s3.client() as client:
        found = await client.list_multipart_uploads(Bucket=bucket)
    return len(found.get("Uploads", ()))


# --- what the store copies


async def test_large_sources_are_copied_and_not_read(store: S3Objects) -> None:
    contents = [BYTES[:LARGE], BYTES[LARGE : 2 * LARGE], BYTES[: LARGE + 5]]
    sources = [await put_source(store, content) for content in contents]
    upload = final_of(store, contents)
    calls = record_calls(store)

    joined = await store.join(upload, sources, confirm=confirmed)
    row = with_joined(upload, joined)
    await store.complete(row, joined.parts)

    copies = 3 * ["UploadPartCopy"]
    assert calls == [CREATE, *copies, "ListParts", COMPLETE, "ListMultipartUploads"]
    assert await read(store, row) == b"".join(contents)


async def test_small_sources_go_with_what_is_next_to_them(store: S3Objects) -> None:
    contents = [b"a", BYTES[: 2 * LARGE], b"", b"b", b"c", BYTES[:LARGE], b"d"]
    sources = [await put_source(store, content) for content in contents]
    upload = final_of(store, contents)

    joined = await store.join(upload, sources, confirm=confirmed)
    row = with_joined(upload, joined)
    await store.complete(row, joined.parts)

    # The first of them takes what it lacks from behind it; with the others goes what is behind
    # them as a whole, for what it would leave is too small to be copied.
    assert [part.size for part in joined.parts] == [5 * MIB, 2 * LARGE - 5 * MIB + 1, LARGE + 3]
    assert await read(store, row) == b"".join(contents)


@pytest.mark.parametrize("count", [1, 2, 100])
async def test_what_is_small_as_a_whole_is_put_as_one_object(store: S3Objects, count: int) -> None:
    contents = [bytes([number]) * (number % 3) for number in range(1, count + 1)]
    sources = [await put_source(store, content) for content in contents if content]
    empty = await put_source(store, b"")
    order = iter(sources)
    named = [next(order) if content else empty for content in contents]
    calls = record_calls(store)

    assert await join(store, final_of(store, contents), named) == b"".join(contents)

    assert CREATE not in calls
    assert calls.count("PutObject") == 1


async def test_nothing_becomes_an_empty_object(store: S3Objects) -> None:
    empty = await put_source(store, b"")

    assert await join(store, final_of(store, []), []) == b""
    assert await join(store, final_of(store, [b"", b""]), [empty, empty]) == b""


async def test_a_source_too_large_for_a_part_is_copied_in_ranges(
    s3: S3Service, bucket: str, known: Capabilities, tmp_path: Path
) -> None:
    async with open_store(
        s3, bucket, tmp_path, capabilities=known, max_part_size=11 * MIB
    ) as store:
        contents = [BYTES, b"x", BYTES[:LARGE]]
        sources = [await put_source(store, content) for content in contents]
        upload = final_of(store, contents)
        calls = record_calls(store)

        joined = await store.join(upload, sources, confirm=confirmed)
        row = with_joined(upload, joined)
        await store.complete(row, joined.parts)

        assert [part.size for part in joined.parts] == [2 * LARGE, 2 * LARGE, LARGE + 1]
        assert calls.count("UploadPartCopy") == 2
        # versitygw tells wrong checksums of ranges, and would refuse to complete with right ones.
        lies = 2 if s3.name == "versitygw" else 0
        assert calls.count("UploadPart") == 1 + lies
        assert await read(store, row) == b"".join(contents)


async def test_equal_parts_have_one_size(
    s3: S3Service, bucket: str, known: Capabilities, tmp_path: Path
) -> None:
    async with open_store(
        s3, bucket, tmp_path, capabilities=known, equal_parts=True, part_size_bytes=6 * MIB
    ) as store:
        contents = [BYTES[: 2 * LARGE], b"x", BYTES]
        sources = [await put_source(store, content) for content in contents]
        upload = final_of(store, contents)

        joined = await store.join(upload, sources, confirm=confirmed)
        row = with_joined(upload, joined)
        await store.complete(row, joined.parts)

        assert {part.size for part in joined.parts[:-1]} == {6 * MIB}
        assert await read(store, row) == b"".join(contents)


@pytest.mark.parametrize("mode", [ChecksumMode.NONE, ChecksumMode.PART])
async def test_a_store_that_tells_no_checksums_is_taken_by_its_etags(
    s3: S3Service, bucket: str, known: Capabilities, tmp_path: Path, mode: ChecksumMode
) -> None:
    if mode is ChecksumMode.PART and s3.name != "swift":
        pytest.skip("this server would be sent checksums it has not been told of")
    async with open_store(
        s3,
        bucket,
        tmp_path,
        capabilities=replace(known, checksum=mode),
        max_part_size=11 * MIB,
    ) as store:
        contents = [b"x", BYTES, b"y"]
        sources = [await put_source(store, content) for content in contents]

        assert await join(store, final_of(store, contents), sources) == b"".join(contents)


async def test_keys_of_any_owner_are_copied(
    s3: S3Service, bucket: str, known: Capabilities, tmp_path: Path
) -> None:
    owner = "a/b c%2F+&?=ü'\"~"
    async with open_store(
        s3, bucket, tmp_path, capabilities=known, key_template="{prefix}{owner}/{id}"
    ) as store:
        source = await put_source(store, BYTES[:LARGE], owner=owner)
        assert source.object_key is not None
        assert "%" in source.object_key
        calls = record_calls(store)

        upload = final_of(store, [BYTES[:LARGE]])
        assert await join(store, upload, [source]) == BYTES[:LARGE]
        assert "UploadPartCopy" in calls


async def test_a_joined_object_tells_what_its_upload_is(
    s3: S3Service, bucket: str, known: Capabilities, tmp_path: Path
) -> None:
    described = Described("image/png", None, {"filename": "ä.png"})
    async with open_store(s3, bucket, tmp_path, capabilities=known, described=described) as store:
        large, small = await put_source(store, BYTES[:LARGE]), await put_source(store, b"x")
        for source, content in ((large, BYTES[:LARGE]), (small, b"x")):
            upload = final_of(store, [content])
            await join(store, upload, [source])

            async with s3.client() as client:
                found = await client.head_object(Bucket=bucket, Key=upload.object_key)
            assert found["ContentType"] == "image/png"
            assert found["Metadata"] == {"filename": "%C3%A4.png"}


# --- what is not as it was received


async def replace_object(s3: S3Service, bucket: str, key: str | None, content: bytes) -> None:
    async with s3.client() as client:
        await client.delete_object(Bucket=bucket, Key=key)
        await client.put_object(Bucket=bucket, Key=key, Body=content)


@pytest.mark.parametrize("size", [LARGE, 1000])
@pytest.mark.parametrize("change", [-1, -500, None])
async def test_a_source_that_is_not_whole_is_refused(
    s3: S3Service, bucket: str, store: S3Objects, size: int, change: int | None
) -> None:
    contents = [BYTES[:size], BYTES[:LARGE]]
    sources = [await put_source(store, content) for content in contents]
    if change is None:
        await store.free(sources[0])
    else:
        await replace_object(s3, bucket, sources[0].object_key, BYTES[: size + change])
    upload = final_of(store, contents)

    with pytest.raises(BytesMissing):
        await store.join(upload, sources, confirm=confirmed)

    assert await multiparts(s3, bucket) == 0


async def test_a_source_of_other_bytes_is_noticed_where_the_store_tells_a_checksum(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    contents = [BYTES[:LARGE], BYTES[:LARGE]]
    sources = [await put_source(store, content) for content in contents]
    await replace_object(s3, bucket, sources[1].object_key, BYTES[1 : LARGE + 1])
    upload = final_of(store, contents)
    if store.capabilities.checksum is not ChecksumMode.FULL_OBJECT:
        pytest.skip("this store tells nothing of what it has copied")

    with pytest.raises(BytesMissing):
        await store.join(upload, sources, confirm=confirmed)

    assert await multiparts(s3, bucket) == 0


async def test_a_small_source_of_other_bytes_is_noticed_anywhere(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    contents = [BYTES[:1000], BYTES[:LARGE]]
    sources = [await put_source(store, content) for content in contents]
    await replace_object(s3, bucket, sources[0].object_key, BYTES[1:1001])

    for upload, given in (
        (final_of(store, contents), sources),
        (final_of(store, contents[:1]), sources[:1]),
    ):
        with pytest.raises(BytesMissing):
            await store.join(upload, given, confirm=confirmed)
    assert await multiparts(s3, bucket) == 0


async def test_a_source_is_not_called_lost_at_the_first_look(
    s3: S3Service, bucket: str, known: Capabilities, tmp_path: Path
) -> None:
    async with open_store(s3, bucket, tmp_path, capabilities=known) as store:
        contents = [BYTES[:LARGE], b"x"]
        sources = [await put_source(store, content) for content in contents]
        for source in sources:
            await store.free(source)
        upload = final_of(store, contents)

        with pytest.raises(StoreUnavailable, match="looked for again"):
            await store.join(upload, sources, confirm=confirmed)


# --- what is left behind


async def test_a_cancelled_join_aborts_its_multipart_upload(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    contents = [BYTES[:LARGE]] * 8
    source = await put_source(store, contents[0])
    reached = asyncio.Event()

    def note(**_: Any) -> None:
        reached.set()

    store._bucket.client.driver.meta.events.register("before-send.s3.UploadPartCopy", note)
    upload = final_of(store, contents)
    joining = asyncio.create_task(store.join(upload, [source] * 8, confirm=confirmed))
    await reached.wait()
    calls = record_calls(store)
    joining.cancel()

    with pytest.raises(asyncio.CancelledError):
        await joining
    assert "AbortMultipartUpload" in calls

    # A copy that the store was at may have brought it back: what frees the upload looks for it.
    async def is_gone() -> bool:
        await store.free(upload)
        return await multiparts(s3, bucket) == 0

    await eventually(is_gone, "nothing is left of the cancelled join")


async def test_completing_removes_what_was_joined_and_not_committed(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    contents = [BYTES[:LARGE], b"x"]
    sources = [await put_source(store, content) for content in contents]
    upload = final_of(store, contents)
    for _ in range(2):
        await store.join(upload, sources, confirm=confirmed)

    assert await join(store, upload, sources) == b"".join(contents)
    assert await multiparts(s3, bucket) == 0


async def test_another_object_at_the_key_is_replaced_by_who_holds_the_lease(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    source = await put_source(store, b"small")
    upload = final_of(store, [b"small"])
    async with s3.client() as client:
        await client.put_object(Bucket=bucket, Key=upload.object_key, Body=b"small")

    assert await join(store, upload, [source]) == b"small"
    assert crc64(b"small") == upload.crc64
