"""What the name of a job says of where it goes, and which names lead somewhere. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from tus_server.core.errors import JobRefused
from tus_server.jobs.addresses import find_literal, is_private

DEFAULT_QUEUE = "default"
MAX_NAME_CHARS = 2048
MAX_KWARGS_BYTES = 32 * 1024
_MAX_SHOWN_CHARS = 120

_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
_QUEUED = re.compile(r"procrastinate:(?:([!-.0-~]+)/)?([!-.0-~]+)")
_URL = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class WebhookJob:
    """POSTed to a URL."""

    url: str


@dataclass(frozen=True, slots=True)
class CallJob:
    """A Python callable, by its dotted path."""

    path: str


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A task of procrastinate."""

    queue: str
    task: str


JobPlace = WebhookJob | CallJob | QueuedJob


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRules:
    """Which names lead somewhere.

    prefixes: of dotted paths, whole pieces. allow_private: webhooks may go to private addresses,
    and in clear. has_queue: procrastinate is in the database of the state.
    """

    prefixes: tuple[str, ...] = ()
    allow_private: bool = False
    has_queue: bool = False

    def allows_path(self, path: str) -> bool:
        """Tell whether a dotted path is below one of the prefixes, or is one."""
        return any(f"{path}.".startswith(f"{prefix.rstrip('.')}.") for prefix in self.prefixes)

    def names(self, path: str) -> bool:
        """Tell whether one of the prefixes is this very path."""
        return any(path == prefix.rstrip(".") for prefix in self.prefixes)

    def __str__(self) -> str:
        """Name the forms that are taken."""
        forms = ["the https:// URL of a webhook"]
        if self.has_queue:
            forms.append("procrastinate:TASK or procrastinate:QUEUE/TASK")
        if self.prefixes:
            forms.append(f"the dotted path of a Python callable in {', '.join(self.prefixes)}")
        return ", or ".join(forms)


def parse_job_name(name: str, rules: JobRules) -> JobPlace:
    """Give where a job goes. Raises: JobRefused, which names what is allowed."""
    found = _read(name, rules)
    if isinstance(found, str):
        shown = name if len(name) <= _MAX_SHOWN_CHARS else f"{name[:_MAX_SHOWN_CHARS]}..."
        raise JobRefused(f"{shown!r} {found}.")
    return found


def find_fault(name: str, rules: JobRules) -> str | None:
    """Give what is wrong with a name, as the end of a sentence that begins with it."""
    found = _read(name, rules)
    return found if isinstance(found, str) else None


def check_kwargs(kwargs: Mapping[str, Any]) -> None:
    """Raise JobRefused unless these can be kept and passed on as JSON."""
    try:
        # Not as ASCII: a lone surrogate must show here, and not in a database or a queue.
        text = json.dumps(dict(kwargs), ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as exc:  # UnicodeEncodeError is a ValueError
        raise JobRefused("The kwargs of a job are a JSON object of Unicode text.") from exc
    if size > MAX_KWARGS_BYTES:
        raise JobRefused(
            f"The kwargs of a job have at most {MAX_KWARGS_BYTES} bytes as JSON, these {size}."
        )
    if _has_nul(kwargs):
        raise JobRefused("The kwargs of a job have no NUL character in them.")


@lru_cache(maxsize=1024)
def _read(name: str, rules: JobRules) -> JobPlace | str:
    """Give where a job goes, or why it goes nowhere."""
    if len(name) > MAX_NAME_CHARS:
        return f"is too long for the name of a job: give at most {MAX_NAME_CHARS} characters"
    scheme, colon, _ = name.partition(":")
    if colon and scheme.lower() in ("https", "http"):
        return _read_url(name, rules)
    if scheme == "procrastinate":
        return _read_queued(name, rules)
    if not _PATH.fullmatch(name):
        return f"is no name of a job: give {rules}"
    if not rules.prefixes:
        return f"is a dotted path, and TUS_JOB_PREFIXES allows none: give {rules}"
    if not rules.allows_path(name):
        return f"is not in what TUS_JOB_PREFIXES allows: give {rules}"
    return CallJob(name)


def _read_url(name: str, rules: JobRules) -> JobPlace | str:
    try:
        parts = urlsplit(name)
        is_url = bool(parts.hostname) and parts.port != 0 and _URL.fullmatch(name) is not None
    except ValueError:
        is_url = False
    if not is_url or "@" in parts.netloc or "#" in name:
        return "is no URL of a webhook: give one without user, password and fragment"
    if rules.allow_private:
        return WebhookJob(name)
    if parts.scheme.lower() != "https":
        return f"is not encrypted: give {rules}"
    address = find_literal(parts.hostname or "")
    if address is not None and is_private(address):
        return "names a private address: give a public one"
    return WebhookJob(name)


def _read_queued(name: str, rules: JobRules) -> JobPlace | str:
    if not rules.has_queue:
        return f"needs procrastinate in the Postgres of TUS_STATE_URL: give {rules}"
    found = _QUEUED.fullmatch(name)
    if found is None:
        return "names no task: give procrastinate:TASK or procrastinate:QUEUE/TASK"
    return QueuedJob(found[1] or DEFAULT_QUEUE, found[2])


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any(_has_nul(key) or _has_nul(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return any(_has_nul(one) for one in value)
    return False
