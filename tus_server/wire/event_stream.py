"""Server-sent events: what goes over the wire (HTML, 9.2). Pure."""

CONTENT_TYPE = b"text/event-stream"
HEARTBEAT = b":\n\n"


def render_event(kind: str, text: bytes, *, event_id: int | None = None) -> bytes:
    """Give one event. text: of one line. event_id None: the last one stays what it was."""
    assert b"\n" not in text
    assert b"\r" not in text
    head = b"" if event_id is None else b"id: %d\n" % event_id
    return b"%sevent: %s\ndata: %s\n\n" % (head, kind.encode(), text)


def render_retry(after_ms: int) -> bytes:
    """Give what tells clients when to connect again."""
    return b"retry: %d\n\n" % after_ms


def find_last_id(field: str | None) -> int | None:
    """Give the position that Last-Event-ID names; None: none of ours."""
    if field is not None and field.isascii() and field.isdecimal() and len(field) < 10:
        return int(field)
    return None
