"""tus-js-client in node over the IETF draft, in both modes it has: ietf-draft-03 and -05."""

from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import ServerFactory
from tests.e2e.tus_js.driver import DRAFTS, INTEROP, MIB, NEXT, TusJs, finished, installed_script
from tests.support.fault_proxy import FaultProxy, How
from tests.support.http import Reply
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import Tus
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs_node


# What matters most runs in both modes always.
both_drafts = pytest.mark.parametrize("draft", DRAFTS)


@pytest.fixture(params=[pytest.param(DRAFTS[0], marks=pytest.mark.full), DRAFTS[1]])
def draft(request: pytest.FixtureRequest) -> str:
    """The protocol, as tus-js names it."""
    name: str = request.param
    return name


@pytest.fixture
def client(tus_js: TusJs, draft: str) -> TusJs:
    """tus-js in that protocol."""
    return tus_js.speaking(draft)


def ask(tus: Tus, draft: str, url: str, method: str = "HEAD") -> Reply:
    """Send a request as this draft has it."""
    version = {"Upload-Draft-Interop-Version": INTEROP[draft]}
    return tus.request(method, url, {"Tus-Resumable": None} | version)


def check_whole(tus: Tus, draft: str, url: str, content: bytes) -> None:
    """Check that an upload is complete for its client, and what it has."""
    head = ask(tus, draft, url)
    assert head.status == 204
    assert head["upload-complete"] == "?1"
    assert head["upload-offset"] == head["upload-length"] == str(len(content))
    assert tus.content(url) == content


@both_drafts
@pytest.mark.parametrize("chunk_size", [None, 700_000])
def test_a_draft_upload_arrives_with_its_metadata(
    client: TusJs, draft: str, tus: Tus, records: Records, chunk_size: int | None
) -> None:
    """R28, R56, D5: an append that leaves something to come is a 201 in these versions."""
    metadata = {"filename": "na\u00efve \u6587\u4ef6.bin", "filetype": "image/png"}
    options = {"metadata": metadata} | ({"chunkSize": chunk_size} if chunk_size else {})

    journey = client.run(tus.port, options=options)

    appends = journey.to("PATCH")
    assert [(one.status, one.complete) for one in journey.to("POST")] == [(201, "?0")]
    assert {one.status for one in appends} == {201}
    assert [one.complete for one in appends] == ["?0"] * (len(appends) - 1) + ["?1"]
    check_whole(tus, draft, journey.path, client.content)
    assert tus.get(journey.path)["content-type"] == "image/png"
    assert records.events(journey.path) == ["verified"]


@both_drafts
@pytest.mark.parametrize("chunk_size", [500_000, 5 * MIB])
def test_a_draft_stream_of_unknown_length_arrives(
    client: TusJs, draft: str, tus: Tus, chunk_size: int
) -> None:
    """R9: the length comes with the last chunk, in two fields."""
    options = {"uploadLengthDeferred": True, "chunkSize": chunk_size}

    journey = client.run(tus.port, options=options, stream=True)

    assert set(journey.statuses("PATCH")) == {201}
    check_whole(tus, draft, journey.path, client.content)


def test_a_draft_stream_that_ends_with_a_chunk_arrives(client: TusJs, draft: str, tus: Tus) -> None:
    """R57, D1: an empty PATCH follows, which tells the length."""
    client = replace(client.enlarged(2 * MIB), script=installed_script(NEXT))
    options = {"uploadLengthDeferred": True, "chunkSize": MIB}

    journey = client.run(tus.port, options=options, stream="web")

    assert [one.offset for one in journey.to("PATCH")] == [MIB, 2 * MIB, 2 * MIB]

    assert set(journey.statuses("PATCH")) == {201}
    check_whole(tus, draft, journey.path, client.content)


@pytest.mark.parametrize("deferred", [False, True], ids=["known", "deferred"])
@pytest.mark.parametrize("chunk_size", [None, 700_000])
def test_draft_data_may_come_with_the_creation(
    client: TusJs, draft: str, tus: Tus, chunk_size: int | None, deferred: bool
) -> None:
    """R25, R26: complete at once, or with the offset to go on from."""
    options: dict[str, Any] = {"uploadDataDuringCreation": True}
    if chunk_size or deferred:
        options["chunkSize"] = chunk_size or 5 * MIB
    if deferred:
        options["uploadLengthDeferred"] = True

    journey = client.run(tus.port, options=options, stream=deferred)

    (creation,) = journey.to("POST")
    at_once = chunk_size is None and not deferred
    assert (creation.status, creation.complete) == (201, "?1" if at_once else "?0")
    assert creation.offset == (0 if deferred else (chunk_size or len(client.content)))
    check_whole(tus, draft, journey.path, client.content)


def test_an_empty_draft_upload_stays_open(client: TusJs, draft: str, tus: Tus) -> None:
    """D6: the client never says that it is complete, and believes that it is."""
    client = client.enlarged(0)

    journey = client.run(tus.port)

    assert [(one.method, one.status) for one in journey.requests] == [("POST", 201)]
    head = ask(tus, draft, journey.path)
    assert (head["upload-offset"], head["upload-complete"]) == ("0", "?0")


