"""Text of an argument -> value; a wrong one ends the command with a sentence."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tus_server.cli.output import refuse
from tus_server.core.ids import UploadId, find_upload_id

API_PATH = "/api/uploads"

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_upload_id(text: str) -> UploadId:
    upload_id = find_upload_id(text)
    if upload_id is None:
        raise refuse(f"'{text}' is no upload id; it is the last part of an upload's URL.")
    return upload_id


def parse_endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise refuse(
            f"'{url}' is no URL; the last argument is the creation URL of a tus server, such as "
            "http://127.0.0.1:8080/files/."
        )
    return url


def parse_api_endpoint(url: str) -> str:
    """Give the URL at which direct uploads are begun, on the server that a URL is of."""
    parts = urlsplit(parse_endpoint(url))
    if "@" in parts.netloc:
        # Without the URL, which has a secret.
        raise refuse("the URL has a password; give a token as TUS_API_TOKEN or by --header.")
    path = parts.path.rstrip("/")
    # Any other path is that of uploads or pages; a server below a path has its API there.
    path = path if path.endswith(API_PATH) else API_PATH
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def with_token(headers: dict[str, str], token: str) -> dict[str, str]:
    """Give header fields that show a token, unless they show something else already."""
    if not token or "authorization" in map(str.lower, headers):
        return headers
    if not re.fullmatch(r"[!-~]+", token):
        raise refuse("TUS_API_TOKEN is no token: it has other than visible ASCII characters.")
    return headers | {"Authorization": f"Bearer {token}"}


def parse_file_id(text: str) -> str:
    if not text or metadata_text(text) != text:
        raise refuse("--file-id is no text of at least one character.")
    return text


def check_file(path: Path) -> None:
    if str(path) == "-":
        raise refuse("standard input cannot be sent, for it cannot be read again; name a file.")
    if path.is_dir():
        raise refuse(f"'{path}' is a directory; name the files in it.")
    if not path.exists():
        raise refuse(f"there is no file '{path}'.")
    if not path.is_file():
        raise refuse(f"'{path}' is no regular file.")
    if not os.access(path, os.R_OK):
        raise refuse(f"'{path}' may not be read by this user.")


def parse_metadata_pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    # tus 1.0.0, Upload-Metadata: the key MUST NOT contain spaces and commas and MUST NOT be empty.
    if not separator or not re.fullmatch(r"[!-+\--~]+", key):
        raise refuse(
            f"--metadata '{text}' is not KEY=VALUE with a key of visible ASCII characters "
            "without a comma."
        )
    return key, metadata_text(value)


def parse_header_field(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    value = value.strip()
    if (
        not separator
        or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
        or not re.fullmatch(r"[\t -~\x80-\xff]*", value)
    ):
        # Without the value, which is often a secret.
        raise refuse("--header is not 'NAME: VALUE' on one line.")
    return name, value


def parse_chunk_size(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        size = ByteSize(0)
    if size < 1:
        raise refuse(f"--chunk-size '{text}' is no size such as '64 MiB'.")
    return size


def parse_duration(option: str, text: str) -> float:
    """Give the seconds of `90m`, `36h`, `2d`."""
    found = re.fullmatch(r"([0-9]{1,9})\s*([smhdw])", text.strip(), re.ASCII)
    if not found or not int(found[1]):
        raise refuse(f"{option} '{text}' is no duration such as 90m, 36h or 2d.")
    return float(int(found[1]) * _SECONDS[found[2]])


def metadata_text(name: str) -> str:
    """Give a name with bytes that are not UTF-8 replaced, for metadata is text."""
    return os.fsencode(name).decode("utf-8", "replace")
