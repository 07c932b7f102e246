"""The calls of S3 this server makes, one method each, in terms of uploads and parts.

Every call there is, is here: what a request may cost can be counted on this page.
"""

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

from tus_server.core.errors import StoreUnavailable
from tus_server.core.ids import UploadId
from tus_server.core.parts import MIB
from tus_server.core.upload import Part, Upload
from tus_server.objects.s3.body import PartBody
from tus_server.objects.s3.client import LONGEST_ANSWERS, Answer, S3Client
from tus_server.objects.s3.failures import (
    EXISTS,
    NO_KEY,
    NO_UPLOAD,
    NOT_COPIED,
    WRONG_CHECKSUM,
    Refused,
)
from tus_server.objects.s3.metadata import encryption, object_fields
from tus_server.objects.s3.options import Capabilities, ChecksumMode, Described, S3Options

MAX_DOUBTED = 10_000
MakeBody = Callable[[], PartBody]

# What a store may say to a value of the user that it does not take as metadata; it comes before
# anything is stored.
_BAD_METADATA = frozenset(
    {"MetadataTooLarge", "InvalidArgument", "InvalidRequest", "BadRequest", "InvalidHeader"}
)

# From stores that do not know If-Match on a DELETE.
_NO_CONDITION = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest", "501", "400"})


@dataclass(frozen=True, slots=True)
class Found:
    """What a store tells of an object or a part."""

    size: int
    etag: str
    crc64: int | None


@dataclass(frozen=True, slots=True)
class Copied:
    """What a store tells of a part it has copied."""

    etag: str
    crc64: int | None


