"""The Prefer field: how long a client wants to wait for an answer (RFC 7240). Pure."""

import re

# RFC 7240, 2: preferences with commas between, each with parameters that mean nothing here.
_WAIT = re.compile(r'[ \t]*wait[ \t]*=[ \t]*"?([0-9]{1,9})"?[ \t]*(?:;.*)?', re.IGNORECASE)


def find_wait_s(prefer: str | None, *, most_s: int) -> int | None:
    """Give the seconds of `wait`, at most `most_s`; None: it is not asked for.

    RFC 7240, 2: of a preference that is given twice the first counts, one that is not understood is
    as if it were not there.
    """
    for member in (prefer or "").split(","):
        match = _WAIT.fullmatch(member)
        if match is not None:
            return min(int(match[1]), most_s)
    return None
