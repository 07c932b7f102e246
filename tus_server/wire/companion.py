"""What Uppy's S3 plugin asks at its `companionEndpoint`. Pure.

As @uppy/aws-s3 6.3.1 does it: src/s3-client/CompanionS3.ts, and S3Uploader.ts for the size of
parts. It tells name, type and `file.meta` of a file, and not its size, so that pages have to put
that into `meta`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from tus_server.core.errors import MalformedRequest
from tus_server.core.parts import MIB
from tus_server.wire.strict_json import parse_json

# What of the metadata is for this server, and not kept with the upload.
SIZE, PART_SIZE = "size", "part_size"
LEAST_PART_BYTES = 5 * MIB
MOST_PARTS = 10_000

_MOST_PARAMETERS = 200
_META = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
# How a query spells that there is no value: the plugin makes a text of whatever there is.
_NOTHING = frozenset({"null", "undefined"})


@dataclass(frozen=True, slots=True)
class Beginning:
    """A file the plugin is about to send. size, part_size: in bytes; None: the page did not say."""

    filename: str | None
    content_type: str | None
    metadata: Mapping[str, str]
    size: int | None
    part_size: int | None

    def planned_part_size(self) -> int:
        """Give the size of the parts that the plugin will cut the file into."""
        assert self.size is not None
        return plan_part_size(self.size, self.part_size)


def plan_part_size(size: int, wanted: int | None) -> int:
    """Give the size of parts by the plugin's own rule. wanted: what its getChunkSize gives."""
    part_size = max(-(-size // MOST_PARTS) if wanted is None else wanted, LEAST_PART_BYTES)
    if -(-size // part_size) > MOST_PARTS:
        part_size = -(-size // MOST_PARTS)
    return part_size


def parse_params(query: bytes) -> Beginning:
    """Parse the query of `/params`. Raises: MalformedRequest."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError as exc:
        raise MalformedRequest("The query is malformed, or has too many parameters.") from exc
    told = dict(pairs)
    found = {name: _META.fullmatch(name) for name in told}
    metadata = {match[1]: told[name] for name, match in found.items() if match is not None}
    kept = {name: text for name, text in metadata.items() if text not in _NOTHING}
    return _begin(told.get("filename"), told.get("type"), kept)


def parse_beginning(content: bytes) -> Beginning:
    """Parse the body of `POST /multipart`. Raises: MalformedRequest."""
    told = _object(parse_json(content))
    metadata = told.get("metadata")
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in _object({} if metadata is None else metadata).items()
        if value is not None
    }
    return _begin(_find_text(told, "filename"), _find_text(told, "type"), texts)


def parse_completion(content: bytes) -> list[tuple[int, str]]:
    """Parse the body of `POST .../complete`: number and ETag of every part.

    Raises: MalformedRequest.
    """
    parts = _object(parse_json(content)).get("parts")
    if not isinstance(parts, list):
        raise MalformedRequest("`parts` is a list of objects with PartNumber and ETag.")
    return [_parse_part(_object(part)) for part in parts]


def parse_part_number(text: str) -> int:
    """Parse the number of a part in a path. Raises: MalformedRequest."""
    if not _NUMBER.fullmatch(text):
        raise MalformedRequest("The number of a part is a whole number, from 1.")
    return int(text)


def _begin(filename: str | None, content_type: str | None, metadata: dict[str, str]) -> Beginning:
    size, part_size = metadata.pop(SIZE, None), metadata.pop(PART_SIZE, None)
    return Beginning(
        filename or None,
        content_type or None,
        metadata,
        _parse_size(SIZE, size),
        _parse_size(PART_SIZE, part_size),
    )


def _parse_size(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise MalformedRequest(f"`{name}` in the metadata is a number of bytes.")
    return int(text)


def _parse_part(part: dict[str, Any]) -> tuple[int, str]:
    number, etag = part.get("PartNumber"), part.get("ETag")
    if type(number) is not int or not isinstance(etag, str):
        raise MalformedRequest("A part has a number, PartNumber, and a text, ETag.")
    return number, etag


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedRequest("The body, its metadata and its parts are JSON objects.")
    return value


def _find_text(told: dict[str, Any], name: str) -> str | None:
    value = told.get(name)
    if value is not None and not isinstance(value, str):
        raise MalformedRequest(f"`{name}` is a text.")
    return value