@dataclass(slots=True)
class Bucket:
    """See the module. Raises, from every method: StoreUnavailable, StorageFull, and what it names.

    Refused is raised with the codes a method names only.
    """

    client: S3Client
    options: S3Options
    capabilities: Capabilities
    describe: Callable[[Upload], Described]
    # Uploads with multipart uploads nobody knows the id of, because no answer told it.
    doubted: set[UploadId] = field(default_factory=set)

    @property
    def wants_md5(self) -> bool:
        """Tell whether bodies carry their MD5, since no other checksum is compared."""
        return self.capabilities.checksum is ChecksumMode.NONE

    def doubt(self, upload: Upload) -> None:
        """Remember that an upload may have such; recover() finds those that were forgotten."""
        if len(self.doubted) < MAX_DOUBTED:
            self.doubted.add(upload.id)

    # --- one object

    async def put_object(
        self, upload: Upload, make_body: MakeBody, crc64: int, content_md5: str | None
    ) -> str:
        """Store the whole upload, only where there is no object yet; give its ETag.

        Raises: Refused (EXISTS; perhaps by our own success of an attempt before).
        """
        arguments = self._of(upload) | self._checksum(crc64, content_md5)
        if self.capabilities.conditional_puts:
            arguments["IfNoneMatch"] = "*"
        fields = object_fields(self.options, self.describe(upload))
        answer = await self._with_metadata(
            lambda accept, fields: self.client.send(
                "put_object", make_body, accept=EXISTS | accept, **arguments, **fields
            ),
            fields,
        )
        return str(answer.get("ETag", ""))

    async def find_object(self, upload: Upload) -> Found | None:
        """Give what the store tells of the object of an upload."""
        try:
            answer = await self.client.call(
                "head_object", accept=NO_KEY, **self._of(upload), ChecksumMode="ENABLED"
            )
        except Refused:
            return None
        return Found(answer["ContentLength"], str(answer.get("ETag", "")), crc64_of(answer))

    async def delete_object(self, key: str) -> None:
        """Remove an object if there is one. Nobody may count on the key any more."""
        try:
            await self.client.call(
                "delete_object", accept=NO_KEY, Bucket=self.options.bucket, Key=key
            )
        except Refused:
            pass

    async def delete_exactly(self, key: str, etag: str) -> bool:
        """Remove an object if it is still that one; False: the store does not do so."""
        try:
            await self.client.call(
                "delete_object",
                accept=NO_KEY | EXISTS | _NO_CONDITION,
                Bucket=self.options.bucket,
                Key=key,
                IfMatch=etag,
            )
        except Refused as exc:
            return exc.code not in _NO_CONDITION
        return True

    # --- a multipart upload

    async def create(self, upload: Upload, failures: list[Exception]) -> str:
        """Begin a multipart upload; give its id. Each of the failures may have left one behind."""
        arguments = self._of(upload)
        # What is named here may be asked of every part, and browsers know no CRC-64.
        if not self.wants_md5 and not upload.is_direct:
            arguments["ChecksumAlgorithm"] = "CRC64NVME"
            if self.capabilities.checksum is ChecksumMode.FULL_OBJECT:
                arguments["ChecksumType"] = "FULL_OBJECT"
        answer = await self._with_metadata(
            lambda accept, fields: self.client.call(
                "create_multipart_upload",
                accept=accept,
                failures=failures,
                **arguments,
                **fields,
            ),
            object_fields(self.options, self.describe(upload)),
        )
        return str(answer["UploadId"])

    async def upload_part(
        self,
        upload: Upload,
        multipart_id: str,
        number: int,
        make_body: MakeBody,
        crc64: int,
        content_md5: str | None,
    ) -> str:
        """Store a part; give its ETag. Raises: Refused (NO_UPLOAD)."""
        answer = await self.client.send(
            "upload_part",
            make_body,
            accept=NO_UPLOAD,
            **self._of(upload),
            UploadId=multipart_id,
            PartNumber=number,
            **self._checksum(crc64, content_md5),
        )
        if not answer.get("ETag"):
            raise StoreUnavailable("S3 took a part and gave no ETag, so it could not be completed.")
        return str(answer["ETag"])

    async def copy_part(
        self,
        upload: Upload,
        multipart_id: str,
        number: int,
        source: Upload,
        *,
        start: int,
        end: int,
    ) -> Copied:
        """Let the store make a part of bytes [start, end) of the object of `source`.

        Always named as a range, also where it is the whole: so nothing but these bytes is taken,
        and Swift 2.38 lists a part without an ETag that was copied without one. Raises: Refused
        (NOT_COPIED). The driver takes an error in the body of a 200 for what it is.
        """
        answer = await self.client.call(
            "upload_part_copy",
            accept=NOT_COPIED,
            timeout_s=self.options.operation_timeout_s * max(1, (end - start) / (64 * MIB)),
            **self._of(upload),
            UploadId=multipart_id,
            PartNumber=number,
            CopySource={"Bucket": self.options.bucket, "Key": source.object_key},
            CopySourceRange=f"bytes={start}-{end - 1}",
        )
        result = answer.get("CopyPartResult", {})
        if not result.get("ETag"):
            raise StoreUnavailable("S3 copied a part and gave no ETag, so it could not be used.")
        return Copied(str(result["ETag"]), crc64_of(result))

    async def complete(
        self, upload: Upload, parts: Sequence[tuple[Part, str]], accept: frozenset[str]
    ) -> Answer:
        """Make the object of `parts`, each with its ETag, once: an error may mean success.

        Raises: Refused (`accept`).
        """
        listed: list[dict[str, Any]] = [
            {"PartNumber": part.number, "ETag": etag} for part, etag in parts
        ]
        arguments: dict[str, Any] = {"MultipartUpload": {"Parts": listed}}
        tells_whole = self.capabilities.checksum is ChecksumMode.FULL_OBJECT
        if tells_whole:
            arguments["MpuObjectSize"] = upload.length
        # What the parts were stored with has to be said again, where it was kept.
        if not self.wants_md5 and not upload.is_direct:
            for entry, (part, _) in zip(listed, parts, strict=True):
                assert part.crc64 is not None
                entry["ChecksumCRC64NVME"] = encoded(part.crc64)
            if tells_whole:
                assert upload.crc64 is not None
                arguments |= {"ChecksumType": "FULL_OBJECT"}
                arguments |= {"ChecksumCRC64NVME": encoded(upload.crc64)}
        if self.capabilities.conditional_completes:
            arguments["IfNoneMatch"] = "*"
        return await self.client.call(
            "complete_multipart_upload",
            accept=accept | WRONG_CHECKSUM,
            timeout_s=LONGEST_ANSWERS * self.options.read_timeout_s,
            attempts=1,
            UploadId=upload.multipart_id,
            **self._of(upload),
            **arguments,
        )

    async def abort(
        self, upload: Upload, multipart_id: str, *, timeout_s: float | None = None
    ) -> None:
        """End a multipart upload and drop its parts; one that is not there is no error."""
        try:
            await self.client.call(
                "abort_multipart_upload",
                accept=NO_UPLOAD,
                timeout_s=timeout_s,
                UploadId=multipart_id,
                **self._of(upload),
            )
        except Refused:
            pass

    async def list_parts(self, upload: Upload) -> dict[int, Found]:
        """Give the stored parts of the multipart upload of the row. Raises: Refused (NO_UPLOAD)."""
        found: dict[int, Found] = {}
        marker = 0
        while True:
            answer = await self.client.call(
                "list_parts",
                accept=NO_UPLOAD,
                UploadId=upload.multipart_id,
                PartNumberMarker=marker,
                **self._of(upload),
            )
            for part in answer.get("Parts", ()):
                found[part["PartNumber"]] = Found(part["Size"], part["ETag"], crc64_of(part))
            if not answer.get("IsTruncated"):
                return found
            marker = int(answer["NextPartNumberMarker"])

    async def list_multipart_ids(self, upload: Upload) -> tuple[list[str], bool]:
        """Give ids of multipart uploads of exactly this key, and whether there may be more."""
        answer = await self.client.call(
            "list_multipart_uploads",
            Bucket=self.options.bucket,
            Prefix=upload.object_key,
        )
        found = [
            found["UploadId"]
            for found in answer.get("Uploads", ())
            if found["Key"] == upload.object_key
        ]
        return found, bool(answer.get("IsTruncated"))

    # --- other objects

    async def list_keys(self, prefix: str) -> AsyncIterator[str]:
        """Give the keys that begin with `prefix`."""
        arguments: dict[str, Any] = {"Bucket": self.options.bucket, "Prefix": prefix}
        while True:
            answer = await self.client.call("list_objects_v2", **arguments)
            for found in answer.get("Contents", ()):
                yield found["Key"]
            if not answer.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = answer["NextContinuationToken"]

    async def put_tail(
        self, key: str, make_body: MakeBody, crc64: int, content_md5: str | None
    ) -> None:
        """Store a parked tail. Where an attempt succeeded unheard, the next one repeats it."""
        await self.client.send(
            "put_object",
            make_body,
            Bucket=self.options.bucket,
            Key=key,
            ContentType="application/octet-stream",
            **encryption(self.options),
            **self._checksum(crc64, content_md5),
        )

    # --- arguments

    def _of(self, upload: Upload) -> dict[str, Any]:
        return {"Bucket": self.options.bucket, "Key": upload.object_key}

    def _checksum(self, crc64: int, content_md5: str | None) -> dict[str, Any]:
        if content_md5 is not None:
            return {"ContentMD5": content_md5}
        return {"ChecksumCRC64NVME": encoded(crc64)}

    async def _with_metadata(
        self,
        ask: "Callable[[frozenset[str], dict[str, Any]], Any]",
        fields: dict[str, Any],
    ) -> Answer:
        """Ask with the user's metadata, and once more without where the store refuses it.

        What a user calls a file must not keep its bytes out of the store.
        """
        described = {"Metadata", "ContentType", "ContentDisposition"}
        if not described & fields.keys():
            answer: Answer = await ask(frozenset(), fields)
            return answer
        try:
            answer = await ask(_BAD_METADATA, fields)
        except Refused as exc:
            if exc.code not in _BAD_METADATA:
                raise
            plain = {name: fields[name] for name in fields.keys() - described}
            answer = await ask(frozenset(), plain)
        return answer


def encoded(crc64: int) -> str:
    """Give a CRC as S3 writes it: base64 of its eight bytes, the highest first."""
    return base64.b64encode(crc64.to_bytes(8, "big")).decode()


def crc64_of(answer: Answer) -> int | None:
    """Give the CRC of the whole that S3 tells, if it does."""
    text = answer.get("ChecksumCRC64NVME")
    # A composite checksum ends in "-" and the number of parts, and says nothing of the bytes.
    if not text or "-" in text:
        return None
    return int.from_bytes(base64.b64decode(text), "big")


def multipart_etag(etags: Sequence[str]) -> str | None:
    """Give the ETag, without quotes, of the object of parts with `etags`, where those are MD5s."""
    try:
        digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
    except ValueError:
        return None
    return f"{md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"
