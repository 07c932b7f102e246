"""Structured field values (RFC 9651) of a request, typed: what is of another type is absent.

RFC 9651, 4.2: a field that cannot be parsed is ignored, and so are fields of another type where
RUFH defines them (R4-R6). Lines of a repeated field are joined, so an Item given twice is none.
"""

from typing import cast

import http_sf

from tus_server.wire.headers import Fields

MAX_INTEGER = 10**15 - 1  # RFC 9651, 3.3.1


def find_integer(fields: Fields, name: bytes) -> int | None:
    """Give an Item that is a non-negative Integer."""
    value = _find_item(fields, name)
    # bool is an int in Python, but no Integer of RFC 9651.
    return value if type(value) is int and value >= 0 else None


def find_boolean(fields: Fields, name: bytes) -> bool | None:
    """Give an Item that is a Boolean."""
    value = _find_item(fields, name)
    return value if isinstance(value, bool) else None


def find_dictionary(fields: Fields, name: bytes) -> dict[str, object]:
    """Give the values of a Dictionary, without their parameters; empty if there is none."""
    value = fields.find_joined(name)
    if value is None:
        return {}
    try:
        parsed = http_sf.parse(value.encode("latin-1"), tltype="dictionary")
    except http_sf.StructuredFieldError:
        return {}
    members = cast(dict[str, tuple[object, object]], parsed)
    return {key: member for key, (member, _) in members.items()}


def _find_item(fields: Fields, name: bytes) -> object:
    value = fields.find_joined(name)
    if value is None:
        return None
    try:
        item = http_sf.parse(value.encode("latin-1"), tltype="item")
    except http_sf.StructuredFieldError:
        return None
    return cast(tuple[object, object], item)[0]
