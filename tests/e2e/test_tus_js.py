"""tus-js-client in node over tus 1.0.0: what browsers and Uppy send, on good lines and bad ones."""

from dataclasses import replace
from typing import Any

import pytest

from tests.e2e.tus_js.driver import MIB, NEXT, TusJs, installed_script
from tests.support.fault_proxy import FaultProxy, How
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import Tus

pytestmark = pytest.mark.needs_node


@pytest.mark.parametrize("chunk_size", [None, 700_000])
def test_an_upload_arrives_with_its_metadata(
    tus_js: TusJs, tus: Tus, records: Records, chunk_size: int | None
) -> None:
    metadata = {"filename": "na\u00efve \u6587\u4ef6.bin", "filetype": "image/png", "empty": ""}
    options = {"metadata": metadata} | ({"chunkSize": chunk_size} if chunk_size else {})

    journey = tus_js.run(tus.port, options=options)

    assert journey.statuses("POST") == [201]
    assert set(journey.statuses("PATCH")) == {204}
    assert tus.content(journey.path) == tus_js.content
    assert "empty" in tus.head(journey.path)["upload-metadata"]
    assert tus.get(journey.path)["content-type"] == "image/png"
    assert records.events(journey.path) == ["verified"]


def test_a_stream_of_unknown_length_arrives(tus_js: TusJs, tus: Tus) -> None:
    """T57, T59: the length comes with the last PATCH."""
    options = {"uploadLengthDeferred": True, "chunkSize": 500_000}

    journey = tus_js.run(tus.port, options=options, stream=True)

    assert set(journey.statuses("PATCH")) == {204}
    assert tus.head(journey.path)["upload-length"] == str(len(tus_js.content))
    assert tus.content(journey.path) == tus_js.content


@pytest.mark.parametrize("deferred", [False, True], ids=["known", "deferred"])
@pytest.mark.parametrize("chunk_size", [None, 700_000])
def test_data_may_come_with_the_creation(
    tus_js: TusJs, tus: Tus, chunk_size: int | None, deferred: bool
) -> None:
    """T43, T66, T67: with a deferred length no byte comes along, and an offset is wanted still."""
    options: dict[str, Any] = {"uploadDataDuringCreation": True}
    if chunk_size or deferred:
        options["chunkSize"] = chunk_size or 5 * MIB
    if deferred:
        options["uploadLengthDeferred"] = True

    journey = tus_js.run(tus.port, options=options, stream=deferred)

    assert journey.statuses("POST") == [201]
    assert journey.requests[0].offset is not None
    assert tus.content(journey.path) == tus_js.content


def test_an_empty_file_arrives(tus_js: TusJs, tus: Tus) -> None:
    """T45."""
    tus_js.file.write_bytes(b"")

    journey = tus_js.run(tus.port)

    ((method, status, offset),) = [(one.method, one.status, one.offset) for one in journey.requests]
    assert (method, status, offset) == ("POST", 201, 0)
    assert tus.content(journey.path) == b""


def test_an_upload_arrives_by_post_alone(tus_js: TusJs, tus: Tus) -> None:
    """T13: for networks that know no PATCH."""
    options = {"overridePatchMethod": True, "chunkSize": MIB}

    journey = tus_js.run(tus.port, options=options)

    assert journey.statuses("POST") == [201, 204, 204, 204, 204]
    assert tus.content(journey.path) == tus_js.content


def test_an_aborted_upload_is_resumed(tus_js: TusJs, server: ServerProcess, tus: Tus) -> None:
    """T28: in the middle of a PATCH; HEAD tells where to go on."""
    tus_js = tus_js.enlarged()
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 32 * MIB
        journey = tus_js.run(proxy.port, abortAt=1_000_000)

    (head,) = journey.to("HEAD")
    assert head.status == 200
    assert head.offset is not None
    assert 0 < head.offset < len(tus_js.content)
    assert tus.content(journey.path) == tus_js.content


def test_an_upload_can_be_terminated_while_it_runs(
    tus_js: TusJs, server: ServerProcess, tus: Tus, records: Records
) -> None:
    """T94, T97: tus-js wants exactly 204."""
    tus_js = tus_js.enlarged()
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 32 * MIB
        journey = tus_js.run(proxy.port, abortAt=500_000, terminate=1)

    assert journey.statuses("DELETE") == [204]
    assert tus.head(journey.path).status == 404
    assert records.files(journey.path) == []


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("deferred", [False, True], ids=["known", "deferred"])
def test_an_upload_survives_a_line_that_breaks(
    tus_js: TusJs, server: ServerProcess, tus: Tus, how: How, deferred: bool
) -> None:
    """T28, T32: again and again, in the middle of a PATCH."""
    options: dict[str, Any] = {"chunkSize": 2 * MIB}
    if deferred:
        options["uploadLengthDeferred"] = True

    with FaultProxy(server.port) as proxy:
        proxy.up.cut_after(900_000, how=how, times=3)
        journey = tus_js.run(proxy.port, options=options, stream=deferred)

        assert proxy.up.cuts_left == 0
    assert journey.statuses("POST") == [201]
    assert set(journey.statuses("HEAD")) == {200}
    assert tus.content(journey.path) == tus_js.content


