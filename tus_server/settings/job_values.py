"""Text of a setting for jobs and hooks -> value. Pure."""

import json
import re
from base64 import b64decode
from typing import Final
from urllib.parse import urlsplit

from tus_server.core.errors import JobRefused
from tus_server.core.jobs import Job
from tus_server.jobs.names import check_kwargs
from tus_server.jobs.tusd_wire import Hook
from tus_server.settings.values import Unfit

HOOKS: Final = tuple(hook.value for hook in Hook)
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


def parse_job(value: object) -> object:
    """Give the job of a name, of JSON, or of a table in the TOML file; where it leads is not
    looked at, for that depends on other settings.
    """
    if isinstance(value, str) and value.strip().startswith("{"):
        value = json.loads(value)
    if isinstance(value, str):
        return Job(value.strip()) if value.strip() else value
    if not isinstance(value, dict):
        return value
    name, kwargs = value.get("name"), value.get("kwargs", {})
    if not (isinstance(name, str) and isinstance(kwargs, dict)) or value.keys() - {
        "name",
        "kwargs",
    }:
        raise ValueError
    try:
        check_kwargs(kwargs)
    except JobRefused as exc:
        raise ValueError from exc
    return Job(name.strip(), kwargs)


def check_path(path: str) -> str:
    path = path.strip()
    if not _PATH.fullmatch(path):
        raise ValueError
    return path


def check_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    # With a dot at the end or without: whole pieces count in any case.
    return tuple(check_path(path.removesuffix(".")) for path in paths)


def check_secrets(secrets: tuple[str, ...]) -> tuple[str, ...]:
    for secret in secrets:
        prefix, _, encoded = secret.partition("_")
        if prefix != "whsec":
            raise ValueError
        padded = encoded + "=" * (-len(encoded) % 4)
        # https://www.standardwebhooks.com: between 24 and 64 bytes.
        if not 24 <= len(b64decode(padded, validate=True)) <= 64:
            raise ValueError
    return secrets


def check_hooks(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in HOOKS]
    if unknown:
        raise Unfit(f"{unknown[0]!r} is no hook of tusd; give some of {', '.join(HOOKS)}")
    return names or HOOKS


def check_hooks_url(url: str) -> str:
    url = url.strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError
    if not re.fullmatch(r"[!-~]+", url) or "#" in url:
        raise ValueError
    return url
