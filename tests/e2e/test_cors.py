"""Cross-origin requests (section 4, T129): what a browser must see to let a page use us."""

from collections.abc import Iterator

import pytest

from tests.conftest import ServerFactory, check_log
from tests.e2e.replies import DOWNLOADS, REPLIES, expected_status
from tests.e2e.values import UNKNOWN
from tests.support.http import Reply
from tests.support.server import ServerProcess
from tests.support.tus import Tus

ORIGIN = "https://app.example.com"
METHODS = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
ALLOWED = (
    "Authorization, Content-Type, Content-Disposition, Content-Encoding, Content-Digest, "
    "Repr-Digest, Want-Repr-Digest, Range, If-Range, If-None-Match, X-Requested-With, "
    "X-Request-ID, X-HTTP-Method-Override, Tus-Resumable, Upload-Length, Upload-Offset, "
    "Upload-Metadata, Upload-Defer-Length, Upload-Concat, Upload-Checksum, Upload-Complete, "
    "Upload-Incomplete, Upload-Draft-Interop-Version, Incremental"
)
EXPOSED = (
    "Location, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, "
    "Upload-Offset, Upload-Length, Upload-Metadata, Upload-Defer-Length, Upload-Concat, "
    "Upload-Expires, Upload-Complete, Upload-Incomplete, Upload-Limit, "
    "Upload-Draft-Interop-Version, Accept-Patch, Tus-Error, Retry-After, X-Request-ID, "
    "Content-Disposition, Content-Range, Accept-Ranges, ETag, Repr-Digest"
)
PREFLIGHT = {
    "Tus-Resumable": None,
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "tus-resumable,upload-offset,content-type",
}
ALL = REPLIES | DOWNLOADS


def lower(text: str) -> set[str]:
    return {name.strip().lower() for name in text.split(",")}


@pytest.fixture(scope="module")
def named_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that lets named origins in, with credentials."""
    data_dir = tmp_path_factory.mktemp("named") / "data"
    with ServerProcess(
        data_dir,
        TUS_BODY_PATH=body_path,
        TUS_CORS_ORIGINS=f"{ORIGIN}, https://*.example.org, http://localhost:3000",
        TUS_CORS_CREDENTIALS="true",
    ) as server:
        yield server
        check_log(server.log)


@pytest.fixture
def asking(tus: Tus) -> Tus:
    """A page of another site, at the server with the default settings."""
    return Tus(tus.port, fields={"Origin": ORIGIN})


def at(server: ServerProcess, origin: str | None) -> Tus:
    return Tus(server.port, fields={} if origin is None else {"Origin": origin})


@pytest.mark.parametrize("target", ["/files/", "/files", UNKNOWN])
def test_a_preflight_allows_everything_a_client_sends(asking: Tus, target: str) -> None:
    """T129."""
    reply = asking.options(target, PREFLIGHT)

    assert reply.status == 204
    assert reply["access-control-allow-origin"] == "*"
    assert reply.names("access-control-allow-methods") == lower(METHODS)
    assert reply.names("access-control-allow-headers") == lower(ALLOWED)
    assert reply.names("access-control-expose-headers") == lower(EXPOSED)
    assert reply["access-control-max-age"] == "86400"
    assert "access-control-allow-credentials" not in reply


@pytest.mark.parametrize("name", ALL)
def test_every_reply_can_be_read_by_any_page(asking: Tus, name: str) -> None:
    """T129: errors included, or the browser shows no status and the client tries for ever."""
    reply = ALL[name](asking)

    assert reply.status == expected_status(name)
    assert reply["access-control-allow-origin"] == "*"
    assert reply.names("access-control-expose-headers") == lower(EXPOSED)
    assert "access-control-allow-credentials" not in reply


def check_let_in(reply: Reply, origin: str) -> None:
    assert reply["access-control-allow-origin"] == origin
    assert reply["access-control-allow-credentials"] == "true"
    assert "origin" in reply.names("vary")
    # `*` would be no wildcard here.
    assert reply.names("access-control-expose-headers") == lower(EXPOSED)


@pytest.mark.parametrize("name", ALL)
def test_every_reply_can_be_read_by_a_named_origin(named_server: ServerProcess, name: str) -> None:
    """T129."""
    check_let_in(ALL[name](at(named_server, ORIGIN)), ORIGIN)


@pytest.mark.parametrize(
    "origin", [ORIGIN, "https://a.example.org", "https://b.a.example.org", "http://localhost:3000"]
)
def test_a_named_origin_gets_full_lists_in_the_preflight(
    named_server: ServerProcess, origin: str
) -> None:
    """T129."""
    reply = at(named_server, origin).options(fields=PREFLIGHT)

    check_let_in(reply, origin)
    assert reply.names("access-control-allow-methods") == lower(METHODS)
    assert reply.names("access-control-allow-headers") == lower(ALLOWED)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com.evil.net",
        "https://evil.net/https://app.example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://xapp.example.com",
        "https://example.org",
        "https://evil-example.org",
        "https://a.example.org.evil.net",
        "http://localhost",
        "null",
        "*",
        "",
        "https://app.example.com, https://a.example.org",
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "POST"])
def test_another_origin_is_not_let_in(
    named_server: ServerProcess, origin: str, method: str
) -> None:
    """T129: origins are compared as a whole."""
    reply = at(named_server, origin).request(method, "/files/", {"Upload-Length": "5"})

    assert "access-control-allow-origin" not in reply
    assert "access-control-allow-credentials" not in reply
    assert "origin" in reply.names("vary")


def test_without_an_origin_the_reply_still_varies(named_server: ServerProcess) -> None:
    """T129: a cache must not give it to a page."""
    reply = at(named_server, None).create(5)

    assert reply.status == 201
    assert "access-control-allow-origin" not in reply
    assert "origin" in reply.names("vary")


def test_pages_may_use_header_fields_of_their_own(fresh_server: ServerFactory) -> None:
    server = fresh_server(
        TUS_CORS_ALLOW_HEADERS="X-Api-Key, X-Tenant", TUS_CORS_EXPOSE_HEADERS="X-Seen"
    )
    tus = Tus(server.port)
    fields = PREFLIGHT | {"Origin": ORIGIN}

    preflight = tus.request("OPTIONS", tus.base, fields)
    reply = tus.request("HEAD", UNKNOWN, {"Origin": ORIGIN})

    allowed = lower(preflight["access-control-allow-headers"])
    assert allowed == lower(ALLOWED) | {"x-api-key", "x-tenant"}
    assert lower(reply["access-control-expose-headers"]) == lower(EXPOSED) | {"x-seen"}
