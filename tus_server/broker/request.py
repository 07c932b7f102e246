"""What an application says of an upload it begins -> the engine's command."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from tus_server.core.digests import ALGORITHMS, SIZES
from tus_server.core.errors import MalformedMetadata, MalformedRequest
from tus_server.core.jobs import Instructions, Job
from tus_server.core.upload import Protocol
from tus_server.engine.session import Initiate
from tus_server.engine.wishes import Wishes
from tus_server.wire.metadata import render_metadata

Kind = Literal["single", "multipart", "tus"]

MAX_FILE_ID_CHARS = 500
# HEAD repeats it to tus clients, and proxies take heads of 16 KiB or less.
MAX_METADATA_BYTES = 8 * 1024
MAX_NOTE_CHARS = 1000
# Idempotency-Key, draft-ietf-httpapi-idempotency-key-header: whatever the client makes unique.
KEY_PATTERN = r"[!-~]{1,255}"


class About(TypedDict, total=False):
    """What may be said of an upload.

    metadata: texts by name. checksum: algorithm and digest of the whole content, which the finished
    object has to have. file_id: what the application knows the file by; at most one upload of it is
    active. success_job, failure_job: one of them is enqueued, once. expires_in_s: until it is given
    up if it is not complete, whatever has arrived; without it bytes extend its life as that of any
    upload. idempotency_key: the same key and the same request give the same upload.
    part_size_bytes: of every part but the last, for a multipart upload whose client cuts the file
    by a rule of its own; without it the server plans.
    """

    filename: str | None
    content_type: str | None
    metadata: Mapping[str, str] | None
    file_id: str | None
    checksum: tuple[str, bytes] | None
    success_job: Job | None
    failure_job: Job | None
    expires_in_s: float | None
    require_acceptance: bool
    auto_complete: bool
    idempotency_key: str | None
    part_size_bytes: int | None


def make_command(kind: Kind, size: int | None, about: About) -> Initiate:
    """Give the command. Raises: MalformedRequest, MalformedMetadata."""
    if size is not None and size < 0:
        raise MalformedRequest(f"The size is {size}; it is a number of bytes.")
    metadata = dict(about.get("metadata") or {})
    for name, text in (
        ("filename", about.get("filename")),
        ("filetype", about.get("content_type")),
    ):
        if text is not None:
            metadata[name] = text
    key = about.get("idempotency_key")
    return Initiate(
        protocol=Protocol(kind),
        length=size,
        part_size=_checked_part_size(kind, about.get("part_size_bytes")),
        metadata=_rendered(metadata),
        digests=_checked_digests(about.get("checksum")),
        wishes=Wishes(
            file_id=checked_file_id(about.get("file_id")),
            request_key=checked_key(key),
            auto_complete=about.get("auto_complete", False),
            expires_in_s=_checked_seconds(about.get("expires_in_s")),
            instructions=Instructions(
                success_job=about.get("success_job"),
                failure_job=about.get("failure_job"),
                require_acceptance=about.get("require_acceptance", False),
                request_digest=None if key is None else _digest(kind, size, about),
                by_application=True,
                fixed_expiry=about.get("expires_in_s") is not None,
            ),
        ),
    )


def checked_key(key: str | None) -> str | None:
    """Give an Idempotency-Key. Raises: MalformedRequest."""
    if key is not None and not re.fullmatch(KEY_PATTERN, key):
        raise MalformedRequest("An Idempotency-Key has 1 to 255 visible ASCII characters.")
    return key


def checked_note(note: str | None) -> str | None:
    """Give what is said of a verdict. Raises: MalformedRequest."""
    if note is not None and (len(note) > MAX_NOTE_CHARS or not _is_text(note)):
        raise MalformedRequest(f"A note is a text of at most {MAX_NOTE_CHARS} characters.")
    return note or None


def checked_file_id(file_id: str | None) -> str | None:
    """Give what an application knows a file by. Raises: MalformedRequest."""
    if file_id is None:
        return None
    if not 1 <= len(file_id) <= MAX_FILE_ID_CHARS or not _is_text(file_id):
        raise MalformedRequest(f"A file_id is a text of 1 to {MAX_FILE_ID_CHARS} characters.")
    return file_id


def _rendered(metadata: Mapping[str, str]) -> str | None:
    rendered = render_metadata(metadata)
    if rendered is not None and len(rendered) > MAX_METADATA_BYTES:
        raise MalformedMetadata(
            f"Names and values, in Base64, have {len(rendered)} bytes together; at most"
            f" {MAX_METADATA_BYTES} are taken."
        )
    return rendered


def _checked_part_size(kind: Kind, part_size: int | None) -> int | None:
    if part_size is not None and kind != "multipart":
        raise MalformedRequest("part_size_bytes is for kind multipart: others have no parts.")
    return part_size


def _checked_seconds(seconds: float | None) -> float | None:
    # Ten years: a time that no clock is asked for is a slip.
    if seconds is not None and not 0 < seconds <= 10 * 365 * 86400:
        raise MalformedRequest("expires_in_s is a number of seconds above 0, at most ten years.")
    return seconds


def _checked_digests(checksum: tuple[str, bytes] | None) -> dict[str, bytes | None]:
    if checksum is None:
        return {}
    algorithm, digest = checksum
    if algorithm not in ALGORITHMS:
        raise MalformedRequest(
            f"The checksum's algorithm is {algorithm!r}; known are {', '.join(ALGORITHMS)}."
        )
    if len(digest) != SIZES[algorithm]:
        raise MalformedRequest(
            f"A checksum by {algorithm} has {SIZES[algorithm]} bytes, the one given {len(digest)}."
        )
    return {algorithm: digest}


def _is_text(text: str) -> bool:
    """Tell whether every database can hold it."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _digest(kind: Kind, size: int | None, about: About) -> str:
    """Tell one request from another that is made under the same key."""
    told: dict[str, Any] = {name: value for name, value in about.items() if value}
    told.pop("idempotency_key", None)
    told |= {"kind": kind, "size": size}
    text = json.dumps(told, sort_keys=True, default=_as_json)
    return hashlib.sha256(text.encode()).hexdigest()


def _as_json(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(value)
    assert dataclasses.is_dataclass(value)
    assert not isinstance(value, type)
    return dataclasses.asdict(value)
