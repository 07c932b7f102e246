"""The S3 store behind the handles of the contract suites."""

from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.s3 import S3Service
from tus_server.core.errors import BytesMissing, TusServerError
from tus_server.core.ids import random_part
from tus_server.core.parts import MIB
from tus_server.core.upload import Upload
from tus_server.disk.threads import FileThreads
from tus_server.engine.buffers import BlockPool
from tus_server.objects.s3 import Capabilities, ChecksumMode, Described, S3Objects, S3Options
from tus_server.objects.s3.keys import tail_key
from tus_server.ports import TailStore

# As found by the probe, which has tests of its own.
SWIFT = Capabilities(ChecksumMode.PART, conditional_puts=True, conditional_completes=True)


class S3Backend:
    """Objects, and parked tails, on Swift: of the servers here it alone takes parts of a byte."""

    losses: tuple[type[TusServerError], ...] = (BytesMissing,)
    recover_finds_losses = True
    node_id = None

    def __init__(self, service: S3Service, folder: Path) -> None:
        self.blocks = BlockPool(64 * MIB)
        self._service = service
        self._folder = folder
        self.bucket = service.make_bucket()
        self._stack = AsyncExitStack()

    async def open(self) -> S3Objects:
        threads = self._stack.enter_context(FileThreads(4))
        options = S3Options(
            bucket=self.bucket,
            prefix="files/",
            endpoint_url=self._service.endpoint,
            min_part_size=3,
            part_size_bytes=4,
        )
        store = S3Objects(
            options,
            blocks=self.blocks,
            spill_dir=self._folder,
            threads=threads,
            describe=lambda upload: Described("text/plain", None, {"filename": "a.txt"}),
            capabilities=SWIFT,
            lost_after_s=0,
        )
        return await self._stack.enter_async_context(store)

    async def close(self) -> None:
        await self._stack.aclose()

    async def shorten(self, upload: Upload, size: int) -> None:
        """S3 loses uploads and objects as a whole."""
        async with self._service.client() as client:
            found = await client.list_multipart_uploads(Bucket=self.bucket)
            for item in found.get("Uploads", ()):
                if random_part(upload.id) in item["Key"]:
                    await client.abort_multipart_upload(
                        Bucket=self.bucket, Key=item["Key"], UploadId=item["UploadId"]
                    )
            await client.delete_object(Bucket=self.bucket, Key=upload.object_key)

    async def has_anything(self, upload: Upload) -> bool:
        async with self._service.client() as client:
            keys = [
                item["Key"]
                for listed, kind in (
                    (await client.list_multipart_uploads(Bucket=self.bucket), "Uploads"),
                    (await client.list_objects_v2(Bucket=self.bucket), "Contents"),
                )
                for item in listed.get(kind, ())
            ]
        return any(random_part(upload.id) in key for key in keys)


class S3TailsBackend:
    """Tails parked on Swift."""

    node_id = None

    def __init__(self, service: S3Service, folder: Path) -> None:
        self._objects = S3Backend(service, folder)
        self._service = service
        self.blocks = self._objects.blocks

    async def open(self) -> TailStore:
        return (await self._objects.open()).tails

    async def close(self) -> None:
        await self._objects.close()

    async def get(self, upload: Upload, generation: int) -> bytes | None:
        async with self._service.client() as client:
            try:
                answer = await client.get_object(**self._of(upload, generation))
            except client.exceptions.NoSuchKey:
                return None
            content: bytes = await answer["Body"].read()
            return content

    async def put(self, upload: Upload, generation: int, content: bytes | None) -> None:
        async with self._service.client() as client:
            if content is None:
                await client.delete_object(**self._of(upload, generation))
            else:
                await client.put_object(**self._of(upload, generation), Body=content)

    def _of(self, upload: Upload, generation: int) -> dict[str, str]:
        assert upload.object_key is not None
        return {"Bucket": self._objects.bucket, "Key": tail_key(upload.object_key, generation)}