def test_a_lost_answer_costs_nothing(tus_js: TusJs, server: ServerProcess, tus: Tus) -> None:
    """T24, T28: to the last PATCH; HEAD says that everything is there."""
    with FaultProxy(server.port) as proxy:
        tus_js.run(proxy.port)
        # As long as both answers were, but for the end of the second.
        proxy.down.cut_after(proxy.down.passed - 20)
        journey = tus_js.run(proxy.port)

        assert proxy.down.cuts_left == 0
    last = journey.requests[-1]
    assert (last.method, last.status, last.offset) == ("HEAD", 200, len(tus_js.content))
    assert tus.content(journey.path) == tus_js.content


def test_an_upload_is_resumed_from_what_the_client_has_stored(
    tus_js: TusJs, server: ServerProcess, tus: Tus
) -> None:
    """As a page does that was loaded again: the URL comes from storage."""
    tus_js = tus_js.enlarged()
    storage = tus_js.file.with_name("urls.json")
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 32 * MIB
        journey = tus_js.run(proxy.port, abortAt=1_000_000, storage=str(storage))

    assert journey.statuses("POST") == [201]
    assert journey.statuses("HEAD") == [200]
    assert journey.path in storage.read_text()
    assert tus.content(journey.path) == tus_js.content


@pytest.mark.parametrize("deferred", [False, True], ids=["known", "deferred"])
def test_the_next_version_of_the_client_does_as_well(
    tus_js: TusJs, server: ServerProcess, tus: Tus, deferred: bool
) -> None:
    """With data in the creation, and where it can do so through a line that breaks.

    5.0.0-pre2 gives up when the PATCH is cut that tells a deferred length.
    """
    tus_js = replace(tus_js, script=installed_script(NEXT))
    options: dict[str, Any] = {"chunkSize": MIB, "uploadDataDuringCreation": True}
    if deferred:
        options["uploadLengthDeferred"] = True

    with FaultProxy(server.port) as proxy:
        proxy.up.cut_after(1_500_000, times=0 if deferred else 2)
        journey = tus_js.run(proxy.port, options=options, stream=deferred)

        assert proxy.up.cuts_left == 0
    assert tus.content(journey.path) == tus_js.content


# --- onShouldRetry


def test_a_refusal_is_asked_about_as_often_as_there_are_delays(
    tus_js: TusJs, limited: Tus, tus: Tus
) -> None:
    """T44: the same refusal each time, and nothing is created."""
    tus_js = tus_js.enlarged(4 * MIB)
    options = {"retryDelays": [0, 0, 0]}

    journey = tus_js.run(limited.port, options=options, retryOn=[413], mayFail=True)

    assert journey.decided == [413] * 3
    assert journey.statuses("POST") == [413] * 4
    assert journey.error is not None


def test_a_client_that_does_not_retry_leaves_an_upload_that_goes_on(
    tus_js: TusJs, server: ServerProcess, tus: Tus, records: Records
) -> None:
    """T28, T32: what had arrived before its line broke is kept for another one."""
    with FaultProxy(server.port) as proxy:
        proxy.up.cut_after(MIB)
        journey = tus_js.run(proxy.port, retryOn=[], mayFail=True)

    assert journey.decided == [0]
    assert journey.error is not None
    url = new_upload(records)
    assert 0 < tus.offset(url) < MIB
    assert tus.finish(url, tus_js.content) == tus_js.content


def test_an_upload_that_is_gone_is_begun_anew(
    tus_js: TusJs, server: ServerProcess, tus: Tus
) -> None:
    """T96: HEAD says 404, and tus-js starts again without asking whether to retry."""
    tus_js = tus_js.enlarged()
    gone = tus.new(len(tus_js.content))
    tus.delete(gone)
    options = {"uploadUrl": f"http://127.0.0.1:{server.port}{gone}"}

    journey = tus_js.run(server.port, options=options, retryOn=[])

    assert journey.decided == []
    assert journey.statuses("HEAD") == [404]
    assert journey.path != gone
    assert tus.content(journey.path) == tus_js.content


def new_upload(records: Records) -> str:
    """Give the path of the upload that was created last."""
    ((found,),) = records.query("SELECT id FROM uploads ORDER BY seq DESC LIMIT 1")
    return f"/files/{found}"
