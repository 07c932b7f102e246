"""Uppy's S3 plugin in a browser, over Postgres and S3: parts go to the store, past the server."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.browser.conftest import MIB
from tests.support.cors_proxy import add_cors
from tests.support.fault_proxy import FaultProxy
from tests.support.nodes import Cluster, checked, run_cluster
from tests.support.s3 import S3Service, run_apart
from tests.support.s3_plugin import PluginPage, build_page, serve_page
from tests.support.tus import pattern

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = [pytest.mark.needs_apt, pytest.mark.needs_node]

SIZE = 11 * MIB + 17  # three parts
TOKEN = "a-token-of-32-characters-or-more"


def rules_for(origin: str) -> dict[str, Any]:
    """Give the rules that docs/direct-uploads.md gives a bucket."""
    rule = {
        "AllowedOrigins": [origin],
        "AllowedMethods": ["PUT"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 3600,
    }
    return {"CORSRules": [rule]}


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    with serve_page(build_page()) as origin:
        yield origin


@pytest.fixture
def node(s3: S3Service, site: str, tmp_path: Path, postgres_url: str) -> Iterator[Cluster]:
    """A cluster whose one node is a, and whose bucket pages of the site may send to."""
    has_rules = s3.name != "swift"
    with (
        nullcontext(s3.endpoint) if has_rules else add_cors(s3, site) as endpoint,
        run_cluster(tmp_path, postgres_url, s3) as cluster,
    ):
        if has_rules:
            run_apart(put_rules(cluster, site))
        cluster.node("a", TUS_S3_ENDPOINT_URL=endpoint, TUS_API_TOKEN=TOKEN, TUS_CORS_ORIGINS=site)
        with checked(cluster):
            yield cluster


async def put_rules(cluster: Cluster, origin: str) -> None:
    async with cluster.s3.client() as client:
        await client.put_bucket_cors(
            Bucket=cluster.bucket.name, CORSConfiguration=rules_for(origin)
        )


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(pattern(SIZE))
    return path


def open_page(context: "BrowserContext", site: str, port: int, multipart: str) -> PluginPage:
    endpoint = f"http://127.0.0.1:{port}/companion"
    return PluginPage(context, site).open(endpoint=endpoint, token=TOKEN, multipart=multipart)


def check(page: PluginPage, film: Path) -> str:
    """Check that the file has become an upload of the same bytes; give its URL."""
    (finished,) = page.finished()
    with urlopen(finished["url"]) as reply:
        assert reply.read() == film.read_bytes()
    assert page.complaints == []
    return finished["url"]


def test_a_file_in_parts(context: "BrowserContext", node: Cluster, site: str, film: Path) -> None:
    with FaultProxy(node.nodes["a"].port) as line:
        opened = open_page(context, site, line.port, "yes")
        opened.upload(film)

        url = check(opened, film)

        assert opened.methods() == ["POST", *["GET", "PUT"] * 3, "POST"]
        sent = [one for one in opened.asked if one.method == "PUT"]
        assert all(one.path.startswith(f"/{node.bucket.name}/") for one in sent)
        assert line.up.passed < MIB
    assert node.count_parts(url) == 3
    assert node.content(url) == film.read_bytes()


def test_a_file_in_one_request(
    context: "BrowserContext", node: Cluster, site: str, film: Path
) -> None:
    """By this server: it is a form, which not every S3 service takes."""
    opened = open_page(context, site, node.nodes["a"].port, "no")
    opened.upload(film)

    url = check(opened, film)

    assert [one.path for one in opened.asked] == ["/companion/s3/params", "/files/"]
    assert node.content(url) == film.read_bytes()


def test_a_server_killed_between_two_parts(
    context: "BrowserContext", node: Cluster, site: str, film: Path
) -> None:
    server = node.nodes["a"]
    opened = open_page(context, site, server.port, "yes")

    def kill(route: Any) -> None:
        server.kill()
        route.continue_()

    second = "**/companion/s3/multipart/*/2?*"
    opened.page.route(second, kill)
    opened.upload(film)
    assert opened.problem() == "Failed to fetch"
    opened.page.unroute(second)
    server.start()
    opened.asked.clear()
    opened.run("window.problems = []; void window.uppy.retryAll()")

    url = check(opened, film)

    assert opened.methods() == ["GET", *["GET", "PUT"] * 2, "POST"]
    assert node.content(url) == film.read_bytes()


def test_a_file_that_is_removed_leaves_nothing(
    context: "BrowserContext", node: Cluster, site: str, film: Path
) -> None:
    opened = open_page(context, site, node.nodes["a"].port, "yes")
    opened.run(
        "window.uppy.on('s3-multipart:part-uploaded', ({ id }) => window.uppy.removeFile(id))"
    )
    opened.upload(film)
    opened.wait_until(lambda: "DELETE" in opened.methods(), "it is aborted")

    opened.wait_until(lambda: not node.leftovers(), "nothing of it is left")
    assert node.bucket.find_keys() == []
    assert urlsplit(opened.asked[-1].path).path.count("/") == 4
