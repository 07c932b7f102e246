"""Fixtures for tests against the real server: a process on a free port, both body paths."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from tests.support.server import ServerProcess

pytest_plugins = [
    "tests.support.cluster",
    "tests.support.pooler",
    "tests.support.postgres",
    "tests.support.s3_fixtures",
    "tests.support.s3_users",
]

# A slow machine is no failure. What lands is judged by the same examples every time; who works on
# the code gets new ones with each run.
settings.register_profile("tus-server", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tus-server")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Give one process more than there are cores: many a test waits for something."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test has printed get to the process that reports, whatever it is."""
    report = yield
    report.sections = [(name, _encodable(text)) for name, text in report.sections]
    return report


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


ServerFactory = Callable[..., ServerProcess]


@pytest.fixture(scope="session", params=["fast", "plain"])
def body_path(request: pytest.FixtureRequest) -> str:
    """How bodies get into the engine: every test below this fixture runs both ways."""
    path: str = request.param
    return path


@pytest.fixture(scope="session")
def _shared_servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], ServerProcess]]:
    """Give the server of a body path.

    Not a fixture that depends on body_path: where a module overrides that, pytest would go on
    with its server under every other parameter.
    """
    servers: dict[str, ServerProcess] = {}
    with ExitStack() as stack:

        def server_of(body_path: str) -> ServerProcess:
            if body_path not in servers:
                data_dir = tmp_path_factory.mktemp(f"shared-{body_path}") / "data"
                server = ServerProcess(data_dir, TUS_BODY_PATH=body_path)
                servers[body_path] = stack.enter_context(server)
            return servers[body_path]

        yield server_of


@pytest.fixture
def server(
    body_path: str, _shared_servers: Callable[[str], ServerProcess]
) -> Iterator[ServerProcess]:
    """A running server with the default settings, shared by all tests of the session.

    A test fails when the server logged a defect meanwhile.
    """
    shared = _shared_servers(body_path)
    assert shared.process is not None
    if shared.process.poll() is not None:
        shared.start()
    assert shared.env["TUS_BODY_PATH"] == body_path
    seen = shared.log_path.stat().st_size
    yield shared
    with shared.log_path.open("rb") as log:
        log.seek(seen)
        check_log(log.read().decode(errors="replace"))


@pytest.fixture
def fresh_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerFactory]:
    """Start servers of a test's own: `fresh_server(TUS_MAX_SIZE="1000")`."""
    started: list[ServerProcess] = []
    with ExitStack() as stack:

        def start(**env: str) -> ServerProcess:
            data_dir = tmp_path_factory.mktemp("fresh") / "data"
            process = ServerProcess(data_dir, **({"TUS_BODY_PATH": body_path} | env))
            started.append(process)
            return stack.enter_context(process)

        yield start
    for process in started:
        check_log(process.log)


@pytest.fixture
def logged(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[[], str]:
    """Give what was logged: structlog prints, until an application has routed it to logging."""
    caplog.set_level("INFO")
    return lambda: capsys.readouterr().out + caplog.text


def check_log(text: str) -> None:
    """Fail if a server logged what no request should be able to cause."""
    for mark in ("Traceback", "request.defect", "never retrieved", "never awaited"):
        assert mark not in text, text[-4000:]
