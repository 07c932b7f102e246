"""tus-js-client with parallelUploads: several partial uploads, and a final one of them."""

from dataclasses import replace
from typing import Any

import pytest

from tests.e2e.tus_js.driver import MIB, NEXT, Journey, TusJs, installed_script
from tests.support.fault_proxy import FaultProxy, How
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import Tus, encode_metadata

pytestmark = pytest.mark.needs_node


def check_final(tus: Tus, journey: Journey, content: bytes, *, of: int) -> None:
    """Check the final upload and each of its `of` partial ones (T102, T103, T110..T113)."""
    partials = journey.partials()
    assert len(set(partials)) == of
    final = tus.head(journey.path)
    assert final.status == 200
    assert final["upload-concat"] == journey.to("POST")[-1].concat
    assert final["upload-offset"] == final["upload-length"] == str(len(content))
    assert tus.content(journey.path) == content
    sizes = []
    for partial in partials:
        head = tus.head(partial)
        assert head["upload-concat"] == "partial"
        assert head["upload-offset"] == head["upload-length"]
        sizes.append(int(head["upload-length"]))
    assert sum(sizes) == len(content)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.full), 7])
@pytest.mark.parametrize("with_data", [False, True], ids=["patch", "creation"])
def test_a_parallel_upload_arrives(
    tus_js: TusJs, tus: Tus, records: Records, count: int, with_data: bool
) -> None:
    """T98, T100..T103, T106: one event, and metadata of its own."""
    options: dict[str, Any] = {
        "parallelUploads": count,
        "uploadDataDuringCreation": with_data,
        "metadata": {"filename": "whole.bin"},
        "metadataForPartialUploads": {"piece": "yes"},
    }

    journey = tus_js.run(tus.port, options=options)

    check_final(tus, journey, tus_js.content, of=count)
    assert journey.statuses("POST") == [201] * (count + 1)
    assert tus.head(journey.path)["upload-metadata"] == encode_metadata({"filename": "whole.bin"})
    assert records.events(journey.path) == ["verified"]
    for partial in journey.partials():
        assert tus.head(partial)["upload-metadata"] == encode_metadata({"piece": "yes"})
        assert records.events(partial) == []


def test_a_parallel_upload_in_chunks_of_uneven_pieces_arrives(tus_js: TusJs, tus: Tus) -> None:
    """T102: in the order of the list, not in that of their end."""
    bounds = [0, 100, 2 * MIB + 1, len(tus_js.content)]
    options = {
        "parallelUploads": 3,
        "parallelUploadBoundaries": [
            {"start": bounds[at], "end": bounds[at + 1]} for at in range(3)
        ],
        "chunkSize": 300_000,
    }

    journey = tus_js.run(tus.port, options=options)

    check_final(tus, journey, tus_js.content, of=3)
    assert [int(tus.head(one)["upload-length"]) for one in journey.partials()] == [
        bounds[at + 1] - bounds[at] for at in range(3)
    ]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_parallel_upload_may_have_empty_pieces(tus_js: TusJs, tus: Tus, size: int) -> None:
    tus_js = tus_js.enlarged(size)

    journey = tus_js.run(tus.port, options={"parallelUploads": 4})

    check_final(tus, journey, tus_js.content, of=4)


@pytest.mark.parametrize("how", ["reset", pytest.param("close", marks=pytest.mark.full)])
def test_a_parallel_upload_survives_a_line_that_breaks(
    tus_js: TusJs, server: ServerProcess, tus: Tus, how: How
) -> None:
    """T28, T32: whichever piece is cut goes on where it was."""
    tus_js = tus_js.enlarged(8 * MIB)
    options = {"parallelUploads": 3, "chunkSize": 2 * MIB}
    with FaultProxy(server.port) as proxy:
        proxy.up.cut_after(1_300_000, how=how, times=4)
        journey = tus_js.run(proxy.port, options=options)

        assert proxy.up.cuts_left == 0
    check_final(tus, journey, tus_js.content, of=3)


def test_an_aborted_parallel_upload_is_resumed(
    tus_js: TusJs, server: ServerProcess, tus: Tus
) -> None:
    """From the stored URLs of its pieces: each HEAD tells where that piece goes on (T111)."""
    tus_js = tus_js.enlarged()
    storage = tus_js.file.with_name("urls.json")
    options = {"parallelUploads": 3}
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 12 * MIB
        journey = tus_js.run(proxy.port, options=options, abortAt=2_000_000, storage=str(storage))

    assert len(journey.to("POST")) == 4
    assert journey.statuses("HEAD") == [200] * 3
    assert any(head.offset for head in journey.to("HEAD"))
    check_final(tus, journey, tus_js.content, of=3)


def test_a_parallel_upload_can_be_terminated_while_it_runs(
    tus_js: TusJs, server: ServerProcess, tus: Tus, records: Records
) -> None:
    """T94, T97: piece by piece."""
    tus_js = tus_js.enlarged()
    storage = tus_js.file.with_name("urls.json")
    job = {"storage": str(storage), "abortAt": 2_000_000, "terminate": 3, "mayFail": True}
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 12 * MIB
        journey = tus_js.run(proxy.port, options={"parallelUploads": 3}, **job)

    assert journey.statuses("DELETE") == [204] * 3
    for piece in journey.to("DELETE"):
        assert tus.head(piece.path).status == 404
        assert records.files(piece.path) == []


def test_a_lost_answer_to_the_joining_request_costs_nothing(
    tus_js: TusJs, server: ServerProcess, tus: Tus
) -> None:
    """T107: tus-js 4.3.1 gives up then; who starts it again joins the same pieces once more."""
    options = {"parallelUploads": 2}
    storage = str(tus_js.file.with_name("urls.json"))
    with FaultProxy(server.port) as proxy:
        tus_js.run(proxy.port, options=options)
        proxy.down.cut_after(proxy.down.passed - 20)
        given_up = tus_js.run(proxy.port, options=options, storage=storage, mayFail=True)
        assert proxy.down.cuts_left == 0
        journey = tus_js.run(proxy.port, options=options, storage=storage)

    assert given_up.error is not None
    assert journey.statuses("HEAD") == [200, 200]
    assert journey.to("PATCH") == []
    assert {one.path for one in given_up.to("PATCH")} == set(journey.partials())
    check_final(tus, journey, tus_js.content, of=2)


def test_the_next_version_of_the_client_uploads_in_parallel_as_well(
    tus_js: TusJs, tus: Tus
) -> None:
    tus_js = replace(tus_js, script=installed_script(NEXT))

    journey = tus_js.run(tus.port, options={"parallelUploads": 3})

    check_final(tus, journey, tus_js.content, of=3)
