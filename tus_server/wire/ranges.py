"""Byte ranges: the Range field of a download, and Content-Range (RFC 9110, section 14)."""

import re

from tus_server.core.errors import RangeNotSatisfiable

# RFC 9110, 14.1: unit names are compared without case. One range only: a list never matches.
_SINGLE_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.ASCII | re.IGNORECASE)

# A longer position lies behind the end of any file (lengths are 64 bit, T131), and int() refuses
# a few thousand digits with a ValueError.
_MAX_DIGITS = 19
_BEYOND = 10**_MAX_DIGITS


def parse_range(value: str, length: int) -> tuple[int, int] | None:
    """Give the half-open range of a file of `length` bytes that a Range field asks for.

    None: send the whole file. That is the answer to a malformed field (RFC 9110, 14.2: "MUST
    ignore"), to another unit, and to several ranges, which a server may ignore.
    Raises: RangeNotSatisfiable.
    """
    match = _SINGLE_RANGE.fullmatch(value)
    if match is None:
        return None
    first, last = match.groups()
    if first:
        return _from_first(_parse_position(first), _parse_position(last) if last else None, length)
    if last:
        return _from_suffix(_parse_position(last), length)
    return None


def render_content_range(start: int, end: int, length: int) -> str:
    """Render Content-Range for [start, end) of `length` bytes; its last position is inclusive."""
    return f"bytes {start}-{end - 1}/{length}"


def _from_first(start: int, last: int | None, length: int) -> tuple[int, int] | None:
    # RFC 9110, 14.1.1: an int-range is invalid if last-pos is less than first-pos.
    if last is not None and last < start:
        return None
    if start >= length:
        raise RangeNotSatisfiable(length)
    return start, length if last is None else min(last + 1, length)


def _from_suffix(size: int, length: int) -> tuple[int, int] | None:
    # RFC 9110, 14.1.2: a suffix is satisfiable if it is not zero, so "-5" of an empty file is;
    # but no Content-Range can say "no bytes", so the empty file is sent whole.
    if size == 0:
        raise RangeNotSatisfiable(length)
    return (max(0, length - size), length) if length else None


def _parse_position(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MAX_DIGITS else _BEYOND
