"""Keys: where the objects of an upload are, made from the template of the settings."""

import re
from hashlib import sha256
from urllib.parse import quote

from tus_server.core.ids import random_part
from tus_server.core.upload import Upload
from tus_server.objects.s3.options import S3Options

# Stores that keep an object as a file take 255 bytes between two slashes; the template and the
# suffix of a parked tail need some of them.
MAX_OWNER_BYTES = 160
ANONYMOUS = "anonymous"
_TAIL = re.compile(r"\.tail\.(\d+)")


def make_key(options: S3Options, upload: Upload) -> str:
    """Give the key for a new upload; kept in its row, so that a new template changes no old key."""
    created = upload.created_at
    return options.key_template.format(
        prefix=options.prefix,
        id=random_part(upload.id),
        owner=escaped(upload.owner or ANONYMOUS),
        date=created.strftime("%Y-%m-%d"),
        year=created.strftime("%Y"),
        month=created.strftime("%m"),
        day=created.strftime("%d"),
    )


def escaped(owner: str) -> str:
    """Give an owner as a piece of a key: no '/', no '..', short, and never another owner's."""
    text = quote(owner, safe="").replace("~", "%7E")
    if not text.strip("."):
        return text.replace(".", "%2E")
    if len(text) > MAX_OWNER_BYTES:
        # '~' is in no escaped text, so a shortened owner is nobody else's.
        return f"{text[: MAX_OWNER_BYTES - 65]}~{sha256(owner.encode()).hexdigest()}"
    return text


def tail_prefix(key: str) -> str:
    """Give what the keys of all parked tails of an upload begin with."""
    return f"{key}.tail."


def tail_key(key: str, generation: int) -> str:
    """Give the key of a parked tail."""
    return f"{tail_prefix(key)}{generation}"


def find_tail_generation(key: str, found: str) -> int | None:
    """Give the generation if `found` is a parked tail of the upload at `key`."""
    match = _TAIL.fullmatch(found.removeprefix(key)) if found.startswith(key) else None
    return int(match[1]) if match else None
