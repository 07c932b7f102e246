"""RUFH: what each kind of reply carries, and what holds beyond one request; in every version."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ServerFactory
from tests.e2e.values import UNKNOWN
from tests.support.http import ConnectionEnded, Reply
from tests.support.records import Records
from tests.support.rufh import INTEROP, WIRES, Rufh, Wire
from tests.support.stock import StockServer
from tests.support.tus import pattern

KIB = 1024
Ask = Callable[[Rufh], Reply]

# "<status> <what leads to it>", and which of the fields of section 2.3 the reply has. 201 of an
# append stands for the status that the version has for one which completes nothing.
URL, OFFSET, MORE, DONE, LENGTH, LIMITS = "location", "offset", "?0", "?1", "length", "limits"
REPLIES: dict[str, tuple[Ask, set[str]]] = {
    "201 creation, more to come": (
        lambda rufh: rufh.create(b"he", done=False, length=5),
        {URL, OFFSET, MORE, LIMITS},
    ),
    "201 creation, done": (
        lambda rufh: rufh.create(b"hello", done=True),
        {URL, OFFSET, DONE, LIMITS},
    ),
    "204 head, unfinished": (
        lambda rufh: rufh.head(rufh.stored(b"he", length=5)),
        {OFFSET, MORE, LENGTH, LIMITS},
    ),
    "204 head, length not known": (
        lambda rufh: rufh.head(rufh.stored(b"he")),
        {OFFSET, MORE, LIMITS},
    ),
    "204 head, finished": (
        lambda rufh: rufh.head(rufh.finished(b"hello")),
        {OFFSET, DONE, LENGTH, LIMITS},
    ),
    "204 get, unfinished": (
        lambda rufh: rufh.get(rufh.stored(b"he", length=5)),
        {OFFSET, MORE, LENGTH, LIMITS},
    ),
    "200 get, finished": (
        lambda rufh: rufh.get(rufh.finished(b"hello")),
        {OFFSET, DONE, LENGTH, LIMITS},
    ),
    "206 get, finished": (
        lambda rufh: rufh.get(rufh.finished(b"hello"), {"Range": "bytes=1-2"}),
        {OFFSET, DONE, LENGTH, LIMITS},
    ),
    "200 append, more to come": (
        lambda rufh: rufh.append(rufh.new(5), 0, b"he", done=False),
        {OFFSET, MORE, LIMITS},
    ),
    "201 append, done": (
        lambda rufh: rufh.append(rufh.stored(b"he", length=5), 2, b"llo", done=True),
        {URL, OFFSET, DONE, LIMITS},
    ),
    "409 append": (
        lambda rufh: rufh.append(rufh.stored(b"he", length=5), 1, b"e", done=False),
        {OFFSET, MORE, LIMITS},
    ),
    "400 append": (
        lambda rufh: rufh.append(rufh.stored(b"he", length=5), 2, b"l", done=True),
        {OFFSET, MORE, LIMITS},
    ),
    "400 creation": (
        lambda rufh: rufh.create(b"he", done=True, length=5),
        {MORE, LIMITS},
    ),
    "413 creation": (
        lambda rufh: rufh.create(b"he", done=False, fields={"Content-Length": str(10**17)}),
        {MORE, LIMITS},
    ),
    "204 delete": (lambda rufh: rufh.delete(rufh.new()), set()),
    "400 head": (lambda rufh: rufh.head(rufh.new(), {"Upload-Offset": "0"}), set()),
    "404 head": (lambda rufh: rufh.head(UNKNOWN), set()),
    "404 append": (lambda rufh: rufh.append(UNKNOWN, 0, b"x", done=True), set()),
    "404 delete": (lambda rufh: rufh.delete(UNKNOWN), set()),
    "405 put": (lambda rufh: rufh.request("PUT", rufh.new(), rufh.flag(True)), set()),
}
# Without a version nothing but an upload tells the protocol: these are refusals of tus then.
UNNAMED = {"404 head", "404 append", "404 delete", "405 put"}


def told(rufh: Rufh, reply: Reply) -> set[str]:
    """Name the fields of section 2.3 that a reply has."""
    found = {
        name
        for name, field in {
            URL: "location",
            OFFSET: "upload-offset",
            LENGTH: "upload-length",
            LIMITS: "upload-limit",
        }.items()
        if field in reply
    }
    if rufh.wire.flag in reply:
        found.add(DONE if rufh.is_done(reply) else MORE)
    return found


@pytest.mark.parametrize(
    ("wire", "name"),
    [
        pytest.param(wire, name, id=f"{wire}-{name}")
        for wire in (*WIRES[:4], WIRES[-1])  # 9 and 10 look like 8
        for name in REPLIES
        if wire.interop or name not in UNNAMED
    ],
)
def test_every_reply_carries_what_it_should_and_is_no_redirect(rufh: Rufh, name: str) -> None:
    """Section 2.3; R20, R32, R37, R39, R41, R42, R43, R55, R63, R64, R65, R68."""
    ask, expected = REPLIES[name]
    if rufh.wire.lifetime_key is None:
        expected = expected - {LIMITS}
    status = rufh.wire.appended if name.startswith("200 append") else int(name[:3])

    reply = ask(rufh)

    assert reply.status == status, reply
    assert told(rufh, reply) == expected
    rufh.check_common(reply)
    for interim in reply.interim:
        assert interim[INTEROP] == rufh.wire.interop  # R86


def test_pieces_may_be_as_small_as_a_byte(rufh: Rufh) -> None:
    """R13: no limit is told for a piece, and none is enforced."""
    content = b"hello"
    url = rufh.stored(content[:1], length=len(content))

    for offset in range(1, len(content) - 1):
        reply = rufh.append(url, offset, content[offset : offset + 1], done=False)
        assert reply.status == rufh.wire.appended
    if rufh.wire.lifetime_key is not None:
        assert "append-size" not in reply["upload-limit"]

    assert rufh.append(url, 4, b"o", done=True).status == 201
    assert rufh.content(url) == content


@pytest.mark.parametrize("wire", [WIRES[2], WIRES[-1]], ids=str)
def test_an_upload_that_has_lost_bytes_for_good_has_ended(
    fresh_server: ServerFactory, wire: Wire
) -> None:
    """R3: 404 from then on, and the log says why."""
    server = fresh_server()
    rufh, records = Rufh(server.port, wire), Records(server.data_dir)
    url = rufh.stored(pattern(1000), length=2000)
    path = rufh.path(url)
    (partial,) = records.files(path)
    os.truncate(partial, 10)

    assert rufh.append(url, 1000, pattern(1000), done=True).status == 404

    for method in ("HEAD", "GET", "PATCH", "DELETE"):
        fields = rufh.append_fields(1000, True) if method == "PATCH" else {}
        assert rufh.request(method, url, fields).status == 404
    assert records.events(path) == ["error"]
    assert "bytes_missing" in server.log


@pytest.mark.parametrize("wire", [WIRES[0], WIRES[-1]], ids=str)
def test_a_cancellation_among_appends_is_the_end(rufh: Rufh, records: Records) -> None:
    """R66, R67, R69: whatever comes first, nothing is left and nothing comes back."""
    url = rufh.new()
    body = pattern(64 * KIB)

    def ask(number: int) -> int | None:
        try:
            if number == 3:
                return rufh.delete(url).status
            return rufh.append(url, 0, body, done=True).status
        except ConnectionEnded:
            return None  # another one took over

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(8)))

    # One that another request has overtaken, once more.
    if statuses[3] != 204:
        assert rufh.delete(url).status == 204
    assert {status for status in statuses if status is not None} <= {201, 204, 400, 404, 409, 503}
    assert rufh.head(url).status == 404
    assert records.files(rufh.path(url)) == []


@pytest.fixture(scope="module")
def guarded_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StockServer]:
    """A server with tests.support.gate.Gate as its authorizer."""
    data_dir = tmp_path_factory.mktemp("guarded-rest") / "data"
    http = "fast" if body_path == "fast" else "httptools"
    with StockServer("guarded", http, data_dir) as server:
        yield server


@pytest.mark.parametrize("wire", [WIRES[2], WIRES[-1]], ids=str)
def test_who_completes_an_upload_is_asked_again(guarded_server: StockServer, wire: Wire) -> None:
    """R36, R76, R83: a refusal is no status that clients repeat, and changes nothing."""

    def user(name: str | None) -> Rufh:
        fields = {} if name is None else {"Authorization": f"Bearer {name}"}
        return Rufh(guarded_server.port, wire, fields=fields)

    ann = user("ann")
    url = ann.stored(b"he", length=5)

    with ann.unchanged(url, b"hello"):
        assert user("bob").append(url, 2, b"llo", done=True).status == 404
        assert user(None).append(url, 2, b"llo", done=True).status == 401
    assert user("guest").create(b"hello", done=True).status == 403
