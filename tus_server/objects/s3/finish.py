"""Making the object of the stored parts, and knowing afterwards that it is the right one.

Complete may have succeeded although no answer came, or by another node: so every answer but a
clear success is followed by a look at the object. Parts that clients have sent to the store by
themselves are those with the ETags in the rows, and no others: the store compares them.
"""

import asyncio
from collections.abc import Sequence

from tus_server.core.errors import BytesMissing, PartsDiffer, StoreUnavailable
from tus_server.core.upload import Part, Upload
from tus_server.objects.s3.bucket import Bucket, Found, crc64_of, multipart_etag
from tus_server.objects.s3.client import FIRST_PAUSE_S, Answer
from tus_server.objects.s3.failures import EXISTS, NO_UPLOAD, WRONG_CHECKSUM, Refused
from tus_server.objects.s3.losses import Losses
from tus_server.objects.s3.verify import is_object_of, remove_other
from tus_server.ports import Confirm

# AWS, Swift, versitygw; MinIO says InvalidRequest for a part it does not know.
_WRONG_PART = frozenset({"InvalidPart", "InvalidRequest", "InvalidPartOrder"})

Listed = list[tuple[Part, str]]


class Finisher:
    """Completes uploads of one bucket."""

    def __init__(self, bucket: Bucket, losses: Losses) -> None:
        self._bucket = bucket
        self._losses = losses

    async def complete(
        self, upload: Upload, parts: Sequence[Part], confirm: Confirm | None
    ) -> int | None:
        """See ports.ObjectStore."""
        listed = [(part, part.etag or "") for part in parts]
        if not upload.is_direct:
            await self._complete(upload, listed, confirm)
            return upload.crc64
        for part in parts:
            if part.etag is None:
                raise _differs(part)
        await self._complete(upload, listed, confirm)
        # Nothing that was sent came by here, so that nothing but a look tells what it has become.
        found = await self._require_right(upload, listed)
        return found.crc64 if upload.crc64 is None else upload.crc64

    async def _complete(self, upload: Upload, listed: Listed, confirm: Confirm | None) -> None:
        if upload.multipart_id is None:
            await self._require_object(upload, listed, "S3 has no object of it")
            return
        pause_s = FIRST_PAUSE_S
        compared = False
        for attempt in range(1, self._bucket.options.attempts + 1):
            try:
                answer = await self._bucket.complete(
                    upload, listed, EXISTS | NO_UPLOAD | _WRONG_PART
                )
            except Refused as exc:
                if exc.code in NO_UPLOAD:
                    await self._require_object(upload, listed, "S3 has neither object nor parts")
                    return
                if exc.code in EXISTS:
                    if await self._adopt(upload, listed, confirm):
                        return
                    confirm = None  # one such object is an accident, two are not
                    continue
                if compared:
                    raise self._refused(upload, exc) from exc
                listed = await self._listed_by_store(upload, listed)
                compared = True
            except StoreUnavailable:
                if await self._is_there(upload, listed):
                    break
                if attempt == self._bucket.options.attempts:
                    raise
                await asyncio.sleep(pause_s)
                pause_s *= 2
            else:
                if not upload.is_direct:  # which complete() looks at in any case
                    await self._check(answer, upload, listed)
                break
        else:
            raise StoreUnavailable("S3 keeps refusing to complete the upload.")
        self._losses.found(upload)

    async def _check(self, answer: Answer, upload: Upload, listed: Listed) -> None:
        """Raise BytesMissing unless S3's success is the object that was promised."""
        told = Found(upload.length or 0, str(answer.get("ETag", "")), crc64_of(answer))
        if told.crc64 is not None and told.crc64 == upload.crc64:
            return
        expected = self._expected_etag(listed)
        if told.crc64 is None and expected is not None and told.etag.strip('"') == expected:
            return
        await self._require_right(upload, listed)

    async def _require_right(self, upload: Upload, listed: Listed) -> Found:
        """Give what the store tells of the object. Raises: StoreUnavailable, BytesMissing."""
        found = await self._bucket.find_object(upload)
        if found is None:
            raise StoreUnavailable("S3 has completed the upload and does not show the object yet.")
        if not await self._is_right(upload, found, listed):
            raise BytesMissing(f"The object of upload {upload.id} is not what was received.")
        return found

    async def _is_there(self, upload: Upload, listed: Listed) -> bool:
        """Tell whether the right object exists."""
        found = await self._bucket.find_object(upload)
        return found is not None and await self._is_right(upload, found, listed)

    async def _is_right(self, upload: Upload, found: Found, listed: Listed) -> bool:
        assert upload.length is not None
        return await is_object_of(
            self._bucket, upload, found, upload.length, upload.crc64, self._expected_etag(listed)
        )

    async def _require_object(self, upload: Upload, listed: Listed, denied: str) -> None:
        if not await self._is_there(upload, listed):
            raise self._losses.conclude(upload, f"Upload {upload.id}: {denied}.")
        self._losses.found(upload)

    async def _adopt(self, upload: Upload, listed: Listed, confirm: Confirm | None) -> bool:
        """Take the object at our key for ours, if there is one by now; False: there is none.

        One of other bytes, which an old writer put there late, is removed or raises BytesMissing.
        """
        found = await self._bucket.find_object(upload)
        if found is None:
            return False
        if not await self._is_right(upload, found, listed):
            await remove_other(self._bucket, upload, found, confirm)
            return False
        assert upload.multipart_id is not None
        if "-" not in found.etag:
            # It was put whole. One made of parts may be ours, by a Complete whose answer was lost:
            # Swift, killed in it, would take an abort and remove the segments of the object.
            await self._bucket.abort(upload, upload.multipart_id)
        self._losses.found(upload)
        return True

    async def _listed_by_store(self, upload: Upload, listed: Listed) -> Listed:
        """Give the row's parts with the ETags the store has for them.

        Raises: PartsDiffer, BytesMissing, StoreUnavailable (a part is not there, or is not the
        row's).
        """
        try:
            stored = await self._bucket.list_parts(upload)
        except Refused as exc:
            denied = f"Upload {upload.id}: S3 has no parts of it any more."
            raise self._losses.conclude(upload, denied) from exc
        found_listed: Listed = []
        for part, _ in listed:
            found = stored.get(part.number)
            if upload.is_direct and not (found and _is_recorded(found, part)):
                # What was never acknowledged here is not lost: the client has to send it again.
                raise _differs(part)
            if found is None or not _is_part(found, part):
                raise self._losses.conclude(
                    upload, f"Upload {upload.id}: part {part.number} is not in S3 as received."
                )
            found_listed.append((part, found.etag))
        return found_listed

    def _refused(self, upload: Upload, exc: Refused) -> Exception:
        if exc.code in WRONG_CHECKSUM:
            return BytesMissing(
                f"Upload {upload.id}: the parts in S3 are not what was received ({exc.code})."
            )
        return exc.translated()

    def _expected_etag(self, listed: Listed) -> str | None:
        if not self._bucket.capabilities.multipart_etags:
            return None
        return multipart_etag([etag for _, etag in listed]) if listed else None


def _is_part(found: Found, part: Part) -> bool:
    """Tell whether a listed part is the row's: by its checksum, or where none is told, its ETag."""
    if found.size != part.size:
        return False
    if found.crc64 is not None:
        return found.crc64 == part.crc64
    return _is_same_etag(found, part)


def _is_recorded(found: Found, part: Part) -> bool:
    """Tell whether a listed part is the one of a direct upload that was written down."""
    return found.size == part.size and _is_same_etag(found, part)


def _is_same_etag(found: Found, part: Part) -> bool:
    return found.etag.strip('"') == (part.etag or "").strip('"')


def _differs(part: Part) -> PartsDiffer:
    return PartsDiffer(
        f"Part {part.number} is not in the store as it was when the upload was completed.",
        part=part.number,
    )
