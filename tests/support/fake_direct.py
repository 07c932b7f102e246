"""A fake of ports.DirectParts beside FakeObjects, and the client that sends parts to it.

direct = FakeDirect(objects.disk, clock)
etag = direct.store(upload, 1, b"...")             # a part has arrived: whoever sent it, how ever
(request,) = await direct.sign_parts(...)
etag = await direct.put(request.url, b"...")       # what the client does with it
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from tests.support.fakes import FakeClock, PartsByNumber, StoredUpload, direct_etag
from tus_server.core.direct import part_range
from tus_server.core.ids import UploadId
from tus_server.core.upload import Part, Upload
from tus_server.ports import FoundPart, SignedRequest

FORBIDDEN, NOT_FOUND = 403, 404


class PutRefused(Exception):
    """The store does not take a part that a client sends."""

    def __init__(self, status: int) -> None:
        super().__init__(f"refused with {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class _Grant:
    """What whoever has a URL may do."""

    upload: Upload
    part: Part
    expires_at: datetime


class FakeDirect:
    """See ports.DirectParts: multipart uploads like S3. Whoever changes a URL has none."""

    def __init__(self, disk: dict[UploadId, StoredUpload], clock: FakeClock) -> None:
        """disk: of the FakeObjects that is to make objects of the parts."""
        self._disk = disk
        self._clock = clock
        self._granted: dict[str, _Grant] = {}
        self._numbers = itertools.count(1)

    async def begin(self, upload: Upload) -> str | None:
        assert upload.object_key is not None
        multipart_id = f"direct-{next(self._numbers)}"
        self._disk.setdefault(upload.id, StoredUpload()).multiparts[multipart_id] = {}
        await asyncio.sleep(0)
        return multipart_id

    async def sign_parts(
        self, upload: Upload, parts: Sequence[Part], *, expires_at: datetime
    ) -> list[SignedRequest]:
        assert upload.multipart_id is not None
        assert all(_is_planned(upload, part) for part in parts)
        await asyncio.sleep(0)
        signed = []
        for part in parts:
            url = (
                f"https://store.test/{quote(upload.object_key or '')}?partNumber={part.number}"
                f"&uploadId={upload.multipart_id}&signature={next(self._numbers)}"
            )
            self._granted[url] = _Grant(upload, part, expires_at)
            signed.append(SignedRequest("PUT", url, {}, expires_at))
        return signed

    async def find_stored(self, upload: Upload) -> dict[int, FoundPart] | None:
        await asyncio.sleep(0)
        return {
            number: FoundPart(len(content), direct_etag(content), None)
            for number, (_, content) in (self._parts(upload) or {}).items()
        }

    # --- the client

    async def put(self, url: str, content: bytes, *, method: str = "PUT") -> str:
        """Send what a signed request asks for; give the ETag. Raises: PutRefused."""
        await asyncio.sleep(0)
        grant = self._granted.get(url)
        is_granted = grant is not None and method == "PUT" and len(content) == grant.part.size
        if grant is None or not is_granted or self._clock.moment >= grant.expires_at:
            raise PutRefused(FORBIDDEN)
        return self.store(grant.upload, grant.part.number, content)

    def store(self, upload: Upload, number: int, content: bytes) -> str:
        """Let a part have arrived, of any size; give its ETag. Raises: PutRefused."""
        parts = self._parts(upload)
        if parts is None:
            raise PutRefused(NOT_FOUND)
        assert upload.part_size is not None
        parts[number] = (number - 1) * upload.part_size, content
        return direct_etag(content)

    def lose(self, upload: Upload, number: int) -> None:
        """Let the store lose a part."""
        parts = self._parts(upload)
        assert parts is not None
        del parts[number]

    def _parts(self, upload: Upload) -> PartsByNumber | None:
        stored = self._disk.get(upload.id, StoredUpload())
        return stored.multiparts.get(upload.multipart_id or "")


def _is_planned(upload: Upload, part: Part) -> bool:
    assert upload.length is not None
    assert upload.part_size is not None
    planned = part_range(part.number, length=upload.length, part_size=upload.part_size)
    return planned == (part.start, part.size)
