"""The application without our server: plain uvicorn, both its parsers, and inside FastAPI."""

import json
from collections.abc import Iterator

import pytest

from tests.conftest import check_log
from tests.support.http import render_chunks
from tests.support.records import Records
from tests.support.stock import StockServer
from tests.support.tus import BODY_TYPE, Tus, pattern

KIB = 1024
MIB = 1024 * KIB
KINDS = [("bare", "httptools"), ("bare", "h11"), ("mounted", "httptools")]
# What uvicorn may have in its own buffer when the client goes (T32).
STOCK_BUFFER = 512 * KIB


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def stock_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StockServer]:
    """A running server that is not `tus-server serve`."""
    kind, http = request.param
    data_dir = tmp_path_factory.mktemp("stock") / "data"
    with StockServer(kind, http, data_dir, TUS_BODY_IDLE_TIMEOUT_S="0.5") as server:
        yield server
        check_log(server.log)


@pytest.fixture
def stock(stock_server: StockServer) -> Tus:
    """A client of it."""
    return Tus(stock_server.port, base=stock_server.base)


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("length", ["known", "deferred"])
def test_an_upload_goes_from_creation_to_deletion(stock: Tus, length: str, chunked: bool) -> None:
    """T22, T41, T42, T59, T94, T127: Location has the prefix of the outer application."""
    content = pattern(2 * MIB + 5)
    url = stock.new(len(content) if length == "known" else None, metadata="filename Zm9v")

    assert url.startswith(stock.base)
    offset = 0
    for end in (1, 70_000, MIB + 1, len(content)):
        reply = stock.patch(url, offset, content[offset:end], chunked=chunked)
        assert reply.status == 204
        assert reply["upload-offset"] == str(end)
        offset = end
    if length == "deferred":
        assert stock.patch(url, offset, length=offset).status == 204
    head = stock.head(url)
    assert (head["upload-offset"], head["upload-length"]) == (str(offset), str(offset))
    assert head["upload-metadata"] == "filename Zm9v"
    assert stock.content(url) == content
    assert stock.get(url, {"Range": "bytes=5-9"}).body == content[5:10]
    assert stock.delete(url).status == 204
    assert stock.head(url).status == 404


def test_the_configuration_is_the_same(stock: Tus) -> None:
    """T9, T34: but what only our protocol class can do is not advertised."""
    reply = stock.options()

    assert reply.status == 204
    assert reply["tus-extension"] == (
        "creation,creation-with-upload,creation-defer-length,termination,checksum,expiration,"
        "concatenation,concatenation-unfinished"
    )


def test_errors_are_the_same(stock: Tus) -> None:
    """T4, T24, T119, T120."""
    url = stock.stored(b"he", length=5)

    with stock.unchanged(url, b"hello"):
        for reply, status in (
            (stock.patch(url, 0, b"hello"), 409),
            (stock.patch(url, 2, b"llo!"), 413),
            (stock.patch(url, 2, b"llo!", chunked=True), 413),
            (stock.patch(url, 2, b"llo", fields={"Content-Type": "a/b"}), 415),
            (stock.patch(url, 2, b"llo", fields={"Tus-Resumable": None}), 412),
            (stock.request("PUT", url), 405),
            (stock.head(stock.base + "x"), 404),
        ):
            assert reply.status == status
            assert reply["tus-resumable"] == "1.0.0"


