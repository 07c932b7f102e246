"""HTTP statuses of the errors, in one table a protocol, and the reply each becomes."""

from tus_server.core import errors as e
from tus_server.wire.problems import (
    COMPLETED_UPLOAD,
    CONTENT_TYPE,
    INCONSISTENT_LENGTH,
    MISMATCHING_OFFSET,
    render_problem,
)
from tus_server.wire.tus import VERSION, Headers

STATUSES: dict[type[e.TusServerError], int] = {
    e.MalformedRequest: 400,
    e.MalformedHeader: 400,
    e.MalformedMetadata: 400,
    e.LengthChanged: 400,
    e.LengthBelowOffset: 400,
    e.LengthInconsistent: 400,
    e.AlreadyCompleted: 400,
    e.DigestMismatch: 400,
    e.UnusablePartial: 400,
    e.ProtocolMismatch: 400,
    e.NoDirectUpload: 400,
    e.UnknownPart: 400,
    e.JobRefused: 400,
    e.ContentRefused: 400,  # of an upload, which is then in state error
    e.RefusedByHook: 400,  # the hook says another one
    e.Unauthenticated: 401,
    e.Forbidden: 403,
    e.FinalUpload: 403,
    e.SignatureRefused: 403,
    e.NotFound: 404,
    e.UploadNotFound: 404,
    e.MethodNotAllowed: 405,
    e.OffsetMismatch: 409,
    e.LeaseLost: 409,
    e.FileIdTaken: 409,
    e.RequestKeyTaken: 409,
    e.PartsDiffer: 409,
    e.PartBusy: 409,
    e.IllegalStep: 409,
    # Never 408: clients would give up (T30). Seen only where a connection cannot just be closed.
    e.BodyInterrupted: 409,
    e.UploadGone: 410,
    e.UnsupportedVersion: 412,
    e.PreconditionFailed: 412,
    e.UploadTooLarge: 413,
    e.BodyTooLarge: 413,
    e.RequestTooLarge: 413,
    e.AppendTooLarge: 413,
    e.UnsupportedMediaType: 415,
    e.RangeNotSatisfiable: 416,
    e.RequestKeyReused: 422,
    e.LeaseNotObtained: 423,
    e.HeadersTooLarge: 431,
    # tus 1.0.0, Checksum: a status of its own (T84).
    e.ChecksumMismatch: 460,
    e.StillFinishing: 503,
    e.CheckPostponed: 503,
    e.TooManyStreams: 503,
    e.DeliveryFailed: 503,
    e.StateUnavailable: 503,
    e.StoreUnavailable: 503,
    # Clients repeat it, and a repetition may reach the right node.
    e.TailMissing: 503,
    e.ShuttingDown: 503,
    e.BodyStopped: 503,
    e.BodyStalled: 503,
    e.ClientGone: 503,  # nobody is left to read it
    e.StorageFull: 507,
    e.PartsExhausted: 507,
    # Found gone for good (R3): the upload is in state error from then on.
    e.BytesMissing: 404,
    # For the command line and at start; never an answer.
    e.NothingToRewind: 409,
    e.NodeNameTaken: 500,
    e.SchemaMismatch: 500,
    e.DataDirInUse: 500,
    e.DataDirUnusable: 500,
    e.SettingsInvalid: 500,
}
# RUFH ends an upload on 4xx and lets clients repeat 5xx (D9); it has no statuses of its own.
RUFH_STATUSES = STATUSES | {
    e.BodyTooLarge: 400,
    e.ChecksumMismatch: 400,
    e.LeaseNotObtained: 503,
    e.UnsupportedVersion: 400,
}
# RUFH, Problem Types.
_RUFH_TYPES: dict[type[e.TusServerError], str] = {
    e.OffsetMismatch: MISMATCHING_OFFSET,
    e.LengthInconsistent: INCONSISTENT_LENGTH,
    e.LengthChanged: INCONSISTENT_LENGTH,
    e.LengthBelowOffset: INCONSISTENT_LENGTH,
    e.BodyTooLarge: INCONSISTENT_LENGTH,
    e.AlreadyCompleted: COMPLETED_UPLOAD,
}
RETRY_AFTER_S = 1

Rendered = tuple[int, Headers, bytes]


class Defect(e.TusServerError):
    """What an unexpected exception looks like from outside."""

    code, title = "internal_error", "The server has a defect"


def render_error(error: e.TusServerError, *, method: str) -> Rendered:
    """Give status, headers and body of a reply in tus, and where no protocol is spoken."""
    status = _find_status(error, STATUSES)
    passing = _is_passing(error)
    # Rule C1: clients start again at byte 0 after any failed HEAD but 423.
    if method == "HEAD" and (passing or isinstance(error, e.ConflictError) or status >= 500):
        status, passing = 423, True
    headers = _render_fields(error, passing=passing)
    if isinstance(error, e.OffsetMismatch) and method != "HEAD":
        headers.append((b"upload-offset", b"%d" % error.current))
    elif isinstance(error, e.UnsupportedVersion):
        headers.append((b"tus-version", VERSION))
    return _render(error, status, headers, method=method)


def render_rufh_error(
    error: e.TusServerError, *, method: str, tells_completed: bool = False
) -> Rendered:
    """Give status, headers and body of a reply in RUFH, a HEAD's status like any other (D9).

    What it says of the upload is the handler's. tells_completed: the version of the request knows
    a problem type for completed uploads.
    """
    status = _find_status(error, RUFH_STATUSES)
    headers = _render_fields(error, passing=_is_passing(error))
    kind = _RUFH_TYPES.get(type(error))
    if kind == COMPLETED_UPLOAD and not tells_completed:
        kind = INCONSISTENT_LENGTH
    members: dict[str, e.Member] = {}
    if isinstance(error, e.OffsetMismatch):
        members = {"expected-offset": error.current, "provided-offset": error.given}
    return _render(error, status, headers, method=method, kind=kind, members=members)


def _find_status(error: e.TusServerError, statuses: dict[type[e.TusServerError], int]) -> int:
    if isinstance(error, e.RefusedByHook):
        return error.status  # the application's to say
    return statuses.get(type(error), 500)


def _is_passing(error: e.TusServerError) -> bool:
    return isinstance(error, e.TryAgainError | e.StorageFull)


def _render_fields(error: e.TusServerError, *, passing: bool) -> Headers:
    headers: Headers = []
    if passing:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    if isinstance(error, e.MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    elif isinstance(error, e.RangeNotSatisfiable):
        headers.append((b"content-range", b"bytes */%d" % error.length))
    elif isinstance(error, e.TailMissing):
        headers.append((b"tus-error", error.code.encode()))
    elif isinstance(error, e.Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    elif isinstance(error, e.RefusedByHook):
        fields = {"content-type": "text/plain; charset=utf-8", **error.fields}
        headers += [
            (name.encode(), value.encode("latin-1"))
            for name, value in fields.items()
            # Of our own body we know the type.
            if name != "content-type" or error.body is not None
        ]
    return headers


def _render(
    error: e.TusServerError,
    status: int,
    headers: Headers,
    *,
    method: str,
    kind: str | None = None,
    members: dict[str, e.Member] | None = None,
) -> Rendered:
    """Add the problem document; a HEAD has none."""
    if method == "HEAD":
        return status, headers, b""
    if isinstance(error, e.RefusedByHook) and error.body is not None:
        return status, headers, error.body.encode(errors="replace")
    headers.append((b"content-type", CONTENT_TYPE))
    body = render_problem(
        status=status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        members=error.members | (members or {}),
        kind=kind,
    )
    return status, headers, body
