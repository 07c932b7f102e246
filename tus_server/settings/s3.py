"""Text of a setting for S3 -> value. Pure."""

import re
from string import Formatter
from typing import Final
from urllib.parse import urlencode

from tus_server.settings.values import Unfit

KEY_FIELDS: Final = ("prefix", "id", "owner", "date", "year", "month", "day")
_MAX_TAGS: Final = 10
_MAX_LITERAL_CHARS: Final = 256
# What AWS takes in tags and other servers take too.
_TAG_TEXT = re.compile(r"[\w .:/+@-]*", re.ASCII)


def check_key_template(template: str) -> str:
    """Check that keys made from it are good ones, and different for different uploads."""
    template = template.strip()
    literal, names = "", []
    for text, name, form, conversion in Formatter().parse(template):
        literal += text
        if name is None:
            continue
        if name not in KEY_FIELDS:
            raise Unfit(f"{{{name}}} is no field of a key; there are {_listed(KEY_FIELDS)}")
        if form or conversion:
            raise Unfit(f"give {{{name}}} without a format")
        names.append(name)
    if names.count("id") != 1:
        raise Unfit("give {id} in it exactly once, for a key belongs to one upload")
    if "prefix" in names and not template.startswith("{prefix}"):
        raise Unfit("put {prefix} at its start")
    if "{prefix}/" in template:
        raise Unfit("leave out the slash behind {prefix}, which brings its own")
    shape = re.sub(r"\{\w+\}", "x", template.removeprefix("{prefix}"))
    fits = re.fullmatch(r"[A-Za-z0-9._=@+~!,/-]+", shape) and len(literal) <= _MAX_LITERAL_CHARS
    if not fits or {"", ".", ".."} & set(shape.split("/")):
        raise Unfit(
            "give fields and letters, digits and . _ = @ + ~ ! , - with single slashes between"
        )
    return template


def check_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    pairs = [tag.partition("=") for tag in tags]
    keys = [key.strip() for key, _, _ in pairs]
    if (
        len(pairs) > _MAX_TAGS
        or len(set(keys)) < len(keys)
        or not all(sign for _, sign, _ in pairs)
    ):
        raise ValueError
    for key, (_, _, value) in zip(keys, pairs, strict=True):
        if not (0 < len(key) <= 128 and len(value) <= 256):
            raise Unfit("a tag has a key of 1 to 128 and a value of up to 256 characters")
        if not (_TAG_TEXT.fullmatch(key) and _TAG_TEXT.fullmatch(value)):
            raise Unfit("a tag has letters, digits, spaces and . : / + - @ _ only")
    return tags


def render_tagging(tags: tuple[str, ...]) -> str | None:
    """Render checked tags as the header x-amz-tagging has them."""
    pairs = (tag.partition("=") for tag in tags)
    return urlencode([(key.strip(), value.strip()) for key, _, value in pairs]) or None


def check_region(region: str) -> str:
    return _matched(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", region)


def check_storage_class(name: str) -> str:
    return _matched(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name)


def check_kms_key_id(key: str) -> str:
    return _matched(r"[A-Za-z0-9:/_.=@+-]{1,2048}", key)


def fold_sse(value: object) -> object:
    if not isinstance(value, str) or not value.strip():
        return None if isinstance(value, str) else value
    return {"aes256": "AES256"}.get(value.strip().lower(), value.strip().lower())


def _matched(pattern: str, text: str) -> str:
    text = text.strip()
    if not re.fullmatch(pattern, text, re.ASCII):
        raise ValueError
    return text


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
