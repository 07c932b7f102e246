"""Requests that only somebody on this machine can have made."""

import pytest

from tus_server.wire.headers import Fields
from tus_server.wire.local import find_outsider

LOOPBACK = ("127.0.0.1", 8080)


def find(
    *headers: tuple[str, str],
    host: str | None = "127.0.0.1:8080",
    peer: tuple[str, int] | None = ("127.0.0.1", 50000),
    local: tuple[str, int | None] | None = LOOPBACK,
    scheme: str = "http",
    version: str = "1.1",
    allowed: str = "nobody",
) -> str | None:
    named = [] if host is None else [("host", host)]
    raw = [(name.encode(), value.encode("latin-1")) for name, value in [*named, *headers]]
    return find_outsider(
        Fields(raw),
        peer=peer,
        local=local,
        scheme=scheme,
        http_version=version,
        allows=lambda origin: origin == allowed,
    )


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LocalHost:8080"]
)
def test_a_program_on_this_machine_is_no_outsider(host: str) -> None:
    assert find(host=host) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_every_loopback_address_is_this_machine(address: str) -> None:
    assert find(peer=(address, 1), local=(address, 8080)) is None


@pytest.mark.parametrize(
    ("scheme", "port", "host", "is_here"),
    [
        ("http", 80, "localhost", True),
        ("http", 80, "localhost:80", True),
        ("https", 443, "[::1]", True),
        ("https", 80, "localhost", False),
        ("http", 8080, "localhost", False),
    ],
)
def test_the_port_is_that_of_the_connection(
    scheme: str, port: int, host: str, is_here: bool
) -> None:
    assert (find(host=host, local=("127.0.0.1", port), scheme=scheme) is None) == is_here


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8080",  # DNS rebinding: the name leads here, and the browser says which
        "localhost.evil.example:8080",
        "localhost.:8080",
        "127.0.0.1.nip.io:8080",
        "127.0.0.1:8081",
        "2130706433:8080",
        "0.0.0.0:8080",
        "[::]:8080",
        "user@localhost:8080",
        "localhost:8080,localhost:8080",
        "localhost:08080",
        "",
        None,
    ],
)
def test_another_host_is_an_outsider_s(host: str | None) -> None:
    assert "Host" in (find(host=host) or "")


@pytest.mark.parametrize("address", [None, ("10.0.0.7", 1), ("/run/tus.sock", None), ("nobody", 1)])
def test_another_connection_than_over_loopback_is_an_outsider_s(
    address: tuple[str, int] | None,
) -> None:
    assert "loopback" in (find(peer=address) or "")
    assert "loopback" in (find(local=address) or "")


@pytest.mark.parametrize(
    "name",
    [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-anything",
        "via",
        "x-real-ip",
        "cf-connecting-ip",
    ],
)
def test_what_came_through_a_proxy_is_an_outsider_s(name: str) -> None:
    assert name in (find((name, "")) or "")


def test_what_nginx_passes_on_without_being_told_how_is_an_outsider_s() -> None:
    assert "HTTP/1.0" in (find(version="1.0") or "")


def test_a_page_of_this_server_is_no_outsider() -> None:
    own = ("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")

    assert find(*own, host="localhost:8080") is None
    assert find(("origin", "http://localhost"), host="localhost:80", local=("::1", 80)) is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:3000",
        "https://localhost:8080",
        "http://127.0.0.1:8080",  # another origin than localhost, to a browser
        "null",
        "",
    ],
)
def test_a_page_of_another_origin_is_an_outsider(origin: str) -> None:
    assert "origin" in (find(("origin", origin), host="localhost:8080") or "")


def test_a_page_of_an_origin_that_is_named_is_none() -> None:
    page = ("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")

    assert find(*page, host="localhost:8080", allowed="http://localhost:3000") is None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none,cross-site", ""])
def test_what_another_site_loads_without_an_origin_is_an_outsider_s(site: str) -> None:
    assert "site" in (find(("sec-fetch-site", site)) or "")


def test_an_address_typed_into_a_browser_is_no_outsider_s() -> None:
    assert find(("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")) is None
