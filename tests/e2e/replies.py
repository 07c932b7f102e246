"""One way to get each reply: for the rules that hold for all of them."""

from collections.abc import Callable

from tests.e2e.values import MAX_SIZE, UNKNOWN
from tests.support.http import Reply
from tests.support.tus import Tus

Ask = Callable[[Tus], Reply]

# "<status> <what leads to it>"; each ask works on the shared server.
REPLIES: dict[str, Ask] = {
    "201 creation": lambda tus: tus.create(5),
    "201 creation with upload": lambda tus: tus.create(5, body=b"hello"),
    "201 empty upload": lambda tus: tus.create(0),
    "200 head": lambda tus: tus.head(tus.new(5)),
    "200 head by override": lambda tus: tus.request(
        "POST", tus.new(5), {"X-HTTP-Method-Override": "HEAD"}
    ),
    "204 patch": lambda tus: tus.patch(tus.new(5), 0, b"hello"),
    "204 delete": lambda tus: tus.delete(tus.new(5)),
    "400 creation without length": lambda tus: tus.request("POST", tus.base),
    "400 creation with bad length": lambda tus: tus.create("five"),
    "400 creation with bad metadata": lambda tus: tus.create(5, metadata="filename ###"),
    "400 patch without offset": lambda tus: tus.patch(
        tus.new(5), 0, b"hello", fields={"Upload-Offset": None}
    ),
    "400 length changed": lambda tus: tus.patch(tus.new(5), 0, b"hello", length=6),
    "400 length below offset": lambda tus: tus.patch(tus.stored(b"hello"), 5, length=4),
    "400 method override twice": lambda tus: tus.request(
        "POST", tus.base, {"X-HTTP-Method-Override": ["PATCH", "PATCH"]}
    ),
    "404 head": lambda tus: tus.head(UNKNOWN),
    "404 patch": lambda tus: tus.patch(UNKNOWN, 0, b"hello"),
    "404 delete": lambda tus: tus.delete(UNKNOWN),
    "404 get": lambda tus: tus.get(UNKNOWN),
    "404 get of an unfinished upload": lambda tus: tus.get(tus.new(5)),
    "405 post to an upload": lambda tus: tus.request("POST", tus.new(5), {"Upload-Length": "5"}),
    "405 get of the creation url": lambda tus: tus.get(tus.base),
    "405 head of the creation url": lambda tus: tus.head(tus.base),
    "405 unknown method": lambda tus: tus.request("PUT", tus.new(5)),
    "409 patch": lambda tus: tus.patch(tus.new(5), 3, b"lo"),
    "412 creation": lambda tus: tus.create(5, fields={"Tus-Resumable": "0.2.2"}),
    "412 head": lambda tus: tus.head(tus.new(5), {"Tus-Resumable": "0.2.2"}),
    "412 patch": lambda tus: tus.patch(tus.new(5), 0, b"h", fields={"Tus-Resumable": None}),
    "412 delete": lambda tus: tus.delete(tus.new(5), {"Tus-Resumable": "2.0.0"}),
    "413 creation": lambda tus: tus.create(MAX_SIZE + 1),
    "413 creation with upload": lambda tus: tus.create(5, body=b"hello!"),
    "413 patch": lambda tus: tus.patch(tus.new(5), 0, b"hello!"),
    "413 chunked patch": lambda tus: tus.patch(tus.new(5), 0, b"hello!", chunked=True),
    "415 creation with upload": lambda tus: tus.create(
        5, body=b"hello", fields={"Content-Type": "text/plain"}
    ),
    "415 patch": lambda tus: tus.patch(
        tus.new(5), 0, b"hello", fields={"Content-Type": "text/plain"}
    ),
    "431 head": lambda tus: tus.head(tus.new(5), {"X-Padding": "x" * 40_000}),
    "431 patch": lambda tus: tus.patch(tus.new(5), 0, fields={"X-Padding": "x" * 40_000}),
}
DOWNLOADS: dict[str, Ask] = {
    "200 get": lambda tus: tus.get(tus.stored(b"hello")),
    "200 head of a download": lambda tus: tus.head(tus.stored(b"hello"), {"Tus-Resumable": None}),
    "206 get": lambda tus: tus.get(tus.stored(b"hello"), {"Range": "bytes=1-2"}),
    "304 get": lambda tus: tus.get(tus.stored(b"hello"), {"If-None-Match": "*"}),
    "412 get": lambda tus: tus.get(tus.stored(b"hello"), {"If-Match": '"other"'}),
    "416 get": lambda tus: tus.get(tus.stored(b"hello"), {"Range": "bytes=9-"}),
}


def expected_status(name: str) -> int:
    """Give the status that a name begins with."""
    return int(name[:3])
