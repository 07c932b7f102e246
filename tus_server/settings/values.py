"""Text of a setting -> value. Pure: no environment, no file system."""

import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from tus_server.core.errors import SettingsInvalid
from tus_server.wire.cors import Origins
from tus_server.wire.forwarded import TrustedProxies

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_BASE_PATH = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*")


class Unfit(ValueError):
    """The value does not do for a reason of its own; the message ends the sentence about it."""


def split_list(value: object) -> object:
    """Split comma text. Entries of an array may hold commas themselves (regular expressions)."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(item.strip() for item in value if item.strip())
    return value


def fold_case(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def blank_is_unset(value: object) -> object:
    """Take `TUS_X=` for unset, where unset has a meaning of its own."""
    return None if isinstance(value, str) and not value.strip() else value


def parse_path(value: object) -> object:
    # Neither env files nor TOML know a shell's ~.
    return Path(checked_path(value)).expanduser() if isinstance(value, str) else value


def parse_host(host: str) -> str:
    host = host.strip().removeprefix("[").removesuffix("]")
    if not _HOST_NAME.fullmatch(host):
        ip_address(host)  # IPv6, or a ValueError
    return host


def parse_base_path(path: str) -> str:
    """Make the path start and end with a slash."""
    inner = path.strip().strip("/")
    path = f"/{inner}/" if inner else "/"
    if not _BASE_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError
    return path


def parse_web_url(url: str) -> str:
    parts = urlsplit(url.strip())
    plain = not ("@" in parts.netloc or "?" in url or "#" in url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or not plain:
        raise ValueError
    if not re.fullmatch(r"[!-~]+", parts.geturl()):
        raise ValueError
    return parts.geturl().rstrip("/")


def check_proxies(proxies: tuple[str, ...]) -> tuple[str, ...]:
    return _check_by(TrustedProxies, proxies)


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    return _check_by(Origins, origins)


def check_field_names(names: tuple[str, ...]) -> tuple[str, ...]:
    # RFC 9110, 5.6.2: a token. `*` is one, and no wildcard where credentials are on.
    if not all(re.fullmatch(r"[!#$%&'+.^_`|~0-9A-Za-z-]{1,100}", name, re.ASCII) for name in names):
        raise ValueError
    return names


def check_node_name(name: str) -> str:
    # An id ends with it, and ids of other forms name no upload.
    if not re.fullmatch(r"[a-z0-9-]{1,16}", name.strip(), re.ASCII):
        raise ValueError
    return name.strip()


def checked_path(path: str) -> str:
    if not path.strip() or "\0" in path:
        raise ValueError
    return path


def _check_by(
    parse: Callable[[tuple[str, ...]], object], value: tuple[str, ...]
) -> tuple[str, ...]:
    try:
        parse(value)
    except SettingsInvalid as exc:
        words = exc.detail.removesuffix(".")
        raise Unfit(words[:1].lower() + words[1:]) from exc
    return value
