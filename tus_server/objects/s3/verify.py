"""Whether an object is what the row promises."""

from tus_server.core.checksums import EMPTY_CRC64, crc64
from tus_server.core.errors import BytesMissing, StoreUnavailable
from tus_server.core.upload import Upload
from tus_server.objects.s3.bucket import Bucket, Found
from tus_server.objects.s3.download import read_object
from tus_server.ports import Confirm


def proved(found: Found, size: int, crc: int | None, etag: str | None) -> bool | None:
    """Tell whether `found` is an object of `size` bytes with `crc`; None: that cannot be told.

    crc: None where nobody knows it, of a direct upload. etag: the one such an object has, if that
    is known. Another one proves nothing where there is a CRC: encrypted objects have their own.
    """
    if found.size != size:
        return False
    is_same = etag is not None and found.etag.strip('"') == etag.strip('"')
    if crc is None:
        return is_same or etag is None
    if found.crc64 is not None:
        return found.crc64 == crc
    return True if is_same else None


async def is_object_of(
    bucket: Bucket,
    upload: Upload,
    found: Found,
    size: int,
    crc: int | None,
    etag: str | None = None,
) -> bool:
    """Tell the same, and read the object where nothing else tells. Raises: StoreUnavailable."""
    answer = proved(found, size, crc, etag)
    if answer is not None:
        return answer
    assert crc is not None
    return await _reads_as(bucket, upload, size, crc)


async def _reads_as(bucket: Bucket, upload: Upload, size: int, crc: int) -> bool:
    assert upload.object_key is not None
    read = EMPTY_CRC64
    try:
        async for block in read_object(bucket, upload.object_key, 0, size, length=size):
            read = crc64(block, read)
    except BytesMissing as exc:
        # It was of this size a moment ago; the next look tells what it is now.
        raise StoreUnavailable("The object has changed while it was read.") from exc
    return read == crc


async def remove_other(
    bucket: Bucket, upload: Upload, found: Found, confirm: Confirm | None
) -> None:
    """Remove an object of other bytes that was `found` at the key of an unfinished upload.

    What was there before the lease was confirmed is no later holder's; and only that very object
    goes, however late the call arrives. Raises: BytesMissing (without confirm, or where the store
    does not do so), what confirm raises.
    """
    if confirm is not None:
        await confirm()
        assert upload.object_key is not None
        if await bucket.delete_exactly(upload.object_key, found.etag):
            return
    raise BytesMissing(
        f"The store has other bytes at the key of upload {upload.id} than were sent now: the"
        " upload cannot be finished; start a new one."
    )
