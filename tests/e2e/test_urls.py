"""Where uploads are: base path, public URL, proxies in front (T42, T130)."""

import pytest

from tests.conftest import ServerFactory
from tests.support.http import Fields
from tests.support.server import ServerProcess
from tests.support.tus import Tus

FORWARDED: Fields = {
    "Host": "internal:8080",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "files.example.com",
    "X-Forwarded-For": "203.0.113.7",
}


@pytest.fixture(scope="session")
def body_path() -> str:
    """One body path is enough: nothing here depends on it."""
    return "fast"


def check_journey(server: ServerProcess, base: str) -> None:
    """Create at `base`, go where Location says, finish, download, delete."""
    tus = Tus(server.port, base=base)
    url = tus.new(10)
    assert url.startswith(base)
    assert tus.finish(url, b"helloworld") == b"helloworld"
    assert tus.options(url).status == 204
    assert tus.delete(url).status == 204
    assert tus.head(url).status == 404


def test_uploads_can_be_at_the_root(fresh_server: ServerFactory) -> None:
    """T42, T130: TUS_BASE_PATH=/."""
    server = fresh_server(TUS_BASE_PATH="/")

    check_journey(server, "/")
    tus = Tus(server.port, base="/")
    assert tus.request("GET", "/healthz").status == 200
    assert tus.request("GET", "/readyz").status == 200
    assert tus.get("/").status == 405
    assert tus.get("/nothing").status == 404
    assert tus.options("*").status == 204


def test_uploads_can_be_anywhere(fresh_server: ServerFactory) -> None:
    """T42, T130: with and without slashes around."""
    server = fresh_server(TUS_BASE_PATH="api/v1.0/up-loads")
    base = "/api/v1.0/up-loads/"

    check_journey(server, base)
    tus = Tus(server.port, base=base)
    assert tus.request("POST", base.rstrip("/"), {"Upload-Length": "5"}).status == 201
    assert tus.request("POST", "/files/", {"Upload-Length": "5"}).status == 404


def test_a_public_url_makes_location_absolute(fresh_server: ServerFactory) -> None:
    """T42: and it goes before what a request says."""
    server = fresh_server(TUS_PUBLIC_URL="https://files.example.com/", TUS_BEHIND_PROXY="127.0.0.1")
    tus = Tus(server.port)

    for fields in ({}, FORWARDED, {"Host": "evil.example.net"}):
        location = tus.create(5, fields=fields)["location"]

        assert location.startswith("https://files.example.com/files/")
        assert tus.head(location.removeprefix("https://files.example.com")).status == 200


def test_nobody_is_believed_unless_named(tus: Tus) -> None:
    """T42."""
    for fields in (FORWARDED, {"Forwarded": "proto=https;host=evil.example.net"}):
        assert tus.create(5, fields=fields)["location"].startswith("/files/")


def test_a_trusted_proxy_says_where_we_are(fresh_server: ServerFactory) -> None:
    """T42: TUS_BEHIND_PROXY."""
    server = fresh_server(TUS_BEHIND_PROXY="127.0.0.0/8")
    tus = Tus(server.port)

    def location(fields: Fields) -> str:
        return tus.create(5, fields=fields)["location"].rpartition("/")[0]

    assert location(FORWARDED) == "https://files.example.com/files"
    assert location({"Host": "files.example.com:8443"}) == "http://files.example.com:8443/files"
    assert location({"Host": "a", "X-Forwarded-Port": "8443"}) == "http://a:8443/files"
    assert (
        location({"Forwarded": 'for=203.0.113.7;proto=https;host="files.example.com:444"'})
        == "https://files.example.com:444/files"
    )
    assert location({"Host": "a b<script>"}) == "/files"
    # What the client wrote before our proxy added its own is not read.
    both = FORWARDED | {"X-Forwarded-Host": "evil.example.net, files.example.com"}
    both |= {"X-Forwarded-Proto": "ftp, https", "X-Forwarded-For": "6.6.6.6, 203.0.113.7"}
    assert location(both) == "https://files.example.com/files"
