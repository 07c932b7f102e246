"""Cursors of lists: opaque to clients, the id of the last upload of a page to us. Pure."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

from tus_server.core.errors import MalformedRequest
from tus_server.core.ids import UploadId, find_upload_id


def render_cursor(upload_id: str) -> str:
    """Give the cursor behind an upload."""
    return urlsafe_b64encode(upload_id.encode()).decode().rstrip("=")


def find_cursor(text: str | None) -> UploadId | None:
    """Give the upload that a cursor is behind. Raises: MalformedRequest."""
    if text is None:
        return None
    try:
        decoded = urlsafe_b64decode(f"{text}{'=' * (-len(text) % 4)}").decode("ascii")
    except ValueError:
        decoded = ""
    upload_id = find_upload_id(decoded)
    if upload_id is None or render_cursor(upload_id) != text:
        raise MalformedRequest("The cursor is none that this server has given.")
    return upload_id
