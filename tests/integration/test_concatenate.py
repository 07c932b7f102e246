"""Final uploads in the engine: joined in order, once, whatever comes in between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from tests.integration.conftest import World, Worlds, soon
from tests.support.fakes import FakeBody, settle, toy_limits
from tus_server.core.errors import (
    FinalUpload,
    Forbidden,
    StateUnavailable,
    StoreUnavailable,
    TusServerError,
    UnusablePartial,
    UploadGone,
    UploadNotFound,
    UploadTooLarge,
)
from tus_server.core.expiry import Expiry
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED, TERMINAL, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.concatenate import Concatenate, concatenate
from tus_server.engine.create import Create, create
from tus_server.engine.finish import PARTIALS_S
from tus_server.engine.join import join_ready
from tus_server.engine.terms import Terms
from tus_server.ports import ANONYMOUS, Operation, Principal

S = UploadState


@pytest.fixture(params=["fakes", "small parts", "disk"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    folder = tmp_path if request.param == "disk" else None
    small = request.param == "small parts"
    limits = toy_limits(8, min_part_size=5, parallel_parts=3) if small else None
    async with World(folder, limits=limits, label="a" if small else None) as world:
        yield world


async def partial(world: World, content: bytes, length: int | None = None) -> Upload:
    """Create a partial upload with `content`; of another `length` it is not finished."""
    command = Create(
        None,
        Protocol.TUS,
        Terms(length=len(content) if length is None else length),
        is_partial=True,
    )
    return (await soon(create(world.engine, command, ANONYMOUS, FakeBody(content)))).upload


async def join(world: World, *partials: Upload, principal: Principal = ANONYMOUS) -> Upload:
    ids: list[UploadId | None] = [one.id for one in partials]
    command = Concatenate("final;" + " ".join(f"/files/{one}" for one in ids), ids, None)
    return await soon(concatenate(world.engine, command, principal))


async def eventually_finished(world: World, upload: Upload) -> Upload:
    async def finished() -> Upload:
        while (row := await world.row(upload)).state not in FINISHED | TERMINAL:
            await asyncio.sleep(0)
        return row

    return await soon(finished())


@pytest.mark.parametrize("sizes", [[0], [3], [0, 0], [3, 0, 4], [8, 8, 8], [1] * 30, [20, 1, 9]])
async def test_a_final_upload_is_its_partials_in_order(world: World, sizes: list[int]) -> None:
    contents = [Random(place).randbytes(size) for place, size in enumerate(sizes)]
    partials = [await partial(world, content) for content in contents]

    final = await join(world, *reversed(partials))

    assert (final.state, final.length) == (S.VERIFIED, sum(sizes))
    assert await world.content(final) == b"".join(reversed(contents))
    assert await world.events(final) == [S.VERIFIED]
    assert await world.steps(final) == [S.INITIATED, S.COMPLETED, S.VERIFIED]


async def test_a_partial_may_be_used_more_than_once(world: World) -> None:
    one, other = await partial(world, b"abc"), await partial(world, b"0123456789")

    first = await join(world, one, other, one)
    second = await join(world, other, other)

    assert await world.content(first) == b"abc0123456789abc"
    assert await world.content(second) == b"01234567890123456789"


async def test_nobody_is_told_of_partial_uploads(world: World) -> None:
    kept, removed = await partial(world, b"abc"), await partial(world, b"abc")

    await world.terminate(removed)

    assert await world.events(kept) == []
    assert await world.events(removed) == []
    assert await world.steps(kept) == [S.INITIATED, S.RECEIVING, S.COMPLETED, S.VERIFIED]


async def test_a_final_upload_waits_for_its_partials(world: World) -> None:
    one, other = await partial(world, b"ab", length=3), await partial(world, b"", length=9)
    final = await join(world, one, other)
    waiting = await world.status(final)
    assert (waiting.state, waiting.length) == (S.INITIATED, 12)

    await world.append(one, b"c")
    assert (await world.status(final)).state is S.INITIATED
    await world.append(other, b"012345678")

    await eventually_finished(world, final)
    assert await world.content(final) == b"abc012345678"
    assert await world.events(final) == [S.VERIFIED]


async def test_the_length_of_a_final_upload_is_known_once_those_of_its_partials_are(
    world: World,
) -> None:
    command = Create(None, Protocol.TUS, Terms(), is_partial=True)
    deferred = (await create(world.engine, command, ANONYMOUS, FakeBody())).upload
    final = await join(world, deferred, await partial(world, b"abc"))
    assert final.length is None

    await world.append(deferred, b"x", length=2)
    told = (await world.status(final)).length
    await world.append(await world.row(deferred), b"y")

    assert told == 5
    assert await world.content(await eventually_finished(world, final)) == b"xyabc"


async def test_a_final_upload_takes_no_bytes(world: World) -> None:
    waiting = await join(world, await partial(world, b"a", length=2))
    finished = await join(world, await partial(world, b"ab"))

    for final, offset in ((waiting, 0), (waiting, 9), (finished, 2), (finished, 0)):
        with pytest.raises(FinalUpload):
            await world.append(final, b"x", offset=offset)
        with pytest.raises(FinalUpload):
            await world.append(final, offset=offset)


async def test_what_is_no_partial_of_ours_cannot_be_joined(world: World) -> None:
    ordinary = (await world.create(b"abc", length=3)).upload
    good = await partial(world, b"abc")
    removed = await partial(world, b"abc")
    final = await join(world, good)
    await world.terminate(removed)
    before = len(await world.real_state.list_uploads(None, 100))

    for bad in (ordinary, removed, final):
        with pytest.raises(UnusablePartial, match="URL 2"):
            await join(world, good, bad)
    command = Concatenate("final;http://elsewhere/", [None, good.id], None)
    with pytest.raises(UnusablePartial, match="URL 1"):
        await concatenate(world.engine, command, ANONYMOUS)

    assert len(await world.real_state.list_uploads(None, 100)) == before


class Owners:
    """Lets everybody work on their own uploads only."""

    takes_all = True

    def __init__(self, refusal: type[TusServerError]) -> None:
        self._refusal = refusal

    async def authenticate(self, credentials: object) -> Principal:
        return ANONYMOUS

    async def check(
        self, principal: Principal, operation: Operation, upload: Upload | None
    ) -> None:
        if upload is not None and upload.owner != principal.name:
            raise self._refusal


@pytest.mark.parametrize("refusal", [Forbidden, UploadNotFound])
async def test_a_partial_of_another_user_is_as_if_unknown(
    open_world: Worlds, refusal: type[TusServerError]
) -> None:
    world = await open_world(authorizer=Owners(refusal))
    theirs = await partial(world, b"abc")

    with pytest.raises(UnusablePartial):
        await join(world, theirs, principal=Principal("ann"))


async def test_more_than_the_server_takes_is_refused(open_world: Worlds) -> None:
    world = await open_world(max_size=5)
    one = await partial(world, b"abc")

    with pytest.raises(UploadTooLarge):
        await join(world, one, one)


async def test_a_final_upload_is_lost_with_its_partial(world: World) -> None:
    one, other = await partial(world, b"abc"), await partial(world, b"a", length=2)
    final = await join(world, one, other)

    await world.terminate(one)

    with pytest.raises(UploadNotFound):
        await world.status(final)
    await join_ready(world.engine)
    row = await eventually_finished(world, final)
    assert (row.state, row.error_code) == (S.ERROR, "unusable_partial")
    assert await world.events(final) == [S.ERROR]
    await world.recover()


async def test_a_final_upload_is_gone_with_a_partial_that_has_expired(world: World) -> None:
    world.engine.expiry = Expiry(100.0)
    one = await partial(world, b"a", length=2)
    world.engine.expiry = Expiry(1000.0)
    final = await join(world, one)

    world.clock.advance(101)

    with pytest.raises(UploadGone):
        await world.status(final)


async def test_a_partial_that_is_needed_may_be_older_than_it_would_live(world: World) -> None:
    world.engine.expiry = Expiry(100.0)
    ready, other = await partial(world, b"abc"), await partial(world, b"a", length=3)
    final = await join(world, ready, other)

    world.clock.advance(60)
    await world.append(other, b"b", offset=1)
    world.clock.advance(60)

    assert (await world.status(final)).length == 6
    await world.append(other, b"c", offset=2)
    assert await world.content(await eventually_finished(world, final)) == b"abcabc"


@pytest.mark.parametrize("kept", [True, False])
async def test_used_partials_expire_unless_they_are_kept(world: World, kept: bool) -> None:
    world.engine.keep_partials = kept
    one = await partial(world, b"abc")
    await join(world, one)

    world.clock.advance(PARTIALS_S - 10)
    again = await join(world, one)  # by a client that has not heard of the first
    world.clock.advance(11)

    assert await world.content(again) == b"abc"
    if kept:
        await join(world, one)
    else:
        with pytest.raises(UnusablePartial):
            await join(world, one)
        with pytest.raises(UploadGone):
            await world.status(one)


Failure = Callable[[World], Awaitable[None]]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("state", "find_partials"),
        ("state", "claim_upload"),
        ("objects", "join"),
        ("state", "commit"),
        ("state", "let_partials_expire"),
        ("objects", "complete"),
    ],
)
async def test_what_fails_while_joining_is_done_later(
    world: World, target: str, method: str, after: bool
) -> None:
    if method == "claim_upload" and after:
        pytest.skip("nobody knows of that lease; it runs out")
    one, other = await partial(world, b"abc"), await partial(world, b"0123456789")
    error = StateUnavailable() if target == "state" else StoreUnavailable()
    getattr(world, target).fail(method, error, after=after)

    final = await join(world, one, other)

    assert final.state is not S.ERROR
    await settle()
    await world.recover()
    await join_ready(world.engine)
    assert await world.content(final) == b"abc0123456789"
    assert await world.events(final) == [S.VERIFIED]


@pytest.mark.parametrize("method", ["join", "complete"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_process_that_ends_while_joining_leaves_it_to_the_next(
    world: World, method: str, after: bool
) -> None:
    one, other = await partial(world, b"abc"), await partial(world, b"0123456789")
    hold = world.objects.hold(method, after=after)
    joining = asyncio.ensure_future(join(world, one, other))
    await soon(hold.reached.wait())

    world.engine.let_go()
    hold.let_go(StoreUnavailable())
    await world.engine.drain(5)
    final = await joining
    await world.restart()
    await join_ready(world.engine)

    assert await world.content(final) == b"abc0123456789"
    assert await world.events(final) == [S.VERIFIED]


async def test_a_final_upload_that_is_being_joined_can_be_ended(world: World) -> None:
    hold = world.objects.hold("join")
    joining = asyncio.ensure_future(join(world, await partial(world, b"abc")))
    await soon(hold.reached.wait())
    (row,) = await world.real_state.list_uploads(frozenset({S.INITIATED}), 1)

    await world.terminate(row)

    await joining
    assert (await world.row(row)).state is S.CANCELED
    assert await world.events(row) == [S.CANCELED]
    assert not world.has_bytes(row)


async def test_many_ask_at_once_and_it_is_joined_once(world: World) -> None:
    one = await partial(world, b"ab", length=3)
    final = await join(world, one)

    await world.append(one, b"c")
    await asyncio.gather(*(join_ready(world.engine) for _ in range(5)))

    assert await world.content(await eventually_finished(world, final)) == b"abc"
    assert await world.events(final) == [S.VERIFIED]


async def test_an_append_to_a_partial_is_not_answered_later_for_it(world: World) -> None:
    """The final upload is joined behind the reply to the last PATCH."""
    one = await partial(world, b"ab", length=3)
    final = await join(world, one)
    hold = world.objects.hold("join")

    command_done = await world.append(one, b"c")

    assert command_done.upload.state is S.VERIFIED
    await soon(hold.reached.wait())
    hold.let_go()
    assert await world.content(await eventually_finished(world, final)) == b"abc"
