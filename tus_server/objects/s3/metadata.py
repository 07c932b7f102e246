"""What an object tells of itself: its headers and its user metadata, escaped."""

import re
from typing import Any
from urllib.parse import quote

from tus_server.objects.s3.options import Described, S3Options

# Amazon S3, "User-defined object metadata": 2 KB, the sum of the bytes of all keys and values.
MAX_METADATA_BYTES = 2048
_NOT_IN_KEYS = re.compile(r"[^a-z0-9_-]")
_PLAIN = re.compile(r"[\x20-\x7e]*")


def object_fields(options: S3Options, described: Described) -> dict[str, Any]:
    """Give the arguments with which the object comes into being."""
    fields: dict[str, Any] = {
        "ContentType": _header(described.content_type),
        "ContentDisposition": _header(described.content_disposition),
        "StorageClass": options.storage_class,
        "ACL": options.acl,
        "Tagging": options.tags,
        "Metadata": escaped_metadata(described) or None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return given | encryption(options)


def encryption(options: S3Options) -> dict[str, Any]:
    """Give the arguments with which the store encrypts what it keeps."""
    fields = {"ServerSideEncryption": options.sse, "SSEKMSKeyId": options.sse_kms_key_id}
    return {name: value for name, value in fields.items() if value is not None}


def escaped_metadata(described: Described) -> dict[str, str]:
    """Give user metadata as S3 takes it; nothing of it where it is more than S3 keeps.

    Keys become lower-case names of header fields, values percent-encoded UTF-8 where they are not
    plain ASCII (a '%' is always encoded, so that it can be undone).
    """
    escaped: dict[str, str] = {}
    for name, value in described.metadata.items():
        plain = _PLAIN.fullmatch(value) and "%" not in value and value == " ".join(value.split())
        key = _NOT_IN_KEYS.sub("-", name.lower())
        escaped.setdefault(key, value if plain else quote(value, safe=""))
    size = sum(len(name) + len(value) for name, value in escaped.items())
    return escaped if size <= MAX_METADATA_BYTES else {}


def _header(value: str | None) -> str | None:
    """Keep a header's value only where it can stand in one."""
    return value if value and _PLAIN.fullmatch(value) else None
