"""Header fields of a request, and the strict numbers in them."""

import re
from collections.abc import Iterable, Iterator

from tus_server.core.errors import MalformedHeader

_BLANKS = b" \t"  # around a value, and no part of it (RFC 9110, 5.5); parsers leave some
# int() also takes "1_000", "+5", " 5 " and non-ASCII digits, so it never sees a raw header.
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}")


class Fields:
    """The header fields of one request, by lower-case name."""

    __slots__ = ("_repeated", "_values", "size_bytes")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        """raw: as in an ASGI scope. size_bytes becomes the size of all names and values."""
        self._values: dict[bytes, bytes] = {}
        self._repeated: dict[bytes, list[bytes]] | None = None
        self.size_bytes = 0
        values = self._values
        for name, value in raw:
            self.size_bytes += len(name) + len(value)
            if name in values:
                if self._repeated is None:
                    self._repeated = {}
                self._repeated.setdefault(name, [values[name]]).append(value)
            else:
                values[name] = value

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._values)

    def find(self, name: bytes) -> bytes | None:
        """Give the value of a field that may appear once. Raises MalformedHeader if repeated."""
        if self._repeated is not None and name in self._repeated:
            raise MalformedHeader(f"{_shown(name)} appears more than once.")
        value = self._values.get(name)
        return None if value is None else value.strip(_BLANKS)

    def find_joined(self, name: bytes) -> str | None:
        """Give the value of a list field: repeated lines are joined (RFC 9110, 5.3)."""
        if self._repeated is not None and name in self._repeated:
            lines = (line.strip(_BLANKS) for line in self._repeated[name])
            return b",".join(lines).decode("latin-1")
        value = self._values.get(name)
        return None if value is None else value.strip(_BLANKS).decode("latin-1")

    def find_number(self, name: bytes) -> int | None:
        """Give a non-negative integer, None if absent. Raises MalformedHeader (T1, T2, T128)."""
        value = self.find(name)
        if value is None:
            return None
        if _NUMBER.fullmatch(value) is None:
            raise MalformedHeader(
                f"{_shown(name)} is {excerpt(value)}; it must be a plain decimal number."
            )
        return int(value)

    def names(self, name: bytes) -> set[str]:
        """Give the members of a list of names, in lower case; empty if it is absent."""
        joined = self.find_joined(name) or ""
        return {member.strip(" \t").lower() for member in joined.split(",")} - {""}

    def as_text(self) -> dict[str, str]:
        """Give all fields as text; repeated lines are joined."""
        joined = {name: self.find_joined(name) or "" for name in self._values}
        return {name.decode("latin-1"): value for name, value in joined.items()}


def media_type(value: bytes | None) -> bytes:
    """Give `type/subtype` in lower case, without parameters; empty if there is none."""
    return b"" if value is None else value.partition(b";")[0].strip().lower()


def excerpt(value: bytes | str) -> str:
    """Show a refused value: escaped, and not all of a long one."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _shown(name: bytes) -> str:
    return name.decode("latin-1").title()
