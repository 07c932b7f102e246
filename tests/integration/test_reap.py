"""The reaper over every state store: what it ends, what it leaves alone, what stops it midway."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from tests.integration.conftest import World, soon
from tests.integration.stores import PostgresStores
from tests.support.fakes import FakeBody, FakeClock, Stall, settle
from tests.support.state import claim
from tus_server.core.errors import (
    StateUnavailable,
    StoreUnavailable,
    TusServerError,
    UploadGone,
    UploadNotFound,
)
from tus_server.core.expiry import Expiry
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine import reap as reaping
from tus_server.engine.concatenate import Concatenate, concatenate
from tus_server.engine.create import Create, create
from tus_server.engine.join import join_ready
from tus_server.engine.reap import DUTY, Limits, Reaped, reap, reap_loop
from tus_server.engine.recover import recover
from tus_server.engine.terms import Terms
from tus_server.ports import ANONYMOUS, Attempt, Letters, Node
from tus_server.state.postgres import PostgresOptions, PostgresState

HOUR_S, DAY_S = 3600.0, 86400.0
EXPIRY = Expiry(7 * DAY_S, 30 * DAY_S)
S = UploadState


class Aging:
    """A world whose uploads can be made older, on whichever clock the state store looks."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def age(self, seconds: float) -> None:
        """Let `seconds` pass."""
        stores = self.world.stores
        if not isinstance(stores, PostgresStores):
            self.world.clock.advance(seconds)
            return
        connection = await asyncpg.connect(stores.url)
        moved = ("created_at", "state_on", "expires_at", "freed_at")
        columns = ", ".join(f"{name} = {name} - make_interval(secs => $1)" for name in moved)
        await connection.execute(f"UPDATE uploads SET {columns}", seconds)
        await connection.execute(
            "UPDATE status_history SET state_on = state_on - make_interval(secs => $1)", seconds
        )
        await connection.execute(
            "UPDATE outbox SET delivered_at = delivered_at - make_interval(secs => $1),"
            " given_up_at = given_up_at - make_interval(secs => $1)",
            seconds,
        )
        await connection.close()

    async def reap(self, **limits: float) -> Reaped:
        found = Limits(expiry=self.world.engine.expiry, **limits)
        return await soon(reap(self.world.engine, found, by="by a test"))

    async def half(self, *, partial: bool = False) -> Upload:
        """Create an upload that has 6 of 12 bytes: a part and a tail, where there are such."""
        command = Create(None, Protocol.TUS, Terms(length=12), is_partial=partial)
        created = await soon(create(self.world.engine, command, ANONYMOUS, FakeBody()))
        return (await self.world.append(created.upload, b"abcdef")).upload

    async def whole(self, *, partial: bool = False) -> Upload:
        upload = await self.half(partial=partial)
        return (await self.world.append(upload, b"ghijkl")).upload

    async def final(self, *partials: Upload) -> Upload:
        command = Concatenate("final;...", [each.id for each in partials], None)
        return await soon(concatenate(self.world.engine, command, ANONYMOUS))


@pytest.fixture(params=["fakes", "disk", "postgres"])
async def aging(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Aging]:
    """An engine over fakes, over SQLite and local disk, over Postgres; uploads live for a week."""
    if request.param == "postgres":
        url = request.getfixturevalue("database_url")
        world = World(expiry=EXPIRY, stores=PostgresStores(url, FakeClock()))
        world.clock.moment = datetime.now(UTC)
    else:
        world = World(tmp_path if request.param == "disk" else None, expiry=EXPIRY)
    async with world:
        yield Aging(world)


@pytest.fixture
async def fake() -> AsyncIterator[Aging]:
    """An engine over fakes; uploads live for a week."""
    async with World(expiry=EXPIRY) as world:
        yield Aging(world)


# --- what expires


async def test_what_got_no_byte_for_its_time_expires_and_is_freed(aging: Aging) -> None:
    w = aging.world
    empty, half = await w.new(12), await aging.half()
    await aging.age(8 * DAY_S)

    reaped = await aging.reap()

    assert reaped == Reaped(expired=2, freed_bytes=6)
    for upload in (empty, half):
        row = await w.row(upload)
        assert row.state is S.EXPIRED
        assert row.freed_at is not None
        assert await w.events(upload) == [S.EXPIRED]
        assert not w.has_bytes(upload)
        with pytest.raises(UploadGone):
            await w.status(upload)
    (last, *_) = await w.real_state.history(half.id)
    assert (last.state, last.note) == (S.EXPIRED, "by a test")
    assert await aging.reap() == Reaped()


