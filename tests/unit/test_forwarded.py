import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.errors import SettingsInvalid
from tus_server.wire.forwarded import TrustedProxies, client_address, public_origin

INNER, OUTER, CLIENT = "10.0.0.2", "10.0.0.1", "203.0.113.9"
PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8::/32"])


def origin(
    peer: str | None = INNER, trusted: TrustedProxies = PROXIES, **fields: str
) -> str | None:
    headers = {"host": "internal:8080"} | spelled(fields)
    return public_origin(peer, headers, scheme="http", trusted=trusted)


def client(
    peer: str | None = INNER, trusted: TrustedProxies = PROXIES, **fields: str
) -> str | None:
    return client_address(peer, spelled(fields), trusted=trusted)


def spelled(fields: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in fields.items()}


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "2001:db8::1%eth0"]
)
def test_an_address_in_a_listed_network_is_trusted(address: str) -> None:
    assert PROXIES.trusts(address)


@pytest.mark.parametrize("address", ["11.0.0.1", "2001:db9::1", None, "", "10.0.0", "testclient"])
def test_any_other_address_is_not_trusted(address: str | None) -> None:
    assert not PROXIES.trusts(address)


def test_a_single_address_can_be_listed() -> None:
    assert TrustedProxies(["127.0.0.1"]).trusts("127.0.0.1")
    assert not TrustedProxies(["127.0.0.1"]).trusts("127.0.0.2")


def test_unix_stands_for_a_peer_without_an_address() -> None:
    assert TrustedProxies(["unix"]).trusts(None)
    assert not TrustedProxies(["unix"]).trusts("127.0.0.1")


def test_a_star_stands_for_every_peer() -> None:
    assert TrustedProxies(["*"]).trusts(CLIENT)
    assert TrustedProxies(["*"]).trusts(None)


@pytest.mark.parametrize(
    "proxy", ["", "localhost", "10.0.0.1/8", "10.0.0.0/40", "10.0.0.*", "Unix"]
)
def test_a_proxy_that_is_no_address_is_refused(proxy: str) -> None:
    with pytest.raises(SettingsInvalid, match=re.escape(repr(proxy))):
        TrustedProxies([proxy])


def test_without_a_trusted_peer_the_connection_speaks_for_itself() -> None:
    spoofed = {
        "forwarded": "for=1.1.1.1;host=evil.example;proto=https",
        "x_forwarded_host": "evil.example",
        "x_forwarded_proto": "https",
        "x_forwarded_port": "99",
        "x_forwarded_for": "1.1.1.1",
    }

    assert (
        origin(CLIENT, PROXIES, host="Files.Example:8080", **spoofed) == "http://files.example:8080"
    )
    assert client(CLIENT, PROXIES, **spoofed) == CLIENT


def test_without_forwarding_fields_a_trusted_peer_is_the_client() -> None:
    assert origin(host="files.example") == "http://files.example"
    assert client() == INNER


def test_one_proxy_tells_scheme_host_and_client() -> None:
    field = 'for="203.0.113.9:4711";proto=HTTPS;host="files.example:8443";by=10.0.0.2'

    assert origin(forwarded=field) == "https://files.example:8443"
    assert client(forwarded=field) == CLIENT


def test_the_x_fields_tell_the_same() -> None:
    fields = {
        "x_forwarded_for": CLIENT,
        "x_forwarded_proto": "https",
        "x_forwarded_host": "files.example",
        "x_forwarded_port": "8443",
    }

    assert origin(INNER, PROXIES, **fields) == "https://files.example:8443"
    assert client(INNER, PROXIES, **fields) == CLIENT


def test_a_scheme_alone_leaves_the_host_of_the_request() -> None:
    assert origin(host="files.example", x_forwarded_proto="https") == "https://files.example"
    assert origin(host="files.example", forwarded="proto=https") == "https://files.example"


@pytest.mark.parametrize("port", ["80", "443", "0", "65536", "08443", "x", "8443.", "99999999"])
def test_a_port_that_says_nothing_is_left_out(port: str) -> None:
    found = origin(host="files.example", x_forwarded_proto="https", x_forwarded_port=port)

    assert found == "https://files.example"


def test_a_port_in_the_host_goes_before_a_forwarded_one() -> None:
    assert origin(x_forwarded_host="f.example:1", x_forwarded_port="2") == "http://f.example:1"
    assert origin(x_forwarded_host="[::1]", x_forwarded_port="2") == "http://[::1]:2"


def test_of_a_chain_the_outermost_trusted_proxy_counts() -> None:
    field = (
        "for=1.1.1.1;proto=http;host=evil.example, "  # what the client sent
        f"for={CLIENT};proto=https;host=files.example, "
        f"for={OUTER};proto=http;host=internal"
    )

    assert origin(forwarded=field) == "https://files.example"
    assert client(forwarded=field) == CLIENT


def test_of_a_chain_of_x_fields_the_outermost_trusted_proxy_counts() -> None:
    fields = {
        "x_forwarded_for": f"1.1.1.1, {CLIENT}, {OUTER}",
        "x_forwarded_proto": "http, https, http",
        "x_forwarded_host": "evil.example, files.example, internal",
    }

    assert origin(INNER, PROXIES, **fields) == "https://files.example"
    assert client(INNER, PROXIES, **fields) == CLIENT


