"""What can come back from S3 other than success, in our words.

An answer of S3 that the caller has asked for is `Refused`; everything else becomes
StoreUnavailable or StorageFull where the driver is called.
"""

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from tus_server.core.errors import StorageFull, StoreUnavailable


class _Any(frozenset[str]):
    """Every code that is not one of a passing trouble."""

    def __contains__(self, code: object) -> bool:
        return code not in _PASSING


# What the driver raises when no usable answer came. aiohttp's own errors show when a body is read.
DRIVER_ERRORS = (BotoCoreError, ResponseParserError, aiohttp.ClientError, OSError, TimeoutError)

NO_KEY = frozenset({"NoSuchKey", "NotFound", "404"})
# Swift answers NoSuchKey for an upload that became an object.
NO_UPLOAD = frozenset({"NoSuchUpload", "NoSuchKey", "NotFound", "404"})
# No such source, or no such range of it; or no such multipart upload.
NOT_COPIED = NO_KEY | NO_UPLOAD | {"InvalidRange", "InvalidRequest", "InvalidArgument", "416"}
EXISTS = frozenset({"PreconditionFailed", "412"})
# AWS and Swift; MinIO.
WRONG_CHECKSUM = frozenset(
    {"BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest", "XAmzContentSHA256Mismatch"}
)
_PASSING = frozenset(
    {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling",
     "ThrottlingException", "TooManyRequests", "OperationAborted", "ConditionalRequestConflict"}
)  # fmt: skip
ANY = _Any()
_FULL = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded",
     "NoSpaceLeftOnDevice"}
)  # fmt: skip


class Refused(Exception):
    """S3 has answered, and the answer is no."""

    def __init__(self, operation: str, error: ClientError) -> None:
        answer = error.response.get("Error", {})
        meta = error.response.get("ResponseMetadata", {})
        self.operation = operation
        self.code = str(answer.get("Code", "Unknown"))
        self.message = str(answer.get("Message", ""))
        self.status = int(meta.get("HTTPStatusCode", 0))
        self.headers: dict[str, str] = meta.get("HTTPHeaders", {})
        super().__init__(f"{operation}: {self.code} ({self.status})")

    @property
    def passing(self) -> bool:
        """Tell whether the same call may succeed in a moment.

        A wrong checksum of bytes that we have just computed is an accident of the way.
        """
        if self.code in _FULL:
            return False
        return (
            (self.status >= 500 and self.status != 501) or self.status == 429
        ) or self.code in _PASSING | WRONG_CHECKSUM

    def translated(self) -> StorageFull | StoreUnavailable:
        """Give it as one of our errors."""
        if self.code in _FULL or self.status == 507:
            return StorageFull(f"The object store has no room ({self.code}).")
        return StoreUnavailable(f"S3 refuses {self.operation} ({self.code}).")


def unavailable(operation: str, error: Exception) -> StorageFull | StoreUnavailable:
    """Give an error of the driver, or a refusal, as one of ours."""
    if isinstance(error, Refused):
        return error.translated()
    reason = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return StoreUnavailable(f"S3 does not answer {operation} ({reason}).")
