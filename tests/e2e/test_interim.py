"""What our protocol classes add to a connection: 1xx replies before the final one, and trailers."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.exchanges import ExchangeServer
from tests.support.http import (
    Connection,
    FieldValue,
    Reply,
    render_chunks,
    render_head,
)
from tests.support.waiting import wait_until
from tus_server.http import connection as lent
from tus_server.http.exchange import Exchange
from tus_server.http.uvicorn_protocol import find_protocol

MIB = 1024 * 1024
CHECKSUM = "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00="
CHUNKED: dict[str, FieldValue] = {"Transfer-Encoding": "chunked"}


@pytest.fixture(scope="module", params=["fast", "plain"])
def exchanges(request: pytest.FixtureRequest) -> Iterator[ExchangeServer]:
    """A server of exchanges under our protocol class, both body paths."""
    fast = request.param == "fast"
    with ExchangeServer(find_protocol(fast=fast), fast=fast) as server:
        yield server


@pytest.fixture(scope="module", params=["httptools", "h11"])
def stock_exchanges(request: pytest.FixtureRequest) -> Iterator[ExchangeServer]:
    """The same under uvicorn as it comes."""
    with ExchangeServer(request.param, fast=True) as server:
        yield server


def ask(
    connection: Connection,
    steps: str,
    body: bytes | None = None,
    *,
    method: str = "POST",
    **more: FieldValue,
) -> None:
    fields = {name.replace("_", "-"): value for name, value in more.items()}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    connection.send_head(method, f"/?{steps}", fields)
    connection.send(body or b"")


def steps_told(reply: Reply) -> list[str]:
    """Give the numbers of the 104s before a reply; a 100 shows as such."""
    return [one["step"] if one.status == 104 else str(one.status) for one in reply.interim]


def told(reply: Reply) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reply.body)
    return found


# --- interim replies


def test_an_interim_reply_comes_before_the_final_one(exchanges: ExchangeServer) -> None:
    with Connection(exchanges.port) as connection:
        ask(connection, "inform,inform,rest,reply", b"hello")
        reply = connection.read_reply()

    assert reply.status == 200
    assert steps_told(reply) == ["0", "1"]
    assert reply.interim[0].reason == "Upload Resumption Supported"
    assert [name for name, _ in reply.interim[0].fields] == ["step"]
    assert told(reply)["can_inform"] is True
    assert told(reply)["body"] == "hello"


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_an_interim_reply_comes_while_the_body_is_received(
    exchanges: ExchangeServer, chunked: bool
) -> None:
    """Read from the socket after each piece, with the rest of the body still to come."""
    size = 3 * MIB
    fields: dict[str, FieldValue] = CHUNKED if chunked else {"Content-Length": str(size)}

    with Connection(exchanges.port) as connection:
        connection.send_head(
            "POST", f"/?inform,read-{MIB},inform,read-{MIB},inform,rest,inform,reply", fields
        )
        heads = [connection.read_one_head()]
        for _ in range(2):
            piece = bytes(MIB)
            if chunked:
                connection.send_chunk(piece)
            else:
                connection.send(piece)
            heads.append(connection.read_one_head())
        if chunked:
            connection.send_chunk(bytes(MIB))
            connection.end_chunks()
        else:
            connection.send(bytes(MIB))
        reply = connection.read_reply()

    assert [head.status for head in heads] == [104, 104, 104]
    assert [head["step"] for head in heads] == ["0", "2", "4"]
    assert steps_told(reply) == ["6"]
    assert len(told(reply)["body"]) == size


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_104_does_not_replace_100(exchanges: ExchangeServer, chunked: bool) -> None:
    """R73: 104, 100, 104, final; and no byte is sent before the 100."""
    fields: dict[str, FieldValue] = CHUNKED if chunked else {"Content-Length": "5"}

    with Connection(exchanges.port) as connection:
        connection.send_head(
            "POST", "/?inform,read-5,inform,rest,reply", {"Expect": "100-continue"} | fields
        )
        first = [connection.read_one_head().status for _ in range(2)]
        connection.send(render_chunks([b"hello"]) if chunked else b"hello")
        reply = connection.read_reply()

    assert first == [104, 100]
    assert steps_told(reply) == ["2"]
    assert told(reply)["body"] == "hello"


def test_a_refusal_after_104_gets_no_100(exchanges: ExchangeServer) -> None:
    with Connection(exchanges.port) as connection:
        connection.send_head(
            "POST", "/?inform,reply", {"Expect": "100-continue", "Content-Length": "5"}
        )
        reply = connection.read_reply()

    assert steps_told(reply) == ["0"]
    assert reply.closes


def test_an_early_reply_after_104_can_be_read_while_the_body_is_sent(
    exchanges: ExchangeServer,
) -> None:
    """C6."""
    with Connection(exchanges.port) as connection:
        connection.send_head("POST", "/?inform,reply,inform", {"Content-Length": str(MIB)})
        reply = connection.read_reply()

        assert steps_told(reply) == ["0"]
        assert reply.closes
        connection.send(bytes(100_000))
        assert connection.read_until_closed() == b""


def test_a_connection_goes_on_after_interim_replies(exchanges: ExchangeServer) -> None:
    """Keep-alive: bodies of all kinds, HEAD, and a request that gets none."""
    with Connection(exchanges.port) as connection:
        for steps, body, expected in (
            ("inform,rest,reply", b"hello", ["0"]),
            ("inform,rest,inform,reply", bytes(MIB), ["0", "2"]),
            ("rest,reply", b"", []),
            ("inform,rest,reply", None, ["0"]),
        ):
            ask(connection, steps, body)
            reply = connection.read_reply()

            assert reply.status == 200
            assert steps_told(reply) == expected
        connection.send_head("HEAD", "/?inform,reply")
        assert steps_told(connection.read_reply()) == ["0"]
        connection.send_head("POST", "/?inform,rest,inform,reply", CHUNKED)
        connection.send(render_chunks([b"he", b"llo"]))
        assert steps_told(connection.read_reply()) == ["0", "2"]


def test_interim_replies_to_pipelined_requests_come_in_their_order(
    exchanges: ExchangeServer,
) -> None:
    requests = [
        render_head("POST", "/?inform,rest,inform,reply", {"Host": "a", "Content-Length": "5"}),
        b"hello",
        render_head("HEAD", "/?inform,reply", {"Host": "a"}),
        render_head("POST", "/?rest,inform,reply", {"Host": "a"} | CHUNKED),
        render_chunks([b"hello"]),
        render_head("GET", "/?reply", {"Host": "a"}),
    ]

    with Connection(exchanges.port) as connection:
        for method in ("POST", "HEAD", "POST", "GET"):
            connection.expect_reply_to(method)
        connection.send(b"".join(requests))
        replies = [connection.read_reply() for _ in range(4)]

    assert [reply.status for reply in replies] == [200] * 4
    assert [steps_told(reply) for reply in replies] == [["0", "2"], ["0"], ["1"], []]


def test_nothing_is_sent_once_the_reply_has_begun(exchanges: ExchangeServer) -> None:
    with Connection(exchanges.port) as connection:
        ask(connection, "start,inform,end,inform")
        reply = connection.read_reply()
        ask(connection, "reply")

        assert (reply.interim, reply.body) == ((), b"ok")
        assert connection.read_reply().status == 200


def test_http_1_0_hears_of_no_interim_reply(exchanges: ExchangeServer) -> None:
    """RFC 9110, 15.2."""
    with Connection(exchanges.port) as connection:
        connection.send_head("GET", "/?inform,reply", version="HTTP/1.0")
        reply = connection.read_reply()

    assert reply.interim == ()
    assert told(reply)["can_inform"] is False


def test_a_field_that_would_break_the_reply_is_not_sent(exchanges: ExchangeServer) -> None:
    with Connection(exchanges.port) as connection:
        ask(connection, "unsafe,inform,rest,reply", b"hello")

        assert steps_told(connection.read_reply()) == ["1"]


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_is_gone_is_no_failure(exchanges: ExchangeServer, how: str) -> None:
    seen = len(exchanges.endings)
    connection = Connection(exchanges.port)
    connection.send_head("POST", "/?inform,gone", {"Content-Length": "1000"})
    assert connection.read_one_head().status == 104
    if how == "reset":
        connection.reset()
    else:
        connection.close()
    wait_until(lambda: len(exchanges.endings) > seen, "the application has seen the end")

    assert exchanges.endings[-1] == "answered"


def test_a_client_that_does_not_read_costs_no_memory(
    exchanges: ExchangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what the buffers take, interim replies are left out, and the body goes on."""
    monkeypatch.setattr(lent, "WRITABLE_WITHIN_S", 0.0)
    count, seen = 20_000, len(exchanges.endings)

    with Connection(exchanges.port) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        connection.send_head("POST", f"/?flood-{count},note,rest,reply", {"Content-Length": "5"})
        # The application goes on although nobody reads.
        wait_until(lambda: len(exchanges.endings) > seen, "the application is through with them")
        connection.send(b"hello")
        reply = connection.read_reply()

    numbers = [int(step) for step in steps_told(reply)]
    assert told(reply)["body"] == "hello"
    assert numbers == list(range(len(numbers)))
    assert 10 < len(numbers) < count


