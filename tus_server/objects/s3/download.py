"""Reading an object: streamed, and gone on with where the connection breaks."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from tus_server.core.errors import BytesMissing, StoreUnavailable
from tus_server.core.upload import Upload
from tus_server.objects.s3.bucket import Bucket
from tus_server.objects.s3.failures import DRIVER_ERRORS, EXISTS, NO_KEY, Refused, unavailable

READ_SIZE = 256 * 1024
MAX_CUTS = 5  # in a row, without a byte between them


async def read_object(
    bucket: Bucket, key: str, start: int, end: int, *, length: int
) -> AsyncGenerator[bytes, None]:
    """Stream bytes [start, end) of an object of `length` bytes.

    Raises: BytesMissing (gone, of another length, or replaced half-way), StoreUnavailable.
    """
    etag: str | None = None
    cuts = 0
    while start < end:
        answer = await _open(bucket, key, start, end, etag)
        _check_length(answer, length)
        etag = answer.get("ETag")
        stream = answer["Body"]
        try:
            while start < end:
                async with asyncio.timeout(bucket.options.read_timeout_s):
                    block = await stream.read(min(READ_SIZE, end - start))
                if not block:
                    break
                cuts = 0
                start += len(block)
                yield block
        except DRIVER_ERRORS as exc:
            failure: Exception = exc
        else:
            failure = EOFError()
        finally:
            stream.close()
        cuts += 1
        if start < end and cuts >= MAX_CUTS:
            raise unavailable("get_object", failure) from failure


async def _open(bucket: Bucket, key: str, start: int, end: int, etag: str | None) -> Any:
    arguments: dict[str, Any] = {"IfMatch": etag} if etag is not None else {}
    try:
        return await bucket.client.call(
            "get_object",
            accept=NO_KEY | EXISTS | {"InvalidRange"},
            Bucket=bucket.options.bucket,
            Key=key,
            Range=f"bytes={start}-{end - 1}",
            **arguments,
        )
    except Refused as exc:
        raise BytesMissing(f"The object is gone or too short ({exc.code}).") from exc


def _check_length(answer: Any, length: int) -> None:
    """Compare with the whole length, which Content-Range has: `bytes 0-9/100`."""
    found = answer.get("ContentRange", "").rpartition("/")[2]
    if not found.isdigit():
        raise StoreUnavailable("S3 answers get_object without the range that was asked for.")
    if int(found) != length:
        raise BytesMissing(f"The object has {found} bytes, not {length}.")


def object_stream(
    bucket: Bucket, upload: Upload, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    """Stream bytes of the object of a finished upload."""
    assert upload.object_key is not None
    assert upload.length is not None
    return read_object(bucket, upload.object_key, start, end, length=upload.length)
