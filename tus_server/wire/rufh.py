"""RUFH ("Resumable Uploads for HTTP"): request fields to values, uploads to reply fields."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from tus_server.core.digests import SIZES
from tus_server.core.errors import (
    LengthInconsistent,
    MalformedHeader,
    UnsupportedMediaType,
    UploadTooLarge,
)
from tus_server.core.states import FINISHED
from tus_server.core.upload import Upload
from tus_server.wire.headers import Fields, media_type
from tus_server.wire.rufh_metadata import render_metadata
from tus_server.wire.rufh_versions import MissingFlag, Version
from tus_server.wire.structured import find_boolean, find_dictionary, find_integer

FLAGS = (b"upload-complete", b"upload-incomplete")
BODY_TYPE = b"application/partial-upload"

# What of RFC 9530 is looked at, by the names of core.digests.
_DIGESTS = {"sha-256": "sha256", "sha-512": "sha512"}

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyFields:
    """What a request says of the body it sends.

    completes: whether the body is the end of the upload; None: reaching the length decides.
    length: of the whole upload, None if the request says nothing of it. content: digests of the
    body; whole: digests of the upload, None: asked for.
    """

    completes: bool | None
    length: int | None
    content: Mapping[str, bytes]
    whole: Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationFields(BodyFields):
    """What a creation says. metadata: as in an Upload-Metadata field."""

    metadata: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendFields(BodyFields):
    """What an append says."""

    offset: int


def parse_creation(
    fields: Fields, version: Version, *, body_size: int | None, max_size: int
) -> CreationFields:
    """Read a POST. body_size: Content-Length, None for a chunked body.

    Raises: MalformedHeader, LengthInconsistent, UploadTooLarge.
    """
    completes = _find_flag(fields, version)
    if completes is None:
        raise MalformedHeader(f"{_shown(version.flag)} is needed, as ?0 or ?1.")  # D2
    if find_integer(fields, b"upload-offset"):
        raise MalformedHeader("An upload begins at offset 0.")  # D3
    return CreationFields(
        completes=completes,
        length=_find_length(fields, body_size if completes else None, max_size),
        content=_find_digests(fields, b"content-digest"),
        whole={**_wanted_digest(fields), **_find_digests(fields, b"repr-digest")},
        metadata=render_metadata(fields),
    )


def parse_append(
    fields: Fields, version: Version, *, body_size: int | None, max_size: int
) -> AppendFields:
    """Read a PATCH. body_size: Content-Length, None for a chunked body.

    Raises: UnsupportedMediaType, MalformedHeader, LengthInconsistent, UploadTooLarge.
    """
    if version.checks_type and media_type(fields.find(b"content-type")) != BODY_TYPE:
        raise UnsupportedMediaType(f"PATCH needs Content-Type: {BODY_TYPE.decode()}.")  # R46
    offset = find_integer(fields, b"upload-offset")
    if offset is None:
        raise MalformedHeader("Upload-Offset is missing, or no integer.")  # R47
    completes = _find_flag(fields, version)
    if completes is None:
        if version.missing_flag is MissingFlag.REFUSED:
            raise MalformedHeader(f"{_shown(version.flag)} is needed, as ?0 or ?1.")
        if version.missing_flag is MissingFlag.COMPLETES:
            # What is there and cannot be read says anything but that this is the end (before R5).
            if any(name in fields for name in FLAGS):
                raise MalformedHeader(f"{_shown(version.flag)} is not ?0 or ?1.")
            completes = True
    ends_at = offset + body_size if completes and body_size is not None else None
    return AppendFields(
        offset=offset,
        completes=completes,
        length=_find_length(fields, ends_at, max_size),
        content=_find_digests(fields, b"content-digest"),
        whole={**_wanted_digest(fields), **_find_digests(fields, b"repr-digest")},
    )


def check_no_body_fields(fields: Fields) -> None:
    """Raise MalformedHeader for what only a request with a body may say (D4)."""
    for name in (b"upload-offset", *FLAGS, b"upload-length"):
        if name in fields:
            raise MalformedHeader(f"{_shown(name)} has no place in this request.")


def render_status(upload: Upload, version: Version) -> Headers:
    """Give the fields of an offset retrieval but for the limits (R38-R40)."""
    fields = render_progress(upload, version)
    if upload.length is not None:
        fields.append((b"upload-length", b"%d" % upload.length))
    return fields


def render_progress(upload: Upload, version: Version) -> Headers:
    """Give offset and flag: complete is what the store has confirmed, not offset = length (R7)."""
    return [
        (b"upload-offset", b"%d" % upload.offset),
        version.render_flag(done=upload.state in FINISHED),
    ]


def render_digests(upload: Upload) -> Headers:
    """Give Repr-Digest of a finished upload, if somebody asked for one (R79)."""
    members = [
        b"%s=:%s:" % (name.encode(), b64encode(digest))
        for name, algorithm in _DIGESTS.items()
        if (digest := upload.digests.get(algorithm)) is not None
    ]
    return [(b"repr-digest", b", ".join(members))] if members else []


def _find_flag(fields: Fields, version: Version) -> bool | None:
    flag = find_boolean(fields, version.flag)
    return None if flag is None else flag is not version.inverse


def _find_length(fields: Fields, ends_at: int | None, max_size: int) -> int | None:
    """Give the length a request implies by its flag and Content-Length, or names (R9, R29)."""
    named = find_integer(fields, b"upload-length")
    if ends_at is None or named is None or named == ends_at:
        return ends_at if named is None else named
    if max(named, ends_at) > max_size:
        # The maximum is checked first (D8).
        raise UploadTooLarge(f"The largest upload taken has {max_size} bytes.")
    raise LengthInconsistent(f"Upload-Length is {named}, but the upload would end at {ends_at}.")


def _find_digests(fields: Fields, name: bytes) -> dict[str, bytes]:
    """Give the digests of a field of RFC 9530; of unknown algorithms nothing is said (R80)."""
    if name not in fields:
        return {}
    found: dict[str, bytes] = {}
    given = find_dictionary(fields, name)
    for member, algorithm in _DIGESTS.items():
        if member not in given:
            continue
        digest = given[member]
        # Ignoring it would store an unchecked body for a client that asked for a check.
        if not isinstance(digest, bytes) or len(digest) != SIZES[algorithm]:
            raise MalformedHeader(f"{_shown(name)}: {member} has {SIZES[algorithm]} bytes.")
        found[algorithm] = digest
    return found


def _wanted_digest(fields: Fields) -> dict[str, None]:
    """Give the algorithm that Want-Repr-Digest prefers (RFC 9530, 4)."""
    if b"want-repr-digest" not in fields:
        return {}
    given = find_dictionary(fields, b"want-repr-digest")
    # 0 is "not acceptable", 10 the most preferred.
    weights = {member: weight for member in _DIGESTS if (weight := _weight(given.get(member)))}
    if not weights:
        return {}
    preferred = max(weights, key=lambda member: weights[member])
    return {_DIGESTS[preferred]: None}


def _weight(value: object) -> int:
    return value if type(value) is int and 0 <= value <= 10 else 0


def _shown(name: bytes) -> str:
    return name.decode().title()
