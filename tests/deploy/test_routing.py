"""Which node gets which request: haproxy and nginx with deploy/'s files, nodes that only echo."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.balancers import BALANCERS, Balancer
from tests.deploy.echo import EchoNode
from tests.support.http import Connection, Fields, Reply, request
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs_apt

ID = "0123456789abcdef0123456789abcdef"
Asking = tuple[str, dict[str, str]]  # method, fields
TO_ITS_NODE: list[Asking] = [
    ("PATCH", {}),
    ("DELETE", {}),
    *(("POST", {"X-HTTP-Method-Override": verb}) for verb in ("PATCH", "DELETE", "patch")),
]
ANYWHERE: list[Asking] = [("HEAD", {}), ("GET", {}), ("OPTIONS", {})]


@pytest.fixture(params=list(BALANCERS))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator["Site"]:
    with ExitStack() as stack:
        nodes = {label: stack.enter_context(EchoNode(label)) for label in "ab"}
        balancer = BALANCERS[request.param](tmp_path, {n.label: n.port for n in nodes.values()})
        site = Site(stack.enter_context(balancer), nodes)
        wait_until(lambda: all(site.is_up(label) for label in nodes), "the nodes are up")
        yield site


class Site:
    """Two nodes, and the balancer in front of them."""

    def __init__(self, balancer: Balancer, nodes: dict[str, EchoNode]) -> None:
        self.balancer = balancer
        self.nodes = nodes

    def ask(self, method: str, path: str, fields: Fields | None = None, body: bytes = b"") -> Reply:
        return request(
            self.balancer.port, method, path, {"Tus-Resumable": "1.0.0"} | dict(fields or {}), body
        )

    def node_of(self, method: str, path: str, fields: Fields | None = None) -> str:
        reply = self.ask(method, path, fields)
        assert reply.status == 200, reply
        return reply["x-node"]

    def is_up(self, label: str) -> bool:
        return self.ask("DELETE", f"/files/{ID}.{label}").status == 200

    def takes_new(self, label: str) -> bool:
        """Tell whether one of a few new uploads went to a node."""
        return label in {self.node_of("POST", "/files/") for _ in range(8)}

    def stop(self, *labels: str) -> None:
        for label in labels:
            self.nodes[label].stop()

    def asked(self) -> dict[str, list[tuple[str, str]]]:
        return {n.label: [(a.method, a.path) for a in n.asked] for n in self.nodes.values()}


@pytest.mark.parametrize(("method", "fields"), TO_ITS_NODE + ANYWHERE)
def test_an_upload_is_asked_of_the_node_in_its_address(
    site: Site, method: str, fields: dict[str, str]
) -> None:
    nodes = [site.node_of(method, f"/files/{ID}.{label}", fields) for label in "aabbbaab"]

    if method == "OPTIONS":
        assert set(nodes) == {"a", "b"}
    else:
        assert nodes == list("aabbbaab")


@pytest.mark.parametrize("path", ["/files/", "/files"])
def test_new_uploads_are_spread(site: Site, path: str) -> None:
    assert {site.node_of("POST", path) for _ in range(20)} == {"a", "b"}


@pytest.mark.parametrize("prefix", ["/", "/api/v1/uploads/"])
def test_the_address_may_have_another_base_path(site: Site, prefix: str) -> None:
    assert [site.node_of("PATCH", f"{prefix}{ID}.{label}") for label in "aabb"] == list("aabb")


def test_an_address_without_label_goes_anywhere(site: Site) -> None:
    assert {site.node_of("PATCH", f"/files/{ID}") for _ in range(20)} == {"a", "b"}


def test_an_unknown_label_is_not_given_to_another_node(site: Site) -> None:
    reply = site.ask("PATCH", f"/files/{ID}.zz", body=b"x")

    assert_away(reply)
    assert site.node_of("HEAD", f"/files/{ID}.zz") in "ab"


def test_while_its_node_is_down_no_other_gets_the_bytes(site: Site) -> None:
    site.stop("b")
    site.nodes["a"].asked.clear()
    replies = [
        site.ask(method, f"/files/{ID}.b", fields, b"x" * 100_000)
        for method, fields in TO_ITS_NODE * 2
    ]

    for reply in replies:
        assert_away(reply)
    assert site.asked()["a"] == []
    assert site.node_of("PATCH", f"/files/{ID}.a") == "a"

    site.nodes["b"].start()
    wait_until(lambda: site.is_up("b"), "b is used again")


@pytest.mark.parametrize("method", [method for method, _ in ANYWHERE])
def test_while_its_node_is_down_another_answers_what_changes_nothing(
    site: Site, method: str
) -> None:
    site.stop("b")

    assert [site.node_of(method, f"/files/{ID}.b") for _ in range(5)] == ["a"] * 5


def test_a_creation_that_a_node_refuses_is_repeated_at_another(site: Site) -> None:
    site.stop("b")

    assert [site.node_of("POST", "/files/") for _ in range(10)] == ["a"] * 10


def test_a_creation_that_reached_a_node_is_not_repeated(site: Site) -> None:
    for node in site.nodes.values():
        node.asked.clear()
        node.breaks = True
    reply = site.ask("POST", "/files/", body=b"x" * 1000)

    assert reply.status in (502, 503)
    assert sum(len(asked) for asked in site.asked().values()) == 1


def test_a_patch_that_reached_its_node_is_not_repeated(site: Site) -> None:
    site.nodes["a"].asked.clear()
    site.nodes["b"].asked.clear()
    site.nodes["b"].breaks = True
    reply = site.ask("PATCH", f"/files/{ID}.b", body=b"x" * 1000)

    assert reply.status in (502, 503)
    assert site.asked() == {"a": [], "b": [("PATCH", f"/files/{ID}.b")]}


def test_a_head_that_a_node_breaks_off_is_answered_by_another(site: Site) -> None:
    site.nodes["b"].breaks = True

    assert site.node_of("HEAD", f"/files/{ID}.b") == "a"


@pytest.mark.full
def test_a_head_that_a_frozen_node_keeps_is_answered_by_another(site: Site) -> None:
    site.nodes["b"].silent.set()
    with Connection(site.balancer.port, timeout_s=60) as connection:
        connection.send_head("HEAD", f"/files/{ID}.b", {"Tus-Resumable": "1.0.0"})
        reply = connection.read_reply()

    assert (reply.status, reply["x-node"]) == (200, "a")


@pytest.mark.parametrize("label", ["a", "b"])
def test_with_every_node_down_head_is_423(site: Site, label: str) -> None:
    site.stop("a", "b")
    early = site.ask("HEAD", f"/files/{ID}.{label}")
    wait_until(lambda: site.ask("GET", "/files/").status == 503, "that is noticed")
    late = site.ask("HEAD", f"/files/{ID}.{label}")

    for reply in (early, late):
        assert reply.status == 423
        assert reply["retry-after"].isdigit()
        assert reply["tus-resumable"] == "1.0.0"
        assert reply["cache-control"] == "no-store"
    assert_away(site.ask("POST", "/files/"))
    assert_away(site.ask("GET", f"/files/{ID}.{label}"))


def test_with_every_node_broken_head_is_423(site: Site) -> None:
    for node in site.nodes.values():
        node.breaks = True
    reply = site.ask("HEAD", f"/files/{ID}.a")

    assert reply.status == 423
    assert reply["retry-after"].isdigit()


def test_a_page_of_another_origin_may_read_what_the_balancer_says(site: Site) -> None:
    site.stop("a", "b")
    fields = {"Origin": "https://app.example.com"}
    replies = [site.ask(verb, f"/files/{ID}.a", fields) for verb in ("HEAD", "PATCH")]

    for reply in replies:
        assert reply["access-control-allow-origin"] == "*"
        assert "retry-after" in reply.names("access-control-expose-headers")


def test_a_retired_node_s_uploads_go_to_its_heir(site: Site) -> None:
    site.stop("b")
    site.balancer.retire("b", "a")
    site.balancer.restart()
    wait_until(lambda: site.is_up("a"), "a is up")

    for method, fields in TO_ITS_NODE + ANYWHERE:
        assert site.node_of(method, f"/files/{ID}.b", fields) == "a"


def test_a_body_reaches_the_node_while_it_is_sent(site: Site) -> None:
    half = b"x" * 500_000
    with Connection(site.balancer.port) as connection:
        connection.send_head("PATCH", f"/files/{ID}.b", {"Content-Length": str(2 * len(half))})
        connection.send(half)
        wait_until(lambda: site.nodes["b"].received >= len(half), "the node has the first half")
        connection.send(half)

        assert connection.read_reply().status == 200


def test_the_node_hears_who_asked_and_where(site: Site) -> None:
    lies = {
        "Host": "files.example.com:8443",
        "Forwarded": "for=192.0.2.1;host=evil.example;proto=https",
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Proto": "https",
    }
    site.ask("HEAD", f"/files/{ID}.a", lies)
    fields = site.nodes["a"].asked[-1].fields

    assert fields["host"] == fields["x-forwarded-host"] == "files.example.com:8443"
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == "http"
    assert "forwarded" not in fields
    assert "x-forwarded-port" not in fields


def test_the_largest_request_head_gets_through(site: Site) -> None:
    metadata = "name " + "x" * 31_000
    reply = site.ask("PATCH", f"/files/{ID}.a", {"Upload-Metadata": metadata})

    assert reply.status == 200
    assert site.nodes["a"].asked[-1].fields["upload-metadata"] == metadata


def test_a_node_that_drains_gets_no_new_uploads_and_keeps_its_own(
    site: Site, request: pytest.FixtureRequest
) -> None:
    if site.balancer.program == "nginx":
        pytest.skip("nginx asks no node how it is; it notices refused connections only")
    site.nodes["b"].ready = False
    wait_until(lambda: not site.takes_new("b"), "b gets no new uploads")

    assert site.node_of("PATCH", f"/files/{ID}.b") == "b"
    assert site.node_of("HEAD", f"/files/{ID}.b") == "a"

    site.nodes["b"].ready = True
    wait_until(lambda: site.takes_new("b"), "b gets new uploads again")


def assert_away(reply: Reply) -> None:
    assert reply.status == 503
    assert reply["retry-after"].isdigit()
    assert "x-node" not in reply
    assert reply.problem()["code"] == "node_away"
