"""Behind PgBouncer in transaction mode: everything but listening works."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.cluster import Cluster, eventually
from tests.support.fakes import FakeClock, make_upload
from tests.support.pooler import PGBOUNCER
from tests.support.state import claim, create, row
from tus_server.core.errors import LeaseLost, SettingsInvalid
from tus_server.core.states import UploadState
from tus_server.core.upload import Part
from tus_server.state.postgres import PostgresOptions, PostgresState, migrate

S = UploadState
pytestmark = [
    pytest.mark.needs_apt,
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed"),
]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def behind(bouncer_url: str, database_url: str) -> dict[str, Any]:
    """Options of a store behind the pooler."""
    return {"url": bouncer_url, "listen_url": database_url, "prepared_statements": False}


async def test_a_life_behind_a_pooler(
    cluster: Cluster, behind: dict[str, Any], clock: FakeClock
) -> None:
    first, second = await cluster.open("a", **behind), await cluster.open("b", **behind)
    heard: list[str] = []
    first.watch(wanted=heard.append, freed=heard.append)
    upload = make_upload(clock, length=3)
    lease = await first.create_upload(upload, claim=True, numbers=4)
    assert lease is not None
    before = await row(first, upload)
    assert (await second.claim_upload(upload.id)).held

    await second.ask_release(upload.id)
    await eventually(lambda: heard == [upload.id], "the holder is asked")
    assert (await first.beat([lease])).wanted == {upload.id}
    steps = (S.RECEIVING, S.COMPLETED, S.VERIFIED)
    after = before.with_bytes(3, 3).stepped(*steps, on=clock.now())
    parts = [Part(1, 0, 3, 3, "e")]
    await first.commit(lease, before, after, steps=steps, parts=parts, release=True)

    assert (await second.claim_upload(upload.id)).upload == after
    assert (await second.history(upload.id))[0].state is S.VERIFIED
    assert await second.find_parts(upload.id) == parts
    assert len(await second.pending_events(9)) == 1
    with pytest.raises(LeaseLost):
        await first.commit(lease, before, before)
    await second.check()


async def test_many_at_once_share_two_connections(
    cluster: Cluster, behind: dict[str, Any], clock: FakeClock
) -> None:
    nodes = [await cluster.open(label, **behind) for label in "ab"]

    async def life(state: PostgresState) -> None:
        upload = await create(state, clock)
        for size in (1, 2, 3):
            lease = await claim(state, upload)
            after = upload.with_bytes(size, size)
            await state.commit(lease, upload, after, release=True)
            upload = after

    await asyncio.gather(*(life(state) for state in nodes * 50))

    offsets = {upload.offset for upload in await nodes[0].list_uploads(None, 1000)}
    assert offsets == {6}
    found = await asyncio.gather(*(n.claim_unfinished(60, receiving=True) for n in nodes * 2))
    ids = [upload.id for page in found for upload, _ in page]
    assert len(ids) == len(set(ids)) == 100


async def test_a_cancelled_statement_behind_a_pooler_keeps_no_lock(
    cluster: Cluster, behind: dict[str, Any], clock: FakeClock
) -> None:
    state = await cluster.open("a", **behind)
    upload = await create(state, clock)
    for turns in range(8):
        attempt = asyncio.ensure_future(state.claim_upload(upload.id))
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.wait({attempt})
    await state.check()

    async def attempt_again() -> bool:
        return (await state.claim_upload(upload.id)).lease is not None

    await eventually(attempt_again, "the lease is granted")


async def test_the_tables_are_made_through_a_pooler(
    bouncer_url: str, empty_database_url: str
) -> None:
    there = urlsplit(bouncer_url)._replace(path=urlsplit(empty_database_url).path)
    options = PostgresOptions(there.geturl(), prepared_statements=False)

    before, after = await migrate(options)

    assert (before, after) == (0, (await migrate(options))[0])


async def test_without_the_setting_the_start_is_refused_in_a_sentence(
    cluster: Cluster, bouncer_url: str
) -> None:
    with pytest.raises(SettingsInvalid, match="TUS_STATE_PREPARED"):
        await cluster.open("a", url=bouncer_url)


async def test_a_pooler_between_us_and_notifications_is_found_out(
    cluster: Cluster, behind: dict[str, Any], logged: Callable[[], str]
) -> None:
    state = await cluster.open("a", **(behind | {"listen_url": None}))

    assert not state.hears
    assert "TUS_STATE_LISTEN_URL must lead to" in logged()
