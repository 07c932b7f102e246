"""What one lease writes of one upload: parts, or the whole as one object.

A multipart upload is created with the first part that needs one, and is shared by all parts of the
writer. Whatever a late call of an old writer does, it does to an id or a part number that nobody
counts on; and an object is put only where there is none (`If-None-Match: *`).
"""

import asyncio

from tus_server.core.checksums import crc64
from tus_server.core.errors import StorageFull, StoreUnavailable
from tus_server.core.states import UNFINISHED
from tus_server.core.upload import Upload
from tus_server.objects.s3.assembly import Assembly, Room
from tus_server.objects.s3.body import PartBody
from tus_server.objects.s3.bucket import Bucket, MakeBody
from tus_server.objects.s3.failures import Refused
from tus_server.objects.s3.part import S3Part
from tus_server.objects.s3.verify import is_object_of, remove_other
from tus_server.ports import Confirm, PartReceipt, PartWriter

UNDO_TIMEOUT_S = 10.0


class S3Writer:
    """See ports.UploadWriter."""

    def __init__(self, bucket: Bucket, room: Room, confirm: Confirm | None) -> None:
        self._confirm = confirm
        self._bucket = bucket
        self._room = room
        self._creating: asyncio.Task[str] | None = None
        self._created: str | None = None
        self._left = False  # a multipart upload may be there that nobody knows the id of
        self._put = False

    @property
    def leaves(self) -> bool:
        """Tell whether there may be something that no receipt tells of: undo() is to be called."""
        return self._left

    def open_part(self, upload: Upload, *, number: int, start: int) -> PartWriter:
        return S3Part(self, Assembly(self._room), upload, number, start)

    async def store(
        self,
        upload: Upload,
        assembly: Assembly,
        rest: memoryview,
        *,
        number: int,
        is_object: bool,
    ) -> PartReceipt:
        """Send what was put together, and `rest`, as a part or as the object."""
        segments = assembly.segments(rest)
        size, crc = assembly.size + len(rest), crc64(rest, assembly.crc64)

        def make_body() -> PartBody:
            return PartBody(segments, self._room.threads)

        digest = await assembly.content_md5(rest) if self._bucket.wants_md5 else None
        if is_object:
            etag = await self._put_object(upload, make_body, size, crc, digest)
            return PartReceipt(size, crc, etag, is_object=True)
        multipart_id, etag = await self._upload_part(upload, number, make_body, crc, digest)
        return PartReceipt(size, crc, etag, multipart_id=multipart_id)

    async def undo(self, upload: Upload, *, holds: bool) -> bool:
        """See ports.UploadWriter.

        Only the multipart upload that was created here is touched: no other writer can know its
        id unless the row has it. An object stays: who sends the same bytes again adopts it, may
        have done so already where this is a writer that slept, and free() removes it otherwise.
        """
        creating = self._creating  # which it forgets as it ends
        if creating is not None:
            await asyncio.wait({creating}, timeout=UNDO_TIMEOUT_S)
            if creating.done():
                creating.exception()  # seen: nobody else may ask
            self._left |= not creating.done()
        nothing_left = not self._left and not (self._put and upload.state in UNFINISHED)
        if self._created is not None and self._created != upload.multipart_id:
            try:
                await self._bucket.abort(upload, self._created, timeout_s=UNDO_TIMEOUT_S)
                self._created = None
            except (StoreUnavailable, StorageFull):
                nothing_left = False
        return nothing_left

    # --- the whole

    async def _put_object(
        self, upload: Upload, make_body: MakeBody, size: int, crc: int, digest: str | None
    ) -> str:
        self._put = True
        confirm = self._confirm
        while True:
            try:
                return await self._bucket.put_object(upload, make_body, crc, digest)
            except Refused:
                failure = StoreUnavailable("The store has an object at the key of this upload.")
            except StoreUnavailable as exc:
                failure = exc
            # One of the attempts may have succeeded without our hearing of it, or an old writer
            # of the same bytes.
            found = await self._bucket.find_object(upload)
            if found is None:
                raise failure
            if await is_object_of(self._bucket, upload, found, size, crc):
                return found.etag
            if not self._bucket.capabilities.conditional_puts:
                raise failure  # the next attempt replaces it
            await remove_other(self._bucket, upload, found, confirm)
            confirm = None  # one such object is an accident, two are not

    # --- parts

    async def _upload_part(
        self, upload: Upload, number: int, make_body: MakeBody, crc: int, digest: str | None
    ) -> tuple[str, str]:
        multipart_id = upload.multipart_id or await self.multipart_id(upload)
        try:
            etag = await self._bucket.upload_part(
                upload, multipart_id, number, make_body, crc, digest
            )
        except Refused as exc:
            # Nothing follows from this alone: complete() and recover() find out what is lost.
            raise StoreUnavailable("S3 does not know the multipart upload of this part.") from exc
        return multipart_id, etag

    async def multipart_id(self, upload: Upload) -> str:
        """Give the id of this writer's own multipart upload; the first to ask creates it."""
        if self._created is None:
            if self._creating is None:
                self._creating = asyncio.create_task(self._create(upload))
            # A part that is cancelled must not take the id from the others.
            await asyncio.shield(self._creating)
        assert self._created is not None
        return self._created

    async def _create(self, upload: Upload) -> str:
        failures: list[Exception] = []
        try:
            self._created = await self._bucket.create(upload, failures)
        finally:
            self._creating = None
            if failures:
                self._left = True
                self._bucket.doubt(upload)
        return self._created
