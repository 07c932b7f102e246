"""PUT to the signed URLs of parts: by raw sockets, over both body paths."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import ServerFactory, check_log
from tests.support.api import Api, state_of
from tests.support.http import Connection, Fields, Reply, request
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until
from tus_server.app import create_app
from tus_server.core.checksums import crc64
from tus_server.settings import load_settings

PART_SIZE = 64 * 1024
CONTENT = pattern(2 * PART_SIZE + 17)


class Sent:
    """A direct upload of CONTENT, and the URLs of its parts."""

    def __init__(self, port: int, **about: Any) -> None:
        self.port = port
        with Api(port, fields=about.pop("fields", None)) as api:
            view = api.begin("multipart", len(CONTENT), **about)
            self.id: str = view["id"]
            self.part_size: int = view["multipart"]["part_size_bytes"]
            self.urls = [target(one["url"]) for one in api.sign(self.id)]

    def piece(self, number: int) -> bytes:
        return CONTENT[(number - 1) * self.part_size : number * self.part_size]

    def put(
        self, number: int, body: bytes | None = None, fields: Fields | None = None, **how: bool
    ) -> Reply:
        content = self.piece(number) if body is None else body
        return request(self.port, "PUT", self.urls[number - 1], fields, content, **how)

    def arrived(self) -> set[int]:
        with Api(self.port) as api:
            return {one["part_number"] for one in api.parts(self.id) if one["arrived"]}

    def hold(self, number: int, sent: bytes, *, declared: int | None = None) -> Connection:
        """Begin a PUT that stalls after `sent`; on return the server has read that much."""
        connection = Connection(self.port)
        size = len(self.piece(number)) if declared is None else declared
        fields = {"Content-Length": str(size), "Expect": "100-continue"}
        connection.send_head("PUT", self.urls[number - 1], fields)
        assert connection.read_one_head().status == 100
        connection.send(sent)
        connection.wait_taken()
        return connection


def target(url: str) -> str:
    """Give a URL as it stands in a request line."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


