"""DELETE on any node, wherever the bytes are."""

import pytest

from tests.support.nodes import MIB, Cluster, log_lines
from tests.support.records import upload_id
from tests.support.tus import pattern

WHOLE = pattern(12 * MIB)


@pytest.mark.parametrize("sent", [0, 1 * MIB, 5 * MIB], ids=["nothing", "a-tail", "a-part"])
def test_an_unfinished_upload_is_terminated_on_its_node(pair: Cluster, sent: int) -> None:
    tus = pair.tus("a")
    url = tus.stored(WHOLE[:sent], length=len(WHOLE))

    assert tus.delete(url).status == 204

    assert [pair.tus(name).head(url).status for name in "ab"] == [404, 404]
    assert pair.events(url) == ["canceled"]
    assert pair.leftovers() == []


def test_a_tail_on_another_node_is_swept_when_that_starts(pair: Cluster) -> None:
    urls = [pair.tus("a").stored(WHOLE[:sent], length=len(WHOLE)) for sent in (MIB, 7 * MIB)]
    kept = pair.tus("a").stored(WHOLE[:MIB], length=len(WHOLE))

    for url in urls:
        assert pair.tus("b").delete(url).status == 204
        assert [pair.tus(name).head(url).status for name in "ab"] == [404, 404]
        assert pair.tus("a").patch(url, MIB, b"x").status == 404
    assert len(pair.tail_files("a")) == 3
    assert pair.multiparts() == []
    pair.nodes["a"].stop()
    pair.nodes["a"].start()

    assert pair.tus("a").finish(kept, WHOLE) == WHOLE
    pair.wait_clean()
    swept = {line["upload"] for line in log_lines(pair.nodes["a"], "sweep.removed_tail")}
    assert swept >= {upload_id(url) for url in urls}


def test_a_parked_tail_goes_with_its_upload(pair: Cluster) -> None:
    url = pair.tus("a").new(len(WHOLE))
    pair.tus("b").append(url, 0, WHOLE[:MIB])
    assert len(pair.parked()) == 1

    assert pair.tus("b").delete(url).status == 204

    assert pair.leftovers() == []


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_a_finished_upload_is_deleted_on_any_node(pair: Cluster, size: int) -> None:
    url = pair.tus("a").stored(WHOLE[:size])

    assert pair.tus("b").delete(url).status == 204

    assert [pair.tus(name).head(url).status for name in "ab"] == [404, 404]
    assert pair.tus("a").get(url).status == 404
    assert pair.key(url) not in pair.bucket.find_keys()
    assert pair.events(url) == ["verified", "deleted"]
