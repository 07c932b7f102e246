"""Upload ids: how they are made and what passes for one."""

import re
import secrets
from typing import NewType

UploadId = NewType("UploadId", str)

# 128 random bits, then, in production, the label of the node that created the upload. Lower-case
# hex is safe in every URL, file name and S3 key, and never starts with '-' on a command line.
_PATTERN = re.compile(r"[0-9a-f]{32}(?:\.[a-z0-9-]{1,16})?", re.ASCII)


def new_upload_id(node_label: str | None = None) -> UploadId:
    """Make an unguessable id that was never used before."""
    random_part = secrets.token_hex(16)
    return UploadId(f"{random_part}.{node_label}" if node_label else random_part)


def find_upload_id(text: str) -> UploadId | None:
    """Give `text` as an id if it has the form of one; anything else names no upload."""
    return UploadId(text) if _PATTERN.fullmatch(text) else None


def random_part(upload_id: UploadId) -> str:
    """Give the 32 hex digits before the node's label: object keys are made of these."""
    return upload_id[:32]


def node_label(upload_id: UploadId) -> str | None:
    """Give the label of the node that an id names; None without one."""
    return upload_id[33:] or None
