"""What a browser is told to do with a download: its Content-Disposition, and its type."""

import re
from urllib.parse import quote

# Types a browser shows without running a script of the uploader; anything else is an attachment.
# Never html, svg or xml. Not pdf either: viewers run script in it (CVE-2024-4367), and Chrome's
# shows nothing under `Content-Security-Policy: sandbox`. Compared without parameters.
INLINE_TYPES = frozenset(
    {
        "audio/aac",
        "audio/flac",
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "audio/wav",
        "audio/webm",
        "image/avif",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/plain",
        "video/mp4",
        "video/ogg",
        "video/webm",
    }
)
DEFAULT_TYPE = "application/octet-stream"

_MAX_NAME_BYTES = 255  # of one name, in the file systems people save to
_MAX_EXTENSION_BYTES = 32  # what is longer is no extension but a name with a dot in it

# Controls; bidi marks, which show "exe.gpj" as "jpg.exe"; line separators; lone surrogates, which
# UTF-8 cannot carry. Joiners stay: Persian and emoji need them.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# RFC 6266, appendix D: browsers decode %41 in a quoted string and do not all undo a backslash, so
# neither is in the fallback; nor is the quote, which would need one.
_NOT_IN_FALLBACK = re.compile(r'[^\x20-\x7e]|["%\\]')
_ATTR_CHARS = "!#$&+-.^_`|~"  # RFC 8187, 3.2.1: beside letters and digits

# RFC 6838, 4.2: narrower than a token of RFC 9110; "*/*" is no type.
_RESTRICTED_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_TYPE = re.compile(rf"{_RESTRICTED_NAME}/{_RESTRICTED_NAME}")
PARAMETER = re.compile(
    r";[ \t]*+(?:([!#$%&'*+.^_`|~0-9A-Za-z-]++)="
    r'(?:([!#$%&\'*+.^_`|~0-9A-Za-z-]++)|"((?:[^"\\]|\\.)*+)"))?[ \t]*+'
)
_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,39}")  # the form of IANA's names


def render_disposition(filename: str | None, *, inline: bool) -> str:
    """Render Content-Disposition (RFC 6266) with what is left of `filename` once it is safe."""
    kind = "inline" if inline else "attachment"
    name = _safe_name(filename or "")
    if not name:
        return kind
    fallback = _NOT_IN_FALLBACK.sub("_", name)
    if fallback == name:
        return f'{kind}; filename="{name}"'
    # The fallback first: RFC 6266, appendix D, for browsers that take the first they understand.
    return f"{kind}; filename=\"{fallback}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"


def served_type(claimed: str | None) -> str:
    """Give the Content-Type of a download from what its uploader claimed, lower-case.

    Parameters are dropped, but for a charset of text/plain. Safe as a field value, whatever comes.
    """
    essence, semicolon, parameters = (claimed or "").partition(";")
    essence = essence.strip(" \t").lower()
    if not _TYPE.fullmatch(essence):
        return DEFAULT_TYPE
    charset = _find_charset(semicolon + parameters) if essence == "text/plain" else None
    return f"{essence}; charset={charset}" if charset else essence


def _safe_name(filename: str) -> str:
    name = _UNSAFE.sub("", filename)  # before the cut: nothing may hide a separator or a dot
    name = _cut(re.split(r"[/\\]", name)[-1].strip())
    return name if name.strip(".") else ""


def _cut(name: str) -> str:
    if len(name.encode()) <= _MAX_NAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    suffix = dot + extension
    if not stem or len(suffix.encode()) > _MAX_EXTENSION_BYTES:
        stem, suffix = name, ""
    room = _MAX_NAME_BYTES - len(suffix.encode())
    # "ignore" drops the character the cut went through.
    return stem.encode()[:room].decode(errors="ignore").rstrip() + suffix


def _find_charset(parameters: str) -> str | None:
    """Find the charset among `;name=value` pairs; a malformed list has none."""
    found = None
    position = 0
    while position < len(parameters):
        parameter = PARAMETER.match(parameters, position)
        if parameter is None:
            return None
        name, token, quoted = parameter.groups()
        if found is None and name and name.lower() == "charset":
            found = token or quoted
        position = parameter.end()
    return found.lower() if found and _CHARSET.fullmatch(found) else None
