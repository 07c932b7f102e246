"""Direct uploads on real S3 services: what is begun, and what becomes of the parts."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import md5
from pathlib import Path
from typing import Any, Self
from xml.sax.saxutils import escape

import aiohttp
import pytest
from aiohttp import web
from botocore.utils import parse_timestamp
from yarl import URL

from tests.support.fakes import planned_parts
from tests.support.s3 import S3Service, run_swift
from tests.support.s3_backend import SWIFT
from tests.support.s3_proxy import S3Proxy
from tests.support.s3_store import confirmed, make_upload, open_store, read, record_calls
from tus_server.core.checksums import crc64
from tus_server.core.errors import BytesMissing, PartsDiffer, StoreUnavailable
from tus_server.core.parts import MIB
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.objects.s3 import Capabilities, ChecksumMode, Described, S3Objects
from tus_server.objects.s3.bucket import multipart_etag
from tus_server.objects.s3.client import parse_time

HOUR = timedelta(hours=1)
CONTENT = [b"first", b"other", b"end"]
WHOLE = b"".join(CONTENT)
NO_ETAGS = replace(SWIFT, multipart_etags=False)
VERSITYGW = Capabilities(ChecksumMode.FULL_OBJECT, True, True)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tus_server.objects.s3.client.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("tus_server.objects.s3.finish.FIRST_PAUSE_S", 0.01)


@pytest.fixture
def keys(swift: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in swift.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def store(
    swift: S3Service, swift_bucket: str, keys: None, tmp_path: Path
) -> AsyncIterator[S3Objects]:
    async with open_store(swift, swift_bucket, tmp_path, capabilities=SWIFT) as opened:
        yield opened


def new_row(store: S3Objects, length: int = len(WHOLE), part_size: int = 5) -> Upload:
    """Give the row of a direct upload that was created just now."""
    return make_upload(
        store, protocol=Protocol.MULTIPART, length=length, part_size=part_size, crc64=None
    )


async def begin(store: S3Objects, row: Upload) -> Upload:
    """Give the row once parts can be sent."""
    return replace(row, multipart_id=await store.direct.begin(row))


async def send(store: S3Objects, upload: Upload, number: int, content: bytes) -> None:
    """Send a part as a client does."""
    part = planned_parts(upload)[number - 1]
    expires_at = datetime.now(UTC) + HOUR
    (request,) = await store.direct.sign_parts(upload, [part], expires_at=expires_at)
    async with (
        aiohttp.ClientSession() as http,
        http.put(URL(request.url, encoded=True), data=content) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def look(store: S3Objects, upload: Upload) -> list[Part]:
    """Give the rows of the parts as the store has them now."""
    found = await store.direct.find_stored(upload)
    assert found is not None
    return [replace(part, etag=found[part.number].etag) for part in planned_parts(upload)]


async def sent(store: S3Objects, **fields: Any) -> tuple[Upload, list[Part]]:
    """Give an upload whose parts have all arrived, as it is once the client has said so."""
    upload = replace(await begin(store, new_row(store)), **fields)
    for number, content in enumerate(CONTENT, 1):
        await send(store, upload, number, content)
    row = replace(upload, state=UploadState.COMPLETED, committed_bytes=len(WHOLE))
    return row, await look(store, upload)


async def multiparts(service: S3Service, bucket: str) -> list[str]:
    async with service.client() as client:
        found = await client.list_multipart_uploads(Bucket=bucket)
    return [item["UploadId"] for item in found.get("Uploads", ())]


async def put_other(service: S3Service, bucket: str, upload: Upload, content: bytes) -> None:
    """Put another object at the key of an upload."""
    async with service.client() as client:
        await client.put_object(Bucket=bucket, Key=upload.object_key, Body=content)


# --- begin


async def test_the_object_tells_what_the_upload_was_created_with(
    swift: S3Service, swift_bucket: str, keys: None, tmp_path: Path
) -> None:
    described = Described("image/png", "attachment", {"filename": "a.png"})
    async with open_store(
        swift, swift_bucket, tmp_path, capabilities=SWIFT, described=described
    ) as store:
        row, parts = await sent(store)
        await store.complete(row, parts)

    async with swift.client() as client:
        head = await client.head_object(Bucket=swift_bucket, Key=row.object_key)
    assert head["ContentType"] == "image/png"
    assert head["ContentDisposition"] == "attachment"
    assert head["Metadata"] == {"filename": "a.png"}


@pytest.mark.full
@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 503, "code": "SlowDown", "times": 3}, id="slow-down"),
    ],
)
async def test_beginning_survives_what_passes(
    swift: S3Service, swift_bucket: str, store: S3Objects, rule: dict[str, Any]
) -> None:
    swift.set_faults(rule | {"method": "POST", "query": "uploads"})

    row, parts = await sent(store)

    assert swift.fault_hits()
    assert await multiparts(swift, swift_bucket) == [row.multipart_id]
    await store.complete(row, parts)
    assert await read(store, row) == WHOLE


@pytest.mark.parametrize("rule", [{"status": 500, "after": True}, {"truncate": 0}])
async def test_a_begin_that_was_done_twice_fails_so_that_what_is_left_is_looked_for(
    swift: S3Service, swift_bucket: str, store: S3Objects, rule: dict[str, Any]
) -> None:
    row = new_row(store)
    swift.set_faults(rule | {"method": "POST", "query": "uploads"})

    with pytest.raises(StoreUnavailable):
        await begin(store, row)

    assert len(await multiparts(swift, swift_bucket)) == 1  # of the answer that was lost
    await store.recover(row, confirm=confirmed)
    assert await multiparts(swift, swift_bucket) == []
    await send(store, await begin(store, row), 1, CONTENT[0])


# --- complete


async def test_completing_is_two_calls(store: S3Objects) -> None:
    row, parts = await sent(store)
    calls = record_calls(store)

    await store.complete(row, parts)

    assert calls == ["CompleteMultipartUpload", "HeadObject"]


async def test_a_store_that_knows_the_checksum_of_the_object_tells_it(
    versitygw: S3Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in versitygw.environment.items():
        monkeypatch.setenv(name, value)
    bucket = versitygw.make_bucket()
    async with open_store(versitygw, bucket, tmp_path, capabilities=VERSITYGW) as store:
        upload = await begin(store, new_row(store, part_size=len(WHOLE)))
        await send(store, upload, 1, WHOLE)
        row = replace(upload, state=UploadState.COMPLETED, committed_bytes=len(WHOLE))
        parts = await look(store, upload)

        assert await store.complete(row, parts) == crc64(WHOLE)
        # A lost answer, a crash: somebody completes it once more, and finds the object there.
        assert await store.complete(row, parts) == crc64(WHOLE)
        # What somebody knows of the whole by other ways has to be so.
        assert await store.complete(replace(row, crc64=crc64(WHOLE)), parts) == crc64(WHOLE)
        with pytest.raises(BytesMissing):
            await store.complete(replace(row, crc64=crc64(WHOLE) ^ 1), parts)


async def test_a_store_that_does_not_know_it_tells_nothing(store: S3Objects) -> None:
    row, parts = await sent(store)

    assert await store.complete(row, parts) is None


async def test_a_checksum_that_is_known_is_given_back(store: S3Objects) -> None:
    row, parts = await sent(store, crc64=crc64(WHOLE))

    assert await store.complete(row, parts) == crc64(WHOLE)


PASSING = [
    pytest.param({"status": 500}, id="500"),
    pytest.param({"status": 503, "code": "SlowDown", "times": 3}, id="slow-down"),
    pytest.param({"status": 500, "after": True}, id="done-but-500"),
    pytest.param({"status": 200, "code": "InternalError"}, id="error-in-200"),
    pytest.param({"status": 200, "code": "InternalError", "after": True}, id="done-but-error"),
    pytest.param({"truncate": 0, "times": 2}, id="cut"),
    pytest.param({"truncate": 0, "times": 2, "after": True}, id="done-but-cut"),
]


@pytest.mark.full
@pytest.mark.parametrize("rule", PASSING)
@pytest.mark.parametrize("crc", [None, crc64(WHOLE)])
async def test_completing_survives_what_passes(
    swift: S3Service, swift_bucket: str, store: S3Objects, rule: dict[str, Any], crc: int | None
) -> None:
    row, parts = await sent(store, crc64=crc)
    swift.set_faults(rule | {"method": "POST", "query": "uploadId"})

    await store.complete(row, parts)

    assert swift.fault_hits()
    assert await read(store, row) == WHOLE
    assert await multiparts(swift, swift_bucket) == []


async def test_an_error_that_stays_leaves_the_upload_as_it_was(
    swift: S3Service, store: S3Objects
) -> None:
    row, parts = await sent(store)
    swift.set_faults({"method": "POST", "query": "uploadId", "status": 500, "times": 100})

    with pytest.raises(StoreUnavailable):
        await store.complete(row, parts)

    swift.set_faults()
    await store.complete(row, parts)
    assert await read(store, row) == WHOLE


async def test_a_refusal_the_store_does_not_explain_is_no_endless_loop(
    swift: S3Service, store: S3Objects
) -> None:
    row, parts = await sent(store)
    rule = {"method": "POST", "query": "uploadId", "status": 400, "code": "InvalidPart"}
    swift.set_faults(rule | {"times": 100})

    # All parts are there as they were recorded.
    with pytest.raises(StoreUnavailable):
        await store.complete(row, parts)

    assert len(swift.fault_hits()) == 2


async def test_completing_from_two_processes_makes_one_object(
    swift: S3Service, swift_bucket: str, store: S3Objects, tmp_path: Path
) -> None:
    row, parts = await sent(store)
    with S3Proxy(swift) as proxy:
        async with open_store(
            swift, swift_bucket, tmp_path, endpoint=proxy.endpoint, capabilities=SWIFT
        ) as slow:
            held = proxy.hold("CompleteMultipartUpload")
            late = asyncio.create_task(slow.complete(row, parts))
            while not held.is_here:
                await asyncio.sleep(0.01)
            await store.complete(row, parts)
            held.release()

            await late

    assert await read(store, row) == WHOLE


async def test_a_part_of_another_size_is_named(
    swift: S3Service, swift_bucket: str, store: S3Objects
) -> None:
    row, parts = await sent(store)
    async with swift.client() as client:
        await client.upload_part(
            Bucket=swift_bucket,
            Key=row.object_key,
            UploadId=row.multipart_id,
            PartNumber=2,
            Body=b"longer",
        )

    with pytest.raises(PartsDiffer) as raised:
        await store.complete(row, parts)
    assert raised.value.members == {"part": 2}


async def test_parts_that_are_gone_with_their_upload_are_lost_only_after_a_while(
    swift: S3Service, swift_bucket: str, store: S3Objects, keys: None, tmp_path: Path
) -> None:
    row, parts = await sent(store)
    async with swift.client() as client:
        await client.abort_multipart_upload(
            Bucket=swift_bucket, Key=row.object_key, UploadId=row.multipart_id
        )

    with pytest.raises(StoreUnavailable):
        await store.complete(row, parts)
    async with open_store(
        swift, swift_bucket, tmp_path, capabilities=SWIFT, lost_after_s=0
    ) as hasty:
        with pytest.raises(BytesMissing):
            await hasty.complete(row, parts)


@pytest.mark.parametrize("other", [b"longer than it was", bytes(len(WHOLE))])
async def test_another_object_at_the_key_is_not_taken_for_the_upload(
    swift: S3Service, swift_bucket: str, store: S3Objects, other: bytes
) -> None:
    row, parts = await sent(store)
    await put_other(swift, swift_bucket, row, other)

    # It is at a key of our own, and was found there under the lease: so it makes way.
    await store.complete(row, parts, confirm=confirmed)

    assert await read(store, row) == WHOLE


async def test_another_object_after_the_completion_is_not_taken_for_the_upload(
    versitygw: S3Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in versitygw.environment.items():
        monkeypatch.setenv(name, value)
    bucket = versitygw.make_bucket()
    async with open_store(
        versitygw, bucket, tmp_path, capabilities=VERSITYGW, lost_after_s=0
    ) as store:
        upload = await begin(store, new_row(store, part_size=len(WHOLE)))
        await send(store, upload, 1, WHOLE)
        row = replace(upload, state=UploadState.COMPLETED, committed_bytes=len(WHOLE))
        parts = await look(store, upload)
        await store.complete(row, parts)
        await put_other(versitygw, bucket, row, bytes(len(WHOLE)))

        with pytest.raises(BytesMissing):
            await store.complete(row, parts)


async def test_of_a_store_whose_etags_say_nothing_the_size_is_compared(
    swift: S3Service, swift_bucket: str, keys: None, tmp_path: Path
) -> None:
    async with open_store(swift, swift_bucket, tmp_path, capabilities=NO_ETAGS) as store:
        row, parts = await sent(store)

        await store.complete(row, parts)
        assert await read(store, row) == WHOLE

        await put_other(swift, swift_bucket, row, WHOLE + b"!")
        with pytest.raises(StoreUnavailable):
            await store.complete(row, parts)


async def test_a_row_that_is_not_clean_is_completed_and_swept(
    swift: S3Service, swift_bucket: str, store: S3Objects
) -> None:
    row, parts = await sent(store, unclean=True)
    await store.direct.begin(row)

    await store.complete(row, parts)

    assert await read(store, row) == WHOLE
    assert await multiparts(swift, swift_bucket) == []


@pytest.mark.full
async def test_a_store_that_was_killed_while_it_completed_has_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "swift"
    with run_swift(directory=folder, min_part_size=1) as first:
        for name, value in first.environment.items():
            monkeypatch.setenv(name, value)
        bucket, port = first.make_bucket(), first.address[1]
        async with open_store(first, bucket, tmp_path, capabilities=SWIFT) as store:
            row, parts = await sent(store)
            first.set_faults({"method": "POST", "query": "uploadId", "delay": 30})
            completing = asyncio.create_task(store.complete(row, parts))
            while not first.fault_hits():
                await asyncio.sleep(0.01)
            for pid in first.pids.values():
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(StoreUnavailable):
                await completing

            with run_swift(directory=folder, port=port, min_part_size=1) as second:
                second.set_faults()
                await store.complete(row, parts)
                assert await read(store, row) == WHOLE


# --- many parts

MANY = 10_000
XML = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass
class ManyParts:
    """As much of an S3 service as it takes to complete an upload of many parts, and no disk."""

    length: int
    etags: list[str] = field(
        default_factory=lambda: [f'"{md5(b"%d" % n).hexdigest()}"' for n in range(MANY)]
    )
    refusals: int = 0
    completed: int = 0
    served_s: float = 0.0  # the time of this server itself

    @property
    def etag(self) -> str:
        return f'"{multipart_etag(self.etags)}"'

    async def serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        begin_s = time.process_time()
        answer = self._answer(request, body)
        self.served_s += time.process_time() - begin_s
        return answer

    def _answer(self, request: web.Request, body: bytes) -> web.Response:
        if request.method == "HEAD":
            headers = {"Content-Length": str(self.length), "ETag": self.etag}
            return web.Response(headers=headers)
        if "list-type" in request.query:
            return _xml(f"<ListBucketResult {XML}></ListBucketResult>")
        if request.method == "GET":
            return self._list(int(request.query.get("part-number-marker", 0)))
        if self.refusals:
            self.refusals -= 1
            return _xml("<Error><Code>InvalidPart</Code></Error>", status=400)
        self.completed = body.count(b"<PartNumber>")
        result = f"<ETag>{escape(self.etag)}</ETag>"
        return _xml(
            f"<CompleteMultipartUploadResult {XML}>{result}</CompleteMultipartUploadResult>"
        )

    def _list(self, marker: int) -> web.Response:
        page = range(marker + 1, min(marker + 1000, MANY) + 1)
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><Size>{5 * MIB}</Size>"
            "<LastModified>2026-11-29T22:43:34.000Z</LastModified>"
            f"<ETag>{escape(self.etags[number - 1])}</ETag></Part>"
            for number in page
        )
        more = f"<IsTruncated>{str(page[-1] < MANY).lower()}</IsTruncated>"
        more += f"<NextPartNumberMarker>{page[-1]}</NextPartNumberMarker>"
        return _xml(f"<ListPartsResult {XML}>{more}{parts}</ListPartsResult>")

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * MIB)
        app.router.add_route("*", "/{path:.*}", self.serve)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()


def _xml(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, content_type="application/xml", status=status)


@pytest.mark.parametrize("refusals", [0, 1])
async def test_ten_thousand_parts_are_completed_in_little_more_than_the_time_of_s3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusals: int
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    async with ManyParts(MANY * 5 * MIB, refusals=refusals) as s3:
        service = S3Service("many", f"http://127.0.0.1:{s3.port}", "key", "key")
        async with open_store(service, "bucket", tmp_path, capabilities=SWIFT) as store:
            upload = replace(new_row(store, s3.length, 5 * MIB), multipart_id="id")
            row = replace(upload, state=UploadState.COMPLETED, committed_bytes=s3.length)
            calls = record_calls(store)
            begin_s = time.process_time()

            parts = await look(store, upload)
            await store.complete(row, parts)

            ours_s = time.process_time() - begin_s - s3.served_s
    pages = ["ListParts"] * 10
    again = ["CompleteMultipartUpload", *pages] * refusals
    assert calls == [*pages, *again, "CompleteMultipartUpload", "HeadObject"]
    assert s3.completed == MANY
    assert ours_s < 2 * (1 + refusals)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-29T22:43:34.123Z",
        "2026-11-29T22:43:34Z",
        "Sun, 29 Nov 2026 22:43:34 GMT",
        "1795992214",
        "2026-11-29T22:43:34+02:00",
    ],
)
def test_times_are_those_that_botocore_reads(text: str) -> None:
    assert parse_time(text) == parse_timestamp(text)
