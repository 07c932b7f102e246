"""The companionEndpoint of Uppy's S3 plugin over Postgres and S3."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.companion import PART_BYTES, Plugin, cut
from tests.support.http import Reply
from tests.support.nodes import Cluster, checked, run_cluster
from tests.support.s3 import S3Service
from tests.support.tus import pattern

SIZE = 2 * PART_BYTES + 17


@pytest.fixture(scope="module")
def _node(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, _swift: S3Service, body_path: str
) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("companion-s3"), postgres_url, _swift) as made:
        made.node("a", TUS_BODY_PATH=body_path)
        yield made


@pytest.fixture
def node(_node: Cluster) -> Iterator[Cluster]:
    """A cluster whose one node is a; each test leaves nothing over in it."""
    with checked(_node):
        yield _node


@pytest.fixture
def plugin(node: Cluster) -> Plugin:
    return Plugin(node.nodes["a"].port)


def told(reply: Reply) -> Any:
    assert reply.status == 200, reply
    return json.loads(reply.body)


def test_parts_go_to_the_store(plugin: Plugin, node: Cluster) -> None:
    content = pattern(SIZE)
    begun = plugin.new(SIZE)
    pieces = dict(cut(content))
    first = plugin.send_part(begun, 2, pieces[2])
    listed = told(plugin.list_parts(begun))
    parts = [(number, plugin.send_part(begun, number, pieces[number])) for number in (1, 2, 3)]

    refused = plugin.complete(begun, [(1, "0" * 32), *parts[1:]])
    completed = told(plugin.complete(begun, parts))

    assert listed == [{"PartNumber": 2, "Size": PART_BYTES, "ETag": f'"{first}"'}]
    assert (refused.status, refused.problem()["part"]) == (409, 1)
    assert node.content(completed["location"]) == content
    assert node.count_parts(completed["location"]) == 3
    assert node.state(completed["location"]) == "verified"
    assert told(plugin.complete(begun, parts)) == completed
    assert plugin.abort(begun).status == 409
    assert node.content(completed["location"]) == content


def test_a_form_goes_through_the_server(plugin: Plugin, node: Cluster) -> None:
    for content in (b"", b"hello", pattern(SIZE)):
        params = told(plugin.params("a.txt"))

        sent = plugin.send_form(params, content)

        assert sent.status == 201
        assert node.state(sent["location"]) == "verified"
        assert node.content(sent["location"]) == content


def test_an_upload_that_is_aborted_leaves_nothing(plugin: Plugin, node: Cluster) -> None:
    begun = plugin.new(SIZE)
    plugin.send_part(begun, 1, pattern(PART_BYTES))
    assert node.multiparts()

    assert told(plugin.abort(begun)) == {}

    assert node.multiparts() == []
    assert plugin.sign(begun, 2).status == 409
