"""Direct uploads on local disk: this server signs the requests, and receives them itself.

A URL is bound to method, upload, part, size and end of its life by an HMAC-SHA256 over all of them;
without the key, which never leaves the data directory, nobody can make one or change it.
"""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from tus_server.core.errors import SignatureRefused
from tus_server.core.ids import UploadId
from tus_server.core.upload import Part, Upload
from tus_server.objects.local_part_file import LocalPartFile
from tus_server.objects.local_parts import LocalDisk
from tus_server.ports import FoundPart, PartFile, SignedRequest

METHOD = "PUT"
PARAMETERS = ("expires", "size", "signature")
# As they are signed: another spelling of the same number is another URL.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


class LocalDirect:
    """See ports.DirectParts and ports.PartFiles. key: the same for as long as URLs shall live."""

    def __init__(self, disk: LocalDisk, key: bytes) -> None:
        self._disk = disk
        self._key = key

    async def begin(self, upload: Upload) -> str | None:
        return None

    async def sign_parts(
        self, upload: Upload, parts: Sequence[Part], *, expires_at: datetime
    ) -> list[SignedRequest]:
        expires_s = int(expires_at.timestamp())
        ends_at = datetime.fromtimestamp(expires_s, UTC)
        return [
            SignedRequest(METHOD, self._url(upload.id, part, expires_s), {}, ends_at)
            for part in parts
        ]

    async def find_stored(self, upload: Upload) -> dict[int, FoundPart] | None:
        return None

    def open_part(self, upload: Upload, part: Part) -> PartFile:
        return LocalPartFile(self._disk, upload, part)

    def check_signature(
        self,
        upload_id: UploadId,
        number: int,
        *,
        method: str,
        query: Mapping[str, str],
        now: datetime,
    ) -> int:
        if set(query) != set(PARAMETERS):
            raise SignatureRefused(
                f"The query of a signed URL has {', '.join(PARAMETERS)} and nothing else:"
                " use the URL exactly as it was signed."
            )
        expires, size = query["expires"], query["size"]
        expected = self._sign(method, upload_id, str(number), size, expires)
        if not hmac.compare_digest(_bytes(expected), _bytes(query["signature"])):
            raise SignatureRefused(
                "The signature is not that of this method and URL: use the URL exactly as it was"
                " signed, or sign it again."
            )
        # Signed by us, so nothing else can be there; but int() takes more than this.
        assert _NUMBER.fullmatch(expires)
        assert _NUMBER.fullmatch(size)
        if now.timestamp() >= int(expires):
            ended_at = datetime.fromtimestamp(int(expires), UTC)
            raise SignatureRefused(f"The URL has expired at {ended_at:%FT%TZ}: sign it again.")
        return int(size)

    def _url(self, upload_id: UploadId, part: Part, expires_s: int) -> str:
        number, size, expires = str(part.number), str(part.size), str(expires_s)
        signature = self._sign(METHOD, upload_id, number, size, expires)
        return f"/direct/{upload_id}/{number}?expires={expires}&size={size}&signature={signature}"

    def _sign(self, *words: str) -> str:
        # A line for each word: a forged one with line breaks makes too many.
        text = "\n".join(("tus-server direct upload 1", *words))
        digest = hmac.digest(self._key, _bytes(text), "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
