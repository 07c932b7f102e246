"""What a finished upload is served as: type, coding and file name, from what the client said."""

from collections.abc import Mapping
from dataclasses import dataclass

from tus_server.wire.disposition import INLINE_TYPES, render_disposition, served_type
from tus_server.wire.metadata import find_text, parse_metadata
from tus_server.wire.rufh_metadata import CODING_KEY

# Those in use of IANA's registry; "identity" is none (RFC 9110, 8.4.1).
_CODINGS = frozenset({"aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "gzip", "zstd"})
_MAX_CODINGS = 4  # of one upload; each is undone by who reads it


@dataclass(frozen=True, slots=True)
class Content:
    """Values for Content-Type, Content-Disposition and Content-Encoding, safe as header fields."""

    content_type: str
    disposition: str
    coding: str | None = None


def describe_content(metadata: str | None, *, keeps_coding: bool = False) -> Content:
    """Describe an upload by its Upload-Metadata.

    keeps_coding: its bytes are what they are after a content coding, if it names one (R77).
    """
    found = parse_metadata(metadata)
    content_type = served_type(find_text(found, "filetype", "type", "contentType"))
    inline = content_type.partition(";")[0] in INLINE_TYPES
    disposition = render_disposition(find_text(found, "filename", "name"), inline=inline)
    return Content(content_type, disposition, _find_coding(found) if keeps_coding else None)


def _find_coding(found: Mapping[str, bytes]) -> str | None:
    """Give the codings in order; None if one of them is unknown: nobody could undo it."""
    names = (find_text(found, CODING_KEY) or "").split(",")
    codings = [name for text in names if (name := text.strip(" \t").lower())]
    if not codings or len(codings) > _MAX_CODINGS or not _CODINGS.issuperset(codings):
        return None
    return ", ".join(codings)
