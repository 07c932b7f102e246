"""The S3 store while the store fails: errors, lost answers, cut bodies, silence, absence."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.s3 import S3Service, make_certificate, run_swift
from tests.support.s3_backend import SWIFT
from tests.support.s3_store import Appending, confirmed, make_upload, open_store, read
from tus_server.core.errors import BytesMissing, StorageFull, StoreUnavailable
from tus_server.core.parts import MIB
from tus_server.core.states import UploadState
from tus_server.disk.threads import FileThreads
from tus_server.engine.buffers import BlockPool
from tus_server.objects.s3 import Described, S3Objects, S3Options

pytestmark = pytest.mark.full

BYTES = Random(6).randbytes(300_000)


@pytest.fixture(autouse=True)
def keys(swift: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in swift.environment.items():
        monkeypatch.setenv(name, value)
    # The pauses between attempts are real, and short.
    monkeypatch.setattr("tus_server.objects.s3.client.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("tus_server.objects.s3.finish.FIRST_PAUSE_S", 0.01)


@pytest.fixture
async def store(swift: S3Service, swift_bucket: str, tmp_path: Path) -> AsyncIterator[S3Objects]:
    async with open_store(swift, swift_bucket, tmp_path, capabilities=SWIFT) as opened:
        yield opened


async def uploads_left(swift: S3Service, bucket: str) -> int:
    async with swift.client() as client:
        found = await client.list_multipart_uploads(Bucket=bucket)
    return len(found.get("Uploads", ()))


def fault(**rule: Any) -> dict[str, Any]:
    return rule


PASSING = [
    pytest.param(fault(status=500), id="500"),
    pytest.param(fault(status=503, code="SlowDown", times=3), id="slow-down"),
    pytest.param(fault(status=500, after=True), id="done-but-500"),
    pytest.param(fault(status=503, code="SlowDown", after=True, times=2), id="done-but-slow-down"),
    pytest.param(fault(status=400, code="RequestTimeout"), id="request-timeout"),
    pytest.param(fault(truncate=0, times=2), id="cut"),
    pytest.param(fault(truncate=0, times=2, after=True), id="done-but-cut"),
]


@pytest.mark.parametrize("rule", PASSING)
async def test_a_put_survives_what_passes(
    swift: S3Service, store: S3Objects, rule: dict[str, Any]
) -> None:
    appending = Appending(store, make_upload(store))
    swift.set_faults(rule | {"method": "PUT"})

    receipt = await appending.add(BYTES, completes=True)

    assert swift.fault_hits()
    assert receipt.is_object
    assert await appending.complete() == BYTES


async def test_only_a_repeated_body_waits_to_be_asked_for(
    swift: S3Service, store: S3Objects
) -> None:
    expected: list[bool] = []

    def note(request: Any, **_: Any) -> None:
        expected.append("Expect" in request.headers)

    store._bucket.client.driver.meta.events.register("before-send.s3", note)
    swift.set_faults(fault(method="PUT", status=503, code="SlowDown"))

    await Appending(store, make_upload(store)).send(BYTES, completes=True)

    assert expected == [False, True]


@pytest.mark.parametrize("rule", PASSING)
async def test_a_part_survives_what_passes(
    swift: S3Service, store: S3Objects, rule: dict[str, Any]
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    swift.set_faults(rule | {"method": "PUT", "query": "partNumber=2"})

    await appending.add(b"end", completes=True)

    assert swift.fault_hits()
    assert await appending.complete() == BYTES + b"end"


@pytest.mark.parametrize("rule", PASSING)
async def test_creating_a_multipart_upload_survives_what_passes(
    swift: S3Service, swift_bucket: str, store: S3Objects, rule: dict[str, Any]
) -> None:
    appending = Appending(store, make_upload(store))
    swift.set_faults(rule | {"method": "POST", "query": "uploads"})

    await appending.add(BYTES)

    assert swift.fault_hits()
    # One whose creation nobody heard of may be left; it is found by the key alone.
    assert appending.writer.leaves
    assert not await appending.writer.undo(appending.upload, holds=True)
    assert await appending.complete() == BYTES
    assert await uploads_left(swift, swift_bucket) == 0


async def test_a_row_that_is_not_clean_is_completed_and_swept(
    swift: S3Service, swift_bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store, unclean=True))
    await appending.add(BYTES)
    async with swift.client() as client:
        await client.create_multipart_upload(Bucket=swift_bucket, Key=appending.upload.object_key)

    assert await appending.complete() == BYTES
    assert await uploads_left(swift, swift_bucket) == 0


@pytest.mark.parametrize("rule", PASSING)
async def test_completing_survives_what_passes(
    swift: S3Service, swift_bucket: str, store: S3Objects, rule: dict[str, Any]
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    await appending.add(b"end", completes=True)
    swift.set_faults(rule | {"method": "POST", "query": "uploadId"})

    assert await appending.complete() == BYTES + b"end"
    assert swift.fault_hits()
    assert await uploads_left(swift, swift_bucket) == 0


async def test_an_error_in_a_200_is_an_error(swift: S3Service, store: S3Objects) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    swift.set_faults(fault(method="POST", query="uploadId", status=200, code="InternalError"))

    assert await appending.complete() == BYTES
    assert swift.fault_hits()


async def test_a_download_that_is_cut_goes_on_where_it_was(
    swift: S3Service, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES, completes=True)
    row = replace(appending.upload, length=len(BYTES))
    swift.set_faults(fault(method="GET", truncate=100_000, times=2))

    assert await read(store, row, 5, len(BYTES) - 5) == BYTES[5:-5]
    assert len(swift.fault_hits()) == 2


async def test_a_download_that_is_cut_again_and_again_ends_with_an_error(
    swift: S3Service, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES, completes=True)
    row = replace(appending.upload, length=len(BYTES))
    swift.set_faults(fault(method="GET", truncate=0, times=100))

    with pytest.raises(StoreUnavailable):
        await read(store, row)


async def test_an_object_that_was_replaced_during_a_download_is_noticed(
    swift: S3Service, swift_bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES, completes=True)
    swift.set_faults(fault(method="GET", truncate=100_000))
    stream = store.read(replace(appending.upload, length=len(BYTES)), 0, len(BYTES))
    await anext(stream)
    async with swift.client() as client:
        await client.put_object(
            Bucket=swift_bucket, Key=appending.upload.object_key, Body=bytes(len(BYTES))
        )

    with pytest.raises(BytesMissing):
        async for _ in stream:
            pass


async def test_a_store_that_is_full_says_so(swift: S3Service, store: S3Objects) -> None:
    appending = Appending(store, make_upload(store))
    swift.set_faults(fault(method="PUT", status=507, code="InsufficientStorage"))

    with pytest.raises(StorageFull):
        await appending.send(BYTES, completes=True)


async def test_what_fails_for_good_is_an_error_and_the_part_can_be_read_back(
    swift: S3Service, swift_bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    part = appending.open()
    await part.write(memoryview(BYTES))
    swift.set_faults(fault(method="PUT", status=500, times=100))

    with pytest.raises(StoreUnavailable):
        await part.finish(memoryview(b"rest"), completes=False)

    kept = b"".join([bytes(view) async for view in part.read_back(0, memoryview(b"rest"))])
    assert kept == BYTES + b"rest"
    await part.discard()
    swift.set_faults()
    await appending.add(b"end", completes=True)
    assert await appending.complete() == BYTES + b"end"


async def test_a_creation_whose_outcome_is_unknown_is_not_called_clean(
    swift: S3Service, swift_bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    swift.set_faults(fault(method="POST", query="uploads", status=500, after=True, times=100))
    with pytest.raises(StoreUnavailable):
        await appending.send(BYTES)
    swift.set_faults()

    assert not await appending.writer.undo(appending.upload, holds=True)
    assert await uploads_left(swift, swift_bucket) > 0
    await store.recover(appending.upload, confirm=confirmed)
    assert await uploads_left(swift, swift_bucket) == 0


async def test_undo_that_cannot_reach_the_store_says_so(swift: S3Service, store: S3Objects) -> None:
    appending = Appending(store, make_upload(store))
    await appending.send(BYTES)
    swift.set_faults(fault(method="DELETE", status=500, times=100))

    assert not await appending.writer.undo(appending.upload, holds=True)


async def test_metadata_that_a_store_refuses_does_not_keep_the_bytes_out(
    swift: S3Service, swift_bucket: str, tmp_path: Path
) -> None:
    described = Described("text/plain", None, {"a": "b"})
    async with open_store(
        swift, swift_bucket, tmp_path, capabilities=SWIFT, described=described
    ) as store:
        appending = Appending(store, make_upload(store))
        swift.set_faults(fault(status=400, code="MetadataTooLarge"))
        await appending.add(BYTES, completes=True)

        assert swift.fault_hits()
        assert await appending.complete() == BYTES


async def test_silence_is_bounded_and_what_was_refused_goes_on_later(
    swift: S3Service, swift_bucket: str, tmp_path: Path
) -> None:
    async with open_store(
        swift,
        swift_bucket,
        tmp_path,
        capabilities=SWIFT,
        connect_timeout_s=0.3,
        read_timeout_s=0.5,
        operation_timeout_s=1,
    ) as store:
        appending = Appending(store, make_upload(store))
        await appending.add(BYTES)
        os.kill(swift.pids["proxy"], signal.SIGSTOP)
        began_s = time.monotonic()
        try:
            with pytest.raises(StoreUnavailable):
                await appending.send(bytes(4 * MIB))
            with pytest.raises(StoreUnavailable):
                await store.check()
        finally:
            os.kill(swift.pids["proxy"], signal.SIGCONT)
        waited_s = time.monotonic() - began_s

        assert waited_s < 15
        await appending.add(b"end", completes=True)
        assert await appending.complete() == BYTES + b"end"


async def test_a_store_that_is_gone_and_comes_back_has_every_committed_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "swift"
    with run_swift(directory=folder, min_part_size=1) as first:
        bucket = first.make_bucket()
        port = first.address[1]
        async with open_store(first, bucket, tmp_path, capabilities=SWIFT) as store:
            appending = Appending(store, make_upload(store))
            await appending.add(BYTES)
            os.kill(first.pids["proxy"], signal.SIGKILL)

            with pytest.raises(StoreUnavailable):
                await appending.send(BYTES)
            with pytest.raises(StoreUnavailable):
                await store.check()

            for pid in first.pids.values():
                if pid != first.pids["proxy"]:
                    os.kill(pid, signal.SIGKILL)
            with run_swift(directory=folder, port=port, min_part_size=1):
                await store.check()
                await appending.add(b"end", completes=True)
                assert await appending.complete() == BYTES + b"end"


async def test_a_cancelled_part_leaves_nothing_that_counts(
    swift: S3Service, swift_bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    swift.set_faults(fault(method="PUT", delay=30))
    part = appending.open()
    sending = asyncio.create_task(part.finish(memoryview(BYTES), completes=False))
    while not swift.fault_hits():
        await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await part.discard()
    swift.set_faults()

    await appending.add(b"end", completes=True)

    assert await appending.complete() == BYTES + b"end"


# --- memory (P9)


LIST = b"<ListBucketResult></ListBucketResult>"


class _Stalling:
    """A server that takes the head of a PUT, and its body only once it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.reached = asyncio.Event()
        self.received = b""
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"PUT"):
            self.reached.set()
            await self.go_on.wait()
            try:
                while block := await reader.read(MIB):
                    self.received += block
            except ConnectionError:
                pass
            self.ended.set()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(LIST), LIST))
            await writer.drain()
        writer.close()


