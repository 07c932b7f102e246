"""URLs by which a part of a direct upload is sent to this server: `/direct/{id}/{number}?...`."""

import re
from urllib.parse import parse_qsl

from tus_server.core.errors import SignatureRefused
from tus_server.core.ids import UploadId, find_upload_id

PREFIX = "/direct/"
_REST = re.compile(r"(?P<id>[^/]+)/(?P<number>[1-9][0-9]{0,5})", re.ASCII)
_MOST_PARAMETERS = 16


def find_part(path: str) -> tuple[UploadId, int] | None:
    """Give the upload and the number of the part that a path names; None: it names none."""
    match = _REST.fullmatch(path, len(PREFIX)) if path.startswith(PREFIX) else None
    upload_id = find_upload_id(match["id"]) if match else None
    return (upload_id, int(match["number"])) if match and upload_id else None


def parse_signed_query(query: bytes) -> dict[str, str]:
    """Give the parameters of a signed URL, each of which is there once. Raises SignatureRefused."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError as exc:
        raise SignatureRefused(
            "The URL has no query of a signed one: use it exactly as it was signed."
        ) from exc
    found = dict(pairs)
    if len(found) != len(pairs):
        raise SignatureRefused(
            "A parameter of the URL appears more than once: use it exactly as it was signed."
        )
    return found
