"""URLs of state and store -> value. Pure: nothing is connected to."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from tus_server.settings.values import Unfit, checked_path

_POSTGRES: Final = ("postgresql", "postgres")
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._%-]*)(?::[0-9]{1,5})?", re.ASCII)
# AWS's rules, with the capitals and underscores that old buckets and other servers have.
_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{1,61})[A-Za-z0-9]", re.ASCII)
_PREFIX_PIECE = re.compile(r"[A-Za-z0-9._=@+~!,-]{1,255}", re.ASCII)
_MAX_PREFIX_CHARS: Final = 512  # S3 has 1,024 for a key


def is_postgres_url(url: str) -> bool:
    return _scheme(url) in _POSTGRES


def is_s3_url(url: str) -> bool:
    return _scheme(url) == "s3"


def check_state_url(url: str) -> str:
    if _scheme(url) in _POSTGRES:
        return check_postgres_url(url)
    parse_sqlite_url(url)
    return url


def check_store_url(url: str) -> str:
    if is_s3_url(url):
        parse_s3_url(url)
    else:
        parse_file_url(url)
    return url


def check_postgres_url(url: str) -> str:
    """Check the form; libpq's defaults for user, password and database stay the driver's."""
    url = url.strip()
    parts = urlsplit(url)
    if parts.scheme.lower() not in _POSTGRES or not re.fullmatch(r"[!-~]+", url) or parts.fragment:
        raise ValueError
    hosts = parts.netloc.rpartition("@")[2]
    if not url.lower().startswith(f"{parts.scheme}://") or "@" in parts.path:
        raise ValueError  # a / or @ in the password that is not %2F or %40
    if not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        raise ValueError
    query = dict(parse_qsl(parts.query, strict_parsing=True) if parts.query else ())
    if query.get("sslmode", "prefer") not in _SSL_MODES:
        raise Unfit(f"give one of {', '.join(_SSL_MODES)} as its sslmode")
    return url


def parse_sqlite_url(url: str) -> Path:
    """Give the file; three slashes are relative to the working directory, four absolute."""
    match = re.fullmatch(r"sqlite:///([^?#]*[^?#/])", url.strip(), re.IGNORECASE)
    if match is None or match[1] == ":memory:":
        raise ValueError
    return Path(checked_path(unquote(match[1])))


def parse_file_url(url: str) -> Path:
    """Give the folder; file:relative is relative to the working directory."""
    scheme, _, place = url.strip().partition(":")
    if scheme.lower() != "file" or re.search(r"[?#]", place):
        raise ValueError
    if place.startswith("//"):
        place = place[2:]
        if not place.startswith("/"):  # file://host/path
            raise ValueError
    return Path(checked_path(unquote(place)))


def parse_s3_url(url: str) -> tuple[str, str]:
    """Give bucket and prefix; the prefix is empty or ends with a slash."""
    match = re.fullmatch(r"s3://([^/]+)(?:/(.*))?", url.strip(), re.IGNORECASE | re.DOTALL)
    if match is None:
        raise ValueError
    bucket, prefix = match[1], (match[2] or "").removesuffix("/")
    if "@" in bucket:
        raise Unfit("leave keys out of it, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise Unfit("give a bucket name of 3 to 63 letters, digits and . _ - behind s3://")
    if not prefix:
        return bucket, ""
    pieces = prefix.split("/")
    fits = all(_PREFIX_PIECE.fullmatch(piece) and piece not in (".", "..") for piece in pieces)
    if not fits or len(prefix) >= _MAX_PREFIX_CHARS:
        raise Unfit(
            "give a prefix of letters, digits and . _ = @ + ~ ! , - with single slashes between,"
            " without ? and #"
        )
    return bucket, prefix + "/"


def _scheme(url: str) -> str:
    return url.strip().partition(":")[0].lower()