@pytest.fixture(scope="module")
def small(body_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small parts, shared by the tests of this module."""
    with ServerProcess(
        tmp_path_factory.mktemp(f"direct-{body_path}") / "data",
        TUS_BODY_PATH=body_path,
        TUS_DIRECT_PART_SIZE=str(PART_SIZE),
    ) as server:
        yield server
        check_log(server.log)


@pytest.fixture
def sent(small: ServerProcess) -> Sent:
    """A new upload, of which nothing has arrived."""
    return Sent(small.port)


def etag(content: bytes) -> str:
    return f'"{crc64(content):016x}"'


# --- parts


def test_a_part_is_answered_with_its_etag(sent: Sent) -> None:
    for number, chunked in ((3, False), (1, True), (2, False)):
        reply = sent.put(number, chunked=chunked)

        assert (reply.status, reply.body) == (200, b"")
        assert reply["etag"] == etag(sent.piece(number))
        assert reply["cache-control"] == "no-store"
    assert sent.arrived() == {1, 2, 3}


def test_parts_follow_each_other_on_one_connection(sent: Sent) -> None:
    with Connection(sent.port) as connection:
        for number in (1, 3, 2, 1):
            body = sent.piece(number)
            fields = {"Content-Length": str(len(body))}
            connection.send_head("PUT", sent.urls[number - 1], fields)
            connection.send(body)
            assert connection.read_reply().status == 200

    assert sent.arrived() == {1, 2, 3}


def test_a_body_is_asked_for_when_nothing_speaks_against_it(sent: Sent) -> None:
    with sent.hold(1, sent.piece(1)) as connection:
        assert connection.read_reply()["etag"] == etag(sent.piece(1))


def test_a_large_part_arrives_whole(server: ServerProcess) -> None:
    content = pattern(9_000_001)
    with Api(server.port) as api:
        view = api.begin("single", len(content))

        reply = request(server.port, "PUT", target(view["put"]["url"]), {}, content)

        assert reply["etag"] == etag(content)
        done = api.post(view["id"], "complete", fields={"Prefer": "wait=30"}).json()
        assert state_of(done) == "verified"
        assert httpx.get(done["object"]["url"]).content == content


# --- refusals


def test_what_is_refused_is_refused_before_the_body(sent: Sent) -> None:
    url = sent.urls[0]
    for wrong in (f"{url}x", url.replace("size=", "size=1"), url.replace("/1?", "/2?"), url[:-50]):
        with Connection(sent.port) as connection:
            fields = {"Content-Length": str(PART_SIZE), "Expect": "100-continue"}
            connection.send_head("PUT", wrong, fields)
            reply = connection.read_reply()

        assert (reply.status, reply.interim, reply.closes) == (403, (), True)
        assert reply.problem()["code"] == "signature_refused"
    assert sent.arrived() == set()


@pytest.mark.parametrize("size", [0, 1, PART_SIZE - 1, PART_SIZE + 1, 2**60])
def test_a_url_is_for_one_size(sent: Sent, size: int) -> None:
    with Connection(sent.port) as connection:
        fields = {"Content-Length": str(size), "Expect": "100-continue"}
        connection.send_head("PUT", sent.urls[0], fields)
        reply = connection.read_reply()

    assert (reply.status, reply.interim) == (403, ())
    assert reply.problem()["detail"] == f"The URL is for {PART_SIZE} bytes, the body has {size}."


@pytest.mark.parametrize("change", [-1, 1, 100_000])
def test_a_chunked_body_of_another_size_does_not_count(sent: Sent, change: int) -> None:
    sent.put(2)
    content = (CONTENT * 2)[: PART_SIZE + change]

    reply = sent.put(1, content, chunked=True)

    assert reply.status == 403
    assert sent.arrived() == {2}
    assert sent.put(2)["etag"] == etag(sent.piece(2))


def test_a_url_that_has_expired_says_so(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_SIGN_EXPIRES_S="1")
    sent = Sent(server.port)

    def refused() -> Reply | None:
        reply = sent.put(1)
        return None if reply.status == 200 else reply

    reply = wait_until(refused, "the URL has expired")
    assert reply is not None
    assert reply.status == 403
    assert reply.problem()["code"] == "signature_refused"
    assert "has expired" in reply.problem()["detail"]
    assert reply.problem()["detail"].endswith("sign it again.")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "{query}&{query}",
        "{query}&size=65536",
        "{query}&x=1",
        "size=65536&size=65536&expires=1&signature=a",
        "size=%ff&expires=1&signature=a",
        "size=65536&expires=99999999999999999999&signature=%00",
        "expires&size&signature",
        "a" * 4000,
    ],
)
def test_no_query_but_the_signed_one_is_taken(sent: Sent, query: str) -> None:
    path, _, signed = sent.urls[0].partition("?")

    url = f"{path}?{query.format(query=signed)}"

    reply = request(sent.port, "PUT", url, {}, sent.piece(1))
    assert reply.status == 403
    assert reply.problem()["code"] == "signature_refused"
    assert sent.put(1).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "DELETE", "QUERY"])
def test_a_url_is_for_one_method(sent: Sent, method: str) -> None:
    sent.put(1)

    for fields in ({}, {"X-HTTP-Method-Override": "PUT", "Tus-Resumable": "1.0.0"}):
        reply = request(sent.port, method, sent.urls[0], fields)

        assert reply.status == 405
        assert reply["allow"] == "PUT, OPTIONS"
    assert sent.arrived() == {1}


@pytest.mark.parametrize("path", ["/direct/", "/direct/x/1", "/direct/{id}", "/direct/{id}/0"])
def test_what_names_no_part_is_not_found(sent: Sent, path: str) -> None:
    reply = request(sent.port, "PUT", path.format(id=sent.id), {}, b"abc")

    assert reply.status == 404
    assert reply.problem()["code"] == "not_found"


def test_a_part_needs_no_token(fresh_server: ServerFactory) -> None:
    token = "0123456789abcdef-token"
    server = fresh_server(TUS_API_TOKEN=token, TUS_DIRECT_PART_SIZE=str(PART_SIZE))
    sent = Sent(server.port, fields={"Authorization": f"Bearer {token}"})

    assert sent.put(1).status == 200


def test_the_head_of_a_request_has_an_end(sent: Sent) -> None:
    reply = sent.put(1, fields={"X-Long": "a" * 40_000})

    assert reply.status == 431
    assert sent.arrived() == set()


# --- pages


def test_a_page_may_send_parts_and_read_etags(sent: Sent) -> None:
    asked = {"Origin": "https://example.com", "Access-Control-Request-Method": "PUT"}

    reply = request(sent.port, "OPTIONS", sent.urls[0], asked)

    assert reply.status == 204
    assert reply["access-control-allow-origin"] == "*"
    assert "put" in reply.names("access-control-allow-methods")
    assert "content-type" in reply.names("access-control-allow-headers")
    for reply in (
        sent.put(1, fields={"Origin": "https://example.com"}),
        sent.put(1, b"abc", fields={"Origin": "https://example.com"}),
    ):
        assert reply["access-control-allow-origin"] == "*"
        assert "etag" in reply.names("access-control-expose-headers")


def test_pages_of_other_origins_may_not(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_CORS_ORIGINS="https://app.example.com")
    sent = Sent(server.port)

    for origin, allowed in (("https://app.example.com", True), ("https://example.com", False)):
        asked = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
        for reply in (
            request(server.port, "OPTIONS", sent.urls[0], asked),
            sent.put(1, fields=asked),
        ):
            assert ("access-control-allow-origin" in reply) is allowed
            assert reply["vary"] == "Origin"


# --- what becomes of bodies that do not end


def test_of_a_part_that_is_cut_nothing_counts(sent: Sent) -> None:
    for end in ("reset", "close", "half_close"):
        connection = sent.hold(1, sent.piece(1)[:-1])
        getattr(connection, end)()
        if end == "half_close":
            connection.read_until_closed()
            connection.close()

    assert sent.put(2).status == 200
    assert sent.arrived() == {2}
    assert sent.put(1)["etag"] == etag(sent.piece(1))


def test_a_part_that_is_sent_again_and_cut_does_not_count_any_more(sent: Sent) -> None:
    for number in (1, 2, 3):
        sent.put(number)
    sent.hold(2, b"abc").reset()
    wait_until(lambda: sent.arrived() == {1, 3}, "the part does not count")
    with Api(sent.port) as api:
        reply = api.post(sent.id, "complete")
        assert (reply.status_code, reply.json()["part"]) == (409, 2)

        sent.put(2)

        done = api.post(sent.id, "complete", fields={"Prefer": "wait=30"}).json()
        assert httpx.get(done["object"]["url"]).content == CONTENT


def test_a_sender_that_stalls_is_told_so(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_BODY_IDLE_TIMEOUT_S="0.3", TUS_DIRECT_PART_SIZE=str(PART_SIZE))
    sent = Sent(server.port)

    with sent.hold(1, b"abc") as connection:
        reply = connection.read_reply()

    assert (reply.status, reply.closes) == (503, True)
    assert reply.problem()["code"] == "body_stalled"
    assert sent.arrived() == set()


def test_a_later_request_takes_a_part_over(sent: Sent) -> None:
    with sent.hold(1, b"abc") as earlier:
        assert sent.put(1)["etag"] == etag(sent.piece(1))

        reply = earlier.read_reply()

    assert (reply.status, reply.closes) == (409, True)
    assert reply.problem()["code"] == "part_busy"
    assert sent.arrived() == {1}


def test_who_cancels_an_upload_ends_its_requests(small: ServerProcess, sent: Sent) -> None:
    sent.put(2)
    with sent.hold(1, b"abc") as connection, Api(sent.port) as api:
        assert api.delete(sent.id).status_code == 200

        reply = connection.read_reply()

    assert (reply.status, reply.closes) == (409, True)
    assert reply.problem()["code"] == "illegal_step"
    assert sent.put(1).status == 409
    assert not list((small.data_dir / "objects").rglob(f"{sent.id}*"))


def test_a_server_that_stops_tells_its_senders(small: ServerProcess, sent: Sent) -> None:
    sent.put(3)
    with sent.hold(1, b"abc") as connection:
        assert small.process is not None
        small.process.terminate()
        reply = connection.read_reply()
        assert small.process.wait(20) == 0

    assert (reply.status, reply.closes) == (503, True)
    assert reply.problem()["code"] == "shutting_down"
    small.start()
    assert sent.arrived() == {3}
    assert sent.put(1).status == 200  # with a URL of before


# --- where the server is


def test_with_uploads_at_the_root_parts_have_their_own_path(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_BASE_PATH="/", TUS_DIRECT_PART_SIZE=str(PART_SIZE))
    sent = Sent(server.port)

    for number in (1, 2, 3):
        assert sent.put(number).status == 200
    tus = Tus(server.port, base="/")
    assert tus.content(tus.stored(b"hello")) == b"hello"
    assert tus.head("/direct").status == 404


def test_below_a_path_of_another_application_parts_are_received(tmp_path: Path) -> None:
    async def through() -> list[int]:
        settings = load_settings(data_dir=tmp_path / "data", direct_part_size=PART_SIZE)
        app = create_app(settings)
        async with app.lifespan():
            transport = httpx.ASGITransport(app, root_path="/up")
            async with httpx.AsyncClient(transport=transport, base_url="http://x/up") as client:
                view = await app.broker.initiate_multipart_session(size=len(CONTENT))
                replies = [
                    await client.put(f"http://x/up{target(one.url)}", content=piece(number))
                    for number, one in enumerate(await app.broker.sign_parts(view.id))
                ]
                await app.broker.complete_multipart_upload(view.id, wait_s=30.0)
                return [reply.status_code for reply in replies]

    def piece(place: int) -> bytes:
        return CONTENT[place * PART_SIZE : (place + 1) * PART_SIZE]

    assert asyncio.run(through()) == [200, 200, 200]


# --- many at once


def test_a_slow_sender_is_in_nobodys_way(sent: Sent) -> None:
    with sent.hold(2, sent.piece(2)[:1000]) as slow:
        for number in (1, 3):
            assert sent.put(number).status == 200

        slow.send(sent.piece(2)[1000:])

        assert slow.read_reply()["etag"] == etag(sent.piece(2))
    assert sent.arrived() == {1, 2, 3}