@pytest.mark.parametrize("stored", [False, True], ids=["url", "storage"])
def test_an_aborted_draft_upload_is_resumed(
    client: TusJs, draft: str, server: ServerProcess, tus: Tus, stored: bool
) -> None:
    """R48, R70: in the middle of a body; HEAD tells where to go on."""
    client = client.enlarged()
    job = {"storage": str(client.file.with_name("urls.json"))} if stored else {}
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 32 * MIB
        journey = client.run(proxy.port, abortAt=1_000_000, **job)

    (head,) = journey.to("HEAD")
    assert (head.status, head.complete) == (204, "?0")
    assert head.offset is not None
    assert 0 < head.offset < len(client.content)
    assert journey.statuses("POST") == [201]
    check_whole(tus, draft, journey.path, client.content)


def test_a_creation_that_was_cut_off_is_begun_anew(
    client: TusJs, draft: str, server: ServerProcess, tus: Tus
) -> None:
    """tus-js reads no 104: what a lost creation has made is not found again, and harms nobody."""
    with FaultProxy(server.port) as proxy:
        proxy.up.cut_after(MIB, times=2)
        journey = client.run(proxy.port, options={"uploadDataDuringCreation": True})

        assert proxy.up.cuts_left == 0
    assert journey.statuses("POST") == [201]
    check_whole(tus, draft, journey.path, client.content)


def test_a_draft_upload_can_be_terminated_while_it_runs(
    client: TusJs, draft: str, server: ServerProcess, tus: Tus, records: Records
) -> None:
    """R66, R67."""
    client = client.enlarged()
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 32 * MIB
        journey = client.run(proxy.port, abortAt=500_000, terminate=1)

    assert journey.statuses("DELETE") == [204]
    assert ask(tus, draft, journey.path).status == 404
    assert records.files(journey.path) == []


@both_drafts
@pytest.mark.parametrize("how", ["reset", pytest.param("close", marks=pytest.mark.full)])
@pytest.mark.parametrize("deferred", [False, True], ids=["known", "deferred"])
def test_a_draft_upload_survives_a_line_that_breaks(
    client: TusJs, draft: str, server: ServerProcess, tus: Tus, how: How, deferred: bool
) -> None:
    """R33, R48, R49: again and again, in the middle of a body."""
    options: dict[str, Any] = {"chunkSize": 2 * MIB}
    if deferred:
        options["uploadLengthDeferred"] = True

    with FaultProxy(server.port) as proxy:
        proxy.up.cut_after(900_000, how=how, times=3)
        journey = client.run(proxy.port, options=options, stream=deferred)

        assert proxy.up.cuts_left == 0
    assert journey.statuses("POST") == [201]
    assert set(journey.statuses("HEAD")) == {204}
    check_whole(tus, draft, journey.path, client.content)


def test_a_lost_answer_to_a_draft_append_costs_nothing(
    client: TusJs, draft: str, server: ServerProcess, tus: Tus, records: Records
) -> None:
    """D7: HEAD says that everything is there only once it is complete."""
    with FaultProxy(server.port) as proxy:
        client.run(proxy.port)
        # As long as both answers were, but for the end of the second.
        proxy.down.cut_after(proxy.down.passed - 20)
        journey = client.run(proxy.port)

        assert proxy.down.cuts_left == 0
    last = journey.requests[-1]
    assert (last.method, last.offset, last.complete) == ("HEAD", len(client.content), "?1")
    check_whole(tus, draft, journey.path, client.content)
    assert records.events(journey.path) == ["verified"]


def test_a_draft_upload_survives_a_server_that_is_killed(
    client: TusJs, draft: str, fresh_server: ServerFactory
) -> None:
    """R2, R48: whatever was told is still there, and the rest is sent again."""
    client = client.enlarged(6 * MIB)
    server = fresh_server(TUS_PART_SIZE_BYTES=str(MIB))
    tus = Tus(server.port)
    retries = {"retryDelays": [0, 100, 200, 400, 800, 1600, 3200], "chunkSize": 5 * MIB}
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 8 * MIB
        running = client.start(proxy.port, options=retries)
        wait_until(lambda: proxy.up.passed > 2 * MIB, "a part has passed")
        server.kill()
        server.start()
        proxy.up.bytes_per_second = None
        journey = finished(running)

    assert journey.statuses("POST") == [201]
    assert [one.status for one in journey.to("HEAD")][-1] == 204
    check_whole(tus, draft, journey.path, client.content)


def test_parallel_uploads_are_refused_and_leave_no_wrong_file(
    client: TusJs, draft: str, tus: Tus, records: Records
) -> None:
    """D2: concatenation is tus alone; the client sends the joining request without a flag."""
    journey = client.run(tus.port, options={"parallelUploads": 3}, mayFail=True)

    assert journey.error is not None
    assert journey.statuses("POST") == [201, 201, 201, 400]
    pieces = {one.path for one in journey.to("PATCH")}
    assert sorted(tus.content(piece) for piece in pieces) == sorted(thirds(client.content))


def thirds(content: bytes) -> list[bytes]:
    """Cut as tus-js does: the last one takes what is left over."""
    size = len(content) // 3
    return [content[:size], content[size : 2 * size], content[2 * size :]]
