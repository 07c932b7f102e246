"""What is said about a wrong setting: its name, what was given, where, and what to give."""

import difflib
import re
from collections.abc import Iterable

from pydantic_core import ErrorDetails

from tus_server.settings.values import Unfit

_MAX_SHOWN_CHARS = 120


def render_wrong_setting(
    name: str, error: ErrorDetails, *, expects: str, origin: str, is_secret: bool = False
) -> str:
    """Render one sentence; `expects` is the remedy unless the error brings its own."""
    reason = error.get("ctx", {}).get("error")
    remedy = str(reason) if isinstance(reason, Unfit) else expects
    given = "'***'" if is_secret else _render_given(error["input"])
    return f"{name} is {given}{origin}: {remedy}."


def render_hint(name: str, known: Iterable[str]) -> str:
    """Render the end of a sentence about a name that is not among `known`."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else "."


def _render_given(value: object) -> str:
    """Render a value on one line, without the secrets that a URL may hold."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if "://" in text:
        text = re.sub(r"(?s)//.*@", "//***@", text)
        text = re.sub(r"(?s)\?.*", "?***", text)
    elif re.search(r":.*@", text):  # a URL without its slashes
        text = re.sub(r"(?s).*@", "***@", text)
    if len(text) > _MAX_SHOWN_CHARS:
        text = text[:_MAX_SHOWN_CHARS] + "..."
    return repr(text)
