"""Tails parked in the object store, next to their upload: any node may go on with them.

A parked tail is one object, `<key>.tail.<generation>`, that is written once and never again: the
next tail has another generation, and the old one goes once its successor is committed.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from tus_server.core.checksums import EMPTY_CRC64, crc64
from tus_server.core.errors import BytesMissing, StorageFull, StoreUnavailable, TailMissing
from tus_server.core.upload import Tail, Upload
from tus_server.objects.s3.assembly import Assembly, Room
from tus_server.objects.s3.body import PartBody
from tus_server.objects.s3.bucket import Bucket
from tus_server.objects.s3.download import read_object
from tus_server.objects.s3.keys import tail_key

_NOTHING = memoryview(b"")


class ParkedTails:
    """See ports.TailStore."""

    def __init__(self, bucket: Bucket, room: Room) -> None:
        self._bucket = bucket
        self._room = room

    async def read(self, upload: Upload) -> AsyncGenerator[memoryview, None]:
        tail = upload.tail
        assert tail is not None
        crc = EMPTY_CRC64
        try:
            async for block in read_object(
                self._bucket, _key(upload, tail.generation), 0, tail.length, length=tail.length
            ):
                crc = crc64(block, crc)
                yield memoryview(block)
        except BytesMissing as exc:
            raise TailMissing(f"The parked tail is not what was stored: {exc.detail}") from exc
        if crc != tail.crc64:
            raise TailMissing("The parked tail differs from what was stored.")

    async def save(
        self, upload: Upload, *, generation: int, kept: int, content: AsyncIterator[memoryview]
    ) -> None:
        # What a generation has is never written again, so there is nothing to keep of it.
        assert kept == 0
        assembly = Assembly(self._room)
        try:
            async for block in content:
                await assembly.write(block)
            digest = await assembly.content_md5(_NOTHING) if self._bucket.wants_md5 else None
            await self._bucket.put_tail(
                _key(upload, generation), lambda: self._body(assembly), assembly.crc64, digest
            )
        finally:
            await assembly.close()

    async def remove(self, upload: Upload, tail: Tail) -> bool:
        try:
            await self._bucket.delete_object(_key(upload, tail.generation))
        except (StoreUnavailable, StorageFull):
            return False  # recover() and free() look for it
        return True

    async def check(self) -> None:
        pass  # where objects can be stored, these can

    def _body(self, assembly: Assembly) -> PartBody:
        return PartBody(assembly.segments(_NOTHING), self._room.threads)


def _key(upload: Upload, generation: int) -> str:
    assert upload.object_key is not None
    return tail_key(upload.object_key, generation)
