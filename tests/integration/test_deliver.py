"""Delivery over every state store: what is tried, when again, in which order, and never twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.integration.conftest import World, soon
from tests.integration.outbox import Outbox, make_world
from tests.support.cluster import eventually
from tests.support.fakes import settle
from tests.support.targets import FakeTarget
from tus_server.core.backoff import MOST_ATTEMPTS
from tus_server.core.errors import DeliveryFailed, StateUnavailable
from tus_server.core.states import UploadState as S
from tus_server.engine import deliver as delivering_module
from tus_server.engine.deliver import CONCURRENCY, Delivery, delivering
from tus_server.ports import Letters

PENDING, DELIVERED, DEAD = Letters.PENDING, Letters.DELIVERED, Letters.DEAD


@pytest.fixture(params=["fakes", "disk", "postgres"])
async def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Outbox]:
    """Events over fakes, over SQLite, over Postgres."""
    is_shared = request.param == "postgres"
    url = request.getfixturevalue("database_url") if is_shared else None
    async with make_world(request.param, tmp_path, url) as world:
        yield Outbox(world)


@pytest.fixture
async def fake() -> AsyncIterator[Outbox]:
    """Events over fakes."""
    async with World() as world:
        yield Outbox(world)


# --- what is delivered


async def test_an_event_is_delivered_with_the_upload_and_its_history(outbox: Outbox) -> None:
    (upload,) = await outbox.finish_uploads(1)
    target = FakeTarget()

    assert await outbox.deliver(target) == 1

    assert target.told == [(upload.id, S.VERIFIED)]
    ((given, history),) = target.given
    assert given == upload
    assert history[0].state is S.VERIFIED
    (event,) = await outbox.letters(DELIVERED)
    assert (event.attempts, event.done, event.error) == (1, {"target"}, None)
    assert await outbox.deliver(target) == 0


async def test_of_an_upload_whose_row_was_removed_only_the_event_is_given(outbox: Outbox) -> None:
    upload = await outbox.end_upload()
    await outbox.world.real_state.purge(10, ended_s=-3600.0)
    assert await outbox.world.real_state.find_upload(upload.id) is None
    target = FakeTarget()

    assert await outbox.deliver(target) == 2

    assert target.told == [(upload.id, S.VERIFIED), (upload.id, S.DELETED)]
    assert target.given == [(None, []), (None, [])]


async def test_what_nobody_wants_is_settled_at_once(outbox: Outbox) -> None:
    await outbox.end_upload()
    uninterested = FakeTarget(wants=lambda event: False)

    assert await outbox.deliver(uninterested) == 0

    assert uninterested.tried == []
    assert {event.attempts for event in await outbox.letters(DELIVERED)} == {0}
    assert await outbox.count() == {"delivered": 2}


async def test_without_any_target_events_are_settled_too(outbox: Outbox) -> None:
    await outbox.finish_uploads(3)

    assert await outbox.deliver() == 0

    assert await outbox.count() == {"delivered": 3}


async def test_of_the_events_of_an_upload_those_that_are_wanted_come(outbox: Outbox) -> None:
    upload = await outbox.end_upload()
    target = FakeTarget(wants=lambda event: event.kind is S.DELETED)

    assert await outbox.deliver(target) == 1

    assert target.told == [(upload.id, S.DELETED)]
    assert await outbox.count() == {"delivered": 2}


async def test_what_nobody_wants_any_more_is_settled_though_it_was_tried(outbox: Outbox) -> None:
    await outbox.finish_uploads(1)
    target = FakeTarget()
    target.fail(1)
    await outbox.deliver(target)
    await outbox.wait(3)

    await outbox.deliver()

    (event,) = await outbox.letters(DELIVERED)
    assert (event.attempts, event.error) == (1, None)


async def test_more_than_there_is_room_for_is_delivered_bit_by_bit(outbox: Outbox) -> None:
    count = CONCURRENCY + 7
    uploads = await outbox.finish_uploads(count)
    target = FakeTarget()

    assert await outbox.deliver(target) == count

    assert sorted(told for told, _ in target.told) == sorted(one.id for one in uploads)
    assert target.most_at_once <= CONCURRENCY
    assert await outbox.count() == {"delivered": count}


# --- order


async def test_the_events_of_an_upload_come_in_order_whatever_fails(outbox: Outbox) -> None:
    uploads = [await outbox.end_upload() for _ in range(3)]
    target = FakeTarget()
    target.fail(2)

    await outbox.deliver(target)
    await outbox.wait(3)
    await outbox.deliver(target)

    for upload in uploads:
        assert [kind for told, kind in target.told if told == upload.id] == [S.VERIFIED, S.DELETED]


async def test_a_later_event_waits_for_an_earlier_one_that_fails(outbox: Outbox) -> None:
    await outbox.end_upload()
    target = FakeTarget()
    target.fail(3)

    for pause_s in (3, 5, 9):
        await outbox.deliver(target)
        await outbox.wait(pause_s)

    assert {event.kind for event in target.tried} == {S.VERIFIED}
    assert await outbox.count() == {"pending": 2}
    await outbox.deliver(target)
    assert [kind for _, kind in target.told] == [S.VERIFIED, S.DELETED]


async def test_a_dead_letter_does_not_hold_up_what_follows(outbox: Outbox) -> None:
    await outbox.end_upload()
    target = FakeTarget("target", DeliveryFailed("gone for good.", is_final=True))

    await outbox.deliver(target)

    assert [kind for _, kind in target.told] == [S.DELETED]
    assert await outbox.count() == {"dead": 1, "delivered": 1}


# --- failures


async def test_what_fails_is_tried_again_after_pauses_that_double(outbox: Outbox) -> None:
    await outbox.finish_uploads(1)
    target = FakeTarget()
    target.fail(4)

    for pause_s in (2, 4, 8, 16):
        assert await outbox.deliver(target) == 1
        await outbox.wait(pause_s - 0.5)
        assert await outbox.deliver(target) == 0
        await outbox.wait(0.6)

    assert await outbox.deliver(target) == 1
    (event,) = await outbox.letters(DELIVERED)
    assert (event.attempts, event.error) == (5, None)


async def test_a_target_that_is_down_for_an_hour_gets_everything_once(outbox: Outbox) -> None:
    uploads = await outbox.finish_uploads(5)
    uploads.append(await outbox.end_upload())
    down, up = FakeTarget(), FakeTarget()
    down.fail(10_000)
    passed_s = 0.0
    while passed_s < 3600:
        await outbox.deliver(down)
        await outbox.wait(30)
        passed_s += 30
    assert await outbox.count() == {"pending": 7}
    # With pauses that grow to a quarter of an hour: 2 + 4 + ... + 512, then 900 each.
    assert len(down.tried) == 6 * 12

    for _ in range(31):
        await outbox.wait(30)
        await outbox.deliver(up)

    assert sorted(told for told, _ in up.told) == sorted(
        [one.id for one in uploads] + [uploads[-1].id]
    )
    assert await outbox.count() == {"delivered": 7}


async def test_it_is_given_up_after_its_last_attempt(fake: Outbox) -> None:
    await fake.finish_uploads(1)
    target = FakeTarget()
    target.fail(MOST_ATTEMPTS)

    for _ in range(MOST_ATTEMPTS - 1):
        assert await fake.deliver(target) == 1
        await fake.wait(901)
    assert await fake.count() == {"pending": 1}
    await fake.deliver(target)

    (event,) = await fake.letters(DEAD)
    assert (event.attempts, event.error) == (MOST_ATTEMPTS, "target: it is away.")
    await fake.wait(10 * 86400)
    assert await fake.deliver(target) == 0


async def test_a_final_failure_is_a_dead_letter_at_once_and_can_be_retried(outbox: Outbox) -> None:
    (upload,) = await outbox.finish_uploads(1)
    target = FakeTarget("target", DeliveryFailed("answered 410.", is_final=True))
    await outbox.deliver(target)
    (event,) = await outbox.letters(DEAD)
    assert (event.attempts, event.error) == (1, "target: answered 410.")

    assert await outbox.world.real_state.retry_event(event.id)
    await outbox.deliver(target)

    assert target.told == [(upload.id, S.VERIFIED)]
    assert await outbox.count() == {"delivered": 1}


async def test_only_targets_that_do_not_have_it_are_tried_again(outbox: Outbox) -> None:
    await outbox.finish_uploads(1)
    good, bad = FakeTarget("good"), FakeTarget("bad")
    bad.fail(1)

    await outbox.deliver(good, bad)
    (event,) = await outbox.letters(PENDING)
    assert (event.done, event.error) == ({"good"}, "bad: it is away.")
    await outbox.wait(3)
    await outbox.deliver(good, bad)

    assert (len(good.tried), len(bad.tried)) == (1, 2)
    (event,) = await outbox.letters(DELIVERED)
    assert event.done == {"good", "bad"}


async def test_one_that_may_yet_succeed_keeps_an_event_alive(outbox: Outbox) -> None:
    await outbox.finish_uploads(1)
    final = FakeTarget("final", *[DeliveryFailed("no.", is_final=True) for _ in range(2)])
    passing = FakeTarget("passing")
    passing.fail(1)

    await outbox.deliver(final, passing)
    assert await outbox.count() == {"pending": 1}
    await outbox.wait(3)
    await outbox.deliver(final, passing)

    (event,) = await outbox.letters(DEAD)
    assert (event.done, event.error) == ({"passing"}, "final: no.")


async def test_a_target_that_hangs_is_given_up_and_others_are_served(outbox: Outbox) -> None:
    first, second = await outbox.finish_uploads(2)
    hanging = FakeTarget("hanging", asyncio.Event())

    await outbox.deliver(hanging, timeout_s=0.05)

    assert hanging.told == [(second.id, S.VERIFIED)]
    (event,) = await outbox.letters(PENDING)
    assert event.upload_id == first.id
    assert event.error == "hanging: no end after 0.05 s."


async def test_a_defect_of_a_target_is_a_failure_like_others(outbox: Outbox) -> None:
    first, second = await outbox.finish_uploads(2)
    broken = FakeTarget("broken", ZeroDivisionError("what a shame"))

    await outbox.deliver(broken)

    assert broken.told == [(second.id, S.VERIFIED)]
    (event,) = await outbox.letters(PENDING)
    assert (event.upload_id, event.error) == (first.id, "broken: ZeroDivisionError.")


async def test_long_words_of_a_failure_are_cut(outbox: Outbox) -> None:
    await outbox.finish_uploads(1)

    await outbox.deliver(FakeTarget("target", DeliveryFailed("x" * 5000)))

    (event,) = await outbox.letters(PENDING)
    assert event.error is not None
    assert len(event.error) == delivering_module.MAX_ERROR_CHARS


# --- processes, and their ends


async def test_what_is_claimed_is_nobody_elses(outbox: Outbox) -> None:
    (upload,) = await outbox.finish_uploads(1)
    going_on = asyncio.Event()
    slow, other = FakeTarget("target", going_on), FakeTarget("target")
    delivery = outbox.delivery(slow)
    running = asyncio.create_task(delivery.deliver_due())
    await eventually(lambda: slow.tried, "the event is being delivered")

    assert await outbox.deliver(other) == 0
    going_on.set()
    await soon(running)

    assert (slow.told, other.tried) == ([(upload.id, S.VERIFIED)], [])
    assert await outbox.count() == {"delivered": 1}


async def test_what_a_crash_leaves_is_delivered_again_when_its_claim_is_over(
    outbox: Outbox,
) -> None:
    (upload,) = await outbox.finish_uploads(1)
    (claimed,) = await outbox.world.real_state.claim_events(10, 90.0)  # and then it dies
    target = FakeTarget()

    await outbox.wait(80)
    assert await outbox.deliver(target) == 0
    await outbox.wait(11)
    assert await outbox.deliver(target) == 1

    assert target.told == [(upload.id, S.VERIFIED)]
    assert target.tried[0].attempts == claimed.attempts + 1


async def test_a_late_outcome_changes_nothing_of_a_later_attempt(outbox: Outbox) -> None:
    await outbox.finish_uploads(1)
    going_on = asyncio.Event()
    slow, other = FakeTarget("target", going_on), FakeTarget("target")
    other.fail(1)
    running = asyncio.create_task(outbox.delivery(slow).deliver_due())
    await eventually(lambda: slow.tried, "the event is being delivered")
    await outbox.wait(200)

    assert await outbox.deliver(other) == 1
    going_on.set()
    await soon(running)

    (event,) = await outbox.letters(PENDING)
    assert (event.attempts, event.error) == (2, "target: it is away.")


@pytest.mark.parametrize("kind", ["fakes", "postgres"])
async def test_two_processes_share_the_work_and_deliver_nothing_twice(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("database_url") if kind == "postgres" else None
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(make_world(kind, tmp_path, url))
        other = await stack.enter_async_context(World(beside=world, process="other"))
        outbox = Outbox(world)
        uploads = await outbox.finish_uploads(300)
        uploads += [await outbox.end_upload() for _ in range(20)]
        targets = [FakeTarget() for _ in range(2)]
        deliveries = [
            outbox.delivery(targets[0]),
            outbox.delivery(targets[1], world=other),
        ]
        runs = [asyncio.create_task(one.run()) for one in deliveries]

        async def is_done() -> bool:
            return not await outbox.letters(PENDING)

        await eventually(is_done, "everything is delivered")
        for one in deliveries:
            await one.stop()
        await soon(asyncio.gather(*runs))
        for one in deliveries:
            await one.close()

        told = [event for target in targets for event in target.told]
        assert len(told) == len(set(told)) == 340
        assert all(target.told for target in targets)


async def test_the_loop_delivers_what_comes_while_it_runs(outbox: Outbox) -> None:
    target = FakeTarget()
    async with delivering(outbox.world.engine, [target], timeout_s=5.0):
        for _ in range(3):
            upload = await outbox.end_upload()
            last = (upload.id, S.DELETED)
            await eventually(lambda last=last: last in target.told, "both events are delivered")

    assert len(target.told) == 6
    assert await outbox.count() == {"delivered": 6}


async def test_a_state_store_that_is_away_stops_nothing_for_good(outbox: Outbox) -> None:
    target = FakeTarget()
    world = outbox.world
    (upload,) = await outbox.finish_uploads(1)
    for method in ("claim_events", "find_uploads", "settle_events"):
        world.state.fail(method, StateUnavailable("away"))
    async with delivering(world.engine, [target], timeout_s=5.0):

        async def is_told() -> bool:
            await outbox.wait(3)
            return await outbox.count() == {"delivered": 1}

        await eventually(is_told, "the event is delivered")

    assert set(target.told) == {(upload.id, S.VERIFIED)}


async def test_a_defect_on_the_way_to_the_targets_takes_no_room_for_good(fake: Outbox) -> None:
    (upload,) = await fake.finish_uploads(1)
    target = FakeTarget()
    fake.world.state.fail("histories", ZeroDivisionError("what a shame"))

    await fake.deliver(target)
    (event,) = await fake.letters(PENDING)
    assert (target.tried, event.error) == ([], "what a shame")
    await fake.wait(3)
    await fake.deliver(target)

    assert target.told == [(upload.id, S.VERIFIED)]


async def test_closing_waits_for_what_is_under_way(outbox: Outbox) -> None:
    (upload,) = await outbox.finish_uploads(1)
    going_on = asyncio.Event()
    target = FakeTarget("target", going_on)
    async with delivering(outbox.world.engine, [target], timeout_s=5.0):
        await eventually(lambda: target.tried, "the event is being delivered")
        asyncio.get_running_loop().call_later(0.05, going_on.set)

    assert target.told == [(upload.id, S.VERIFIED)]
    assert await outbox.count() == {"delivered": 1}


async def test_closing_puts_back_what_does_not_end(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering_module, "CLOSE_WAIT_S", 0.05)
    (upload,) = await outbox.finish_uploads(1)
    hanging, good, next_one = FakeTarget("bad", asyncio.Event()), FakeTarget("good"), FakeTarget()
    async with delivering(outbox.world.engine, [hanging, good], timeout_s=50.0):
        await eventually(lambda: hanging.tried and good.told, "the event is being delivered")

    (event,) = await outbox.letters(PENDING)
    assert (event.done, event.error) == ({"good"}, "The server was stopped.")
    assert await outbox.deliver(next_one) == 1
    assert next_one.told == [(upload.id, S.VERIFIED)]


async def test_closing_does_not_wait_for_a_state_store_that_is_away(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering_module, "CLOSE_WAIT_S", 0.05)
    await outbox.finish_uploads(1)
    world, target = outbox.world, FakeTarget()
    world.state.fail("settle_events", StateUnavailable("away"), times=1000)
    async with delivering(world.engine, [target], timeout_s=5.0):
        await eventually(lambda: target.told, "the event is delivered")

    assert await outbox.count() == {"pending": 1}


async def test_closing_with_nothing_to_do_takes_no_time(
    fake: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering_module, "POLL_S", 3600.0)

    async def open_and_close() -> None:
        async with delivering(fake.world.engine, [], timeout_s=5.0):
            await settle()

    await soon(open_and_close())


async def test_nothing_is_begun_once_the_engine_closes(fake: Outbox) -> None:
    await fake.finish_uploads(1)
    fake.world.engine.closing = True
    target = FakeTarget()
    delivery = Delivery(fake.world.engine, [target], timeout_s=5.0)

    await soon(delivery.run())
    await settle()

    assert target.tried == []