async def test_what_has_time_left_and_what_is_finished_stays(aging: Aging) -> None:
    w = aging.world
    finished = await aging.whole()
    await aging.age(6 * DAY_S)
    half = await aging.half()
    await aging.age(2 * DAY_S)

    assert await aging.reap() == Reaped()

    await aging.age(4 * DAY_S)
    assert (await w.status(half)).offset == 6
    await aging.age(3650 * DAY_S)
    assert (await aging.reap()).expired == 1  # the half one
    assert await w.content(finished) == b"abcdefghijkl"
    assert await w.events(finished) == [S.VERIFIED]


async def test_bytes_extend_its_life_and_an_empty_request_does_not(aging: Aging) -> None:
    w = aging.world
    upload = await aging.half()
    await aging.age(6 * DAY_S)
    assert (await w.append(upload)).upload.expires_at == (await w.row(upload)).expires_at
    await aging.age(0.9 * DAY_S)
    await w.append(upload, b"g", offset=6)
    await aging.age(6.9 * DAY_S)

    assert await aging.reap() == Reaped()
    await aging.age(0.2 * DAY_S)
    assert (await aging.reap()).expired == 1


async def test_from_its_second_on_it_is_gone_before_any_pass(fake: Aging) -> None:
    w = fake.world
    upload = await fake.half()
    assert upload.expires_at is not None
    w.clock.moment = upload.expires_at

    for verb in (w.status(upload), w.append(upload, b"g"), w.terminate(upload)):
        with pytest.raises(UploadGone):
            await verb

    assert (await w.row(upload)).state is S.RECEIVING


async def test_tombstones_are_forgotten_after_a_month(aging: Aging) -> None:
    w = aging.world
    expired, canceled, finished = await aging.half(), await aging.half(), await aging.whole()
    await w.terminate(canceled)
    await aging.age(8 * DAY_S)
    await aging.reap()
    await aging.age(23 * DAY_S)

    assert await aging.reap() == Reaped(purged=1)
    with pytest.raises(UploadGone):
        await w.status(expired)
    await aging.age(8 * DAY_S)
    assert await aging.reap() == Reaped(purged=1)
    for upload in (expired, canceled):
        with pytest.raises(UploadNotFound):
            await w.status(upload)
    assert await w.events(expired) == [S.EXPIRED]
    assert (await w.status(finished)).state is S.VERIFIED


async def test_delivered_events_are_forgotten_after_a_week_and_no_others(aging: Aging) -> None:
    w = aging.world
    delivered, dead, waiting = [await aging.whole() for _ in range(3)]
    one, two = await w.real_state.claim_events(2, 60.0)
    outcomes = [Attempt(one, frozenset()), Attempt(two, frozenset(), "No such target.")]
    await w.real_state.settle_events(outcomes)
    await aging.age(6 * DAY_S)
    assert await aging.reap() == Reaped()
    await aging.age(2 * DAY_S)

    assert await aging.reap() == Reaped(events=1)
    assert await w.real_state.list_events(Letters.DELIVERED, 10) == []
    (letter,) = await w.real_state.list_events(Letters.DEAD, 10)
    assert letter.upload_id == dead.id
    assert await w.events(waiting) == [S.VERIFIED]
    assert await w.events(delivered) == []


async def test_finished_uploads_are_removed_after_their_time_where_they_have_one(
    aging: Aging,
) -> None:
    w = aging.world
    old, partial = await aging.whole(), await aging.whole(partial=True)
    await aging.age(3 * DAY_S)
    young = await aging.whole()

    assert await aging.reap() == Reaped()
    assert await aging.reap(kept_s=2 * DAY_S) == Reaped(deleted=1, freed_bytes=12)
    assert await w.steps(old) == [S.INITIATED, S.RECEIVING, S.COMPLETED, S.VERIFIED, S.DELETED]
    assert await w.events(old) == [S.VERIFIED, S.DELETED]
    assert not w.has_bytes(old)
    with pytest.raises(UploadNotFound):
        await w.status(old)
    for upload in (young, partial):
        assert (await w.row(upload)).state is S.VERIFIED
        assert await w.content(upload) == b"abcdefghijkl"


