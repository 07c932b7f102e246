"""What the tests over real sockets share."""

from collections.abc import Iterator

import pytest

from tests.conftest import check_log
from tests.e2e.tus_js.driver import tus_js as tus_js
from tests.e2e.tus_js.driver import tus_js_script as tus_js_script
from tests.support.api import _api as _api
from tests.support.api import api as api
from tests.support.api import api_server as api_server
from tests.support.records import Records
from tests.support.rufh import WIRES, Rufh, Wire
from tests.support.server import ServerProcess
from tests.support.tus import Tus

LONG_RUN = {"v3", "v5", "v8", "v9", "v10"}
LIMITED_PART_SIZE = 1024 * 1024
LIMITED_MAX_SIZE = 3 * LIMITED_PART_SIZE + 7


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every version of RUFH on the fast body path; on the plain one a sample of them."""
    for item in items:
        callspec = getattr(item, "callspec", None)  # of those with parameters
        params = {} if callspec is None else callspec.params
        if params.get("body_path") == "plain" and str(params.get("wire")) in LONG_RUN:
            item.add_marker(pytest.mark.full)


@pytest.fixture
def tus(server: ServerProcess) -> Tus:
    """A client of the shared server."""
    return Tus(server.port)


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Wire:
    """A version of RUFH: every test below this fixture runs in all of them."""
    version: Wire = request.param
    return version


@pytest.fixture
def rufh(server: ServerProcess, wire: Wire) -> Rufh:
    """A client of the shared server in that version."""
    return Rufh(server.port, wire)


@pytest.fixture
def records(server: ServerProcess) -> Records:
    """The data directory of the shared server."""
    return Records(server.data_dir)


@pytest.fixture(scope="session")
def limited_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with small limits, shared by all tests of the session."""
    data_dir = tmp_path_factory.mktemp(f"limited-{body_path}") / "data"
    with ServerProcess(
        data_dir,
        TUS_BODY_PATH=body_path,
        TUS_MAX_SIZE=str(LIMITED_MAX_SIZE),
        TUS_PART_SIZE_BYTES=str(LIMITED_PART_SIZE),
        TUS_BODY_IDLE_TIMEOUT_S="0.5",
    ) as server:
        yield server
        check_log(server.log)


@pytest.fixture
def limited(limited_server: ServerProcess) -> Tus:
    """A client of the server with small limits."""
    return Tus(limited_server.port)
