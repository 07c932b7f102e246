"""Uploads that are sent whole, and from the beginning each time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.conftest import World, soon
from tests.support.fakes import FakeBody, Stall, toy_limits
from tus_server.core.errors import (
    ClientGone,
    LengthChanged,
    RequestKeyReused,
    SignatureRefused,
    StoreUnavailable,
    UploadNotFound,
)
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.append import Appended
from tus_server.engine.form import Form, new_form_key, receive_form
from tus_server.engine.session import Initiate, initiate
from tus_server.engine.wishes import Wishes
from tus_server.ports import APPLICATION

S = UploadState
SMALL_LIMITS = toy_limits(8, min_part_size=5, parallel_parts=3)
CONTENT = bytes(range(100, 150))


@pytest.fixture(params=["fakes", "small parts", "disk"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    small = request.param == "small parts"
    async with World(
        tmp_path if request.param == "disk" else None,
        limits=SMALL_LIMITS if small else None,
        label="a" if small else None,
    ) as world:
        yield world


async def begin(
    world: World,
    *,
    length: int | None = None,
    key: str | None = None,
    protocol: Protocol = Protocol.TUS,
) -> Upload:
    wishes = Wishes(request_key=key or new_form_key())
    command = Initiate(protocol=protocol, length=length, wishes=wishes)
    return await soon(initiate(world.engine, command, APPLICATION))


def form_of(upload: Upload) -> Form:
    assert upload.request_key is not None
    return Form(upload.id, upload.request_key)


async def send(world: World, form: Form, body: FakeBody) -> Appended:
    return await soon(receive_form(world.engine, form, body))


async def cut(world: World, upload: Upload, size: int) -> Upload:
    """Send an upload as far as `size` bytes, where the client goes."""
    body = FakeBody(CONTENT[:size], ClientGone(), size=len(CONTENT))
    cut = await send(world, form_of(upload), body)
    assert isinstance(cut.stopped, ClientGone)
    return cut.upload


@pytest.mark.parametrize("length", [None, len(CONTENT)])
async def test_a_form_is_the_whole_upload(world: World, length: int | None) -> None:
    upload = await begin(world, length=length)

    sent = await send(world, form_of(upload), FakeBody(CONTENT))

    assert (sent.upload.state, sent.stopped) == (S.VERIFIED, None)
    assert await world.content(upload) == CONTENT
    assert await world.events(upload) == [S.VERIFIED]


@pytest.mark.parametrize("length", [None, 0])
async def test_a_form_without_a_byte_is_an_empty_upload(world: World, length: int | None) -> None:
    upload = await begin(world, length=length)

    sent = await send(world, form_of(upload), FakeBody())

    assert sent.upload.state is S.VERIFIED
    assert await world.content(upload) == b""


@pytest.mark.parametrize("size", [1, 7, 23, len(CONTENT) - 1])
async def test_a_form_that_was_cut_goes_on_where_it_was_cut(world: World, size: int) -> None:
    upload = await begin(world)
    assert (await cut(world, upload, size)).offset == size
    await world.restart()

    sent = await send(world, form_of(upload), FakeBody(CONTENT))

    assert sent.upload.state is S.VERIFIED
    assert await world.content(upload) == CONTENT


async def test_a_form_may_be_cut_inside_what_had_arrived_before(world: World) -> None:
    upload = await begin(world)
    await cut(world, upload, 30)

    assert (await cut(world, upload, 10)).offset == 30
    await send(world, form_of(upload), FakeBody(CONTENT))

    assert await world.content(upload) == CONTENT


async def test_a_form_whose_reply_was_lost_is_answered_again(world: World) -> None:
    upload = await begin(world)
    await send(world, form_of(upload), FakeBody(CONTENT))

    again = await send(world, form_of(upload), FakeBody(CONTENT))

    assert again.upload.state is S.VERIFIED
    assert await world.events(upload) == [S.VERIFIED]


@pytest.mark.parametrize("size", [20, len(CONTENT)], ids=["begun", "finished"])
async def test_other_content_is_not_mixed_with_what_has_arrived(world: World, size: int) -> None:
    upload = await begin(world)
    if size == len(CONTENT):
        await send(world, form_of(upload), FakeBody(CONTENT))
    else:
        await cut(world, upload, size)

    with pytest.raises(RequestKeyReused):
        await send(world, form_of(upload), FakeBody(b"\0" + CONTENT[1:]))

    assert (await world.row(upload)).offset == size


async def test_another_length_is_refused_before_a_byte_is_asked_for(world: World) -> None:
    known, begun, finished = [await begin(world, length=n) for n in (len(CONTENT), None, None)]
    await cut(world, begun, 20)
    await send(world, form_of(finished), FakeBody(CONTENT))

    for upload in (known, begun, finished):
        body = FakeBody(CONTENT + b"x")
        with pytest.raises(LengthChanged):
            await send(world, form_of(upload), body)
        assert not body.asked


async def test_another_key_is_refused_before_a_byte_is_asked_for(world: World) -> None:
    upload, other = await begin(world), await begin(world)
    chosen = await begin(world, key="order-17")
    direct = await begin(world, length=50, protocol=Protocol.SINGLE)
    unknown = await begin(world)
    await soon(world.terminate(unknown))

    for form in (
        Form(upload.id, ""),
        Form(upload.id, "form-"),
        Form(upload.id, "ü"),
        Form(upload.id, other.request_key or ""),
        form_of(chosen),
        form_of(direct),
    ):
        body = FakeBody(CONTENT)
        with pytest.raises(SignatureRefused):
            await send(world, form, body)
        assert not body.asked
    with pytest.raises(UploadNotFound):
        await send(world, form_of(unknown), FakeBody(CONTENT))


async def test_a_form_expires(world: World) -> None:
    upload, finished = await begin(world), await begin(world)
    await send(world, form_of(finished), FakeBody(CONTENT))
    world.clock.advance(world.engine.sign_expires_s)

    with pytest.raises(SignatureRefused, match="expired"):
        await send(world, form_of(upload), FakeBody(CONTENT))
    assert (await send(world, form_of(finished), FakeBody(CONTENT))).upload.state is S.VERIFIED


async def test_a_form_sent_again_takes_over_from_one_that_hangs(world: World) -> None:
    upload = await begin(world)
    stall = Stall()
    hanging = asyncio.create_task(
        send(world, form_of(upload), FakeBody(CONTENT[:20], stall, size=len(CONTENT)))
    )
    await soon(stall.reached.wait())

    sent = await send(world, form_of(upload), FakeBody(CONTENT))

    assert sent.upload.state is S.VERIFIED
    assert await world.content(upload) == CONTENT
    assert (await hanging).stopped is not None


async def test_a_form_can_be_sent_again_when_the_store_was_away(world: World) -> None:
    upload = await begin(world)
    world.objects.fail("complete", StoreUnavailable())

    with pytest.raises(StoreUnavailable):
        await send(world, form_of(upload), FakeBody(CONTENT))
    sent = await send(world, form_of(upload), FakeBody(CONTENT))

    assert sent.upload.state is S.VERIFIED
    assert await world.content(upload) == CONTENT