def test_a_client_cannot_lengthen_the_chain_with_trusted_addresses() -> None:
    fields = {
        "x_forwarded_for": f"{OUTER}, {OUTER}, {CLIENT}",
        "x_forwarded_proto": "http, http, https",
        "x_forwarded_host": "evil.example, evil.example, files.example",
    }

    assert origin(INNER, PROXIES, **fields) == "https://files.example"
    assert client(INNER, PROXIES, **fields) == CLIENT


def test_fields_that_are_overwritten_at_each_proxy_are_taken_as_they_are() -> None:
    fields = {
        "x_forwarded_for": f"{CLIENT}, {OUTER}",
        "x_forwarded_proto": "https",
        "x_forwarded_host": "files.example",
    }

    assert origin(INNER, PROXIES, **fields) == "https://files.example"


def test_a_host_the_outer_proxy_leaves_out_is_taken_from_the_next() -> None:
    field = f"for={CLIENT};proto=https, for={OUTER};proto=http;host=files.example"

    assert origin(forwarded=field) == "https://files.example"


def test_a_star_sees_one_hop_deep() -> None:
    everyone = TrustedProxies(["*"])
    fields = {
        "x_forwarded_for": f"1.1.1.1, {CLIENT}",
        "x_forwarded_proto": "http, https",
        "x_forwarded_host": "evil.example, files.example",
    }

    assert origin("192.0.2.1", everyone, **fields) == "https://files.example"
    assert client("192.0.2.1", everyone, **fields) == CLIENT


def test_an_entry_without_an_address_ends_the_chain_at_its_proxy() -> None:
    assert client(forwarded=f"for={CLIENT}, for=unknown") == INNER
    assert client(forwarded=f"for={CLIENT}, for=_hidden, for={OUTER}") == OUTER
    assert client(x_forwarded_for="1.1.1.1, 10.0.0.999") == INNER


def test_a_chain_of_nothing_but_proxies_ends_at_its_first() -> None:
    assert client(x_forwarded_for=OUTER) == OUTER


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("203.0.113.9", CLIENT),
        ("203.0.113.9:80", CLIENT),
        ("::ffff:203.0.113.9", CLIENT),
        ("2001:DB9::1", "2001:db9::1"),
        ("[2001:db9::1]", "2001:db9::1"),
        ("[2001:db9::1]:80", "2001:db9::1"),
        ("[2001:db9::1]:_p", "2001:db9::1"),
    ],
)
def test_an_address_may_come_with_brackets_and_port(node: str, address: str) -> None:
    assert client(x_forwarded_for=node) == address
    assert client(forwarded=f'for="{node}"') == address


@pytest.mark.parametrize(
    "field",
    [
        "host",
        "host=",
        "host=files.example:8080",
        'host="files.example',
        "host=a.example;host=b.example",
        "host = files.example",
        'host="x, for=203.0.113.9;proto=https;host="files.example"',
    ],
)
def test_a_malformed_forwarded_field_is_ignored_and_opens_no_other_way(field: str) -> None:
    found = origin(forwarded=field, x_forwarded_host="evil.example", x_forwarded_proto="https")

    assert found == "http://internal:8080"
    assert client(forwarded=field, x_forwarded_for="1.1.1.1") == INNER


def test_commas_and_semicolons_inside_quotes_belong_to_the_value() -> None:
    assert origin(forwarded=r'ext="a, b; \"host=x";host=f.example;, ') == "http://f.example"


BAD_HOSTS = [
    "",
    "a b",
    "a/b",
    "user@host",
    "host:",
    "host:x",
    "host:65536",
    "host:1:2",
    "::1",
    "[::1",
    "[1.2.3.4]",
    "[::g]",
    "[fe80::1%25eth0]",
    "a\r\nb",
    "é.example",
    "a?b",
    "a#b",
    "a\\b",
    'a"b',
    "x" * 254,
]


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_malformed_host_is_ignored(host: str) -> None:
    assert origin(x_forwarded_host=host) == "http://internal:8080"
    assert origin(host=host) is None


@pytest.mark.parametrize("proto", ["ftp", "javascript", "https:", "https://x", ""])
def test_a_malformed_scheme_is_ignored(proto: str) -> None:
    assert origin(x_forwarded_proto=proto) == "http://internal:8080"


NAMES = ["forwarded", "host", *(f"x-forwarded-{name}" for name in ("for", "host", "port", "proto"))]
VALUES = (
    st.text()
    | st.text(alphabet='for=host;proto,"\\[:]1.\r\n')
    | st.sampled_from([OUTER, f"for={OUTER};host=a", "a.example:1", "https, http", "8443"])
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.sampled_from([INNER, CLIENT, None, ""]))
def test_whatever_is_sent_the_origin_is_safe_and_nothing_raises(
    headers: dict[str, str], peer: str | None
) -> None:
    found = public_origin(peer, headers, scheme="http", trusted=PROXIES)
    address = client_address(peer, headers, trusted=PROXIES)

    assert found is None or re.fullmatch(r"https?://[a-z0-9._~:\[\]-]+", found)
    assert address == peer or (address and re.fullmatch(r"[0-9a-f.:]+", address))


@given(st.text(alphabet=st.characters(codec="latin-1", exclude_characters="\r\n\0")))
def test_a_client_can_at_most_spoil_what_the_proxy_appends(
    sent: str,
) -> None:
    appended = f"for={CLIENT};proto=https;host=files.example"

    assert origin(forwarded=f"{sent}, {appended}") in (
        "https://files.example",
        "http://internal:8080",
    )
    assert client(x_forwarded_for=f"{sent}, {CLIENT}") == CLIENT
    assert origin(x_forwarded_host=f"{sent}, files.example") == "http://files.example"
