"""The one tree of errors, split by who must act.

Each class has a stable `code` (seen by clients, logs and metrics) and a `title`. What happened this
time is the message; `members` become members of the problem document. HTTP statuses are not known
here: http/errors.py has them.
"""

from collections.abc import Mapping
from typing import ClassVar

Member = int | str | list[dict[str, str]]


class TusServerError(Exception):
    """Base of every error this package raises on purpose."""

    code: str  # of the class, but for codes that are the application's
    title: ClassVar[str]

    def __init__(self, detail: str = "", **members: Member) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.members = members


class ClientError(TusServerError):
    """The request must change before it can succeed."""


class ConflictError(TusServerError):
    """The request lost to another one, or rests on an outdated view; look again, then repeat."""


class TryAgainError(TusServerError):
    """Nothing is wrong with the request; the same one may succeed later."""


class OperatorError(TusServerError):
    """A person must act on the server: disk, schema, settings, lost files."""


# --- the client must act -------------------------------------------------------------------------


class MalformedRequest(ClientError):
    code, title = "malformed_request", "The request is malformed"


class MalformedHeader(MalformedRequest):
    code, title = "malformed_header", "A header field is malformed"


class MalformedMetadata(MalformedRequest):
    code, title = "malformed_metadata", "The Upload-Metadata field is malformed"


class HeadersTooLarge(ClientError):
    code, title = "headers_too_large", "The header fields are too large"


class UnsupportedVersion(ClientError):
    code, title = "unsupported_version", "The protocol version is missing or not supported"


class UnsupportedMediaType(ClientError):
    code, title = "unsupported_media_type", "The content type is not the one this method takes"


class Unauthenticated(ClientError):
    code, title = "unauthenticated", "Credentials are needed"


class Forbidden(ClientError):
    code, title = "forbidden", "This is not allowed"


class NotFound(ClientError):
    code, title = "not_found", "There is nothing here"


class UploadNotFound(NotFound):
    code, title = "upload_not_found", "No such upload"


class UploadGone(ClientError):
    code, title = "upload_gone", "The upload has expired"


class MethodNotAllowed(ClientError):
    code, title = "method_not_allowed", "This URL does not take that method"

    def __init__(self, allow: str) -> None:
        super().__init__(f"This URL takes {allow}.")
        self.allow = allow


class UploadTooLarge(ClientError):
    code, title = "upload_too_large", "The upload is larger than this server takes"


class BodyTooLarge(ClientError):
    code, title = "body_too_large", "The body is longer than the rest of the upload"


class AppendTooLarge(ClientError):
    """The body of one request is; a smaller one may follow it (RUFH, max-append-size)."""

    code, title = "append_too_large", "The body is larger than this server takes in one request"


class RequestTooLarge(ClientError):
    code, title = "request_too_large", "The body is larger than any that is meant"


class LengthChanged(ClientError):
    code, title = "length_changed", "The length of an upload cannot change once it is set"


class LengthBelowOffset(ClientError):
    code, title = "length_below_offset", "The length is smaller than what has arrived"


class ProtocolMismatch(ClientError):
    code, title = "protocol_mismatch", "The upload was created with another protocol"


class LengthInconsistent(ClientError):
    """What a request says of the length contradicts itself, or an earlier one (RUFH)."""

    code, title = "length_inconsistent", "The length of the upload is not consistent"


class AlreadyCompleted(ClientError):
    code, title = "already_completed", "The upload is complete and takes nothing more"


class ChecksumMismatch(ClientError):
    code, title = "checksum_mismatch", "The body is not what its checksum says"


class DigestMismatch(ClientError):
    code, title = "digest_mismatch", "The upload is not what its digest says"


class FinalUpload(ClientError):
    code, title = "final_upload", "A final upload consists of partial ones and takes no bytes"


class UnusablePartial(ClientError):
    code, title = "unusable_partial", "Upload-Concat names an upload that cannot be part of it"


class NoDirectUpload(ClientError):
    code, title = "no_direct_upload", "This upload takes no signed requests"


class UnknownPart(ClientError):
    code, title = "unknown_part", "The upload has no part of this number"


class JobRefused(ClientError):
    code, title = "job_refused", "The name of a job leads nowhere this server delivers to"


class RequestKeyReused(ClientError):
    code, title = "idempotency_key_reused", "Another request was made with this Idempotency-Key"


class SignatureRefused(ClientError):
    code, title = "signature_refused", "The signature of this URL is wrong, or has expired"


class ContentRefused(ClientError):
    """A check of the application refuses the content, with a code of the application's."""

    code, title = "content_refused", "The application refuses the content"

    def __init__(self, detail: str = "", *, code: str | None = None) -> None:
        super().__init__(detail)
        self.code = code or self.code


