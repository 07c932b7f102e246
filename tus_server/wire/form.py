"""A form with one file, as browsers send it: multipart/form-data (RFC 7578). Pure.

The file is the last field, as in the forms that S3 takes: its size is known from the
Content-Length before its bytes are read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tus_server.core.errors import MalformedRequest

MEDIA_TYPE = b"multipart/form-data"
FILE_FIELD = "file"
MAX_HEAD_BYTES = 16 * 1024

# RFC 2046, 5.1.1: bchars; what is no token stands in quotes.
_BOUNDARY = re.compile(
    rb"""[^"]*;[ \t]*boundary=(?:"([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])\""""
    rb"""|([0-9A-Za-z'+_.-]{1,70}))[ \t]*(?:;.*)?""",
    re.IGNORECASE,
)
_NAME = re.compile(
    rb'^content-disposition:[ \t]*form-data[ \t]*;(?:[^"\r\n]*;)?[ \t]*name="([^"\r\n]*)"',
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class FormHead:
    """What a form has before the bytes of its file.

    fields: texts by name. size: of the head, in bytes. delimiter: what no file has in it, and what
    the end of a form begins with.
    """

    fields: Mapping[str, str]
    size: int
    delimiter: bytes

    @property
    def closing(self) -> bytes:
        """What follows the file."""
        return self.delimiter + b"--\r\n"

    def file_size(self, body_size: int) -> int:
        """Give the bytes of the file in a form of `body_size`. Raises: MalformedRequest."""
        size = body_size - self.size - len(self.closing)
        if size < 0:
            raise MalformedRequest("The form ends inside its file.")
        return size


class FileScan:
    """Looks for the end of the file in it: then it is not the last field."""

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._before = b""

    def feed(self, block: memoryview) -> None:
        """Look at the next bytes. Raises: MalformedRequest."""
        size = len(self._delimiter) - 1
        border = self._before + bytes(block[:size])
        # A copy and a search in it take a third of the time of a search in place, by `re`.
        if self._delimiter in border or self._delimiter in bytes(block):
            raise MalformedRequest("The file has to be the last field of the form.")
        self._before = (self._before + bytes(block[-size:]))[-size:]


def find_boundary(content_type: bytes) -> bytes:
    """Give the boundary that a Content-Type names. Raises: MalformedRequest."""
    match = _BOUNDARY.fullmatch(content_type)
    if match is None:
        raise MalformedRequest("The Content-Type of a form has to name its boundary.")
    return match[1] or match[2]


def parse_head(raw: bytes, boundary: bytes) -> FormHead | None:
    """Parse the beginning of a form; None: its file has not begun in so many bytes.

    Raises: MalformedRequest.
    """
    delimiter = b"\r\n--" + boundary
    fields: dict[str, str] = {}
    # The first one has no line before it.
    if not raw.startswith(delimiter[2 : 2 + len(raw)]):
        raise MalformedRequest("The form does not begin with its boundary.")
    at = len(delimiter) - 2
    while True:
        if not b"\r\n".startswith(raw[at : at + 2]):
            raise MalformedRequest(f"The form has no file: that is its last field, {FILE_FIELD!r}.")
        end = raw.find(b"\r\n\r\n", at)
        if end < 0:
            return None
        name = _find_name(raw[at:end])
        start = end + 4
        if name == FILE_FIELD:
            return FormHead(fields, start, delimiter)
        at = raw.find(delimiter, start)
        if at < 0:
            return None
        if name in fields:
            raise MalformedRequest(f"The form has the field {name!r} more than once.")
        fields[name] = _text(raw[start:at])
        at += len(delimiter)


def _find_name(headers: bytes) -> str:
    match = _NAME.search(headers)
    if match is None:
        raise MalformedRequest("A field of the form has no name.")
    return _text(match[1])


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise MalformedRequest("A field of the form is no UTF-8.") from exc