def test_a_stock_server_sends_none_and_breaks_nothing(stock_exchanges: ExchangeServer) -> None:
    """R85: no probing by sending."""
    with Connection(stock_exchanges.port) as connection:
        connection.send_head("POST", "/?inform,rest,inform,reply", CHUNKED)
        connection.send(render_chunks([b"hello"], trailers={"Upload-Checksum": CHECKSUM}))
        reply = connection.read_reply()

    assert reply.interim == ()
    assert told(reply)["can_inform"] is False
    assert told(reply)["has_trailers"] is False
    assert told(reply)["trailers"] == {}


@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
async def test_another_server_is_asked_if_it_says_that_it_can(version: str, gone: bool) -> None:
    """By the message that such servers take, announced in the scope."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if gone:
            raise OSError("the client is gone")
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is received")

    extensions: dict[str, Any] = {"http.response.informational": {}}
    scope = {"method": "GET", "headers": [], "http_version": version, "extensions": extensions}
    exchange = Exchange(scope, receive, send, idle_timeout_s=1.0, fast=True)
    await exchange.inform(104, [(b"location", b"/files/1")])

    message = {
        "type": "http.response.informational",
        "status": 104,
        "headers": [(b"location", b"/files/1")],
    }
    assert exchange.can_inform == (version != "1.0")
    assert sent == ([message] if exchange.can_inform and not gone else [])
    assert not exchange.has_trailers


# --- trailers


def test_the_trailer_that_is_asked_for_is_delivered(exchanges: ExchangeServer) -> None:
    """T89."""
    with Connection(exchanges.port) as connection:
        connection.send_head("PATCH", "/?rest,reply", CHUNKED)
        connection.send_chunk(b"hello")
        connection.wait_taken()
        connection.end_chunks({"Upload-Checksum": CHECKSUM})
        reply = connection.read_reply()

    assert told(reply)["trailers"] == {"upload-checksum": CHECKSUM}
    assert told(reply)["has_trailers"] is True


def test_a_trailer_never_poses_as_a_header(exchanges: ExchangeServer) -> None:
    """All in one segment: a parser may have seen the trailers before the application runs."""
    trailers: dict[str, FieldValue] = {
        "Upload-Checksum": CHECKSUM,
        "Authorization": "Bearer stolen",
        "Upload-Length": "7",
        "Host": "b",
    }
    request = render_head("PATCH", "/?rest,reply", {"Host": "a"} | CHUNKED)
    with Connection(exchanges.port) as connection:
        connection.expect_reply_to("PATCH")
        connection.send(request + render_chunks([b"hello"], trailers=trailers))
        reply = connection.read_reply()

    assert told(reply)["headers"] == ["host", "transfer-encoding"]
    assert told(reply)["trailers"] == {"upload-checksum": CHECKSUM}


def test_trailers_belong_to_their_request_alone(exchanges: ExchangeServer) -> None:
    """Pipelined and kept alive: none is carried over to the next one."""
    request = render_head("PATCH", "/?rest,reply", {"Host": "a"} | CHUNKED)
    bodies = [
        render_chunks([b"1"], trailers={"Upload-Checksum": "first"}),
        render_chunks([b"2"]),
        render_chunks([], trailers={"upload-CHECKSUM": "third"}),
        render_chunks([b"4"], trailers={"X-Other": "1"}),
    ]
    expected = [{"upload-checksum": "first"}, {}, {"upload-checksum": "third"}, {}]

    with Connection(exchanges.port) as connection:
        for _ in bodies:
            connection.expect_reply_to("PATCH")
        connection.send(b"".join(request + body for body in bodies))
        pipelined = [told(connection.read_reply())["trailers"] for _ in bodies]
        kept_alive = []
        for body in bodies:
            connection.expect_reply_to("PATCH")
            connection.send(request + body)
            kept_alive.append(told(connection.read_reply())["trailers"])

    assert pipelined == kept_alive == expected


def test_trailers_in_single_bytes_are_understood(exchanges: ExchangeServer) -> None:
    with Connection(exchanges.port) as connection:
        connection.send_head("PATCH", "/?rest,reply", CHUNKED)
        body = render_chunks([b"hello"], trailers={"Upload-Checksum": CHECKSUM, "X": "1"})
        for index in range(len(body)):
            connection.send(body[index : index + 1])
        reply = connection.read_reply()

    assert told(reply)["body"] == "hello"
    assert told(reply)["trailers"] == {"upload-checksum": CHECKSUM}


def test_a_repeated_trailer_shows_as_repeated(exchanges: ExchangeServer) -> None:
    with Connection(exchanges.port) as connection:
        connection.send_head("PATCH", "/?rest,reply", CHUNKED)
        connection.send(render_chunks([], trailers={"Upload-Checksum": ["a", "b", "c"]}))

        assert told(connection.read_reply())["trailers"] == {"upload-checksum": "a,b"}


@pytest.mark.parametrize("what", ["one long trailer", "many trailers", "a chunk extension"])
def test_what_comes_behind_a_body_is_bounded(exchanges: ExchangeServer, what: str) -> None:
    """P7: endless framing ends the connection; the body before it does not count as whole."""
    seen = len(exchanges.endings)
    piece = {
        "one long trailer": b"x" * 8192,
        "many trailers": b"X-Padding: 12345\r\n" * 400,
        "a chunk extension": b"x" * 8192,
    }[what]
    with Connection(exchanges.port) as connection:
        connection.send_head("PATCH", "/?gone", CHUNKED)
        connection.send_chunk(b"hello")
        connection.send(b"1;x=" if what == "a chunk extension" else b"0\r\nX-Long: 1")
        connection.send(b"\r\n" if what == "many trailers" else b"")
        with contextlib.suppress(OSError):
            for _ in range(1000):
                connection.send(piece)
        assert connection.read_until_closed() == b""
    wait_until(lambda: len(exchanges.endings) > seen, "the application has seen the end")

    assert exchanges.endings[-1] == "answered"


def test_bodies_of_any_length_are_not_bounded_by_that(exchanges: ExchangeServer) -> None:
    """Nor are many small chunks, nor heads behind large bodies in one segment."""
    with Connection(exchanges.port) as connection:
        connection.send_head("PATCH", "/?rest,reply", CHUNKED)
        connection.send(render_chunks([b"x"] * 60_000))

        assert len(told(connection.read_reply())["body"]) == 60_000
        for _ in range(3):
            connection.expect_reply_to("PATCH")
            connection.expect_reply_to("GET")
        request = render_head("PATCH", "/?rest,reply", {"Host": "a"} | CHUNKED)
        look = render_head("GET", "/?reply", {"Host": "a", "X-Padding": "x" * 20_000})
        connection.send((request + render_chunks([bytes(90_000)]) + look) * 3)
        for _ in range(3):
            assert len(told(connection.read_reply())["body"]) == 90_000
            assert connection.read_reply().status == 200
