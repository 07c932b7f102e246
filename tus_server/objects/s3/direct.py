"""DirectParts on the S3 API: the parts of a multipart upload, sent by clients with signed URLs."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from tus_server.core.errors import StoreUnavailable
from tus_server.core.upload import Part, Upload
from tus_server.objects.s3.bucket import Bucket
from tus_server.objects.s3.failures import Refused
from tus_server.objects.s3.signing import Address, PartSigner, find_address
from tus_server.ports import FoundPart, SignedRequest

# Amazon S3, "Authenticating Requests: Using Query Parameters", X-Amz-Expires.
LONGEST_S = 7 * 24 * 3600
SHORTEST_S = 1


def _utc_now() -> datetime:
    return datetime.now(UTC)


class S3Direct:
    """See ports.DirectParts. Durable when: S3 has answered the client; nobody tells this server."""

    def __init__(
        self, bucket: Bucket, address: Address, now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._bucket = bucket
        self._address = address
        self._now = now

    async def begin(self, upload: Upload) -> str | None:
        failures: list[Exception] = []
        multipart_id = await self._bucket.create(upload, failures)
        if failures:
            await self._check_alone(upload, multipart_id)
        return multipart_id

    async def sign_parts(
        self, upload: Upload, parts: Sequence[Part], *, expires_at: datetime
    ) -> list[SignedRequest]:
        """What it gives may end before `expires_at`: credentials for a time end with that time."""
        assert upload.object_key is not None
        assert upload.multipart_id is not None
        keys = await self._bucket.client.keys()
        if keys.expires_at is not None:
            expires_at = min(expires_at, keys.expires_at)
        signed_at = self._now().replace(microsecond=0)  # as it stands in the URL
        expires_s = _lasting(signed_at, expires_at)
        signer = PartSigner(
            self._address,
            keys,
            key=upload.object_key,
            multipart_id=upload.multipart_id,
            signed_at=signed_at,
            expires_s=expires_s,
        )
        ends_at = signed_at + timedelta(seconds=expires_s)
        return [
            SignedRequest("PUT", signer.sign(part.number, part.size), {}, ends_at) for part in parts
        ]

    async def find_stored(self, upload: Upload) -> dict[int, FoundPart] | None:
        if upload.multipart_id is None:
            return {}
        try:
            listed = await self._bucket.list_parts(upload)
        except Refused:
            return {}
        return {
            number: FoundPart(found.size, found.etag, found.crc64)
            for number, found in listed.items()
        }

    async def _check_alone(self, upload: Upload, multipart_id: str) -> None:
        """Raise if an attempt whose answer was lost has begun a multipart upload, too.

        Then the lease ends as one that leaves something, and what is left is looked for under the
        next one. Only the upload that was begun here is touched: nobody else knows its id.
        """
        self._bucket.doubt(upload)
        ids, _ = await self._bucket.list_multipart_ids(upload)
        if any(found != multipart_id for found in ids):
            await self._bucket.abort(upload, multipart_id)
            raise StoreUnavailable("S3 has begun this upload twice.")


def _lasting(signed_at: datetime, expires_at: datetime) -> int:
    """Give for how many seconds a URL may be used so that it ends by expires_at."""
    left_s = int((expires_at - signed_at).total_seconds())
    return max(SHORTEST_S, min(left_s, LONGEST_S))


async def open_direct(bucket: Bucket) -> S3Direct:
    """Find out where URLs of a bucket lead. Raises: StoreUnavailable (there are no credentials)."""
    key = "key"
    reference = await bucket.client.presign(
        "head_object", expires_s=SHORTEST_S, Bucket=bucket.options.bucket, Key=key
    )
    return S3Direct(bucket, find_address(reference, key))
