"""Upload-Concat: which upload is partial, and what a final one consists of (tus 1.0.0)."""

from urllib.parse import unquote, urljoin, urlsplit

from tus_server.core.errors import MalformedHeader
from tus_server.core.ids import UploadId, find_upload_id
from tus_server.wire.headers import excerpt

PARTIAL = "partial"
MAX_MEMBERS = 1000  # of a final upload
_FINAL = "final;"


def parse_concat(raw: str) -> tuple[str, ...] | None:
    """Give the URLs that a final upload consists of, in order; None: the upload is partial.

    What they name is not looked at. Raises MalformedHeader (T115).
    """
    if raw == PARTIAL:
        return None
    # HEAD repeats the field as it came (T113), so nothing may be in it that no reply can carry.
    if not (raw.startswith(_FINAL) and raw.isascii() and raw.isprintable()):
        raise MalformedHeader(
            f"Upload-Concat is {excerpt(raw)};"
            " it must be `partial`, or `final;` and URLs with a space between them."
        )
    members = tuple(member for member in raw[len(_FINAL) :].split(" ") if member)
    if not members:
        raise MalformedHeader("Upload-Concat names no partial upload.")
    if len(members) > MAX_MEMBERS:
        raise MalformedHeader(
            f"Upload-Concat names {len(members)} uploads; at most {MAX_MEMBERS} are joined."
        )
    return members


def resolve(url: str, base_path: str, *, public_path: str = "") -> UploadId | None:
    """Give the upload that a URL names, None if it is none of ours (T114).

    By its path alone: behind a proxy our own scheme and host are not known. base_path: of the
    creation URL, with its slash. public_path: what clients see before it, and a proxy takes away.
    """
    try:
        path = unquote(urlsplit(urljoin(base_path, url)).path)
    except ValueError:  # no host in the brackets, or none at all
        return None
    if public_path and path.startswith(public_path + base_path):
        path = path[len(public_path) :]
    if not path.startswith(base_path):
        return None
    return find_upload_id(path[len(base_path) :].removesuffix("/"))
