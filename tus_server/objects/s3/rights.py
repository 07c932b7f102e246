"""Using every right on the bucket once, for `tus-server doctor`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tus_server.core.errors import StorageFull, StoreUnavailable
from tus_server.disk.threads import FileThreads
from tus_server.findings import Finding, failed, ok, skipped, within
from tus_server.objects.s3.body import PartBody
from tus_server.objects.s3.client import Answer, S3Client
from tus_server.objects.s3.failures import ANY, DRIVER_ERRORS, Refused
from tus_server.objects.s3.metadata import encryption
from tus_server.objects.s3.options import S3Options

TIMEOUT_S = 20.0
_CONTENT = b"tus-server doctor"
_NO_RIGHT = 403


@dataclass(frozen=True, slots=True)
class _Use:
    """One call. needs: calls that have to have worked. fields: settings that go along."""

    operation: str
    right: str
    needs: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    setting: str = ""


class Rights:
    """Makes the calls a server makes, on a key of its own; whoever made it removes that key."""

    def __init__(
        self, client: S3Client, options: S3Options, threads: FileThreads, key: str
    ) -> None:
        self._client = client
        self._options = options
        self._threads = threads
        self._bucket: dict[str, Any] = {"Bucket": options.bucket}
        self._target: dict[str, Any] = {**self._bucket, "Key": key}
        self._worked: set[str] = set()
        self._multipart_id = ""

    async def use_all(self) -> AsyncIterator[Finding]:
        """Make one call after the other."""
        for use in _uses(self._options):
            what = f"S3 {_shown(use)}"
            if use.needs and use.needs not in self._worked:
                yield skipped(what, f"{use.needs} did not work")
                continue
            yield await within(what, TIMEOUT_S, self._try(what, use))

    async def _try(self, what: str, use: _Use) -> Finding:
        try:
            await self._call(use)
        except (Refused, StoreUnavailable, StorageFull, *DRIVER_ERRORS) as exc:
            if isinstance(exc, TimeoutError):
                raise
            return _finding(what, use, exc)
        self._worked.add(use.operation)
        return ok(what)

    async def _call(self, use: _Use) -> None:
        arguments = {**self._target, **use.fields}
        if use.operation in ("list_objects_v2", "list_multipart_uploads"):
            arguments = {**self._bucket, "Prefix": self._target["Key"]}
        elif use.operation in ("upload_part", "list_parts", "abort_multipart_upload"):
            arguments["UploadId"] = self._multipart_id
        if use.operation in ("put_object", "upload_part"):
            await self._send(use.operation, arguments)
            return
        answer = await self._client.call(use.operation, accept=ANY, **arguments)
        if use.operation == "create_multipart_upload":
            self._multipart_id = answer["UploadId"]
        if use.operation == "get_object":
            async with answer["Body"] as stream:
                await stream.read()

    async def _send(self, operation: str, arguments: dict[str, Any]) -> Answer:
        view = memoryview(_CONTENT)
        if operation == "upload_part":
            arguments["PartNumber"] = 1
        return await self._client.send(
            operation, lambda: PartBody([view], self._threads), accept=ANY, **arguments
        )


def _uses(options: S3Options) -> list[_Use]:
    secret = encryption(options)
    uses = [
        _Use("list_objects_v2", "s3:ListBucket"),
        _Use("list_multipart_uploads", "s3:ListBucketMultipartUploads"),
        _Use("put_object", "s3:PutObject", fields=secret, setting="TUS_S3_SSE" if secret else ""),
    ]
    for name, value, right, setting in (
        ("ACL", options.acl, "s3:PutObjectAcl", "TUS_S3_ACL"),
        ("Tagging", options.tags, "s3:PutObjectTagging", "TUS_S3_TAGS"),
        ("StorageClass", options.storage_class, "s3:PutObject", "TUS_S3_STORAGE_CLASS"),
    ):
        if value is not None:
            uses.append(_Use("put_object", right, "put_object", {**secret, name: value}, setting))
    return [
        *uses,
        _Use("head_object", "s3:GetObject", "put_object"),
        _Use("get_object", "s3:GetObject", "put_object"),
        _Use("delete_object", "s3:DeleteObject", "put_object"),
        _Use("create_multipart_upload", "s3:PutObject", fields=secret),
        _Use("upload_part", "s3:PutObject", "create_multipart_upload"),
        _Use("list_parts", "s3:ListMultipartUploadParts", "create_multipart_upload"),
        _Use("abort_multipart_upload", "s3:AbortMultipartUpload", "create_multipart_upload"),
    ]


def _shown(use: _Use) -> str:
    name = "".join(word.capitalize() for word in use.operation.removesuffix("_v2").split("_"))
    return f"{name} with {use.setting}" if use.setting else name


def _finding(what: str, use: _Use, exc: Exception) -> Finding:
    if isinstance(exc, Refused) and exc.status == _NO_RIGHT:
        remedy = f"give the access key {use.right}."
    elif use.setting:
        remedy = f"correct {use.setting}, or leave it out."
    else:
        remedy = "see the documentation or the log of the store: the server needs this call."
    return failed(what, getattr(exc, "detail", "") or str(exc) or type(exc).__name__, remedy)
