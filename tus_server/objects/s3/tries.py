"""Requests of the probe: each is made to see whether the store takes it, under one key."""

import base64
from dataclasses import dataclass
from hashlib import md5
from typing import Any, Self

from tus_server.core.checksums import crc64
from tus_server.core.errors import StoreUnavailable
from tus_server.disk.threads import FileThreads
from tus_server.objects.s3.body import PartBody
from tus_server.objects.s3.bucket import encoded
from tus_server.objects.s3.client import Answer, S3Client
from tus_server.objects.s3.failures import ANY, EXISTS, WRONG_CHECKSUM, Refused
from tus_server.objects.s3.metadata import encryption
from tus_server.objects.s3.options import S3Options

Fields = dict[str, Any]

_CONTENT = b"tus-server probe"
_RIGHT = encoded(crc64(_CONTENT))
CRC: Fields = {"ChecksumCRC64NVME": _RIGHT}
WRONG_CRC: Fields = {"ChecksumCRC64NVME": encoded(crc64(_CONTENT) ^ 1)}
MD5: Fields = {
    "ContentMD5": base64.b64encode(md5(_CONTENT, usedforsecurity=False).digest()).decode()
}

_UNASKED = StoreUnavailable("Nothing was asked.")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the store said: an answer, or a refusal; a server error is one, no answer is not."""

    answer: Answer | None = None
    failure: Exception = _UNASKED

    @property
    def taken(self) -> bool:
        return self.answer is not None

    @property
    def code(self) -> str:
        return self.failure.code if isinstance(self.failure, Refused) else ""

    @property
    def proves(self) -> bool:
        """Tell whether the store says that the fault is in the request; codes differ widely."""
        if not isinstance(self.failure, Refused):
            return False
        # An error in the body of a 200 has become a 500 on its way here.
        return 400 <= self.failure.status < 500 or self.code in WRONG_CHECKSUM | EXISTS

    @property
    def etag(self) -> str:
        return str((self.answer or {}).get("ETag", ""))

    def require(self) -> Self:
        """Raise the refusal, of what no server can do without."""
        if self.answer is None:
            raise self.failure
        return self


class Tries:
    """Raises, from every method, only where no answer came: StoreUnavailable, StorageFull."""

    def __init__(
        self, client: S3Client, options: S3Options, threads: FileThreads, key: str
    ) -> None:
        self._client = client
        self._threads = threads
        self._target: Fields = {"Bucket": options.bucket, "Key": key}
        self._encryption = encryption(options)
        self._upload: Fields = {}  # UploadId of the multipart upload that is open

    async def put(self, fields: Fields) -> Reply:
        return await self._send("put_object", fields | self._encryption)

    async def begin(self, *, crc: bool) -> Reply:
        """Begin a multipart upload, with checksums of its parts and of the whole announced."""
        named = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"} if crc else {}
        reply = await self.call("create_multipart_upload", **named, **self._encryption)
        if reply.answer is not None:
            self._upload = {"UploadId": reply.answer["UploadId"]}
        return reply

    async def part(self, fields: Fields) -> Reply:
        return await self._send("upload_part", {"PartNumber": 1, **self._upload, **fields})

    async def complete(self, fields: Fields) -> Reply:
        reply = await self.call("complete_multipart_upload", **self._upload, **fields)
        if reply.taken:
            self._upload = {}
        return reply

    async def abort(self) -> None:
        """Abort the multipart upload that is open, if one is."""
        if self._upload:
            await self.call("abort_multipart_upload", **self._upload)
            self._upload = {}

    async def tells_crc(self) -> bool:
        """Tell whether the store knows the checksum of the object."""
        reply = await self.call("head_object", ChecksumMode="ENABLED")
        return (reply.answer or {}).get("ChecksumCRC64NVME") == _RIGHT

    async def call(self, operation: str, **fields: Any) -> Reply:
        """Make a call that has no body."""
        try:
            return Reply(await self._client.call(operation, accept=ANY, **self._target, **fields))
        except (Refused, StoreUnavailable) as exc:
            return _refusal(exc)

    async def _send(self, operation: str, fields: Fields) -> Reply:
        def make_body() -> PartBody:
            return PartBody([memoryview(_CONTENT)], self._threads)

        try:
            return Reply(
                await self._client.send(operation, make_body, accept=ANY, **self._target, **fields)
            )
        except (Refused, StoreUnavailable) as exc:
            return _refusal(exc)


def _refusal(exc: Refused | StoreUnavailable) -> Reply:
    """Give a refusal, also one with a status of 5xx, as a reply. Raises: what was no answer."""
    if isinstance(exc, StoreUnavailable) and not isinstance(exc.__cause__, Refused):
        raise exc
    return Reply(failure=exc)


def completions(etag: str, *, crc: bool) -> list[Fields]:
    """Give the ways to complete the upload of one part, the most telling one first."""
    bare: Fields = {"PartNumber": 1, "ETag": etag}
    ways = [{"MultipartUpload": {"Parts": [bare]}}]
    if crc:
        checked: Fields = {"MultipartUpload": {"Parts": [bare | CRC]}}
        whole = {"ChecksumType": "FULL_OBJECT", "MpuObjectSize": len(_CONTENT), **CRC}
        ways = [checked | whole, checked, *ways]
    return ways
