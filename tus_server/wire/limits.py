"""Upload-Limit: what a RUFH server takes, and how long an upload lives (RUFH, Upload Limits)."""

from tus_server.wire.structured import MAX_INTEGER


def render_limits(
    *, max_size: int, max_append_size: int | None, lifetime_key: bytes, left_s: float | None
) -> tuple[bytes, bytes]:
    """Give Upload-Limit. left_s: until the upload expires; None: it does not."""
    # Never empty: a server without limits says so by min-size=0 (R18).
    members = [b"min-size=0", b"max-size=%d" % min(max_size, MAX_INTEGER)]
    if max_append_size is not None:
        members.append(b"max-append-size=%d" % min(max_append_size, MAX_INTEGER))
    if left_s is not None:
        # Cut to seconds, so that nothing expires before what was said.
        members.append(b"%s=%d" % (lifetime_key, max(0, int(left_s))))
    return b"upload-limit", b", ".join(members)
