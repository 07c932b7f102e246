"""Limits of uploads and of bodies, in the engine: what was told holds, and nothing is lost by it.

Over fakes, over a store with small parts and tails, and over SQLite and local disk; every test
ends with a look at what is left over.
"""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.conftest import World
from tests.support.fakes import FakeBody, toy_limits
from tus_server.core.errors import AppendTooLarge, LengthInconsistent, UploadTooLarge
from tus_server.core.states import UNFINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.create import Create, create
from tus_server.engine.terms import Checks, Overrun, Terms
from tus_server.ports import ANONYMOUS

S = UploadState
MAX_SIZE = 40
MAX_BODY = 13
SMALL_LIMITS = toy_limits(8, min_part_size=5, parallel_parts=3)
CONTENT = bytes(range(100, 100 + MAX_SIZE))


@pytest.fixture(params=["fakes", "small parts", "disk"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    small = request.param == "small parts"
    async with World(
        tmp_path if request.param == "disk" else None,
        limits=SMALL_LIMITS if small else None,
        label="a" if small else None,
        max_size=MAX_SIZE,
    ) as world:
        yield world


async def restart(world: World, max_size: int) -> None:
    world.max_size = max_size
    await world.restart()


# --- what a creation was told of the maximum


@pytest.mark.parametrize("now", [MAX_SIZE // 4, 4 * MAX_SIZE], ids=["lowered", "raised"])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
async def test_an_upload_keeps_the_maximum_of_its_creation(
    world: World, now: int, chunked: bool
) -> None:
    uploads = [(await world.create(CONTENT[:9], chunked=True)).upload for _ in range(3)]
    fits, outgrows, named = uploads
    assert fits.max_size == MAX_SIZE

    await restart(world, now)

    appended = (await world.append(fits, CONTENT[9:], chunked=chunked)).upload
    done = (await world.append(appended, length=MAX_SIZE)).upload
    assert done.state is S.VERIFIED
    assert await world.content(done) == CONTENT
    with pytest.raises(UploadTooLarge):
        await world.append(outgrows, CONTENT[9:] + b"!", chunked=chunked)
    with pytest.raises(UploadTooLarge):
        await world.append(named, length=MAX_SIZE + 1)
    assert (await world.row(named)).length is None
    assert (await world.append(named, length=MAX_SIZE)).upload.length == MAX_SIZE
    assert (await world.new(length=now)).max_size == now
    with pytest.raises(UploadTooLarge):
        await world.new(length=now + 1)


async def test_a_known_length_is_repeated_after_the_maximum_was_lowered(world: World) -> None:
    upload = await world.new(length=MAX_SIZE)

    await restart(world, MAX_SIZE // 2)

    done = (await world.append(upload, CONTENT, length=MAX_SIZE)).upload
    assert done.state is S.VERIFIED
    assert await world.content(done) == CONTENT


async def test_an_upload_from_before_has_the_maximum_of_the_server(world: World) -> None:
    upload = await world.new()
    older = replace(upload, id=type(upload.id)("0" * 32), max_size=None)
    await world.real_state.create_upload(older, claim=False)

    await restart(world, 10)

    with pytest.raises(UploadTooLarge):
        await world.append(older, b"x" * 11)
    assert (await world.append(older, b"x" * 10)).upload.offset == 10


@pytest.mark.parametrize("step", [1, 7, 64, 200])
async def test_parts_are_planned_for_the_maximum_an_upload_was_promised(step: int) -> None:
    """The store plans for less by then: the part numbers have to do all the same."""
    promised = 400
    limits = replace(toy_limits(8, min_part_size=5, max_parts=20), max_object_size=promised)
    content = bytes(index % 251 for index in range(promised))
    async with World(limits=limits, label="a", max_size=promised) as world:
        upload = await world.new()
        world.stores.limits = replace(limits, max_object_size=20)
        await restart(world, 20)

        while upload.offset < promised:
            rest = content[upload.offset : upload.offset + step]
            upload = (await world.append(upload, rest)).upload
        done = (await world.append(upload, length=promised)).upload

        assert done.state is S.VERIFIED
        assert await world.content(done) == content


# --- bodies of RUFH


def terms(
    flag: bool | None = False,
    *,
    length: int | None = None,
    overrun: Overrun = Overrun.INVALIDATE,
    checks: Checks | None = None,
) -> Terms:
    return Terms(length=length, completes=flag, overrun=overrun, max_body=MAX_BODY, checks=checks)


async def append_body(world: World, upload: Upload, body: FakeBody, terms: Terms) -> Upload:
    appended = await world.append(upload, body=body, terms=terms, protocol=Protocol.RUFH)
    return appended.upload


async def check_goes_on(world: World, upload: Upload, content: bytes) -> None:
    """Check that the upload takes the rest of `content`, and then has all of it."""
    row = await world.row(upload)
    assert row.state in UNFINISHED
    while row.offset < len(content):
        rest = content[row.offset : row.offset + MAX_BODY]
        row = await append_body(world, row, FakeBody(rest), terms())
    done = await append_body(world, row, FakeBody(), terms(True))
    assert done.state is S.VERIFIED
    assert await world.content(done) == content
    assert await world.events(done) == [S.VERIFIED]


@pytest.mark.parametrize("flag", [True, False, None])
@pytest.mark.parametrize("length", [None, MAX_SIZE])
@pytest.mark.parametrize("start", [0, 3, 5, 8, 9])
async def test_a_body_larger_than_taken_at_once_is_refused_before_it_is_asked_for(
    world: World, start: int, length: int | None, flag: bool | None
) -> None:
    first = terms(length=length)
    upload = (await world.create_rufh(CONTENT[:start], terms=first)).upload
    body = FakeBody(CONTENT[start : start + MAX_BODY + 1])

    with pytest.raises(AppendTooLarge):
        await append_body(world, upload, body, terms(flag))

    assert not body.asked
    assert await world.row(upload) == upload
    await check_goes_on(world, upload, CONTENT)


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("length", [None, MAX_SIZE])
@pytest.mark.parametrize("start", range(10))
@pytest.mark.parametrize("excess", [-1, 0, 1, 9])
async def test_a_chunked_body_larger_than_taken_at_once_ends_there(
    world: World, start: int, length: int | None, flag: bool, excess: int
) -> None:
    upload = (await world.create_rufh(CONTENT[:start], terms=terms(length=length))).upload
    end = start + MAX_BODY + excess
    body = FakeBody(CONTENT[start:end], chunked=True)

    if excess > 0:
        with pytest.raises(AppendTooLarge):
            await append_body(world, upload, body, terms(flag))
        assert (await world.row(upload)).offset == start + MAX_BODY
        await check_goes_on(world, upload, CONTENT)
    elif flag and length is not None:
        with pytest.raises(LengthInconsistent):
            await append_body(world, upload, body, terms(flag))
        assert (await world.row(upload)).offset == end
        await check_goes_on(world, upload, CONTENT)
    else:
        row = await append_body(world, upload, body, terms(flag))
        assert row.offset == end
        assert (row.state is S.VERIFIED) is flag
        if flag:
            assert await world.content(row) == CONTENT[:end]
        else:
            await check_goes_on(world, row, CONTENT)


@pytest.mark.parametrize("overrun", [Overrun.KEEP, Overrun.INVALIDATE])
async def test_where_both_ends_are_one_that_of_the_upload_counts(
    world: World, overrun: Overrun
) -> None:
    """R60."""
    first = terms(length=MAX_BODY)
    upload = (await world.create_rufh(terms=first)).upload
    body = FakeBody(CONTENT[: MAX_BODY + 1], chunked=True)

    with pytest.raises(LengthInconsistent):
        await append_body(world, upload, body, terms(True, overrun=overrun))

    row = await world.row(upload)
    assert row.state is (S.RECEIVING if overrun is Overrun.KEEP else S.ERROR)


@pytest.mark.parametrize("covered", [MAX_BODY, MAX_BODY + 1], ids=["what fits", "all"])
async def test_of_a_body_with_a_digest_that_is_larger_than_taken_nothing_counts(
    world: World, covered: int
) -> None:
    upload = (await world.create_rufh(CONTENT[:3], terms=terms())).upload
    body = FakeBody(CONTENT[3 : 3 + MAX_BODY + 1], chunked=True)
    digest = hashlib.sha256(CONTENT[3 : 3 + covered]).digest()

    with pytest.raises(AppendTooLarge):
        await append_body(world, upload, body, terms(checks=Checks({"sha256": digest})))

    row = await world.row(upload)
    assert (row.offset, row.state) == (3, S.RECEIVING)
    await check_goes_on(world, upload, CONTENT)


@pytest.mark.parametrize("flag", [True, False])
async def test_a_creation_with_a_larger_body_creates_nothing(world: World, flag: bool) -> None:
    body = FakeBody(CONTENT[: MAX_BODY + 1])

    with pytest.raises(AppendTooLarge):
        await create(world.engine, Create(None, Protocol.RUFH, terms(flag)), ANONYMOUS, body)

    assert not body.asked
    assert await world.real_state.list_uploads(None, 10) == []


@pytest.mark.parametrize("announced", [False, True])
async def test_a_creation_with_a_larger_chunked_body_stays_where_its_client_knows_it(
    world: World, announced: bool
) -> None:
    known: list[Upload] = []

    async def announce(upload: Upload) -> None:
        known.append(upload)

    command = Create(None, Protocol.RUFH, terms(True), announce=announce if announced else None)
    body = FakeBody(CONTENT, chunked=True)

    with pytest.raises(AppendTooLarge):
        await create(world.engine, command, ANONYMOUS, body)

    [row] = await world.real_state.list_uploads(None, 10)
    if announced:
        assert (known[0].id, row.offset) == (row.id, MAX_BODY)
        await check_goes_on(world, row, CONTENT)
    else:
        assert row.state is S.CANCELED
        assert not world.has_bytes(row)
