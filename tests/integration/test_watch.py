"""Watching an upload: changes by their position, none missed and none twice, and progress."""

from typing import Any

import pytest

from tests.integration.brokers import BrokerWorld
from tests.integration.brokers import world as world
from tests.integration.conftest import soon
from tus_server.broker import Changed, Watch
from tus_server.core.errors import StateUnavailable, StoreUnavailable, UploadNotFound
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.engine.direct.seldom import EVERY_S, Seldom

S = UploadState


async def look(watch: Watch) -> list[tuple[Any, ...]]:
    """Give what is new, in short."""
    return [
        (one.position, str(one.view.status.current.state))
        if isinstance(one, Changed)
        else (one.committed_bytes, one.length, one.progress)
        for one in await soon(watch.look())
    ]


async def test_it_begins_with_the_current_state(world: BrokerWorld) -> None:
    upload_id = await world.reach(S.VERIFIED)

    watch = await world.broker.watch(upload_id)

    (news,) = await watch.look()
    assert isinstance(news, Changed)
    assert news.position == 4
    assert news.view == await world.broker.find(upload_id)
    assert await watch.look() == []
    assert watch.is_over


@pytest.mark.parametrize("after", range(5))
async def test_who_names_a_change_hears_of_those_behind_it(world: BrokerWorld, after: int) -> None:
    upload_id = await world.reach(S.VERIFIED)
    ways = list(enumerate(["initiated", "receiving", "completed", "verified"], 1))

    news = await look(await world.broker.watch(upload_id, after=after))

    assert [one for one in news if len(one) == 2] == ways[after:]


@pytest.mark.parametrize("after", [5, 999_999_999])
async def test_who_names_a_change_of_another_upload_hears_the_current_state(
    world: BrokerWorld, after: int
) -> None:
    upload_id = await world.reach(S.VERIFIED)

    assert await look(await world.broker.watch(upload_id, after=after)) == [(4, "verified")]


async def test_what_was_missed_is_told_as_it_was(world: BrokerWorld) -> None:
    view = await world.broker.initiate_session(size=3, checksum=("md5", bytes(16)))
    await world.send(view.id, 1, b"abc")
    await soon(world.broker.complete_multipart_upload(view.id, wait_s=20))

    news = await soon((await world.broker.watch(view.id, after=0)).look())

    views = [one.view for one in news if isinstance(one, Changed)]
    assert [one.progress for one in views] == ["in_progress"] * 3 + ["expired"]
    assert [one.error is None for one in views] == [True] * 3 + [False]
    assert [one.completed_at is None for one in views] == [True] * 3 + [False]
    assert [len(one.status.prior) for one in views] == [0, 1, 2, 3]


async def test_every_change_is_heard_once(world: BrokerWorld) -> None:
    view = await world.broker.initiate_resumable_session(size=3)
    watch = await world.broker.watch(view.id)
    heard = await look(watch)
    for content in (b"a", b"b", b"c"):
        await world.append(await world.find(view.id), content)
        heard += await look(watch)
        heard += await look(watch)

    assert heard == [
        (1, "initiated"),
        (2, "receiving"),
        (2, 3, "in_progress"),
        (3, "completed"),
        (4, "verified"),
    ]
    assert watch.is_over


@pytest.mark.parametrize(
    ("state", "is_over"),
    [
        (S.INITIATED, False),
        (S.RECEIVING, False),
        (S.COMPLETED, False),
        (S.VERIFIED, True),
        (S.ACCEPTED, True),
        (S.REJECTED, True),
        (S.DELETED, True),
        (S.ERROR, True),
        (S.CANCELED, True),
        (S.EXPIRED, True),
    ],
)
async def test_it_is_over_when_nothing_is_waited_for(
    world: BrokerWorld, state: UploadState, is_over: bool
) -> None:
    watch = await world.broker.watch(await world.reach(state))

    await soon(watch.look())

    assert watch.is_over == is_over


async def test_where_a_verdict_is_required_it_goes_on_until_that(world: BrokerWorld) -> None:
    view = await world.broker.initiate_session(size=3, require_acceptance=True)
    await world.send(view.id, 1, b"abc")
    await soon(world.broker.verify_completion(view.id))
    watch = await world.broker.watch(view.id)

    assert await look(watch) == [(4, "verified")]
    assert not watch.is_over
    await world.broker.accept(view.id)
    assert await look(watch) == [(5, "accepted")]
    assert watch.is_over


async def test_an_upload_that_is_no_more_is_not_found(world: BrokerWorld) -> None:
    watch = await world.broker.watch((await world.broker.initiate_session(size=3)).id)
    await world.broker.cancel_resumable_session((await watch.look())[0].view.id)  # type: ignore[union-attr]
    await world.recover()
    await world.real_state.purge(10, ended_s=-1)

    with pytest.raises(UploadNotFound):
        await soon(watch.look())


async def test_a_look_that_fails_loses_nothing(world: BrokerWorld) -> None:
    view = await world.broker.initiate_resumable_session(size=3)
    watch = await world.broker.watch(view.id)
    await look(watch)
    await world.append(await world.find(view.id), b"a")
    for method in ("find_upload", "history"):
        world.state.fail(method, StateUnavailable())
        with pytest.raises(StateUnavailable):
            await soon(watch.look())

    assert await look(watch) == [(2, "receiving")]


# --- parts that nobody tells of


async def test_the_store_is_looked_at_once_in_a_few_seconds_however_many_watch() -> None:
    async with BrokerWorld() as world:
        upload_id = (await world.broker.initiate_multipart_session(size=6)).id
        watches = [await world.broker.watch(upload_id) for _ in range(3)]
        for watch in watches:
            await look(watch)
        await world.send(upload_id, 1, b"abcd")
        for watch in watches:
            await look(watch)
        await world.send(upload_id, 2, b"ef")
        assert [await look(watch) for watch in watches] == [[], [], []]

        world.clock.advance(EVERY_S)
        heard = [await look(watch) for watch in watches]

        assert heard == [[(6, 6, "in_progress")]] * 3


async def test_a_store_that_is_away_is_looked_at_later() -> None:
    async with BrokerWorld() as world:
        upload_id = await world.reach(S.INITIATED)
        await world.send(upload_id, 1, b"abcd")
        watch = await world.broker.watch(upload_id)
        world.direct.fail("find_stored", StoreUnavailable())

        assert await look(watch) == [(1, "initiated")]
        world.clock.advance(EVERY_S)
        assert await look(watch) == [(2, "receiving")]


async def test_a_look_completes_what_is_to_complete_by_itself() -> None:
    async with BrokerWorld() as world:
        view = await world.broker.initiate_multipart_session(size=6, auto_complete=True)
        await world.send_all(view.id, b"abcdef")

        watch = await world.broker.watch(view.id)
        await look(watch)
        await world.settle()

        assert [one[1] for one in await look(watch)] == ["completed", "verified"]


def test_seldom_is_once_in_a_while_for_each() -> None:
    seldom = Seldom()
    one, other = UploadId("one"), UploadId("other")

    assert [seldom.is_due(one, 0.0), seldom.is_due(one, 0.0), seldom.is_due(other, 1.0)] == [
        True, False, True,
    ]  # fmt: skip
    assert not seldom.is_due(one, EVERY_S - 0.1)
    assert seldom.is_due(one, EVERY_S)


def test_seldom_forgets() -> None:
    seldom = Seldom()
    for number in range(5000):
        assert seldom.is_due(UploadId(str(number)), number * EVERY_S)

    assert len(seldom._done_at_s) <= 1001
