import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.errors import SettingsInvalid
from tus_server.wire.cors import (
    ALLOW_HEADERS,
    ALLOW_METHODS,
    EXPOSE_HEADERS,
    MAX_AGE,
    Origins,
    render_cors,
)

ANY = Origins(["*"])
LISTED = Origins(
    ["https://example.com", "https://*.example.org:8443", r"~https://pr-\d+\.test\.dev"]
)


def rendered(origin: str | None, origins: Origins = LISTED, **flags: bool) -> dict[str, str]:
    flags = {"credentials": False, "preflight": False} | flags
    fields = render_cors(origin, origins, **flags)  # type: ignore[arg-type]
    assert all(name == name.lower() for name, _ in fields)
    assert len(dict(fields)) == len(fields)
    return {name.decode(): value.decode() for name, value in fields}


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "https://a.example.org:8443",
        "https://b.a.example.org:8443",
        "https://pr-17.test.dev",
    ],
)
def test_an_origin_that_a_pattern_names_is_allowed(origin: str) -> None:
    assert LISTED.allows(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://example.com",
        "https://example.com:444",
        "https://example.com/",
        "https://example.com.evil.net",
        "https://evil.net/https://example.com",
        "https://evilexample.com",
        "https://EXAMPLE.com",
        "https://example.org:8443",
        "https://.example.org:8443",
        "https://a..example.org:8443",
        "https://a.example.org",
        "https://a.exampleXorg:8443",
        "https://evil.net/.example.org:8443",
        "https://evil.net#.example.org:8443",
        "https://u@a.example.org:8443",
        "https://pr-17.test.dev.evil.net",
        "https://pr-17.test.dev\n",
        "https://pr-17Xtest.dev",
        "x-https://pr-17.test.dev",
    ],
)
def test_any_other_origin_is_not_allowed(origin: str) -> None:
    assert not LISTED.allows(origin)


def test_a_star_allows_every_origin() -> None:
    assert ANY.is_any
    assert ANY.allows("https://anything.example")
    assert ANY.allows("null")
    assert not LISTED.is_any


def test_an_empty_list_allows_none() -> None:
    assert not Origins([]).is_any
    assert not Origins([]).allows("https://example.com")


def test_alternatives_of_an_expression_are_anchored_as_a_whole() -> None:
    origins = Origins(["~https://a.example|https://b.example"])

    assert origins.allows("https://b.example")
    assert not origins.allows("https://a.example.evil.net")


def test_a_pattern_is_read_as_browsers_write_origins() -> None:
    assert Origins(["HTTPS://Example.com:443"]).allows("https://example.com")
    assert Origins(["http://*.example.com:80"]).allows("http://a.example.com")
    assert Origins(["http://localhost:3000"]).allows("http://localhost:3000")
    assert Origins(["capacitor://localhost"]).allows("capacitor://localhost")
    assert Origins(["http://[::1]:3000"]).allows("http://[::1]:3000")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "null",
        "example.com",
        "https://",
        "https://example.com/",
        "https://example.com/path",
        "https://exa*mple.com",
        "https://*",
        "https://*.",
        "https://a.*.example.com",
        "https://*.*.example.com",
        "*.example.com",
        "*://example.com",
        "https://example.com:*",
        "https://user@example.com",
        "https://example.com https://example.org",
        "~(",
        "~[a-",
        "~[[a]",
        "~a{99999999999}",
    ],
)
def test_a_pattern_that_can_match_no_origin_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsInvalid, match=re.escape(repr(pattern))):
        Origins([pattern])


def test_a_star_among_other_patterns_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="alone"):
        Origins(["https://example.com", "*"])


def test_without_a_list_every_page_is_let_in_without_credentials() -> None:
    for origin in ("https://example.com", None):
        fields = rendered(origin, ANY, credentials=True, preflight=False)

        assert fields == {
            "access-control-allow-origin": "*",
            "access-control-expose-headers": EXPOSE_HEADERS,
        }


def test_an_allowed_origin_is_repeated_and_the_reply_varies() -> None:
    assert rendered("https://example.com") == {
        "access-control-allow-origin": "https://example.com",
        "access-control-expose-headers": EXPOSE_HEADERS,
        "vary": "Origin",
    }


