"""HTTP statuses of the errors, in one table, and the reply each becomes."""

from tus_server.core import errors as e
from tus_server.wire.problems import CONTENT_TYPE, render_problem
from tus_server.wire.tus import VERSION, Headers

STATUSES: dict[type[e.TusServerError], int] = {
    e.MalformedRequest: 400,
    e.MalformedHeader: 400,
    e.MalformedMetadata: 400,
    e.LengthChanged: 400,
    e.LengthBelowOffset: 400,
    e.ProtocolMismatch: 400,
    e.Unauthenticated: 401,
    e.Forbidden: 403,
    e.NotFound: 404,
    e.UploadNotFound: 404,
    e.MethodNotAllowed: 405,
    e.OffsetMismatch: 409,
    e.LeaseLost: 409,
    # Never 408: clients would give up (T30). Seen only where a connection cannot just be closed.
    e.BodyInterrupted: 409,
    e.UploadGone: 410,
    e.UnsupportedVersion: 412,
    e.PreconditionFailed: 412,
    e.UploadTooLarge: 413,
    e.BodyTooLarge: 413,
    e.UnsupportedMediaType: 415,
    e.RangeNotSatisfiable: 416,
    e.LeaseNotObtained: 423,
    e.HeadersTooLarge: 431,
    e.StillFinishing: 503,
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
RETRY_AFTER_S = 1


class Defect(e.TusServerError):
    """What an unexpected exception looks like from outside."""

    code, title = "internal_error", "The server has a defect"


def render_error(error: e.TusServerError, *, method: str) -> tuple[int, Headers, bytes]:
    """Give status, headers and body of the reply; a HEAD has no body."""
    status = STATUSES.get(type(error), 500)
    # Rule C1: clients start again at byte 0 after any failed HEAD but 423.
    passing = isinstance(error, e.TryAgainError | e.StorageFull)
    if method == "HEAD" and (passing or isinstance(error, e.ConflictError) or status >= 500):
        status, passing = 423, True
    headers: Headers = []
    if passing:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    if isinstance(error, e.OffsetMismatch) and method != "HEAD":
        headers.append((b"upload-offset", b"%d" % error.current))
    elif isinstance(error, e.MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    elif isinstance(error, e.UnsupportedVersion):
        headers.append((b"tus-version", VERSION))
    elif isinstance(error, e.RangeNotSatisfiable):
        headers.append((b"content-range", b"bytes */%d" % error.length))
    elif isinstance(error, e.TailMissing):
        headers.append((b"tus-error", error.code.encode()))
    elif isinstance(error, e.Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    if method == "HEAD":
        return status, headers, b""
    headers.append((b"content-type", CONTENT_TYPE))
    body = render_problem(
        status=status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        members=error.members,
    )
    return status, headers, body
