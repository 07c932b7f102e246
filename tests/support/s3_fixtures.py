"""Fixtures over tests.support.s3; tests/conftest.py takes them in."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.s3 import S3Service, external, run_swift, run_versitygw, versitygw_binary


@pytest.fixture(scope="session")
def _swift() -> Iterator[S3Service]:
    with run_swift(min_part_size=1) as service:
        yield service


@pytest.fixture
def swift(_swift: S3Service) -> Iterator[S3Service]:
    """Swift, which takes parts of any size here, and faults by order; tests leave it without."""
    yield _swift
    _swift.set_faults()


@pytest.fixture(scope="session")
def versitygw() -> Iterator[S3Service]:
    """versitygw, where its binary is found."""
    binary = versitygw_binary()
    if binary is None:
        pytest.skip("no versitygw binary (set VERSITYGW, or put it on PATH)")
    with (
        tempfile.TemporaryDirectory(prefix="versitygw-") as directory,
        run_versitygw(binary, Path(directory)) as service,
    ):
        yield service


@pytest.fixture(params=["swift", "versitygw", *(["external"] if external() else [])])
def s3(request: pytest.FixtureRequest) -> S3Service:
    """Each S3 service that can run here."""
    if request.param == "external":
        service = external()
        assert service is not None
        return service
    found: S3Service = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bucket(s3: S3Service) -> Iterator[str]:
    """A bucket for one test."""
    name = s3.make_bucket()
    yield name
    s3.drop_bucket(name)


@pytest.fixture
def swift_bucket(swift: S3Service) -> str:
    """A bucket on Swift, for tests that need faults."""
    return swift.make_bucket()
