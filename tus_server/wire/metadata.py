"""Upload-Metadata: what a client says about an upload (tus 1.0.0, Creation)."""

from base64 import b64decode, b64encode
from collections.abc import Mapping

from tus_server.core.errors import MalformedMetadata

_OWS = " \t"
_MAX_SHOWN_CHARS = 60


def parse_metadata(raw: str | None) -> dict[str, bytes]:
    """Parse an Upload-Metadata field; an absent value is b"" (T47..T54).

    None and a blank field are no metadata. Nothing is said about what the values mean (T55).
    Raises: MalformedMetadata.
    """
    metadata: dict[str, bytes] = {}
    if raw is None or not raw.strip(_OWS):
        return metadata
    for member in raw.split(","):
        # T48: blanks around a comma do not count. T54: so `key ` is `key`, at any place.
        key, _, value = member.strip(_OWS).partition(" ")
        if not key:
            raise _malformed("an empty member", member)
        # T50: ` dmFs` may be a key without value after a blank, or a value without key. The blank
        # is taken for padding only where it cannot be the separator.
        if not value and member[0] in _OWS and member[-1] not in _OWS:
            raise _malformed("a member with an empty key", member)
        if not (key.isascii() and key.isprintable()):
            raise _malformed("a key that is not visible ASCII", member)
        if key in metadata:
            raise _malformed("a key for the second time", member)
        if " " in value:
            raise _malformed("a member with more than one space", member)
        try:
            # Without `validate` Python drops bad characters silently.
            metadata[key] = b64decode(value, validate=True)
        except ValueError as exc:  # binascii.Error is one; plain for what is not ASCII
            raise _malformed("a value that is not Base64", member) from exc
    return metadata


def render_metadata(metadata: Mapping[str, str]) -> str | None:
    """Give an Upload-Metadata field of texts; None for nothing. Raises: MalformedMetadata."""
    members = []
    for key, value in metadata.items():
        if not (key and key.isascii() and key.isprintable()) or " " in key or "," in key:
            raise _malformed("a key that is not visible ASCII without a comma", key)
        try:
            encoded = b64encode(value.encode()).decode()
        except UnicodeEncodeError as exc:
            raise _malformed("a value that is not Unicode text", key) from exc
        members.append(f"{key} {encoded}" if encoded else key)
    return ",".join(members) or None


def find_text(metadata: Mapping[str, bytes], *names: str) -> str | None:
    """Find the text of the first of `names` that has one; bytes that are not UTF-8 become U+FFFD.

    Empty is absent, and so is `null`: Uppy sends that for fields it has no value for.
    """
    for name in names:
        text = metadata.get(name, b"").decode("utf-8", errors="replace")
        if text not in ("", "null"):
            return text
    return None


def _malformed(what: str, member: str) -> MalformedMetadata:
    cut = "..." if len(member) > _MAX_SHOWN_CHARS else ""
    return MalformedMetadata(f"Upload-Metadata has {what}: {member[:_MAX_SHOWN_CHARS]!r}{cut}.")
