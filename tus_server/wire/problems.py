"""Problem documents (RFC 9457): what an error says on the wire, in every protocol."""

import json

from tus_server.core.errors import Member

CONTENT_TYPE = b"application/problem+json"

# RUFH, Problem Types; in IANA's registry.
_TYPES = "https://iana.org/assignments/http-problem-types#"
MISMATCHING_OFFSET = f"{_TYPES}mismatching-upload-offset"
INCONSISTENT_LENGTH = f"{_TYPES}inconsistent-upload-length"
COMPLETED_UPLOAD = f"{_TYPES}completed-upload"


def render_problem(
    *,
    status: int,
    code: str,
    title: str,
    detail: str,
    members: dict[str, Member],
    kind: str | None = None,
) -> bytes:
    """Give the body of an error reply.

    `code` is stable, `detail` is for people, `kind` becomes the type.
    """
    document: dict[str, Member] = {"title": title, "status": status, "code": code}
    if kind is not None:
        document["type"] = kind
    if detail:
        document["detail"] = detail
    return json.dumps(document | members).encode()
