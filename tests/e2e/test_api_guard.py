"""Who reaches the JSON API: the application with its token, without one this machine alone."""

import socket
from collections.abc import Iterator

import pytest

from tests.conftest import ServerFactory, check_log
from tests.support.api import Api
from tests.support.http import Fields, Reply, request
from tests.support.server import ServerProcess
from tests.support.stock import StockServer
from tests.support.tus import Tus

TOKEN = "s3cret-of-the-tests"
BEARER: Fields = {"Authorization": f"Bearer {TOKEN}"}
PAGE = "https://app.example.com"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="session")
def body_path() -> str:
    """One body path is enough: nothing here depends on it."""
    return "fast"


def ask(server: ServerProcess, fields: Fields | None = None, *, method: str = "GET") -> Reply:
    return request(server.port, method, "/api/uploads", fields)


def code_of(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.problem()["code"]


# --- without a token


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST"])
def test_this_machine_needs_none(host: str, api_server: ServerProcess) -> None:
    assert ask(api_server, {"Host": f"{host}:{api_server.port}"}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost", "localhost.evil.example:{port}", "127.0.0.1:1", ""]
)
def test_a_name_that_was_made_to_lead_here_is_refused(host: str, api_server: ServerProcess) -> None:
    """DNS rebinding: the page's own name leads to 127.0.0.1, and the browser sends that name."""
    for extra in ({}, {"Origin": f"http://{host}"}, {"Sec-Fetch-Site": "same-origin"}):
        reply = ask(api_server, {"Host": host.format(port=api_server.port), **extra})

        assert code_of(reply) == (403, "forbidden")
        assert "TUS_API_TOKEN" in reply.problem()["detail"]


def test_what_pages_of_other_sites_can_send_without_asking_changes_nothing(
    api_server: ServerProcess,
) -> None:
    """CSRF: forms, texts, images, in browsers of any age."""
    before = ask(api_server).body
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
            reply = request(
                api_server.port,
                "POST",
                "/api/uploads",
                {"Origin": origin, "Content-Type": media_type},
                b'{"kind": "tus"}',
            )
            assert code_of(reply) == (403, "forbidden")
            assert "access-control-allow-origin" not in reply
    for site in ("cross-site", "same-site"):
        assert code_of(ask(api_server, {"Sec-Fetch-Site": site})) == (403, "forbidden")

    assert ask(api_server).body == before


@pytest.mark.parametrize(
    "field", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"]
)
def test_what_a_proxy_here_passes_on_is_not_of_this_machine(
    field: str, api_server: ServerProcess
) -> None:
    assert code_of(ask(api_server, {field: "x"})) == (403, "forbidden")


def test_http_1_0_is_what_a_proxy_without_settings_speaks(api_server: ServerProcess) -> None:
    with Tus(api_server.port).connect() as connection:
        connection.send_head("GET", "/api/uploads", version="HTTP/1.0")
        assert connection.read_reply().status == 403


@pytest.mark.parametrize(
    "env", [{"TUS_PUBLIC_URL": "https://up.example.com"}, {"TUS_BEHIND_PROXY": "127.0.0.1"}]
)
def test_a_server_that_is_used_from_elsewhere_needs_one(
    env: dict[str, str], fresh_server: ServerFactory
) -> None:
    assert code_of(ask(fresh_server(**env))) == (403, "forbidden")


def test_an_address_of_the_network_is_not_this_machine(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_HOST="0.0.0.0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; tells our own address
        own = probe.getsockname()[0]
    if own.startswith("127."):
        pytest.skip("this machine has no address but loopback")

    with socket.create_connection((own, server.port), timeout=10) as connection:
        connection.sendall(
            f"GET /api/uploads HTTP/1.1\r\nHost: localhost:{server.port}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        head = connection.makefile("rb").read()
    assert head.startswith(b"HTTP/1.1 403")


# --- with a token


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(
        tmp_path_factory.mktemp("guarded") / "data",
        TUS_API_TOKEN=TOKEN,
        TUS_PUBLIC_URL="https://up.example.com",
        TUS_CORS_ORIGINS=PAGE,
    ) as server:
        yield server
        check_log(server.log)


def test_the_token_is_asked_for_of_everyone(guarded: ServerProcess) -> None:
    assert ask(guarded, BEARER).status == 200
    assert ask(guarded, {**BEARER, "Host": "up.example.com", "Via": "1.1 x"}).status == 200
    for fields in (
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": [f"Bearer {TOKEN}", f"Bearer {TOKEN}"]},
    ):
        reply = ask(guarded, fields)
        assert code_of(reply) == (401, "unauthenticated")
        assert reply["www-authenticate"] == "Bearer"
    assert request(guarded.port, "GET", "/api/openapi.json").status == 401
    assert request(guarded.port, "GET", "/api/nothing").status == 401


def test_nobody_is_asked_for_a_body_before_the_token(guarded: ServerProcess) -> None:
    with Tus(guarded.port).connect() as connection:
        connection.send_head(
            "POST", "/api/uploads", {**JSON, "Content-Length": "9", "Expect": "100-continue"}
        )
        reply = connection.read_reply()

    assert reply.status == 401
    assert not reply.interim


def test_the_token_is_in_no_log(guarded: ServerProcess) -> None:
    ask(guarded, BEARER)
    ask(guarded, {"Authorization": f"Bearer {TOKEN}x"})

    assert TOKEN not in guarded.log


def test_urls_begin_with_the_public_one(guarded: ServerProcess) -> None:
    with Api(guarded.port, fields={"Authorization": f"Bearer {TOKEN}"}) as api:
        reply = api.try_to_begin("tus", 5)

        assert reply.headers["location"].startswith("https://up.example.com/api/uploads/")
        assert reply.json()["tus"]["url"].startswith("https://up.example.com/files/")
        assert api.document.document["security"] == [{"token": []}]


def test_pages_of_a_named_origin_may_use_it(guarded: ServerProcess) -> None:
    preflight = ask(
        guarded,
        {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, idempotency-key, prefer",
        },
        method="OPTIONS",
    )
    reply = ask(guarded, {**BEARER, "Origin": PAGE})
    refusal = ask(guarded, {"Origin": PAGE})

    assert (preflight.status, preflight["access-control-allow-origin"]) == (204, PAGE)
    assert {"authorization", "idempotency-key", "prefer", "content-type"} <= preflight.names(
        "access-control-allow-headers"
    )
    assert {"location", "preference-applied", "retry-after", "etag"} <= reply.names(
        "access-control-expose-headers"
    )
    assert refusal.status == 401
    for one in (preflight, reply, refusal):
        assert one["access-control-allow-origin"] == PAGE
        assert "origin" in one.names("vary")


def test_every_origin_for_uploads_is_none_for_the_api(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_API_TOKEN=TOKEN)  # TUS_CORS_ORIGINS is *

    fields = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    for reply in (
        ask(server, fields, method="OPTIONS"),
        ask(server, {**BEARER, "Origin": PAGE}),
        ask(server, {"Origin": PAGE}),
    ):
        assert not [name for name, _ in reply.fields if name.lower().startswith("access-control")]
    assert Tus(server.port).options(fields={"Origin": PAGE})["access-control-allow-origin"] == "*"


# --- where it is


def test_it_can_be_switched_off(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_API="off")

    assert code_of(ask(server)) == (404, "not_found")
    assert Tus(server.port).create(5).status == 201


def test_with_uploads_at_the_root_it_is_still_there(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_BASE_PATH="/")
    with Api(server.port) as api:
        upload_id = api.upload(b"hello", "multipart")

        url = api.find(upload_id)["object"]["url"]
        assert url == f"http://127.0.0.1:{server.port}/{upload_id}"
        assert request(server.port, "GET", f"/{upload_id}").body == b"hello"
        assert request(server.port, "GET", "/api").status == 404


def test_uploads_can_be_beside_it(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_BASE_PATH="/api/files/")
    with Api(server.port) as api:
        upload_id = api.upload(b"hello")

        assert request(server.port, "GET", f"/api/files/{upload_id}").body == b"hello"


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_it_works_inside_another_application(
    http: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with StockServer("mounted", http, tmp_path_factory.mktemp("api") / "data") as server:
        with Api(server.port, prefix="/api") as api:
            view = api.begin("single", 5)
            reply = api.try_to_begin("single", 5)
            assert reply.headers["location"].startswith(
                f"http://127.0.0.1:{server.port}/api/api/uploads/"
            )
            assert api.send(view["put"], b"hello").status_code == 200
            waited = api.post(view["id"], "complete", fields={"Prefer": "wait=30"})
            url = waited.json()["object"]["url"]
            assert url == f"http://127.0.0.1:{server.port}/api/files/{view['id']}"
            assert api.client.get(url).content == b"hello"
            assert api.document.document["servers"] == [{"url": "/api"}]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
def test_what_is_for_everybody_stays_so(path: str, guarded: ServerProcess) -> None:
    assert request(guarded.port, "GET", path, {"Host": "up.example.com"}).status == 200