@pytest.mark.parametrize("how", ["reset", "half-close"])
@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_most_of_an_interrupted_body_is_kept(stock: Tus, how: str, framing: str) -> None:
    """T32."""
    content = pattern(4 * MIB)
    url = stock.new(len(content))
    sent = 3 * MIB
    declared = len(content) if framing == "sized" else None

    connection = stock.hold(url, 0, content[:sent], declared=declared)
    if how == "reset":
        connection.reset()
    else:
        connection.half_close()
        connection.read_until_closed()
        connection.close()

    assert sent - STOCK_BUFFER <= stock.offset(url) <= sent
    assert stock.finish(url, content) == content


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
@pytest.mark.parametrize("size", [1000, 4 * MIB])
def test_an_overtaken_holder_gets_409(stock: Tus, method: str, size: int) -> None:
    """T125: here a connection cannot be closed without a reply."""
    content = pattern(size)
    url = stock.new(size)

    with stock.hold(url, 0, content[: size // 2], declared=size) as holder:
        if method == "HEAD":
            assert stock.offset(url) == size // 2
        elif method == "PATCH":
            assert stock.append(url, size // 2, content[size // 2 :]) == size
        else:
            assert stock.delete(url).status == 204
        reply = holder.read_reply()

        assert reply.status == 409
        assert reply.closes
    if method != "DELETE":
        assert stock.finish(url, content) == content


def test_a_sender_that_stalls_gets_503(stock: Tus) -> None:
    """T30."""
    url = stock.new(1000)

    with stock.hold(url, 0, b"x" * 100, declared=1000) as holder:
        reply = holder.read_reply()

        assert reply.status == 503
        assert reply.closes
    assert stock.offset(url) == 100


def test_the_body_is_asked_for_after_all_checks(stock: Tus) -> None:
    """T68."""
    url = stock.new(5)
    fields = stock.fields | {"Content-Type": BODY_TYPE, "Content-Length": "5", "Upload-Offset": "1"}

    with stock.connect() as connection:
        connection.send_head("PATCH", url, fields | {"Expect": "100-continue"})
        assert connection.read_one_head().status == 409
    with stock.hold(url, 0, b"hello", declared=5) as holder:
        assert holder.read_reply().status == 204


def test_many_requests_share_a_connection(stock: Tus) -> None:
    """T22, C6: errors and chunked bodies included."""
    url = stock.new(10)

    with stock.connect() as connection:
        for offset, status in ((0, 204), (0, 409), (5, 204), (5, 409)):
            fields = stock.fields | {"Content-Type": BODY_TYPE, "Upload-Offset": str(offset)}
            if status == 204:
                connection.send_head("PATCH", url, fields | {"Transfer-Encoding": "chunked"})
                connection.send(render_chunks([b"he", b"llo"]))
            else:
                connection.send_head("PATCH", url, fields | {"Content-Length": "5"})
                connection.send(b"hello")
            assert connection.read_reply().status == status
        connection.send_head("GET", url)
        assert connection.read_reply().body == b"hellohello"


def test_what_is_beside_the_uploads_is_left_alone(stock_server: StockServer, stock: Tus) -> None:
    """T130: the outer application keeps its own routes, ours are below the same prefix."""
    prefix = stock.base.removesuffix("/files/")

    assert stock.request("GET", f"{prefix}/healthz").status == 200
    assert stock.request("GET", f"{prefix}/readyz").status == 200
    for target in (f"{prefix}/files", f"{prefix}/files/"):
        assert stock.request("POST", target, {"Upload-Length": "5"}).status == 201
    if stock_server.kind == "mounted":
        assert json.loads(stock.request("GET", "/").body) == {"application": "outer"}
        assert stock.request("POST", "/files/", {"Upload-Length": "5"}).status == 404


@pytest.mark.parametrize(("kind", "http"), KINDS[1:])
def test_a_stop_stores_what_has_arrived(
    kind: str, http: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """T32: uvicorn cancels what runs; cancelled requests store, commit, let go."""
    data_dir = tmp_path_factory.mktemp("stopped") / "data"
    content = pattern(MIB)

    with StockServer(kind, http, data_dir) as server:
        tus = Tus(server.port, base=server.base)
        url = tus.new(len(content))
        with tus.hold(url, 0, content[:100_000], declared=len(content)):
            server.stop()
        with server:
            again = Tus(server.port, base=server.base)

            assert again.offset(url) == 100_000
            assert again.finish(url, content) == content
            assert Records(data_dir).events(url) == ["verified"]
