"""Making an object of parts of given sizes, to see whether the store takes them."""

from collections.abc import Sequence
from typing import Any

from tus_server.core.errors import StorageFull, StoreUnavailable
from tus_server.disk.threads import FileThreads
from tus_server.objects.s3.body import PartBody
from tus_server.objects.s3.client import LONGEST_ANSWERS, S3Client
from tus_server.objects.s3.failures import ANY, Refused
from tus_server.objects.s3.metadata import encryption
from tus_server.objects.s3.options import S3Options


class Assembling:
    """Leaves nothing but what a call with an unknown outcome may have made."""

    def __init__(
        self, client: S3Client, options: S3Options, threads: FileThreads, target: dict[str, Any]
    ) -> None:
        self._client = client
        self._options = options
        self._threads = threads
        self._target = target

    async def find_refusal(self, sizes: Sequence[int]) -> str | None:
        """Tell why the store does not make an object of parts of `sizes`; None: it does.

        Raises: StoreUnavailable, StorageFull.
        """
        created = await self._client.call(
            "create_multipart_upload", accept=ANY, **self._target, **encryption(self._options)
        )
        upload = {**self._target, "UploadId": created["UploadId"]}
        try:
            parts = [
                {"PartNumber": number, "ETag": await self._send(upload, number, size)}
                for number, size in enumerate(sizes, 1)
            ]
            await self._client.call(
                "complete_multipart_upload",
                accept=ANY,
                timeout_s=LONGEST_ANSWERS * self._options.read_timeout_s,
                attempts=1,
                MultipartUpload={"Parts": parts},
                **upload,
            )
        except Refused as exc:
            await self._remove("abort_multipart_upload", upload)
            return exc.code
        await self._remove("delete_object", self._target)
        return None

    async def _send(self, upload: dict[str, Any], number: int, size: int) -> str:
        view = memoryview(bytes(size))
        answer = await self._client.send(
            "upload_part",
            lambda: PartBody([view], self._threads),
            accept=ANY,
            PartNumber=number,
            **upload,
        )
        return str(answer["ETag"])

    async def _remove(self, operation: str, arguments: dict[str, Any]) -> None:
        try:
            await self._client.call(operation, accept=ANY, **arguments)
        except (Refused, StoreUnavailable, StorageFull):
            pass  # it is looked for once more at the end