class RefusedByHook(ClientError):
    """The application's hook refused it. Members: what it said, where it said something."""

    code, title = "refused_by_hook", "The application refuses this"

    def __init__(
        self,
        detail: str = "",
        *,
        status: int = 400,
        body: str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.body = body
        self.fields = dict(fields or {})


class RangeNotSatisfiable(ClientError):
    code, title = "range_not_satisfiable", "No byte of the requested range exists"

    def __init__(self, length: int) -> None:
        super().__init__(f"The file has {length} bytes.")
        self.length = length


class PreconditionFailed(ClientError):
    code, title = "precondition_failed", "A precondition of the request does not hold"


# --- a conflict ----------------------------------------------------------------------------------


class OffsetMismatch(ConflictError):
    code, title = "offset_mismatch", "Upload-Offset is not the current offset"

    def __init__(self, *, current: int, given: int) -> None:
        super().__init__(f"The offset is {current}, the request named {given}.")
        self.current = current
        self.given = given


class FileIdTaken(ConflictError):
    """Members: upload, the active one; state."""

    code, title = "file_id_taken", "Another upload of this file_id is active"


class RequestKeyTaken(ConflictError):
    """Members: upload, the one that was created with the key."""

    code, title = "idempotency_key_taken", "An upload was created with this Idempotency-Key"


class PartsDiffer(ConflictError):
    """Not all parts are in the store as reported. Members: part, the first of them."""

    code, title = "parts_differ", "The parts that have arrived are not those that were reported"


class PartBusy(ConflictError):
    code, title = "part_busy", "The part was sent again meanwhile, or the upload has ended"


class IllegalStep(ConflictError):
    """Members: state, the one the upload is in."""

    code, title = "illegal_step", "The upload is not in a state from which this is possible"


class LeaseLost(ConflictError):
    code, title = "lease_lost", "Another request has taken the upload over"


class NothingToRewind(ConflictError):
    code, title = "nothing_to_rewind", "The upload has no tail that could be given up"


# --- later ---------------------------------------------------------------------------------------


class LeaseNotObtained(TryAgainError):
    code, title = "upload_locked", "Another request holds the upload and has not let go in time"


class StillFinishing(TryAgainError):
    code, title = "still_finishing", "All bytes are here; the finished file is not confirmed yet"


class CheckPostponed(TryAgainError):
    code, title = "check_postponed", "A check of the application did not give its verdict yet"


class DeliveryFailed(TryAgainError):
    """is_final: trying again does not help."""

    code, title = "delivery_failed", "An event could not be delivered"

    def __init__(self, detail: str = "", *, is_final: bool = False) -> None:
        super().__init__(detail)
        self.is_final = is_final


class TooManyStreams(TryAgainError):
    code, title = "too_many_streams", "Too many clients follow uploads on this server"


class StateUnavailable(TryAgainError):
    code, title = "state_unavailable", "The state store does not answer"


class StoreUnavailable(TryAgainError):
    code, title = "store_unavailable", "The object store does not take or give bytes"


class TailMissing(TryAgainError):
    """Acknowledged bytes are not where this request looks for them; nothing was changed (P4).

    Members: upload, tail_node, this_node, offset, committed_bytes, hint.
    """

    code, title = "tus_tail_missing", "The last bytes of this upload are not on this node"


class ShuttingDown(TryAgainError):
    code, title = "shutting_down", "The server is shutting down"


class BodyStopped(TryAgainError):
    """Reading a request body ended before the body did; what had arrived is kept."""

    code, title = "body_stopped", "The body was not read to its end"


class BodyStalled(BodyStopped):
    code, title = "body_stalled", "No byte of the body arrived for too long"


class ClientGone(BodyStopped):
    code, title = "client_gone", "The client closed the connection"


class BodyInterrupted(BodyStopped):
    code, title = "body_interrupted", "Another request asked this one to let go of the upload"


# --- an operator must act ------------------------------------------------------------------------


class StorageFull(OperatorError):
    code, title = "storage_full", "There is no space left for this upload"


class PartsExhausted(OperatorError):
    """So many leases of an upload have ended in crashes that the part numbers left do not do."""

    code, title = "parts_exhausted", "The store has no part numbers left for this upload"


class BytesMissing(OperatorError):
    code, title = "bytes_missing", "Committed bytes of this upload are not in the store"


class NodeNameTaken(OperatorError):
    code, title = "node_name_taken", "Another node has this name"


class SchemaMismatch(OperatorError):
    code, title = "schema_mismatch", "The data were written by another version of the schema"


class DataDirInUse(OperatorError):
    code, title = "data_dir_in_use", "Another server uses this data directory"


class DataDirUnusable(OperatorError):
    code, title = "data_dir_unusable", "The data directory cannot be used"


class SettingsInvalid(OperatorError):
    code, title = "settings_invalid", "A setting is wrong"