async def test_without_expiry_nothing_expires(fake: Aging) -> None:
    fake.world.engine.expiry = Expiry(None)
    upload = await fake.half()
    await fake.age(3650 * DAY_S)

    assert await fake.reap() == Reaped()
    assert (await fake.world.status(upload)).offset == 6


# --- partial and final uploads


async def test_unused_partial_uploads_expire_also_finished_ones_and_nobody_is_told(
    aging: Aging,
) -> None:
    w = aging.world
    half, whole = await aging.half(partial=True), await aging.whole(partial=True)
    await aging.age(8 * DAY_S)

    assert await aging.reap() == Reaped(expired=2, freed_bytes=18)

    for upload in (half, whole):
        assert await w.events(upload) == []
        assert not w.has_bytes(upload)
        with pytest.raises(UploadGone):
            await w.status(upload)


async def test_a_final_upload_lives_as_long_as_what_it_waits_for(
    aging: Aging,
) -> None:
    w = aging.world
    ready, open_one = await aging.whole(partial=True), await aging.half(partial=True)
    final = await aging.final(ready, open_one)
    await aging.age(6 * DAY_S)
    await w.append(open_one, b"g")
    await aging.age(1.5 * DAY_S)

    assert await aging.reap() == Reaped()
    assert (await w.row(final)).state is S.INITIATED
    assert (await w.row(ready)).state is S.VERIFIED  # past its time, and needed

    await aging.age(7 * DAY_S)
    await aging.reap()
    await join_ready(w.engine)
    await aging.reap()

    for upload in (final, ready, open_one):
        assert (await w.row(upload)).state is S.EXPIRED
    assert await w.events(final) == [S.EXPIRED]


async def test_a_used_partial_upload_goes_an_hour_after_its_use(aging: Aging) -> None:
    w = aging.world
    partial = await aging.whole(partial=True)
    final = await aging.final(partial, partial)
    assert (await w.row(final)).state is S.VERIFIED
    await aging.age(0.9 * HOUR_S)
    assert await aging.reap() == Reaped()
    await aging.age(0.2 * HOUR_S)

    assert await aging.reap() == Reaped(expired=1, freed_bytes=12)
    assert await w.content(final) == 2 * b"abcdefghijkl"
    await aging.age(3650 * DAY_S)
    assert (await aging.reap()).expired == 0


# --- who is at work


async def begin_append(w: World, upload: Upload) -> "tuple[Stall, asyncio.Task[object]]":
    """Begin an append that stalls with the lease held."""
    stall = Stall()
    sending = asyncio.create_task(w.append(upload, stall, b"ghi", chunked=True))
    await soon(stall.reached.wait())
    return stall, sending


async def test_an_upload_that_is_held_waits_and_lives_on_with_its_bytes(aging: Aging) -> None:
    w = aging.world
    upload = await aging.half()
    stall, sending = await begin_append(w, upload)
    await aging.age(8 * DAY_S)

    assert await aging.reap() == Reaped(postponed=1)
    stall.resume()
    await soon(sending)

    assert (await w.status(upload)).offset == 9
    assert await aging.reap() == Reaped()


async def test_who_holds_an_upload_that_is_too_old_is_asked_to_let_go(aging: Aging) -> None:
    w = aging.world
    upload = await aging.half()
    for _ in range(4):
        await aging.age(6 * DAY_S)
        upload = (await w.append(upload, b"g")).upload
    _, sending = await begin_append(w, upload)
    await aging.age(6.5 * DAY_S)

    assert await aging.reap() == Reaped(expired=1, freed_bytes=10)

    await asyncio.wait({sending})
    assert await w.events(upload) == [S.EXPIRED]
    assert not w.has_bytes(upload)
    with pytest.raises(UploadGone):
        await w.status(upload)


