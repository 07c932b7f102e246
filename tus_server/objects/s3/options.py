"""What an operator chooses about the S3 store, and what a probe finds out about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tus_server.core.parts import MIB

GIB = 1024 * MIB

# Amazon S3, "Multipart upload limits"; the other services follow them.
MIN_PART_SIZE = 5 * MIB
MAX_PART_SIZE = 5 * GIB
MAX_PARTS = 10_000
MAX_OBJECT_SIZE = 5 * 1024 * GIB


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where the bucket is and how to talk to it.

    region None: by the standard AWS chain, and us-east-1 for an endpoint without one. path_style
    None: only where an endpoint is given. parallel_parts: of one upload; max_concurrency: calls
    of this process that carry a body. operation_timeout_s: of one attempt at one such call, for
    every 64 MiB of it; no attempt begins later than that after the first.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    path_style: bool | None = None
    region: str | None = None
    key_template: str = "{prefix}{id}"
    part_size_bytes: int = 8 * MIB
    equal_parts: bool = False
    checksum: str = "auto"
    parallel_parts: int = 4
    max_concurrency: int = 32
    connect_timeout_s: float = 5
    read_timeout_s: float = 30
    operation_timeout_s: float = 120
    attempts: int = 4
    storage_class: str | None = None
    sse: str | None = None
    sse_kms_key_id: str | None = None
    acl: str | None = None
    tags: str | None = None
    presign_expires_s: int = 3600
    min_part_size: int = MIN_PART_SIZE
    max_part_size: int = MAX_PART_SIZE
    max_parts: int = MAX_PARTS
    max_object_size: int = MAX_OBJECT_SIZE


class ChecksumMode(StrEnum):
    """How far a store can be trusted with a CRC-64/NVME."""

    FULL_OBJECT = "full-object"  # of every part and of the whole; it keeps and tells the latter
    PART = "part"  # of every part, when it arrives
    NONE = "none"  # not at all: parts carry their MD5 instead


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What sending wrong values to a store has shown.

    conditional_puts, conditional_completes: PutObject, CompleteMultipartUpload keeps
    `If-None-Match: *`. multipart_etags: the ETag of a multipart object is the MD5 of the MD5s of
    its parts, so that it proves which parts it was made of.
    """

    checksum: ChecksumMode
    conditional_puts: bool
    conditional_completes: bool
    multipart_etags: bool = True


@dataclass(frozen=True, slots=True)
class Described:
    """What the object shall tell of itself; metadata as the user gave it, unescaped."""

    content_type: str | None
    content_disposition: str | None
    metadata: Mapping[str, str]
