"""The content is looked at before an upload is verified: its type, and the application's checks."""

import asyncio
from dataclasses import replace

import pytest

from tests.integration.conftest import PATIENCE_S, World, soon
from tests.support.fakes import FakeBody
from tus_server.core.errors import (
    CheckPostponed,
    ContentRefused,
    StateUnavailable,
    StoreUnavailable,
)
from tus_server.core.jobs import Instructions, Outcome
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.create import Create, create
from tus_server.engine.recover import PAGE, recover
from tus_server.engine.terms import Terms
from tus_server.engine.wishes import Wishes
from tus_server.ports import ANONYMOUS, OpenStream, Verdict
from tus_server.wire.sniffing import sniff_type

S = UploadState
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)


class Check:
    """A check of an application that gives the answers it is told, in order; then it accepts."""

    def __init__(self, *answers: Verdict | Exception) -> None:
        self.seen: list[bytes] = []
        self.states: list[UploadState] = []
        self._answers = list(answers)

    async def __call__(self, upload: Upload, open_stream: OpenStream) -> Verdict:
        self.states.append(upload.state)
        self.seen.append(b"".join([block async for block in open_stream()]))
        answer = self._answers.pop(0) if self._answers else Verdict()
        if isinstance(answer, Exception):
            raise answer
        return answer


VIRUS = Verdict("virus_found", "The file has the EICAR virus.")


@pytest.mark.parametrize("content", [b"abc", b"more than one part"])
async def test_a_check_sees_all_of_the_content_before_anybody_else(
    world: World, content: bytes
) -> None:
    check = Check()
    world.engine.verifiers = (check,)
    upload = await world.new(length=len(content))

    appended = await world.append(upload, content)

    assert appended.upload.state is S.VERIFIED
    assert check.seen == [content]
    assert check.states == [S.COMPLETED]
    assert await world.content(upload) == content


async def test_a_check_may_read_a_range(world: World) -> None:
    seen = []

    async def check(upload: Upload, open_stream: OpenStream) -> Verdict:
        seen.append(b"".join([block async for block in open_stream(2, 4)]))
        return Verdict()

    world.engine.verifiers = (check,)
    upload = await world.new(length=6)

    await world.append(upload, b"abcdef")

    assert seen == [b"cd"]


async def test_what_a_check_refuses_ends_in_an_error_with_its_words(world: World) -> None:
    world.engine.verifiers = (Check(VIRUS),)
    upload = await world.new(length=3)

    with pytest.raises(ContentRefused) as caught:
        await world.append(upload, b"abc")

    row = await world.row(upload)
    assert caught.value.code == "virus_found"
    assert row.state is S.ERROR
    assert (row.error_code, row.error_message) == ("virus_found", VIRUS.message)
    assert await world.steps(upload) == [S.INITIATED, S.RECEIVING, S.COMPLETED, S.ERROR]
    [event] = await world.real_state.pending_events(10)
    assert (event.kind, event.outcome) == (S.ERROR, Outcome.FAILURE)
    await world.recover()
    assert not world.has_bytes(upload)


async def test_the_first_check_that_refuses_is_the_last_one_that_is_asked(world: World) -> None:
    later = Check()
    world.engine.verifiers = (Check(), Check(VIRUS), later)
    upload = await world.new(length=3)

    with pytest.raises(ContentRefused):
        await world.append(upload, b"abc")

    assert later.seen == []


@pytest.mark.parametrize("failure", [CheckPostponed("The scanner is away."), ValueError("oops")])
async def test_a_check_without_a_verdict_is_asked_again(world: World, failure: Exception) -> None:
    check = Check(failure)
    world.engine.verifiers = (check,)
    upload = await world.new(length=3)

    with pytest.raises(CheckPostponed):
        await world.append(upload, b"abc")

    assert (await world.row(upload)).state is S.COMPLETED
    assert await world.events(upload) == []
    await world.recover()
    assert (await world.row(upload)).state is S.VERIFIED
    assert check.seen == [b"abc", b"abc"]
    assert await world.events(upload) == [S.VERIFIED]


async def test_a_crash_after_the_check_asks_it_again_and_tells_once(world: World) -> None:
    check = Check()
    world.engine.verifiers = (check,)
    upload = await world.new(length=3)
    # The commit of `verified` is lost with its process.
    world.state.fail("commit", StateUnavailable(), nth=2)

    with pytest.raises(StateUnavailable):
        await world.append(upload, b"abc")
    await world.close()
    await world.open()
    world.engine.verifiers = (check,)
    await world.recover()

    assert (await world.row(upload)).state is S.VERIFIED
    assert check.seen == [b"abc", b"abc"]
    assert await world.events(upload) == [S.VERIFIED]


async def test_a_check_that_hangs_keeps_nothing_else_from_being_recovered(world: World) -> None:
    answered = asyncio.Event()

    async def check(upload: Upload, open_stream: OpenStream) -> Verdict:
        if upload.length == 4:
            await answered.wait()
        return Verdict()

    async def leave(content: bytes) -> Upload:
        """Give an upload that is complete, and that the store could not finish."""
        upload = await world.new(length=len(content))
        world.objects.fail("complete", StoreUnavailable())
        with pytest.raises(StoreUnavailable):
            await world.append(upload, content)
        assert (await world.row(upload)).state is S.COMPLETED
        return upload

    world.engine.verifiers = (check,)
    hanging = [await leave(b"hang") for _ in range(PAGE + 1)]
    fine = await leave(b"fine!")

    await soon(recover(world.engine, receiving=False, patience_s=0.01))
    await soon(recover(world.engine, receiving=False, patience_s=0.01))  # and not twice at once

    assert (await world.row(fine)).state is S.VERIFIED
    assert {(await world.row(one)).state for one in hanging} == {S.COMPLETED}
    answered.set()
    await soon(world.engine.drain(PATIENCE_S))
    for upload in hanging:
        assert await world.events(upload) == [S.VERIFIED]


async def create_by_application(world: World, content: bytes) -> Upload:
    wishes = Wishes(instructions=Instructions(by_application=True))
    command = Create(None, Protocol.TUS, Terms(length=len(content)), wishes=wishes)
    upload = (await create(world.engine, command, ANONYMOUS, FakeBody())).upload
    return (await world.append(upload, content)).upload


async def test_the_type_of_what_the_application_creates_is_told_by_its_content(
    world: World,
) -> None:
    world.engine.sniff = sniff_type

    upload = await create_by_application(world, PNG)

    assert upload.state is S.VERIFIED
    assert upload.content_type == "image/png"
    assert (await world.row(upload)).content_type == "image/png"


async def test_content_of_no_known_type_has_none(world: World) -> None:
    world.engine.sniff = sniff_type

    assert (await create_by_application(world, b"just words")).content_type is None


async def test_what_clients_create_by_themselves_is_looked_at_only_where_that_is_wanted(
    world: World,
) -> None:
    world.engine.sniff = sniff_type
    first, second = await world.new(length=len(PNG)), await world.new(length=len(PNG))

    plain = (await world.append(first, PNG)).upload
    world.engine.sniffs_all = True
    looked_at = (await world.append(second, PNG)).upload

    assert plain.content_type is None
    assert looked_at.content_type == "image/png"
    assert replace(looked_at, content_type=None).state is plain.state is S.VERIFIED