async def _reuse_after_timeout(folder: Path, cancel: bool, context: ssl.SSLContext | None) -> bytes:
    """Let a part time out, or be cancelled; use its memory again; give what was sent then."""
    stalling = _Stalling()
    server = await asyncio.start_server(stalling.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    pool = BlockPool(64 * MIB)
    options = S3Options(
        bucket="bucket",
        endpoint_url=f"http{'s' if context else ''}://127.0.0.1:{port}",
        operation_timeout_s=60 if cancel else 0.5,
        attempts=1,
    )
    with FileThreads(1) as threads:
        async with S3Objects(
            options,
            blocks=pool,
            spill_dir=folder,
            threads=threads,
            describe=lambda upload: Described(None, None, {}),
            capabilities=SWIFT,
        ) as store:
            row = make_upload(store, multipart_id="id", committed_bytes=1)
            part = store.open_writer(row).open_part(row, number=2, start=1)
            blocks = [pool.take(MIB) for _ in range(9)]
            for block in blocks[:8]:
                block[:] = b"a" * MIB
                assert part.keep(block, MIB)
            blocks[8][:] = b"a" * MIB
            sending = asyncio.create_task(part.finish(memoryview(blocks[8]), completes=False))
            await stalling.reached.wait()
            if cancel:
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
            else:
                with pytest.raises(StoreUnavailable):
                    await sending
            await part.discard()
            for block in blocks:
                block[:] = b"z" * MIB
            stalling.go_on.set()
            await stalling.ended.wait()
    server.close()
    return stalling.received


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [False, True])
async def test_no_connection_sends_memory_that_was_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str, cancel: bool, tls: bool
) -> None:
    context = None
    if tls:
        made = make_certificate(tmp_path)
        if made is None:
            pytest.skip("openssl is not installed")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(made[0]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*made)
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    def run() -> bytes:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(_reuse_after_timeout(tmp_path, cancel, context))

    with ThreadPoolExecutor(1) as pool:
        received = await asyncio.get_running_loop().run_in_executor(pool, run)

    assert received
    assert b"z" not in received.replace(b"amz", b"")


async def test_a_finished_upload_has_no_multipart_upload_left_after_recover(
    swift: S3Service, swift_bucket: str, store: S3Objects
) -> None:
    appending = Appending(store, make_upload(store))
    await appending.add(BYTES)
    async with swift.client() as client:
        await client.create_multipart_upload(Bucket=swift_bucket, Key=appending.upload.object_key)
    await appending.complete()

    await store.recover(replace(appending.upload, state=UploadState.VERIFIED), confirm=confirmed)

    assert await uploads_left(swift, swift_bucket) == 0
    assert await read(store, appending.upload) == BYTES
