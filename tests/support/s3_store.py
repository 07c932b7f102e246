"""An S3 store under test, and what the engine would do with it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.s3 import S3Service
from tus_server.core.checksums import crc64
from tus_server.core.ids import new_upload_id
from tus_server.core.parts import MIB
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.disk.threads import FileThreads
from tus_server.engine.buffers import BlockPool
from tus_server.objects.s3 import Capabilities, Described, S3Objects, S3Options
from tus_server.ports import Joined, PartReceipt, PartWriter, UploadWriter

NOTHING = memoryview(b"")
PLAIN = Described(None, None, {})


@asynccontextmanager
async def open_store(
    service: S3Service,
    bucket: str,
    folder: Path,
    *,
    endpoint: str | None = None,
    capabilities: Capabilities | None = None,
    described: Described = PLAIN,
    lost_after_s: float = 900,
    blocks: BlockPool | None = None,
    kept_bytes: int = 32 * MIB,
    **options: Any,
) -> AsyncIterator[S3Objects]:
    """Open a store on a bucket; the keys of the service are in the environment already."""
    with FileThreads(4) as threads:
        async with S3Objects(
            S3Options(bucket=bucket, endpoint_url=endpoint or service.endpoint, **options),
            blocks=blocks or BlockPool(64 * MIB),
            spill_dir=folder,
            threads=threads,
            describe=lambda upload: described,
            capabilities=capabilities,
            kept_bytes=kept_bytes,
            lost_after_s=lost_after_s,
        ) as store:
            yield store


async def confirmed() -> None:
    """Confirm that a lease is still held."""


def record_calls(store: S3Objects) -> list[str]:
    """Give a list that grows by every call made from now on."""
    calls: list[str] = []

    def note(event_name: str, **_: Any) -> None:
        calls.append(event_name.rpartition(".")[2])

    store._bucket.client.driver.meta.events.register("before-send.s3", note)
    return calls


def make_upload(store: S3Objects, **fields: Any) -> Upload:
    """Give the row of a new upload."""
    now = datetime.now(UTC)
    upload = Upload(
        id=new_upload_id(),
        protocol=Protocol.TUS,
        state=UploadState.INITIATED,
        created_at=now,
        state_on=now,
    )
    row = replace(upload, **fields)
    return replace(row, object_key=store.make_key(row))


@dataclass(slots=True)
class Appending:
    """One lease that appends: the row as committed, and its receipts."""

    store: S3Objects
    upload: Upload
    parts: list[Part] = field(default_factory=list)
    number: int = 1
    writer: UploadWriter = field(init=False)

    def __post_init__(self) -> None:
        self.writer = self.store.open_writer(self.upload)

    def open(self, *, start: int | None = None) -> PartWriter:
        """Open a part with the next number."""
        begin = self.upload.committed_bytes if start is None else start
        part = self.writer.open_part(self.upload, number=self.number, start=begin)
        self.number += 1
        return part

    async def send(self, content: bytes, *, completes: bool = False) -> PartReceipt:
        """Store a part that nobody commits."""
        part = self.open()
        try:
            return await part.finish(memoryview(content), completes=completes)
        finally:
            await part.discard()

    async def add(self, content: bytes, *, completes: bool = False) -> PartReceipt:
        """Store a part and commit it."""
        receipt = await self.send(content, completes=completes)
        self.commit(receipt, self.number - 1)
        return receipt

    def commit(self, receipt: PartReceipt, number: int) -> None:
        start = self.upload.committed_bytes
        self.parts.append(Part(number, start, receipt.size, receipt.crc64, receipt.etag))
        after = self.upload.with_bytes(receipt.size, receipt.crc64)
        self.upload = replace(
            after,
            multipart_id=after.multipart_id or receipt.multipart_id,
            state=UploadState.RECEIVING,
            next_part_number=self.number,
        )

    def ended(self) -> Upload:
        """Give the row once all bytes are there."""
        self.upload = replace(
            self.upload, length=self.upload.committed_bytes, state=UploadState.COMPLETED
        )
        return self.upload

    async def complete(self) -> bytes:
        """Complete, and give what can be read then."""
        await self.store.complete(self.ended(), self.parts)
        return await read(self.store, self.upload)


async def read(store: S3Objects, upload: Upload, start: int = 0, end: int | None = None) -> bytes:
    assert upload.length is not None
    stream = store.read(upload, start, upload.length if end is None else end)
    return b"".join([block async for block in stream])


# --- final uploads


async def put_source(store: S3Objects, content: bytes, **fields: Any) -> Upload:
    """Store a finished upload of `content`; give its row. fields: of the row."""
    appending = Appending(store, make_upload(store, **fields))
    await appending.add(content, completes=True)
    return replace(appending.upload, length=len(content), state=UploadState.VERIFIED)


def final_of(store: S3Objects, contents: Sequence[bytes], **fields: Any) -> Upload:
    """Give the row of a new final upload."""
    whole = b"".join(contents)
    return make_upload(store, length=len(whole), crc64=crc64(whole), concat="final;a b", **fields)


def with_joined(upload: Upload, joined: Joined) -> Upload:
    """Give the row of a final upload once it has what join() gave."""
    return replace(
        upload,
        state=UploadState.COMPLETED,
        committed_bytes=upload.length or 0,
        multipart_id=joined.multipart_id,
    )


async def join(store: S3Objects, upload: Upload, sources: Sequence[Upload]) -> bytes:
    """Join and complete; give what can be read then."""
    joined = await store.join(upload, sources, confirm=confirmed)
    row = with_joined(upload, joined)
    await store.complete(row, joined.parts)
    return await read(store, row)
