"""tus 1.0.0: request fields to values, uploads to reply fields."""

from collections.abc import Sequence
from dataclasses import dataclass

from tus_server.core.errors import (
    HeadersTooLarge,
    MalformedHeader,
    MalformedRequest,
    UnsupportedMediaType,
    UnsupportedVersion,
)
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER, Upload
from tus_server.wire.headers import Fields, media_type
from tus_server.wire.metadata import parse_metadata

VERSION = b"1.0.0"
TUS_RESUMABLE = (b"tus-resumable", VERSION)  # in every reply (T4, T5)
BODY_TYPE = b"application/offset+octet-stream"
EXTENSIONS = ("creation", "creation-with-upload", "creation-defer-length", "termination")

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class CreationFields:
    """What a POST says of the new upload. length None: deferred."""

    length: int | None
    metadata: str | None


@dataclass(frozen=True, slots=True)
class AppendFields:
    """What a PATCH says. length None: nothing about the length."""

    offset: int
    length: int | None


def check_version(fields: Fields) -> None:
    """Raise UnsupportedVersion unless Tus-Resumable is exactly 1.0.0 (T6, T8)."""
    given = fields.find(b"tus-resumable")
    if given != VERSION:
        raise UnsupportedVersion(
            "Tus-Resumable is missing; this server speaks 1.0.0."
            if given is None
            else "This server speaks tus 1.0.0."
        )


def parse_creation(fields: Fields, *, has_body: bool, max_metadata_bytes: int) -> CreationFields:
    """Read a POST. Raises UnsupportedMediaType (T65), MalformedHeader, MalformedMetadata."""
    if has_body and media_type(fields.find(b"content-type")) != BODY_TYPE:
        raise UnsupportedMediaType(f"A body needs Content-Type: {BODY_TYPE.decode()}.")
    _refuse_unsupported(fields)
    length = fields.find_number(b"upload-length")
    deferred = fields.find(b"upload-defer-length")
    # tus 1.0.0, Upload-Defer-Length: its value MUST be 1, else 400 (T40).
    if deferred is not None and deferred != b"1":
        raise MalformedHeader("Upload-Defer-Length takes only the value 1.")
    if (length is None) == (deferred is None):
        raise MalformedRequest(
            "Upload-Length or Upload-Defer-Length: 1 is needed."
            if length is None
            else "Upload-Length and Upload-Defer-Length exclude each other."
        )
    metadata = fields.find_joined(b"upload-metadata")
    if metadata is not None and len(metadata) > max_metadata_bytes:
        raise HeadersTooLarge(f"Upload-Metadata may have {max_metadata_bytes} bytes.")
    # Only checked here: what is stored and echoed is the raw value (T47).
    if not parse_metadata(metadata):
        metadata = None
    return CreationFields(length, metadata)


def parse_append(fields: Fields) -> AppendFields:
    """Read a PATCH. Raises UnsupportedMediaType (T23), MalformedHeader."""
    # tus 1.0.0, PATCH: another Content-Type is 415; so is a missing one, body or not.
    if media_type(fields.find(b"content-type")) != BODY_TYPE:
        raise UnsupportedMediaType(f"PATCH needs Content-Type: {BODY_TYPE.decode()}.")
    _refuse_unsupported(fields)
    offset = fields.find_number(b"upload-offset")
    if offset is None:
        raise MalformedHeader("Upload-Offset is missing.")
    return AppendFields(offset, fields.find_number(b"upload-length"))


def _refuse_unsupported(fields: Fields) -> None:
    """Refuse what would change the meaning of the request and is not advertised (T9).

    Ignoring it would store an unchecked body for a client that asked for a check, or an ordinary
    upload for one that wants a partial one.
    """
    for name, extension in ((b"upload-checksum", "checksum"), (b"upload-concat", "concatenation")):
        if name in fields:
            raise MalformedHeader(f"This server does not offer the extension {extension}.")


def render_options(*, max_size: int, extensions: Sequence[str] = EXTENSIONS) -> Headers:
    """Give what OPTIONS tells of the server (T35, T36)."""
    return [
        (b"tus-version", VERSION),
        (b"tus-extension", ",".join(extensions).encode()),
        (b"tus-max-size", b"%d" % min(max_size, MAX_ANNOUNCED_INTEGER)),
        (b"accept-patch", BODY_TYPE),
    ]


def render_status(upload: Upload) -> Headers:
    """Give the fields of a HEAD (T15-T17, T47, T57, T58)."""
    fields = [(b"upload-offset", b"%d" % upload.offset)]
    if upload.length is None:
        fields.append((b"upload-defer-length", b"1"))
    else:
        fields.append((b"upload-length", b"%d" % upload.length))
    if upload.metadata is not None:
        fields.append((b"upload-metadata", upload.metadata.encode("latin-1")))
    return fields
