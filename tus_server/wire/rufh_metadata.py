"""What RUFH says of a file in fields of its own, kept as Upload-Metadata (D5)."""

import re
from base64 import b64encode
from urllib.parse import unquote_to_bytes

from tus_server.core.errors import MalformedMetadata
from tus_server.wire.disposition import PARAMETER
from tus_server.wire.headers import Fields, media_type
from tus_server.wire.metadata import parse_metadata

# Under this name the content coding is kept; a download repeats it (R77).
CODING_KEY = "content-encoding"

# The types that tell how a body is sent, not what it is: tus-js-client has one on its creations.
_UPLOAD_TYPES = frozenset({b"application/partial-upload", b"application/offset+octet-stream"})
_EXTENDED = re.compile(r"utf-8'[^']*'([!#$&+.^_`|~0-9a-zA-Z%-]*)", re.IGNORECASE)  # RFC 8187, 3.2


def render_metadata(fields: Fields) -> str | None:
    """Give what a creation says of its file; None: nothing.

    A valid Upload-Metadata goes before the other fields, an invalid one is ignored (D5).
    """
    given = fields.find_joined(b"upload-metadata")
    pairs: list[str] = []
    try:
        known = parse_metadata(given)
    except MalformedMetadata:
        known = {}
    if known and given is not None:
        pairs.append(given)
    else:
        name = find_filename(fields.find_joined(b"content-disposition") or "")
        if name:
            pairs.append(_pair("filename", name))
        kind = fields.find_joined(b"content-type")
        if kind and media_type(kind.encode("latin-1")) not in _UPLOAD_TYPES:
            pairs.append(_pair("filetype", kind))
    coding = fields.find_joined(b"content-encoding")
    if coding and CODING_KEY not in known:
        pairs.append(_pair(CODING_KEY, coding))
    return ",".join(pairs) or None


def find_filename(disposition: str) -> str | None:
    """Find the file name in a Content-Disposition (RFC 6266); filename* goes first."""
    _, semicolon, rest = disposition.partition(";")
    parameters, position = semicolon + rest, 0
    plain: str | None = None
    while position < len(parameters):
        parameter = PARAMETER.match(parameters, position)
        if parameter is None:
            break  # what follows is malformed
        name, token, quoted = parameter.groups()
        position = parameter.end()
        value = token or re.sub(r"\\(.)", r"\1", quoted or "", flags=re.DOTALL)
        if name and name.lower() == "filename*":
            if (decoded := _decode_extended(value)) is not None:
                return decoded
        elif name and name.lower() == "filename" and plain is None:
            plain = _decode_plain(value)
    return plain


def _decode_extended(value: str) -> str | None:
    match = _EXTENDED.fullmatch(value)
    if match is None:
        return None
    try:
        return unquote_to_bytes(match[1]).decode()
    except UnicodeDecodeError:
        return None


def _decode_plain(value: str) -> str:
    """Read what clients put there as it is, in spite of RFC 6266: mostly UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _pair(key: str, value: str) -> str:
    return f"{key} {b64encode(value.encode()).decode()}"
