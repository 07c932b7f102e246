"""Problem documents (RFC 9457): what an error says on the wire, in every protocol."""

import json

CONTENT_TYPE = b"application/problem+json"


def render_problem(
    *, status: int, code: str, title: str, detail: str, members: dict[str, int | str]
) -> bytes:
    """Give the body of an error reply. `code` is stable, `detail` is for people."""
    document: dict[str, int | str] = {"title": title, "status": status, "code": code}
    if detail:
        document["detail"] = detail
    return json.dumps(document | members).encode()
