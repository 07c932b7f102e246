"""A request to the sink, and how its head is read."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote


@dataclass(slots=True)
class Request:
    """One request; body is kept for POST alone. Header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytearray

    @property
    def length(self) -> int:
        """Bytes of the body as the client counts them."""
        return int(self.headers.get("content-length", "0"))

    @property
    def content_length(self) -> int:
        """Bytes of what is stored: less than length where the body is sent in signed chunks."""
        return int(self.headers.get("x-amz-decoded-content-length", self.length))


def parse_head(head: bytes) -> Request:
    """The request that this head, everything before the blank line, begins."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    path, _, query = target.partition("?")
    fields = (line.partition(":") for line in lines)
    return Request(
        method=method,
        path=unquote(path),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers={name.lower(): value.strip() for name, _, value in fields},
        body=bytearray(),
    )