async def test_a_client_that_comes_back_before_the_lease_is_taken_keeps_its_upload(
    fake: Aging,
) -> None:
    w = fake.world
    upload = await fake.half()
    stall, sending = await begin_append(w, upload)
    await fake.age(8 * DAY_S)
    hold = w.state.hold("claim_upload")
    passing = asyncio.create_task(fake.reap())
    await soon(hold.reached.wait())
    stall.resume()
    await soon(sending)

    hold.let_go()

    assert await soon(passing) == Reaped()
    assert (await w.status(upload)).offset == 9


async def test_an_upload_that_completes_meanwhile_is_not_touched(fake: Aging) -> None:
    w = fake.world
    upload = await fake.half()
    stall = Stall()
    sending = asyncio.create_task(w.append(upload, stall, b"ghijkl"))
    await soon(stall.reached.wait())
    await fake.age(31 * DAY_S)  # too old
    hold = w.state.hold("claim_upload")
    passing = asyncio.create_task(fake.reap())
    await soon(hold.reached.wait())
    stall.resume()
    await soon(sending)

    hold.let_go()

    assert await soon(passing) == Reaped()
    assert await w.content(upload) == b"abcdefghijkl"


async def test_a_holder_that_does_not_let_go_in_time_postpones_it() -> None:
    async with World(expiry=EXPIRY, wait_s=0.05) as w:
        aging = Aging(w)
        upload = await aging.half()
        lease = await claim(w.real_state, upload)
        await aging.age(31 * DAY_S)

        async def pass_time() -> None:
            while True:  # the fake clock does not run by itself
                await asyncio.sleep(0.005)
                w.clock.elapsed_s += 0.01

        ticking = asyncio.create_task(pass_time())
        assert await aging.reap() == Reaped(postponed=1)
        ticking.cancel()

        await w.real_state.release(lease)
        assert await aging.reap() == Reaped(expired=1, freed_bytes=6)


# --- what stops a pass midway


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("port", "method", "nth"),
    [
        ("state", "find_expired", 1),
        ("state", "claim_upload", 1),
        ("state", "commit", 1),
        ("objects", "free", 1),
        ("state", "commit", 2),
        ("state", "purge", 1),
        ("state", "forget_nodes", 1),
    ],
)
async def test_a_pass_that_is_cut_off_leaves_nothing_that_the_next_one_does_not_do(
    aging: Aging, port: str, method: str, nth: int, after: bool
) -> None:
    w = aging.world
    upload = await aging.half()
    await aging.age(8 * DAY_S)
    error: TusServerError = StoreUnavailable() if port == "objects" else StateUnavailable()
    getattr(w, port).fail(method, error, nth=nth, after=after)
    try:
        await aging.reap()
    except StateUnavailable:
        pass

    await w.restart()  # which gives up the lease of a claim whose answer was lost
    await aging.reap()
    await soon(recover(w.engine, receiving=False))

    row = await w.row(upload)
    assert (row.state, row.freed_at is not None) == (S.EXPIRED, True)
    assert await w.events(upload) == [S.EXPIRED]
    assert (await w.steps(upload)).count(S.EXPIRED) == 1
    assert not w.has_bytes(upload)
    assert await aging.reap() == Reaped()


async def test_bytes_that_cannot_be_freed_now_are_freed_by_recovery(aging: Aging) -> None:
    w = aging.world
    upload = await aging.half()
    await aging.age(8 * DAY_S)
    w.objects.fail("free", StoreUnavailable())

    assert await aging.reap() == Reaped(expired=1, postponed=1)
    with pytest.raises(UploadGone):
        await w.status(upload)
    await soon(recover(w.engine, receiving=False))

    assert not w.has_bytes(upload)
    assert await aging.reap() == Reaped()


async def test_one_that_resists_stops_no_other(
    fake: Aging, logged: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaping, "PAGE", 10)
    w = fake.world
    uploads = [await fake.half() for _ in range(35)]
    await fake.age(8 * DAY_S)
    w.state.fail("commit", StateUnavailable(), nth=3)
    w.state.fail("claim_upload", ZeroDivisionError(), nth=30)  # type: ignore[arg-type]

    assert await fake.reap() == Reaped(expired=33, freed_bytes=198, postponed=2)
    assert "reap.postponed" in (text := logged())
    assert "reap.failed" in text
    assert await fake.reap() == Reaped(expired=2, freed_bytes=12)
    assert not any(w.has_bytes(upload) for upload in uploads)