def test_credentials_are_let_in_from_a_listed_origin() -> None:
    fields = rendered("https://example.com", credentials=True)

    assert fields["access-control-allow-credentials"] == "true"
    assert fields["access-control-allow-origin"] == "https://example.com"


@pytest.mark.parametrize("origin", ["https://example.com.evil.net", "null", None])
@pytest.mark.parametrize("preflight", [True, False])
def test_a_refused_origin_learns_only_that_the_reply_varies(
    origin: str | None, preflight: bool
) -> None:
    fields = rendered(origin, credentials=True, preflight=preflight, request_private_network=True)

    assert fields == {"vary": "Origin"}


@pytest.mark.parametrize("origins", [ANY, LISTED])
@pytest.mark.parametrize("credentials", [True, False])
def test_a_preflight_gets_the_full_lists(origins: Origins, credentials: bool) -> None:
    fields = rendered("https://example.com", origins, credentials=credentials, preflight=True)

    assert fields["access-control-allow-methods"] == ALLOW_METHODS
    assert fields["access-control-allow-headers"] == ALLOW_HEADERS
    assert fields["access-control-expose-headers"] == EXPOSE_HEADERS
    assert fields["access-control-max-age"] == MAX_AGE == "86400"


def test_a_private_network_is_opened_to_a_listed_origin_that_asks() -> None:
    name = "access-control-allow-private-network"
    asked = {"preflight": True, "request_private_network": True}

    assert rendered("https://example.com", LISTED, **asked)[name] == "true"
    assert name not in rendered("https://example.com", preflight=True)
    assert name not in rendered("https://example.com", ANY, **asked)


def test_configured_names_take_the_place_of_the_lists() -> None:
    fields = dict(
        render_cors(
            "https://example.com",
            ANY,
            credentials=False,
            preflight=True,
            allow_headers=f"{ALLOW_HEADERS}, X-Mine",
            expose_headers=f"{EXPOSE_HEADERS}, X-Ours",
        )
    )

    assert fields[b"access-control-allow-headers"].endswith(b", Incremental, X-Mine")
    assert fields[b"access-control-expose-headers"].endswith(b", Repr-Digest, X-Ours")


def test_the_caller_may_add_to_the_fields_it_was_given() -> None:
    render_cors(None, ANY, credentials=False, preflight=False).append((b"x", b"y"))

    assert (b"x", b"y") not in render_cors(None, ANY, credentials=False, preflight=False)


@pytest.mark.parametrize("name", ["Upload-Checksum", "Upload-Metadata", "X-HTTP-Method-Override"])
def test_pages_may_send_what_the_protocols_need(name: str) -> None:
    assert name in ALLOW_HEADERS.split(", ")


@pytest.mark.parametrize("name", ["Upload-Expires", "Upload-Limit", "Location", "Tus-Error"])
def test_pages_may_read_what_the_protocols_need(name: str) -> None:
    assert name in EXPOSE_HEADERS.split(", ")


@given(st.text(), st.booleans(), st.booleans())
def test_whatever_is_let_in_the_fields_are_safe(
    origin: str, credentials: bool, preflight: bool
) -> None:
    for origins in (ANY, LISTED, Origins(["~(?s).*"])):
        for name, value in render_cors(
            origin, origins, credentials=credentials, preflight=preflight
        ):
            assert (name + value).decode("ascii").isprintable()


@given(st.text() | st.text(alphabet="https://*.a:1[]~(|"))
def test_any_pattern_is_accepted_or_refused_with_the_documented_error(pattern: str) -> None:
    try:
        origins = Origins([pattern])
    except SettingsInvalid:
        return

    origins.allows("https://example.com")


@given(
    st.from_regex(r"https://[a-z0-9-]{1,8}(\.[a-z0-9-]{1,8}){0,3}", fullmatch=True),
    st.text(min_size=1),
)
def test_nothing_before_or_after_a_listed_origin_is_let_in(origin: str, extra: str) -> None:
    origins = Origins([origin])

    assert origins.allows(origin)
    assert not origins.allows(origin + extra)
    assert not origins.allows(extra + origin)
