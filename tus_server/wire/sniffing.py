"""The content type that the first bytes of a file tell, whatever its sender claims."""

import puremagic


def sniff_type(head: bytes) -> str | None:
    """Give the media type of content that begins with `head`; None where nothing tells it."""
    try:
        found: str = puremagic.from_string(head, mime=True)
    except (puremagic.PureError, ValueError):
        return None
    return found or None
