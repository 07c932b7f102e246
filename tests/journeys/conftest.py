"""Sites for the journeys: one for each pair of stores, shared by the tests of a session."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import check_log
from tests.journeys.site import Embedded, Nodes, Site, open_embedded, open_nodes
from tests.support.s3 import S3Service

SITES = ["embedded", "swift", "versitygw"]
# Of the failures a sample runs over the second S3 service, but for what Swift cannot show.
SAMPLED = "journeys/test_failures.py"
SHOWN = "test_parts_that_are_sent_again_while_it_is_completed_are_in_it_or_not"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make test-all` what a sample of is enough."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        is_sampled = SAMPLED in item.nodeid and SHOWN not in item.nodeid
        if is_sampled and params.get("site") == "versitygw":
            item.add_marker(pytest.mark.full)


@pytest.fixture(scope="session")
def _embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_embedded(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="session")
def _over_swift(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, _swift: S3Service
) -> Iterator[Nodes]:
    with open_nodes(tmp_path_factory.mktemp("site"), postgres_url, _swift) as site:
        yield site


@pytest.fixture(scope="session")
def _over_versitygw(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, versitygw: S3Service
) -> Iterator[Nodes]:
    with open_nodes(tmp_path_factory.mktemp("site"), postgres_url, versitygw) as site:
        yield site


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Servers over each pair of stores: nodes a and b where there may be two."""
    name = {"embedded": "_embedded"}.get(request.param, f"_over_{request.param}")
    found: Site = request.getfixturevalue(name)
    with checked(found):
        yield found


@pytest.fixture
def embedded(_embedded: Embedded) -> Iterator[Embedded]:
    """The one server over SQLite and its disk."""
    with checked(_embedded):
        yield _embedded


@pytest.fixture
def nodes(_over_swift: Nodes, swift: S3Service) -> Iterator[Nodes]:
    """Nodes a and b over Swift, which fails on order."""
    for name in "ab":
        _over_swift.server(name)  # now: later the faults would keep it from starting
    with checked(_over_swift):
        yield _over_swift


@contextmanager
def checked(site: Site) -> Iterator[Site]:
    """Check that nothing is left over, that no webhook was unsigned, and no defect was logged."""
    for name in site.servers:
        site.server(name)  # a test before has ended it
    before = site.leftovers() if site.servers else []
    seen = {name: len(server.log) for name, server in site.servers.items()}
    yield site
    assert site.sink.refused == []
    site.check_clean(but=before)
    for name, server in site.servers.items():
        check_log(server.log[seen.get(name, 0) :])
