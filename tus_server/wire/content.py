"""What a finished upload is served as: its type and its file name, from what the client said."""

from dataclasses import dataclass

from tus_server.wire.disposition import INLINE_TYPES, render_disposition, served_type
from tus_server.wire.metadata import find_text, parse_metadata


@dataclass(frozen=True, slots=True)
class Content:
    """Values for Content-Type and Content-Disposition, safe as header fields."""

    content_type: str
    disposition: str


def describe_content(metadata: str | None) -> Content:
    """Describe an upload by its Upload-Metadata."""
    found = parse_metadata(metadata)
    content_type = served_type(find_text(found, "filetype", "type", "contentType"))
    inline = content_type.partition(";")[0] in INLINE_TYPES
    disposition = render_disposition(find_text(found, "filename", "name"), inline=inline)
    return Content(content_type, disposition)
