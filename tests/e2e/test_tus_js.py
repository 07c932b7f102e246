"""tus-js-client 4.3.1 in node: what browsers and Uppy send, on good lines and on bad ones."""

import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.fault_proxy import FaultProxy, How
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern

pytestmark = pytest.mark.needs_node

HERE = Path(__file__).parent
CACHE = HERE / ".cache" / "tus-js"
SCRIPT = HERE / "tus_js" / "client.mjs"
PACKAGE = {"name": "tus-js", "private": True, "dependencies": {"tus-js-client": "4.3.1"}}
INSTALL_TIMEOUT_S = 110.0
RUN_TIMEOUT_S = 60.0
MIB = 1024 * 1024


@pytest.fixture(scope="session")
def script() -> Path:
    """The client script beside an installed tus-js-client, or a skip that says why not."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    wanted = json.dumps(PACKAGE)
    marker = CACHE / "installed"
    if not marker.exists() or marker.read_text() != wanted:
        shutil.rmtree(CACHE, ignore_errors=True)
        CACHE.mkdir(parents=True)
        (CACHE / "package.json").write_text(wanted)
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--no-package-lock"]
        try:
            subprocess.run(
                command, cwd=CACHE, capture_output=True, check=True, timeout=INSTALL_TIMEOUT_S
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            pytest.skip(f"npm cannot install tus-js-client: {exc}")
        marker.write_text(wanted)
    # node looks for packages beside the script, not in the current folder
    return Path(shutil.copy(SCRIPT, CACHE))


@dataclass(frozen=True)
class Journey:
    """What the client did: path of the upload, and (method, status, offset) of every reply."""

    url: str
    requests: list[tuple[str, int, int | None]]

    def statuses(self, method: str) -> list[int]:
        return [status for asked, status, _ in self.requests if asked == method]


@dataclass(frozen=True)
class TusJs:
    """tus-js-client with one file."""

    script: Path
    file: Path
    content: bytes

    def enlarged(self) -> Self:
        """Give the same with a file that no socket buffer can hold."""
        content = pattern(16 * MIB)
        self.file.write_bytes(content)
        return replace(self, content=content)

    def run(self, port: int, *, options: dict[str, Any] | None = None, **job: Any) -> Journey:
        """Run the script; `options` go to tus.Upload, `job` is explained in the script."""
        retry = {"retryDelays": [0, 20, 50, 100, 200, 500, 1000, 3000]}
        text = json.dumps(
            {
                "file": str(self.file),
                "endpoint": f"http://127.0.0.1:{port}/files/",
                "options": retry | (options or {}),
            }
            | job
        )
        done = subprocess.run(
            ["node", str(self.script), text],
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        told = json.loads(done.stdout)
        path = "/" + told["url"].split("/", 3)[3]
        return Journey(path, [(str(m), int(s), o) for m, s, o in told["requests"]])


@pytest.fixture
def tus_js(script: Path, tmp_path: Path) -> TusJs:
    """A client with a file of 3 MiB and a bit."""
    content = pattern(3 * MIB + 17)
    file = tmp_path / "file.bin"
    file.write_bytes(content)
    return TusJs(script, file, content)


@pytest.mark.parametrize("chunk_size", [None, 700_000])
def test_an_upload_arrives_with_its_metadata(
    tus_js: TusJs, tus: Tus, records: Records, chunk_size: int | None
) -> None:
    metadata = {"filename": "na\u00efve \u6587\u4ef6.bin", "filetype": "image/png", "empty": ""}
    options = {"metadata": metadata} | ({"chunkSize": chunk_size} if chunk_size else {})

    journey = tus_js.run(tus.port, options=options)

    assert journey.statuses("POST") == [201]
    assert set(journey.statuses("PATCH")) == {204}
    assert tus.content(journey.url) == tus_js.content
    assert "empty" in tus.head(journey.url)["upload-metadata"]
    assert tus.get(journey.url)["content-type"] == "image/png"
    assert records.events(journey.url) == ["verified"]


def test_a_stream_of_unknown_length_arrives(tus_js: TusJs, tus: Tus) -> None:
    """T57, T59: the length comes with the last PATCH."""
    options = {"uploadLengthDeferred": True, "chunkSize": 500_000}

    journey = tus_js.run(tus.port, options=options, stream=True)

    assert set(journey.statuses("PATCH")) == {204}
    assert tus.head(journey.url)["upload-length"] == str(len(tus_js.content))
    assert tus.content(journey.url) == tus_js.content


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
    assert journey.requests[0][2] is not None
    assert tus.content(journey.url) == tus_js.content


def test_an_empty_file_arrives(tus_js: TusJs, tus: Tus) -> None:
    """T45."""
    tus_js.file.write_bytes(b"")

    journey = tus_js.run(tus.port)

    assert journey.requests == [("POST", 201, 0)]
    assert tus.content(journey.url) == b""


def test_an_upload_arrives_by_post_alone(tus_js: TusJs, tus: Tus) -> None:
    """T13: for networks that know no PATCH."""
    options = {"overridePatchMethod": True, "chunkSize": MIB}

    journey = tus_js.run(tus.port, options=options)

    assert journey.statuses("POST") == [201, 204, 204, 204, 204]
    assert tus.content(journey.url) == tus_js.content


def test_an_aborted_upload_is_resumed(tus_js: TusJs, server: ServerProcess, tus: Tus) -> None:
    """T28: in the middle of a PATCH; HEAD tells where to go on."""
    tus_js = tus_js.enlarged()
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 32 * MIB
        journey = tus_js.run(proxy.port, abortAt=1_000_000)

    ((_, status, offset),) = [request for request in journey.requests if request[0] == "HEAD"]
    assert status == 200
    assert offset is not None
    assert 0 < offset < len(tus_js.content)
    assert tus.content(journey.url) == tus_js.content


def test_an_upload_can_be_terminated_while_it_runs(
    tus_js: TusJs, server: ServerProcess, tus: Tus, records: Records
) -> None:
    """T94, T97: tus-js wants exactly 204."""
    tus_js = tus_js.enlarged()
    with FaultProxy(server.port) as proxy:
        proxy.up.bytes_per_second = 32 * MIB
        journey = tus_js.run(proxy.port, abortAt=500_000, terminate=True)

    assert journey.statuses("DELETE") == [204]
    assert tus.head(journey.url).status == 404
    assert records.files(journey.url) == []


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
    assert tus.content(journey.url) == tus_js.content


def test_a_lost_answer_costs_nothing(tus_js: TusJs, server: ServerProcess, tus: Tus) -> None:
    """T24, T28: to the last PATCH; HEAD says that everything is there."""
    with FaultProxy(server.port) as proxy:
        tus_js.run(proxy.port)
        # As long as both answers were, but for the end of the second.
        proxy.down.cut_after(proxy.down.passed - 20)
        journey = tus_js.run(proxy.port)

        assert proxy.down.cuts_left == 0
    assert journey.requests[-1] == ("HEAD", 200, len(tus_js.content))
    assert tus.content(journey.url) == tus_js.content