async def test_a_server_that_stops_begins_nothing_more(fake: Aging) -> None:
    w = fake.world
    upload = await fake.half()
    await fake.age(8 * DAY_S)
    w.engine.let_go()

    assert (await fake.reap()).expired == 0
    await soon(reap_loop(w.engine, Limits(expiry=EXPIRY)))
    assert (await w.row(upload)).state is S.RECEIVING


async def test_a_pass_that_is_cancelled_ends_what_it_has_begun(fake: Aging) -> None:
    w = fake.world
    upload = await fake.half()
    await fake.age(8 * DAY_S)
    hold = w.objects.hold("free")
    passing = asyncio.create_task(fake.reap())
    await soon(hold.reached.wait())

    passing.cancel()
    await settle()
    hold.let_go()
    await asyncio.wait({passing})

    assert passing.cancelled()
    assert (await w.row(upload)).freed_at is not None
    assert not w.has_bytes(upload)


# --- one at a time


async def test_only_who_has_the_duty_reaps(logged: Callable[[], str]) -> None:
    async with World(expiry=EXPIRY, label="a") as a, World(beside=a, label="b", expiry=EXPIRY) as b:
        aging = Aging(a)
        upload = await aging.half()
        await aging.age(8 * DAY_S)
        assert await b.real_state.claim_duty(DUTY, 90.0)
        tried = a.state.hold("claim_duty", after=True)
        loop = asyncio.create_task(reap_loop(a.engine, Limits(expiry=EXPIRY)))
        await soon(tried.reached.wait())
        tried.let_go()
        await settle()
        assert (await a.row(upload)).state is S.RECEIVING
        loop.cancel()
        await asyncio.wait({loop})

        await aging.age(91.0)
        loop = asyncio.create_task(reap_loop(a.engine, Limits(expiry=EXPIRY)))
        while "reap.done" not in logged():
            await asyncio.sleep(0.001)
        loop.cancel()
        await asyncio.wait({loop})

        assert not await b.real_state.claim_duty(DUTY, 90.0)
        (last, *_) = await a.real_state.history(upload.id)
        assert last.note == "by the reaper of node a"


# --- idle for long


async def test_what_is_idle_for_longer_than_said_is_given_up_before_its_time(aging: Aging) -> None:
    w = aging.world
    idle, empty, partial = await aging.half(), await w.new(5), await aging.whole(partial=True)
    finished = await aging.whole()
    await aging.age(1.5 * DAY_S)
    young = await aging.half()
    await aging.age(1 * DAY_S)

    assert await aging.reap(idle_s=2 * DAY_S) == Reaped(expired=3, freed_bytes=18)

    for upload in (idle, empty, partial):
        assert (await w.row(upload)).state is S.EXPIRED
    assert (await w.status(young)).offset == 6
    assert await w.content(finished) == b"abcdefghijkl"


async def test_a_held_upload_is_not_idle(aging: Aging) -> None:
    w = aging.world
    upload = await aging.half()
    await aging.age(3 * DAY_S)
    stall, sending = await begin_append(w, upload)

    assert await aging.reap(idle_s=2 * DAY_S) == Reaped(postponed=1)
    stall.resume()
    await soon(sending)
    assert (await w.status(upload)).offset == 9


# --- nodes


async def test_nodes_that_nobody_heard_of_for_a_month_are_forgotten(database_url: str) -> None:
    world = World(expiry=EXPIRY, stores=PostgresStores(database_url, FakeClock()))
    world.clock.moment = datetime.now(UTC)
    async with world:
        connection = await asyncpg.connect(database_url)
        for label, days in (("gone", 31), ("away", 29)):
            node = Node(label, label)
            async with PostgresState(
                PostgresOptions(database_url), node=node, process=label, has_ended=bool
            ):
                pass
            await connection.execute(
                "UPDATE nodes SET seen_at = now() - make_interval(days => $2) WHERE label = $1",
                label,
                days,
            )
        await connection.close()

        assert await Aging(world).reap() == Reaped(nodes=1)
        assert await world.real_state.find_node("away") is not None
        assert await world.real_state.find_node("gone") is None
