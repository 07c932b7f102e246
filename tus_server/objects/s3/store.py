"""ObjectStore on the S3 API.

Durable when: a part or an object when S3 has answered its request; nothing is believed without an
answer. Requests: none to create an upload or to ask for its offset, one for an upload within one
part, else the parts and two.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tus_server.core.parts import MIB
from tus_server.core.upload import Part, Upload
from tus_server.disk.threads import FileThreads
from tus_server.objects.s3 import sweep
from tus_server.objects.s3.assembly import Room
from tus_server.objects.s3.bucket import Bucket
from tus_server.objects.s3.client import open_client
from tus_server.objects.s3.direct import open_direct
from tus_server.objects.s3.download import object_stream
from tus_server.objects.s3.finish import Finisher
from tus_server.objects.s3.join import Joiner
from tus_server.objects.s3.keys import make_key
from tus_server.objects.s3.losses import LOST_AFTER_S, Losses
from tus_server.objects.s3.options import Capabilities, Described, S3Options
from tus_server.objects.s3.parked import ParkedTails
from tus_server.objects.s3.probe import probe
from tus_server.objects.s3.start import check_bucket, settings_errors
from tus_server.objects.s3.writer import S3Writer
from tus_server.ports import Blocks, Confirm, Joined, StoreLimits, UploadWriter

RESERVED_NUMBERS = 16
CHECK_TIMEOUT_S = 5.0


class S3Objects:
    """See ports.ObjectStore; a context manager, which opens the connection to the store."""

    def __init__(
        self,
        options: S3Options,
        *,
        blocks: Blocks,
        spill_dir: Path,
        threads: FileThreads,
        describe: Callable[[Upload], Described],
        capabilities: Capabilities | None = None,
        kept_bytes: int = 32 * MIB,
        lost_after_s: float = LOST_AFTER_S,
    ) -> None:
        """capabilities: as found by another process; None: they are found out here.

        kept_bytes: how much of one part may stay in blocks of the pool.
        """
        self._options = options
        self._room = Room(blocks, threads, spill_dir, kept_bytes)
        self._describe = describe
        self._known = capabilities
        self._losses = Losses(lost_after_s)
        self._limits = _limits(options)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises: SettingsInvalid, in one sentence that names the setting."""
        options = self._options
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(open_client(options))
            await check_bucket(client, options)
            known = self._known or await probe(client, options, self._room.threads)
            self._bucket = Bucket(client, options, known, self._describe)
            self._finisher = Finisher(self._bucket, self._losses)
            self._joiner = Joiner(self._bucket, self._room, self._losses, self._limits)
            stack.push_async_callback(self._joiner.close)
            self.tails = ParkedTails(self._bucket, self._room)
            with settings_errors(options):
                self.direct = await open_direct(self._bucket)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def capabilities(self) -> Capabilities:
        """What the store can be trusted with; open stores only."""
        return self._bucket.capabilities

    @property
    def limits(self) -> StoreLimits:
        return self._limits

    def make_key(self, upload: Upload) -> str:
        return make_key(self._options, upload)

    def open_writer(self, upload: Upload, *, confirm: Confirm | None = None) -> UploadWriter:
        return S3Writer(self._bucket, self._room, confirm)

    async def complete(
        self, upload: Upload, parts: Sequence[Part], *, confirm: Confirm | None = None
    ) -> int | None:
        crc = await self._finisher.complete(upload, parts, confirm)
        if upload.unclean or upload.is_final or upload.id in self._bucket.doubted:
            # All bytes are in the object, so no multipart upload of its key counts any more. Of a
            # final one each try has its own, and there may have been tries that were not committed.
            await sweep.abort_all(self._bucket, upload)
        return crc

    async def join(self, upload: Upload, sources: Sequence[Upload], *, confirm: Confirm) -> Joined:
        return await self._joiner.join(upload, sources, confirm)

    async def recover(self, upload: Upload, *, confirm: Confirm) -> None:
        await sweep.recover(self._bucket, self._losses, upload, confirm)

    async def free(self, upload: Upload) -> None:
        await sweep.free(self._bucket, upload)

    def read(self, upload: Upload, start: int, end: int) -> AsyncGenerator[bytes, None]:
        return object_stream(self._bucket, upload, start, end)

    async def presign(self, upload: Upload, *, method: str) -> str:
        operation = "head_object" if method == "HEAD" else "get_object"
        return await self._bucket.client.presign(
            operation,
            expires_s=self._options.presign_expires_s,
            Bucket=self._options.bucket,
            Key=upload.object_key,
        )

    async def check(self) -> None:
        await self._bucket.client.call(
            "head_bucket", timeout_s=CHECK_TIMEOUT_S, attempts=1, Bucket=self._options.bucket
        )


def _limits(options: S3Options) -> StoreLimits:
    return StoreLimits(
        min_part_size=options.min_part_size,
        max_part_size=options.max_part_size,
        max_parts=options.max_parts,
        preferred_part_size=options.part_size_bytes,
        max_object_size=options.max_object_size,
        equal_parts=options.equal_parts,
        parallel_parts=options.parallel_parts,
        keeps_receipts=True,
        # Of equal parts the number follows from the place.
        reserved_numbers=0 if options.equal_parts else RESERVED_NUMBERS,
    )
