"""RUFH without our server: plain uvicorn has no 104, and the rest is the same."""

from collections.abc import Iterator

import pytest

from tests.conftest import check_log
from tests.support.rufh import WIRES, Rufh, Wire
from tests.support.stock import StockServer
from tests.support.tus import pattern

KIB = 1024
KINDS = [("bare", "httptools"), ("bare", "h11"), ("mounted", "httptools")]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def stock_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StockServer]:
    """A running server that is not `tus-server serve`."""
    kind, http = request.param
    data_dir = tmp_path_factory.mktemp("stock-rufh") / "data"
    with StockServer(kind, http, data_dir) as server:
        yield server
        check_log(server.log)


@pytest.fixture
def stock(stock_server: StockServer, wire: Wire) -> Rufh:
    """A client of it."""
    return Rufh(stock_server.port, wire, base=stock_server.base)


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_an_upload_goes_from_creation_to_deletion(stock: Rufh, chunked: bool) -> None:
    """Section 8.3: Location has the prefix of the outer application."""
    content = pattern(700 * KIB)

    first = stock.create(content[:1000], done=False, chunked=chunked)
    url = first["location"]
    more = stock.append(url, 1000, content[1000:70_000], done=False, chunked=chunked)
    last = stock.append(url, 70_000, content[70_000:], done=True, chunked=chunked)

    assert url.startswith(f"http://127.0.0.1:{stock.port}{stock.base}")
    assert (first.status, more.status, last.status) == (201, stock.wire.appended, 201)
    assert first.interim == more.interim == last.interim == ()
    assert stock.is_done(last)
    assert stock.content(url) == content
    assert stock.delete(url).status == 204
    assert stock.head(url).status == 404


@pytest.mark.parametrize("wire", [WIRES[2], WIRES[-2]], ids=str)
def test_an_overtaken_holder_gets_409(stock: Rufh) -> None:
    """R72: here a connection cannot be closed without a reply."""
    content = pattern(100 * KIB)
    url = stock.new()

    with stock.hold(url, 0, content[: 50 * KIB], done=True, declared=len(content)) as holder:
        assert stock.offset(url) == 50 * KIB
        reply = holder.read_reply()

        stock.check_standing(reply, 409, 50 * KIB)
        assert reply.closes
    assert stock.finish(url, content) == content


@pytest.mark.parametrize("wire", [WIRES[2]], ids=str)
def test_a_creation_without_a_104_leaves_nothing_when_it_is_cut(stock: Rufh) -> None:
    """R33: nobody knows its URL. The next one works."""
    connection, interim = stock.begin(
        "POST", stock.base, stock.flag(True), b"x" * 1000, declared=2000
    )
    assert [reply.status for reply in interim] == [100]
    connection.close()

    assert stock.create(b"hello", done=True).status == 201
