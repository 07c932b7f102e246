"""The upload page as files over HTTP: where it is, what it tells the browser, how it is kept."""

import gzip
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.conftest import ServerFactory
from tests.support.http import Reply, request
from tests.support.server import REPOSITORY, ServerProcess
from tests.support.stock import StockServer

BUNDLE = files("tus_server.http") / "page"
WORD_AT_THE_ROOT = b"tus_server takes resumable uploads (tus 1.0.0) at /files/\n"
LINK = re.compile(r'(?:src|href)="((?!data:)[^"]+)"')
BUILD_TIMEOUT_S = 110.0


@pytest.fixture(scope="session")
def body_path() -> str:
    """One body path is enough: the page has no bodies."""
    return "fast"


def told(reply: Reply) -> dict[str, str]:
    """Give what the server tells the page of itself."""
    (body,) = re.findall(r"<body([^>]*)>", reply.body.decode())
    return dict(re.findall(r'data-([a-z-]+)="([^"]*)"', body))


def test_the_root_has_the_page(server: ServerProcess) -> None:
    reply = request(server.port, "GET", "/")

    assert reply.status == 200
    assert reply["content-type"] == "text/html; charset=utf-8"
    assert told(reply) == {
        "endpoint": "./files/",
        "max-size": "",
        "downloads": "yes",
        "open": "yes",
    }
    head = request(server.port, "HEAD", "/")
    assert (head.status, head.body) == (200, b"")
    assert head["content-length"] == reply["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_the_root_takes_only_get_and_head(server: ServerProcess, method: str) -> None:
    reply = request(server.port, method, "/")

    assert reply.status == 405
    assert reply.names("allow") == {"get", "head"}
    assert reply.problem()["code"] == "method_not_allowed"


def test_the_page_knows_the_settings_it_needs(fresh_server: ServerFactory) -> None:
    server = fresh_server(
        TUS_BASE_PATH="/api/v1/up-loads", TUS_MAX_SIZE="10 MiB", TUS_DOWNLOADS="off"
    )

    assert told(request(server.port, "GET", "/")) == {
        "endpoint": "./api/v1/up-loads/",
        "max-size": str(10 * 1024 * 1024),
        "downloads": "no",
        "open": "yes",
    }


def test_nothing_from_elsewhere_may_run_or_be_reached(server: ServerProcess) -> None:
    reply = request(server.port, "GET", "/")
    policy = dict(part.split(" ", 1) for part in reply["content-security-policy"].split("; "))

    assert policy["default-src"] == "'self'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["object-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert reply["x-content-type-options"] == "nosniff"
    assert reply["referrer-policy"] == "same-origin"
    html = reply.body.decode()
    assert "<style" not in html
    assert not re.search(r"<script(?![^>]* src=)", html)
    assert not re.search(r'\s(on\w+|style)="', html)
    assert not [link for link in LINK.findall(html) if ":" in link or link.startswith("//")]


def test_uploads_at_a_public_url_may_be_reached(fresh_server: ServerFactory) -> None:
    """Location begins with it, whatever the page was loaded from."""
    server = fresh_server(TUS_PUBLIC_URL="https://files.example.com:8443/tus")

    policy = request(server.port, "GET", "/")["content-security-policy"]

    assert "connect-src 'self' https://files.example.com:8443;" in policy


def test_assets_are_kept_for_ever_and_the_page_is_asked_for(server: ServerProcess) -> None:
    page = request(server.port, "GET", "/")
    assert page["cache-control"] == "no-cache"
    links = LINK.findall(page.body.decode())
    assert len(links) == 3

    for link in links:
        reply = request(server.port, "GET", f"/{link}")
        assert reply.status == 200
        assert reply["cache-control"] == "public, max-age=31536000, immutable"
        assert reply["x-content-type-options"] == "nosniff"
        assert reply.body
        # Of another version: what is there, but not to keep.
        stale = request(server.port, "GET", f"/{link.partition('?')[0]}?v=0123456789abcdef")
        assert (stale.body, stale["cache-control"]) == (reply.body, "no-cache")


def test_what_the_browser_has_is_not_sent_again(server: ServerProcess) -> None:
    """RFC 9110, 13.1.2."""
    for path in ("/", "/page.js", "/page.css"):
        etag = request(server.port, "GET", path)["etag"]

        reply = request(server.port, "GET", path, {"If-None-Match": etag})

        assert (reply.status, reply.body, reply["etag"]) == (304, b"", etag)
        assert request(server.port, "GET", path, {"If-None-Match": '"else"'}).status == 200


def test_assets_come_compressed_where_that_is_taken(server: ServerProcess) -> None:
    plain = request(server.port, "GET", "/page.js")

    zipped = request(server.port, "GET", "/page.js", {"Accept-Encoding": "gzip, br"})

    assert zipped["content-encoding"] == "gzip"
    assert zipped["vary"] == plain["vary"] == "Accept-Encoding"
    assert zipped["etag"] != plain["etag"]
    assert gzip.decompress(zipped.body) == plain.body
    assert len(zipped.body) < len(plain.body) / 2


def test_the_page_can_be_switched_off(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_PAGE="off")

    assert request(server.port, "GET", "/").body == WORD_AT_THE_ROOT
    assert request(server.port, "GET", "/page.js").status == 404


def test_uploads_at_the_root_leave_no_room_for_the_page(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_BASE_PATH="/")

    assert request(server.port, "GET", "/").status == 405


def test_the_page_is_below_what_the_application_is_mounted_at(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its addresses are relative: no matter what stands before them."""
    with StockServer("mounted", "httptools", tmp_path_factory.mktemp("page") / "data") as server:
        prefix = server.base.removesuffix("files/")
        page = request(server.port, "GET", prefix)

        assert told(page)["endpoint"] == "./files/"
        for link in LINK.findall(page.body.decode()):
            assert request(server.port, "GET", prefix + link).status == 200


def test_everything_in_the_bundle_is_named_with_its_license(server: ServerProcess) -> None:
    notes = request(server.port, "GET", "/page-licenses.txt").body.decode()

    for package in ("@uppy/core", "@uppy/dashboard", "@uppy/tus", "tus-js-client", "preact"):
        assert re.search(rf"^{package} \d+\.\d+\.\d+$", notes, re.MULTILINE)
    assert "Copyright (c)" in notes


@pytest.mark.full
@pytest.mark.needs_node
def test_the_bundle_is_what_its_sources_make(tmp_path: Path) -> None:
    """`make page`, from the lock: the same input, the same bytes."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    sources = tmp_path / "page"
    ignored = shutil.ignore_patterns("node_modules")
    shutil.copytree(REPOSITORY / "page", sources, ignore=ignored)
    try:
        subprocess.run(
            ["npm", "ci", "--silent"],
            cwd=sources,
            capture_output=True,
            check=True,
            timeout=BUILD_TIMEOUT_S,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        pytest.skip(f"npm cannot install what the page is made of: {exc}")

    built = tmp_path / "built"
    subprocess.run(["node", "build.mjs", built], cwd=sources, check=True, timeout=60)

    names = sorted(path.name for path in built.iterdir())
    assert names == sorted(entry.name for entry in BUNDLE.iterdir())
    for name in names:
        assert (built / name).read_bytes() == (BUNDLE / name).read_bytes(), (
            f"run `make page`: {name}"
        )
