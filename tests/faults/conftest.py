"""Fixtures of the fault tests: a fleet for each module, with a database and a bucket of its own.

A node takes a second to start, so the tests of a module share those they do not break for good.
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import check_log
from tests.faults.fleet import Fleet
from tests.support.postgres import execute, run_apart, with_database
from tests.support.s3 import S3Service, versitygw_binary
from tests.support.s3_proxy import S3Proxy
from tus_server.state.postgres import PostgresOptions, migrate


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest) -> S3Service:
    """The strictest S3 service that is there."""
    service: S3Service = request.getfixturevalue("versitygw" if versitygw_binary() else "_swift")
    return service


@pytest.fixture(scope="module")
def s3_proxy(store: S3Service) -> Iterator[S3Proxy]:
    """A proxy before it, for the nodes that are told of its endpoint."""
    with S3Proxy(store) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, store: S3Service
) -> Iterator[Fleet]:
    """Nodes that the tests start."""
    with run_fleet(tmp_path_factory.mktemp("fleet"), postgres_url, store) as found:
        yield found


@pytest.fixture(scope="module")
def _swift_fleet(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, _swift: S3Service
) -> Iterator[Fleet]:
    with run_fleet(tmp_path_factory.mktemp("fleet"), postgres_url, _swift) as found:
        yield found


@pytest.fixture
def swift_fleet(_swift_fleet: Fleet, swift: S3Service) -> Fleet:
    """Nodes over Swift, which can be told to fail."""
    return _swift_fleet


@contextmanager
def run_fleet(folder: Path, postgres_url: str, s3: S3Service) -> Iterator[Fleet]:
    name = f"fleet_{uuid.uuid4().hex}"
    execute(postgres_url, f"CREATE DATABASE {name}")
    url = with_database(postgres_url, name)
    run_apart(migrate(PostgresOptions(url)))
    with ExitStack() as stack:
        found = Fleet(folder, stack, database_url=url, s3=s3, bucket=s3.make_bucket())
        yield found
    execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
    for node in found.nodes.values():
        check_log(node.log)
