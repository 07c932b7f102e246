"""The S3 store on real servers: what it stores, which calls it makes, what it leaves behind."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import Request, urlopen

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from tests.support.s3 import S3Service
from tests.support.s3_store import (
    Appending,
    confirmed,
    make_upload,
    open_store,
    read,
    record_calls,
)
from tus_server.core.checksums import crc64
from tus_server.core.errors import BytesMissing, StoreUnavailable, TailMissing
from tus_server.core.parts import MIB
from tus_server.core.states import UploadState
from tus_server.core.upload import Tail
from tus_server.engine.buffers import BlockPool
from tus_server.objects.s3 import Capabilities, ChecksumMode, Described, S3Objects

PART = 5 * MIB
BYTES = Random(4).randbytes(PART)


@pytest.fixture
def keys(s3: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


_known: dict[str, Capabilities] = {}


@pytest.fixture
async def store(s3: S3Service, bucket: str, keys: None, tmp_path: Path) -> AsyncIterator[S3Objects]:
    known = _known.get(s3.name)
    async with open_store(s3, bucket, tmp_path, prefix="up/", capabilities=known) as opened:
        _known[s3.name] = opened.capabilities
        yield opened


async def names(s3: S3Service, bucket: str) -> set[str]:
    """Give every key and every id of a multipart upload in the bucket."""
    async with s3.client() as client:
        objects = await client.list_objects_v2(Bucket=bucket)
        uploads = await client.list_multipart_uploads(Bucket=bucket)
    return {item["Key"] for item in objects.get("Contents", ())} | {
        item["UploadId"] for item in uploads.get("Uploads", ())
    }


# --- what it finds out


async def test_the_probe_finds_what_is_known_of_these_servers(
    s3: S3Service, bucket: str, keys: None, tmp_path: Path
) -> None:
    expected = {"swift": ChecksumMode.PART, "versitygw": ChecksumMode.FULL_OBJECT}
    async with open_store(s3, bucket, tmp_path) as opened:
        found = opened.capabilities

    assert found.checksum == expected.get(s3.name, found.checksum)
    assert found.conditional_puts
    assert found.conditional_completes
    assert found.multipart_etags
    assert await names(s3, bucket) == set()


# --- calls


async def test_an_upload_within_one_part_is_one_call(store: S3Objects) -> None:
    calls = record_calls(store)
    appending = Appending(store, make_upload(store))

    receipt = await appending.send(b"hello", completes=True)

    assert calls == ["PutObject"]
    assert receipt.is_object
    assert receipt.crc64 == crc64(b"hello")
    assert await read(store, replace(appending.upload, length=5)) == b"hello"


async def test_an_upload_of_n_parts_is_n_calls_and_two(store: S3Objects) -> None:
    calls = record_calls(store)
    appending = Appending(store, make_upload(store))
    for _ in range(3):
        await appending.add(BYTES)
    await appending.add(b"end", completes=True)
    await store.complete(appending.ended(), appending.parts)

    assert calls == ["CreateMultipartUpload"] + 4 * ["UploadPart"] + ["CompleteMultipartUpload"]
    assert await read(store, appending.upload) == 3 * BYTES + b"end"


async def test_parts_that_begin_at_the_same_time_share_one_multipart_upload(
    store: S3Objects,
) -> None:
    calls = record_calls(store)
    appending = Appending(store, make_upload(store))
    parts = [appending.open(start=index * PART) for index in range(4)]
    receipts = await asyncio.gather(
        *(part.finish(memoryview(BYTES), completes=False) for part in parts)
    )
    for number, receipt in enumerate(receipts, 1):
        appending.commit(receipt, number)

    assert calls.count("CreateMultipartUpload") == 1
    assert len({receipt.multipart_id for receipt in receipts}) == 1
    assert await appending.complete() == 4 * BYTES


async def test_gaps_in_the_part_numbers_do_no_harm(store: S3Objects) -> None:
    appending = Appending(store, make_upload(store))
    for number in (3, 17, 40):
        appending.number = number
        await appending.add(BYTES)

    assert await appending.complete() == 3 * BYTES


# --- memory


async def test_kept_blocks_are_sent_as_they_are_and_given_back(
    s3: S3Service, bucket: str, keys: None, tmp_path: Path, store: S3Objects
) -> None:
    pool = BlockPool(64 * MIB)
    async with open_store(
        s3, bucket, tmp_path, capabilities=store.capabilities, blocks=pool, kept_bytes=3 * MIB
    ) as opened:
        appending = Appending(opened, make_upload(opened))
        part = appending.open()
        taken = []
        for index in range(5):
            block = pool.take(MIB)
            block[:] = bytes([index]) * MIB
            taken.append(part.keep(block, MIB))
            if not taken[-1]:
                await part.write(memoryview(block))
                pool.give(block)
        lent_before_finish = pool.lent_bytes
        receipt = await part.finish(memoryview(b"end"), completes=True)
        await part.discard()

        # Beyond what may be kept everything goes to the spill file, and the blocks go back.
        assert taken == [True, True, True, False, False]
        assert lent_before_finish == 0
        expected = b"".join(bytes([index]) * MIB for index in range(5)) + b"end"
        assert receipt.crc64 == crc64(expected)
        assert await read(opened, replace(appending.upload, length=len(expected))) == expected
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0, 2, 5])
async def test_a_part_can_be_read_back_until_it_is_discarded(store: S3Objects, kept: int) -> None:
    pool = store._room.blocks
    part = Appending(store, make_upload(store)).open()
    whole = BYTES[:700_000]
    for index in range(7):
        piece = whole[index * 100_000 :][:100_000]
        if index < kept:
            block = pool.take(len(piece))
            block[: len(piece)] = piece
            assert part.keep(block, len(piece))
        else:
            await part.write(memoryview(piece))

    for start in (0, 1, 250_000, 699_999, 700_000, 700_002):
        read_back = b"".join(
            [bytes(view) async for view in part.read_back(start, memoryview(b"rest"))]
        )
        assert read_back == (whole + b"rest")[start:]
    await part.discard()
    await part.discard()


# --- what is left behind


async def test_undo_leaves_no_multipart_upload_that_the_row_does_not_have(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.send(BYTES)

    assert await names(s3, bucket) != set()
    assert await appending.writer.undo(appending.upload, holds=True)
    assert await names(s3, bucket) == set()


@pytest.mark.parametrize("holds", [True, False])
async def test_undo_leaves_what_the_row_has(store: S3Objects, holds: bool) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    await appending.send(BYTES)

    assert await appending.writer.undo(appending.upload, holds=holds)
    assert await appending.complete() == BYTES


async def test_undo_does_not_touch_an_object_which_another_lease_may_have_adopted(
    store: S3Objects,
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.send(b"hello", completes=True)

    assert not await appending.writer.undo(appending.upload, holds=True)
    assert await read(store, replace(appending.upload, length=5)) == b"hello"


async def test_recover_removes_what_the_row_does_not_have_and_nothing_else(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    async with s3.client() as client:
        appending = Appending(store, make_upload(store))
        await appending.add(BYTES)
        key = appending.upload.object_key
        assert key is not None
        foreign = [
            (await client.create_multipart_upload(Bucket=bucket, Key=other))["UploadId"]
            for other in (key + "x", "up/other", key)
        ]
        for other in ("keep", f"{key}.tail.x", f"{key}.tail.7", f"{key}.tail.8"):
            await client.put_object(Bucket=bucket, Key=other, Body=b"x")
    row = replace(appending.upload, tail=Tail(1, crc64(b"x"), None, 8))

    await store.recover(row, confirm=confirmed)
    await store.recover(row, confirm=confirmed)

    assert await names(s3, bucket) == {
        row.multipart_id, foreign[0], foreign[1], "keep", f"{key}.tail.x", f"{key}.tail.8"
    }  # fmt: skip
    assert await appending.complete() == BYTES


async def test_recover_leaves_what_came_after_its_lease_was_confirmed(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.send(BYTES)
    old = await names(s3, bucket)

    async with s3.client() as client:

        async def overtaken() -> None:
            # The lease ran out right after it was confirmed, and another holder went on.
            appending.writer = store.open_writer(appending.upload)
            await appending.send(BYTES)
            key = f"{appending.upload.object_key}.tail.9"
            await client.put_object(Bucket=bucket, Key=key, Body=b"x")

        await store.recover(appending.upload, confirm=overtaken)

    left = await names(s3, bucket)
    assert len(left) == 2
    assert not left & old


async def test_recover_asks_for_the_lease_after_it_has_looked_and_before_it_removes(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.send(BYTES)
    calls = record_calls(store)

    async def confirm() -> None:
        calls.append("confirm")

    await store.recover(appending.upload, confirm=confirm)

    assert calls == [
        "ListObjectsV2", "ListMultipartUploads", "confirm", "AbortMultipartUpload"
    ]  # fmt: skip


async def test_recover_leaves_an_object_that_nobody_committed_and_free_removes_it(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.send(b"hello", completes=True)

    await store.recover(appending.upload, confirm=confirmed)
    assert await names(s3, bucket) == {appending.upload.object_key}

    await store.free(replace(appending.upload, state=UploadState.ERROR))
    assert await names(s3, bucket) == set()


async def test_free_leaves_nothing_of_the_upload_and_everything_else(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    appending, other = (Appending(store, make_upload(store)) for _ in range(2))
    await appending.add(BYTES)
    await other.add(BYTES)
    async with s3.client() as client:
        key = appending.upload.object_key
        await client.create_multipart_upload(Bucket=bucket, Key=key)
        await client.put_object(Bucket=bucket, Key=f"{key}.tail.3", Body=b"x")
    row = replace(appending.upload, state=UploadState.CANCELED)

    await store.free(row)
    await store.free(row)

    assert await names(s3, bucket) == {other.upload.multipart_id}
    assert await other.complete() == BYTES


# --- old writers


async def test_a_late_put_of_an_old_writer_changes_nothing(store: S3Objects) -> None:
    old = Appending(store, make_upload(store))
    new = Appending(store, old.upload)
    await new.add(b"right", completes=True)

    with pytest.raises(BytesMissing, match="other bytes"):
        await old.send(b"wrong bytes", completes=True)

    await old.writer.undo(old.upload, holds=True)
    assert await read(store, replace(new.upload, length=5)) == b"right"


async def test_a_late_put_of_the_same_bytes_is_adopted(store: S3Objects) -> None:
    old = Appending(store, make_upload(store))
    new = Appending(store, old.upload)
    first = await new.add(b"right", completes=True)

    second = await old.send(b"right", completes=True)

    assert (second.crc64, second.is_object) == (first.crc64, True)


async def test_an_object_of_other_bytes_that_an_old_writer_put_late_ends_the_upload(
    store: S3Objects,
) -> None:
    new = Appending(store, make_upload(store))
    await new.add(BYTES)
    old = Appending(store, replace(new.upload, committed_bytes=0))
    await old.send(b"wrong", completes=True)
    calls = record_calls(store)

    for _ in range(2):
        with pytest.raises(BytesMissing, match="other bytes"):
            await new.complete()

    assert "DeleteObject" not in calls
    assert await read(store, replace(new.upload, length=5)) == b"wrong"


async def test_an_object_of_the_same_bytes_that_an_old_writer_put_late_is_adopted(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    new = Appending(store, make_upload(store))
    await new.add(BYTES)
    await Appending(store, replace(new.upload, committed_bytes=0)).send(BYTES, completes=True)

    assert await new.complete() == BYTES
    assert await names(s3, bucket) == {new.upload.object_key}


async def test_where_puts_have_no_condition_another_object_is_replaced(
    s3: S3Service, bucket: str, keys: None, tmp_path: Path, store: S3Objects
) -> None:
    known = replace(store.capabilities, conditional_puts=False)
    async with open_store(s3, bucket, tmp_path, capabilities=known) as opened:
        appending = Appending(opened, make_upload(opened))
        await appending.send(b"other", completes=True)
        await appending.add(b"hello", completes=True)

        assert await appending.complete() == b"hello"


async def test_a_late_part_of_an_old_writer_changes_nothing(store: S3Objects) -> None:
    new = Appending(store, make_upload(store))
    await new.add(BYTES)
    old = Appending(store, new.upload, number=9)
    await new.add(b"end", completes=True)
    await new.complete()

    try:
        await old.send(b"late")
    except StoreUnavailable:
        pass  # Swift takes it, the others know the upload no more

    assert await read(store, new.upload) == BYTES + b"end"


async def test_completing_again_and_by_another_node_changes_nothing(store: S3Objects) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    await appending.add(b"end", completes=True)
    await asyncio.gather(
        *(store.complete(appending.ended(), appending.parts) for _ in range(2)),
        return_exceptions=True,
    )

    await store.complete(appending.upload, appending.parts)

    assert await read(store, appending.upload) == BYTES + b"end"


# --- wrong bytes


async def test_a_part_that_is_not_what_its_checksum_says_is_refused(
    store: S3Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    monkeypatch.setattr("tus_server.objects.s3.writer.crc64", lambda *_: 7)

    with pytest.raises(StoreUnavailable):
        await appending.send(b"end")


async def test_parts_that_are_not_what_the_row_says_never_become_the_object(
    store: S3Objects,
) -> None:
    appending = Appending(store, make_upload(store), number=1)
    await appending.add(BYTES)
    other = Random(5).randbytes(PART)
    late = Appending(store, appending.upload, number=1)
    await late.send(other)

    with pytest.raises((BytesMissing, StoreUnavailable)):
        await appending.complete()


async def test_a_row_with_the_wrong_checksum_is_called_out(store: S3Objects) -> None:
    if store.capabilities.checksum is not ChecksumMode.FULL_OBJECT:
        pytest.skip("this store does not compare the checksum of the whole")
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    await appending.add(b"end", completes=True)
    appending.upload = replace(appending.upload, crc64=appending.upload.crc64 ^ 1)

    with pytest.raises(BytesMissing):
        await appending.complete()


async def test_lost_parts_are_called_lost_only_after_a_while(store: S3Objects) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    await store.free(appending.upload)

    complete = replace(
        appending.upload, state=UploadState.COMPLETED, length=appending.upload.committed_bytes
    )
    for error, lost_after_s in ((StoreUnavailable, 900.0), (BytesMissing, 0.0)):
        store._losses.lost_after_s = lost_after_s
        for _ in range(2):
            with pytest.raises(error):
                await store.recover(appending.upload, confirm=confirmed)
            with pytest.raises(error):
                await store.complete(complete, appending.parts)


# --- modes


async def test_equal_parts_have_no_reserved_numbers(
    s3: S3Service, bucket: str, keys: None, tmp_path: Path, store: S3Objects
) -> None:
    async with open_store(
        s3, bucket, tmp_path, capabilities=store.capabilities, equal_parts=True
    ) as opened:
        appending = Appending(opened, make_upload(opened))
        for _ in range(2):
            await appending.add(BYTES)
        await appending.add(b"end", completes=True)

        assert opened.limits.equal_parts
        assert opened.limits.reserved_numbers == 0
        assert await appending.complete() == 2 * BYTES + b"end"


@pytest.mark.parametrize("checksum", ["part", "none"])
async def test_a_store_that_is_trusted_less_gives_the_same_object(
    s3: S3Service, bucket: str, keys: None, tmp_path: Path, store: S3Objects, checksum: str
) -> None:
    known = replace(store.capabilities, checksum=ChecksumMode(checksum))
    async with open_store(s3, bucket, tmp_path, capabilities=known) as opened:
        whole, parts = (Appending(opened, make_upload(opened)) for _ in range(2))
        await whole.add(b"hello", completes=True)
        await parts.add(BYTES)
        await parts.add(b"end", completes=True)

        assert await parts.complete() == BYTES + b"end"
        assert await whole.complete() == b"hello"


async def test_a_store_with_etags_of_its_own_is_read_back(
    s3: S3Service, bucket: str, keys: None, tmp_path: Path, store: S3Objects
) -> None:
    known = Capabilities(
        ChecksumMode.PART,
        conditional_puts=False,
        conditional_completes=False,
        multipart_etags=False,
    )
    async with open_store(s3, bucket, tmp_path, capabilities=known) as opened:
        calls = record_calls(opened)
        appending = Appending(opened, make_upload(opened))
        await appending.add(BYTES)
        await appending.add(b"end", completes=True)
        await opened.complete(appending.ended(), appending.parts)

        assert calls[-2:] == ["HeadObject", "GetObject"] or calls[-1] == "CompleteMultipartUpload"
        assert await read(opened, appending.upload) == BYTES + b"end"


# --- what an object tells


@pytest.mark.parametrize("multipart", [False, True])
async def test_an_object_tells_type_disposition_and_metadata(
    s3: S3Service,
    bucket: str,
    keys: None,
    tmp_path: Path,
    store: S3Objects,
    multipart: bool,
) -> None:
    described = Described(
        "text/plain", 'attachment; filename="a.txt"', {"FileName": "größe 100%.txt", "a/b": "x y"}
    )
    async with open_store(
        s3, bucket, tmp_path, capabilities=store.capabilities, described=described
    ) as opened:
        appending = Appending(opened, make_upload(opened))
        await appending.add(BYTES, completes=not multipart)
        await appending.complete()
        async with s3.client() as client:
            head = await client.head_object(Bucket=bucket, Key=appending.upload.object_key)

    assert head["ContentType"] == "text/plain"
    assert head["ContentDisposition"] == 'attachment; filename="a.txt"'
    assert head["Metadata"] == {"filename": "gr%C3%B6%C3%9Fe%20100%25.txt", "a-b": "x y"}


async def test_metadata_beyond_what_s3_keeps_is_left_out(
    s3: S3Service, bucket: str, keys: None, tmp_path: Path, store: S3Objects
) -> None:
    described = Described("text/plain", None, {"a": "x" * 2000, "b": "y" * 60})
    async with open_store(
        s3, bucket, tmp_path, capabilities=store.capabilities, described=described
    ) as opened:
        appending = Appending(opened, make_upload(opened))
        await appending.add(b"hello", completes=True)
        async with s3.client() as client:
            head = await client.head_object(Bucket=bucket, Key=appending.upload.object_key)

    assert head["Metadata"] == {}
    assert head["ContentType"] == "text/plain"


async def test_a_url_that_cannot_be_signed_is_an_error_of_the_store(
    store: S3Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Appending(store, make_upload(store)).upload
    expired = ClientError({"Error": {"Code": "ExpiredToken"}}, "AssumeRole")
    for error in (NoCredentialsError(), expired, TimeoutError()):

        async def fail(*_: object, error: Exception = error, **__: object) -> str:
            raise error

        monkeypatch.setattr(store._bucket.client.driver, "generate_presigned_url", fail)

        with pytest.raises(StoreUnavailable):
            await store.presign(upload, method="GET")


async def test_a_presigned_url_gives_the_object(store: S3Objects) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(b"hello", completes=True)

    url = await store.presign(appending.upload, method="GET")
    head_url = await store.presign(appending.upload, method="HEAD")

    def fetch() -> tuple[bytes, str | None]:
        with urlopen(url) as answer, urlopen(Request(head_url, method="HEAD")) as head:
            return answer.read(), head.headers["Content-Length"]

    assert await asyncio.to_thread(fetch) == (b"hello", "5")


@pytest.mark.parametrize("owner", ["ann/../b@x", "größe %2F+ &?#", ".."])
async def test_an_owner_of_any_characters_is_part_of_a_key(
    s3: S3Service, bucket: str, keys: None, tmp_path: Path, store: S3Objects, owner: str
) -> None:
    async with open_store(
        s3,
        bucket,
        tmp_path,
        capabilities=store.capabilities,
        key_template="{prefix}{owner}/{id}",
        prefix="p/",
    ) as opened:
        row = make_upload(opened)
        row = replace(row, owner=owner, object_key=None)
        row = replace(row, object_key=opened.make_key(row))
        whole, parts = Appending(opened, row), Appending(opened, row)
        await whole.send(b"hello", completes=True)
        await parts.send(BYTES)
        assert await read(opened, replace(row, length=5)) == b"hello"

        await opened.free(replace(row, state=UploadState.CANCELED))

    assert await names(s3, bucket) == set()


# --- parked tails


async def test_a_parked_tail_of_another_content_is_missing(
    s3: S3Service, bucket: str, store: S3Objects
) -> None:
    async def content() -> AsyncIterator[memoryview]:
        for _ in range(3):
            yield memoryview(BYTES)[:100_000]

    whole = 3 * BYTES[:100_000]
    upload = make_upload(store, tail=Tail(len(whole), crc64(whole), None, 4))
    await store.tails.save(upload, generation=4, kept=0, content=content())
    read_tail = b"".join([bytes(view) async for view in store.tails.read(upload)])
    assert read_tail == whole
    async with s3.client() as client:
        await client.put_object(
            Bucket=bucket, Key=f"{upload.object_key}.tail.4", Body=whole[:-1] + b"?"
        )

    with pytest.raises(TailMissing):
        _ = [view async for view in store.tails.read(upload)]
    assert upload.tail is not None
    await store.tails.remove(upload, upload.tail)
    with pytest.raises(TailMissing):
        _ = [view async for view in store.tails.read(upload)]
    assert await names(s3, bucket) == set()


async def test_a_parked_tail_carries_its_md5_where_nothing_else_is_compared(
    s3: S3Service, bucket: str, keys: None, tmp_path: Path, store: S3Objects
) -> None:
    sent: list[dict[str, Any]] = []

    def note(request: Any, **_: object) -> None:
        sent.append({name.lower(): value for name, value in request.headers.items()})

    async def content() -> AsyncIterator[memoryview]:
        yield memoryview(b"tail")

    known = replace(store.capabilities, checksum=ChecksumMode.NONE)
    async with open_store(s3, bucket, tmp_path, capabilities=known) as opened:
        upload = make_upload(opened, tail=Tail(4, crc64(b"tail"), None, 4))
        opened._bucket.client.driver.meta.events.register("before-send.s3.PutObject", note)
        await opened.tails.save(upload, generation=4, kept=0, content=content())

        found = b"".join([bytes(view) async for view in opened.tails.read(upload)])
        assert found == b"tail"
    (headers,) = sent
    assert b64decode(headers["content-md5"]) == md5(b"tail", usedforsecurity=False).digest()
    assert not [name for name in headers if "crc64" in name]


async def test_a_parked_tail_that_could_not_be_removed_is_not_called_gone(
    store: S3Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = Tail(1, crc64(b"x"), None, 4)
    upload = make_upload(store)

    async def fail(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr("tus_server.objects.s3.bucket.Bucket.delete_object", fail)
        assert not await store.tails.remove(upload, tail)
    assert await store.tails.remove(upload, tail)


async def test_a_failed_part_has_no_effect_on_the_next_one(store: S3Objects) -> None:
    appending = Appending(store, make_upload(store))
    part = appending.open()
    await part.write(memoryview(BYTES)[:1000])
    await part.discard()
    await appending.add(b"hello", completes=True)

    assert await appending.complete() == b"hello"
