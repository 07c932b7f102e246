"""Digests of the whole content <-> the text that a row has of them."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping

_NONE = "{}"  # of nearly every upload


def render_digests(digests: Mapping[str, bytes | None]) -> str:
    """Give a JSON object: base64 by algorithm, null for one that is not known yet."""
    if not digests:
        return _NONE
    return json.dumps(
        {name: None if one is None else b64encode(one).decode() for name, one in digests.items()}
    )


def parse_digests(text: str) -> dict[str, bytes | None]:
    """Give back what render_digests() was given."""
    if text == _NONE:
        return {}
    stored: dict[str, str | None] = json.loads(text)
    return {name: None if one is None else b64decode(one) for name, one in stored.items()}
