"""tus 1.0.0: request fields to values, uploads to reply fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import format_datetime

from tus_server.core.digests import ALGORITHMS
from tus_server.core.errors import (
    HeadersTooLarge,
    MalformedHeader,
    MalformedRequest,
    UnsupportedMediaType,
    UnsupportedVersion,
)
from tus_server.core.states import FINISHED, UNFINISHED
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER, Upload
from tus_server.wire.checksum import parse_checksum
from tus_server.wire.concat import parse_concat
from tus_server.wire.headers import Fields, media_type
from tus_server.wire.metadata import parse_metadata

VERSION = b"1.0.0"
TUS_RESUMABLE = (b"tus-resumable", VERSION)  # in every reply (T4, T5)
BODY_TYPE = b"application/offset+octet-stream"
EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "termination",
    "checksum",
    "checksum-trailer",
    "expiration",
    "concatenation",
    "concatenation-unfinished",
)
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class CreationFields:
    """What a POST says of the new upload. length None: deferred, or that of a final upload.

    concat: Upload-Concat as received. members: the URLs of what a final upload consists of; None
    for any other. checksum, checksum_follows: as for an append.
    """

    length: int | None
    metadata: str | None
    concat: str | None = None
    members: tuple[str, ...] | None = None
    checksum: tuple[str, bytes] | None = None
    checksum_follows: bool = False


@dataclass(frozen=True, slots=True)
class AppendFields:
    """What a PATCH says. length None: nothing about the length.

    checksum: algorithm and digest of the body. checksum_follows: they come behind the body.
    """

    offset: int
    length: int | None
    checksum: tuple[str, bytes] | None = None
    checksum_follows: bool = False


def check_version(fields: Fields) -> None:
    """Raise UnsupportedVersion unless Tus-Resumable is exactly 1.0.0 (T6, T8)."""
    given = fields.find_joined(b"tus-resumable")  # twice is another value, not bad syntax
    if given != VERSION.decode():
        raise UnsupportedVersion(
            "Tus-Resumable is missing; this server speaks 1.0.0."
            if given is None
            else "This server speaks tus 1.0.0."
        )


def parse_creation(
    fields: Fields, *, has_body: bool, max_metadata_bytes: int, has_trailers: bool = False
) -> CreationFields:
    """Read a POST. has_trailers: the server delivers what comes behind a chunked body.

    Raises: UnsupportedMediaType (T65), MalformedRequest, MalformedHeader, MalformedMetadata.
    """
    if has_body and media_type(fields.find(b"content-type")) != BODY_TYPE:
        raise UnsupportedMediaType(f"A body needs Content-Type: {BODY_TYPE.decode()}.")
    concat = fields.find(b"upload-concat")
    members = None if concat is None else parse_concat(concat.decode("latin-1"))
    length = _parse_length(fields, is_final=members is not None)
    checksum, follows = _parse_checksum(fields, has_trailers=has_trailers)
    metadata = fields.find_joined(b"upload-metadata")
    if metadata is not None and len(metadata) > max_metadata_bytes:
        raise HeadersTooLarge(f"Upload-Metadata may have {max_metadata_bytes} bytes.")
    # Only checked here: what is stored and echoed is the raw value (T47).
    if not parse_metadata(metadata):
        metadata = None
    return CreationFields(
        length,
        metadata,
        concat=None if concat is None else concat.decode("latin-1"),
        members=members,
        checksum=checksum,
        checksum_follows=follows,
    )


def _parse_length(fields: Fields, *, is_final: bool) -> int | None:
    length = fields.find_number(b"upload-length")
    deferred = fields.find(b"upload-defer-length")
    # tus 1.0.0, Upload-Defer-Length: its value MUST be 1, else 400 (T40).
    if deferred is not None and deferred != b"1":
        raise MalformedHeader("Upload-Defer-Length takes only the value 1.")
    if is_final:
        # tus 1.0.0, Concatenation: the client MUST NOT include Upload-Length here (T104).
        if length is not None or deferred is not None:
            raise MalformedRequest("The length of a final upload is that of its partial ones.")
        return None
    if (length is None) == (deferred is None):
        raise MalformedRequest(
            "Upload-Length or Upload-Defer-Length: 1 is needed."
            if length is None
            else "Upload-Length and Upload-Defer-Length exclude each other."
        )
    return length


def parse_append(fields: Fields, *, has_trailers: bool = False) -> AppendFields:
    """Read a PATCH. has_trailers: as for a creation.

    Upload-Concat says nothing here (T99). Raises UnsupportedMediaType (T23), MalformedHeader.
    """
    # tus 1.0.0, PATCH: another Content-Type is 415; so is a missing one, body or not.
    if media_type(fields.find(b"content-type")) != BODY_TYPE:
        raise UnsupportedMediaType(f"PATCH needs Content-Type: {BODY_TYPE.decode()}.")
    offset = fields.find_number(b"upload-offset")
    if offset is None:
        raise MalformedHeader("Upload-Offset is missing.")
    length = fields.find_number(b"upload-length")
    checksum, follows = _parse_checksum(fields, has_trailers=has_trailers)
    return AppendFields(offset, length, checksum, follows)


def _parse_checksum(fields: Fields, *, has_trailers: bool) -> tuple[tuple[str, bytes] | None, bool]:
    """Give the checksum, and whether one follows the body: only one announced counts (T89)."""
    value = fields.find(b"upload-checksum")
    # Only a chunked body has something behind it (RFC 9112, 7.1.2).
    may_follow = has_trailers and b"transfer-encoding" in fields
    follows = may_follow and "upload-checksum" in fields.names(b"trailer")
    if value is None:
        return None, follows
    if follows:  # T91
        raise MalformedHeader("Upload-Checksum comes before or after the body, not both.")
    return parse_checksum(value), False


def parse_late_checksum(trailers: Fields) -> tuple[str, bytes]:
    """Read what came behind a body whose checksum was announced. Raises MalformedHeader."""
    value = trailers.find(b"upload-checksum")
    if value is None:
        raise MalformedHeader("The Upload-Checksum that Trailer announced is missing.")
    return parse_checksum(value)


def extensions(*, expires: bool, has_trailers: bool) -> tuple[str, ...]:
    """Give those of EXTENSIONS that are on (T9). expires: unfinished uploads do (T70).

    has_trailers: the server that serves this connection delivers them (T90).
    """
    off = {"checksum-trailer": not has_trailers, "expiration": not expires}
    return tuple(name for name in EXTENSIONS if not off.get(name))


def render_options(*, max_size: int, extensions: Sequence[str] = EXTENSIONS) -> Headers:
    """Give what OPTIONS tells of the server (T35, T36, T79)."""
    return [
        (b"tus-version", VERSION),
        (b"tus-extension", ",".join(extensions).encode()),
        (b"tus-checksum-algorithm", ",".join(ALGORITHMS).encode()),
        (b"tus-max-size", b"%d" % min(max_size, MAX_ANNOUNCED_INTEGER)),
    ]


def render_status(upload: Upload) -> Headers:
    """Give the fields of a HEAD (T15-T17, T47, T57, T58, T109-T113)."""
    fields: Headers = []
    # tus 1.0.0, Concatenation: no Upload-Offset before the final upload is done (T109).
    if not upload.is_final or upload.state in FINISHED:
        fields.append((b"upload-offset", b"%d" % upload.offset))
    if upload.length is not None:
        fields.append((b"upload-length", b"%d" % upload.length))
    elif not upload.is_final:
        # The length of a final upload is not deferred: no PATCH will ever tell it (T112).
        fields.append((b"upload-defer-length", b"1"))
    if upload.metadata is not None:
        fields.append((b"upload-metadata", upload.metadata.encode("latin-1")))
    if upload.concat is not None:
        fields.append((b"upload-concat", upload.concat.encode("latin-1")))
    return fields


def render_expires(upload: Upload) -> Headers:
    """Give Upload-Expires; nothing for an upload that will not expire (T71, T72, T77)."""
    waits = upload.state in UNFINISHED or (upload.is_partial and upload.state in FINISHED)
    if upload.expires_at is None or not waits:
        return []
    # Cut to seconds, so that nothing expires before what was said (RFC 9110, 5.6.7: IMF-fixdate).
    date = format_datetime(upload.expires_at.astimezone(UTC), usegmt=True)
    return [(b"upload-expires", date.encode())]
