"""Parts of direct uploads that this server receives itself: over SQLite and local disk."""

import asyncio
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import soon
from tests.integration.direct import PART_SIZE, WHOLE, DirectWorld, Opens
from tests.integration.direct import open_direct as open_direct
from tests.integration.direct import world as world
from tests.support.disk import open_files
from tests.support.fakes import PAUSE, FakeBody, Script, Stall, settle
from tus_server.core.checksums import crc64
from tus_server.core.errors import (
    BodyStalled,
    BodyStopped,
    BytesMissing,
    ClientGone,
    IllegalStep,
    NoDirectUpload,
    PartBusy,
    PartsDiffer,
    ShuttingDown,
    SignatureRefused,
    StateUnavailable,
    StoreUnavailable,
    TusServerError,
    UnknownPart,
    UploadGone,
    UploadNotFound,
)
from tus_server.core.expiry import Expiry
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.engine.buffers import LARGE, SMALL
from tus_server.engine.direct.receive import PartRequest, receive_part
from tus_server.engine.direct.sign import sign
from tus_server.engine.direct.waiting import auto_complete
from tus_server.engine.reap import Limits, reap
from tus_server.engine.sweep import OwnPartials, sweep
from tus_server.ports import ANONYMOUS

S = UploadState
FIRST, OTHER = WHOLE[:PART_SIZE], bytes(range(100, 110))


# --- whole parts


async def test_parts_in_any_order_become_the_upload(world: DirectWorld) -> None:
    upload = await world.begin()
    for number in (4, 2, 1, 3):
        await world.put(upload, number)

    upload = await world.complete(upload)

    assert await world.content(upload) == WHOLE
    assert upload.crc64 == crc64(WHOLE)
    assert await world.steps(upload) == [S.INITIATED, S.RECEIVING, S.COMPLETED, S.VERIFIED]
    assert await world.events(upload) == [S.VERIFIED]
    assert world.file(upload) is None


async def test_a_part_is_told_with_what_its_row_says(world: DirectWorld) -> None:
    upload = await world.begin()

    part = await world.put(upload, 2)

    crc = crc64(WHOLE[10:20])
    assert part == Part(2, 10, 10, crc, f'"{crc:016x}"')
    assert part in await world.real_state.find_parts(upload.id)
    row = await world.row(upload)
    assert (row.state, row.committed_bytes) == (S.RECEIVING, 10)


async def test_every_part_is_at_its_place_in_one_file(world: DirectWorld) -> None:
    upload = await world.begin()

    await world.put(upload, 3)

    assert world.file(upload) == bytes(20) + WHOLE[20:30]


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_part_may_come_slowly_and_in_pieces(world: DirectWorld, chunked: bool) -> None:
    upload = await world.begin()
    script = (b"", WHOLE[:3], PAUSE, WHOLE[3:4], PAUSE, WHOLE[4:10])

    await world.put(upload, 1, *script, chunked=chunked)

    assert await world.stored(upload) == {1}
    assert world.file(upload) == FIRST


async def test_an_empty_upload_has_one_empty_part(world: DirectWorld) -> None:
    upload = await world.begin(0, protocol=Protocol.SINGLE, part_size=1)
    with pytest.raises(PartsDiffer):
        await world.complete(upload)

    await world.put(upload, 1)

    assert (await world.complete(upload)).state is S.VERIFIED
    assert await world.content(upload) == b""


async def test_the_last_part_completes_an_upload_that_is_to_complete_by_itself(
    world: DirectWorld,
) -> None:
    upload = await world.begin(auto_complete=True)
    for number in (2, 4, 1):
        await world.put(upload, number)
    assert (await world.row(upload)).state is S.RECEIVING

    await world.put(upload, 3)

    await soon(world.engine.drain(20))
    assert (await world.row(upload)).state is S.VERIFIED
    assert await world.content(upload) == WHOLE


async def test_an_upload_that_a_crash_kept_from_completing_by_itself_is_completed_later(
    world: DirectWorld,
) -> None:
    upload = await world.begin(auto_complete=True)
    await world.put_all(upload)
    later = await world.begin(auto_complete=True)
    world.state.fail("claim_upload", StateUnavailable(), times=100)
    await world.put_all(later)
    await soon(world.engine.drain(20))
    assert (await world.row(later)).state is S.RECEIVING
    await world.restart()

    await auto_complete(world.engine)

    assert (await world.row(later)).state is S.VERIFIED
    assert await world.content(later) == WHOLE


async def test_a_big_part_goes_through_blocks_of_every_size(world: DirectWorld) -> None:
    size = 3 * LARGE + 12_345
    whole = random.Random(6).randbytes(size)
    upload = await world.begin(size, protocol=Protocol.SINGLE, part_size=size)

    await world.put(upload, 1, whole)

    assert world.file(upload) == whole


async def test_a_sender_that_pauses_costs_one_small_block(world: DirectWorld) -> None:
    size = 4 * LARGE
    whole = random.Random(6).randbytes(size)
    upload = await world.begin(size, protocol=Protocol.SINGLE, part_size=size)
    stall = Stall()
    sending = asyncio.ensure_future(
        world.put(upload, 1, whole[: 2 * LARGE], PAUSE, whole[2 * LARGE : 2 * LARGE + 5], stall)
    )
    await soon(stall.reached.wait())

    assert world.engine.blocks.lent_bytes == SMALL

    stall.resume()
    with pytest.raises(ClientGone):
        await soon(sending)


async def test_memory_is_not_lent_again_while_a_thread_reads_it(
    world: DirectWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate, real = threading.Event(), threading.Event(), os.pwrite

    def slow(descriptor: int, block: memoryview, position: int) -> int:
        entered.set()
        gate.wait(20)
        return real(descriptor, block, position)

    size = 4 * LARGE
    upload = await world.begin(size, protocol=Protocol.SINGLE, part_size=size)
    monkeypatch.setattr(os, "pwrite", slow)
    sending = asyncio.ensure_future(world.put(upload, 1, bytes(LARGE), ClientGone()))
    await asyncio.to_thread(entered.wait, 20)
    await settle()
    lent = world.engine.blocks.lent_bytes
    gate.set()

    with pytest.raises(ClientGone):
        await soon(sending)
    assert lent >= LARGE


async def test_without_memory_to_spare_parts_are_received_all_the_same(
    open_direct: Opens,
) -> None:
    world = await open_direct(buffer_bytes=SMALL)
    size = 2 * LARGE + 1
    whole = random.Random(6).randbytes(size)
    upload = await world.begin(size, protocol=Protocol.SINGLE, part_size=size)

    await world.put(upload, 1, whole)

    assert world.file(upload) == whole


async def test_an_arriving_part_keeps_an_upload_from_expiring(open_direct: Opens) -> None:
    world = await open_direct(expiry=Expiry(3600.0))
    expires_at = world.engine.expiry.first(world.clock.now())
    upload = await world.begin(expires_at=expires_at)
    world.clock.advance(3000)

    await world.put(upload, 1)

    row = await world.row(upload)
    assert row.expires_at is not None
    assert expires_at is not None
    assert (row.expires_at - expires_at).total_seconds() >= 3000


# --- parts that are sent again


async def test_a_part_that_is_sent_again_replaces_the_first(world: DirectWorld) -> None:
    upload = await world.begin()
    parts = await world.put_all(upload)

    again = await world.put(upload, 1, OTHER)

    assert again.etag != parts[0].etag
    assert await world.stored(upload) == {1, 2, 3, 4}
    await world.complete(upload)
    assert await world.content(upload) == OTHER + WHOLE[10:]


async def test_while_a_part_is_sent_again_the_upload_is_not_complete(world: DirectWorld) -> None:
    upload = await world.begin(auto_complete=True)
    for number in (1, 2, 3):
        await world.put(upload, number)
    stall = Stall()
    again = asyncio.ensure_future(world.put(upload, 1, OTHER[:5], stall, OTHER[5:]))
    await soon(stall.reached.wait())

    await world.put(upload, 4)
    with pytest.raises(PartsDiffer) as raised:
        await world.complete(upload)

    assert raised.value.members["part"] == 1
    assert await world.stored(upload) == {2, 3, 4}
    stall.resume()
    await soon(again)
    await soon(world.engine.drain(20))
    assert (await world.row(upload)).state is S.VERIFIED
    assert await world.content(upload) == OTHER + WHOLE[10:]


@pytest.mark.parametrize("stop", [ClientGone(), BodyStalled()])
async def test_a_part_that_is_sent_again_and_cut_has_to_be_sent_once_more(
    world: DirectWorld, stop: BodyStopped
) -> None:
    upload = await world.begin(auto_complete=True)
    for number in (1, 2, 3):
        await world.put(upload, number)

    with pytest.raises(type(stop)):
        await world.put(upload, 1, OTHER[:5], stop)

    await world.put(upload, 4)
    with pytest.raises(PartsDiffer):
        await world.complete(upload)
    await world.restart()
    assert await world.stored(upload) == {2, 3, 4}
    await world.put(upload, 1)
    await soon(world.engine.drain(20))
    assert await world.content(upload) == WHOLE


async def test_a_part_cannot_be_replaced_between_the_look_and_the_completion(
    world: DirectWorld,
) -> None:
    upload = await world.begin()
    await world.put_all(upload)
    committing = world.state.hold("commit")
    completing = asyncio.ensure_future(world.complete(upload))
    await soon(committing.reached.wait())
    again = asyncio.ensure_future(world.put(upload, 1, OTHER))
    await settle()

    committing.let_go()

    assert (await soon(completing)).state is S.VERIFIED
    with pytest.raises(IllegalStep):
        await soon(again)
    assert await world.content(upload) == WHOLE


async def test_parts_that_arrive_at_once_some_of_them_twice_become_the_upload(
    open_direct: Opens,
) -> None:
    chance = random.Random(20)
    size = 40
    world = await open_direct()
    whole = chance.randbytes(size * 997)
    upload = await world.begin(len(whole), part_size=997, auto_complete=True)

    async def send(number: int) -> None:
        content = whole[(number - 1) * 997 : number * 997]
        cut = chance.randrange(997)
        script: tuple[Script, ...] = (content[:cut], PAUSE, content[cut:])
        if chance.random() < 0.2:
            script = (content[:cut], ClientGone())
        try:
            await world.put(upload, number, *script)
        except ClientGone:
            await send(number)
        except (PartBusy, IllegalStep):
            pass  # somebody else sends it, or has done so and the upload is complete

    numbers = [*range(1, size + 1), *chance.sample(range(1, size + 1), 15)]
    chance.shuffle(numbers)
    await soon(asyncio.gather(*(send(number) for number in numbers)))
    await soon(world.engine.drain(20))

    assert (await world.row(upload)).state is S.VERIFIED
    assert await world.content(upload) == whole


# --- bodies that are not a part


async def test_of_a_body_that_is_cut_nothing_counts(world: DirectWorld) -> None:
    upload = await world.begin()

    with pytest.raises(ClientGone):
        await world.put(upload, 1, WHOLE[:9], ClientGone())

    assert await world.stored(upload) == set()
    assert (await world.row(upload)).state is S.INITIATED
    await world.put(upload, 1)
    assert world.file(upload) == FIRST


@pytest.mark.parametrize("script", [(WHOLE[:9],), (WHOLE[:9], PAUSE), (WHOLE[:11],), ()])
async def test_a_chunked_body_of_another_size_is_refused(
    world: DirectWorld, script: tuple[Script, ...]
) -> None:
    upload = await world.begin()
    await world.put(upload, 2)

    with pytest.raises(SignatureRefused):
        await world.put(upload, 1, body=FakeBody(*script, chunked=True))

    assert await world.stored(upload) == {2}
    assert world.bytes_of(upload, 2) == WHOLE[10:20]


async def test_the_end_of_a_chunked_body_has_to_be_seen(world: DirectWorld) -> None:
    upload = await world.begin()

    with pytest.raises(ClientGone):
        await world.put(upload, 1, FIRST, ClientGone(), chunked=True)

    assert await world.stored(upload) == set()


@pytest.mark.parametrize("size", [0, 9, 11])
async def test_another_content_length_is_refused_before_the_body(
    world: DirectWorld, size: int
) -> None:
    upload = await world.begin()
    await world.put(upload, 1)
    body = FakeBody(WHOLE, size=size)

    with pytest.raises(SignatureRefused):
        await world.put(upload, 1, body=body)

    assert not body.asked
    assert await world.stored(upload) == {1}


# --- what is refused before the body


async def refused(world: DirectWorld, error: type[TusServerError], request: PartRequest) -> None:
    """Check that nothing of the body was asked for."""
    body = FakeBody(WHOLE[: request.size])
    with pytest.raises(error):
        await receive_part(world.engine, request, body)
    assert not body.asked


async def test_an_upload_that_nobody_knows_takes_no_part(world: DirectWorld) -> None:
    upload = await world.begin()
    await world.terminate(upload)
    unknown = type(upload.id)("f" * 32)

    await refused(world, UploadNotFound, PartRequest(unknown, 1, 10))
    await refused(world, IllegalStep, PartRequest(upload.id, 1, 10))


async def test_an_upload_of_another_kind_takes_no_part(world: DirectWorld) -> None:
    upload = await world.new(length=10)

    await refused(world, NoDirectUpload, PartRequest(upload.id, 1, 10))


async def test_a_part_that_was_not_planned_is_refused(world: DirectWorld) -> None:
    upload = await world.begin()

    await refused(world, UnknownPart, PartRequest(upload.id, 5, 10))
    await refused(world, UnknownPart, PartRequest(upload.id, 0, 10))
    await refused(world, UnknownPart, PartRequest(upload.id, 4, 10))


async def test_an_upload_whose_time_is_over_takes_no_part(open_direct: Opens) -> None:
    world = await open_direct(expiry=Expiry(60.0))
    upload = await world.begin(expires_at=world.engine.expiry.first(world.clock.now()))
    world.clock.advance(61)

    await refused(world, UploadGone, PartRequest(upload.id, 1, 10))


async def test_a_complete_upload_takes_no_part(world: DirectWorld) -> None:
    upload = await world.begin()
    await world.put_all(upload)
    await world.complete(upload)

    await refused(world, IllegalStep, PartRequest(upload.id, 1, 10))
    assert await world.content(upload) == WHOLE


async def test_a_server_that_stops_takes_no_part(world: DirectWorld) -> None:
    upload = await world.begin()
    world.engine.let_go()

    await refused(world, ShuttingDown, PartRequest(upload.id, 1, 10))


# --- several senders of one part


async def test_the_later_sender_of_a_part_wins(world: DirectWorld) -> None:
    upload = await world.begin()
    stall = Stall()
    first = asyncio.ensure_future(world.put(upload, 1, OTHER[:5], stall, OTHER[5:]))
    await soon(stall.reached.wait())

    await soon(world.put(upload, 1))

    with pytest.raises(PartBusy):
        await first
    assert await world.stored(upload) == {1}
    assert world.file(upload) == FIRST


async def test_senders_of_other_parts_are_not_disturbed(world: DirectWorld) -> None:
    upload = await world.begin()
    stall = Stall()
    first = asyncio.ensure_future(world.put(upload, 1, WHOLE[:5], stall, WHOLE[5:10]))
    await soon(stall.reached.wait())

    await soon(world.put(upload, 2))

    stall.resume()
    await soon(first)
    assert await world.stored(upload) == {1, 2}


async def test_of_many_senders_of_one_part_the_last_wins(world: DirectWorld) -> None:
    upload = await world.begin()
    writing = world.part_files.hold("write")
    first = asyncio.ensure_future(world.put(upload, 1, OTHER))
    await soon(writing.reached.wait())
    second = asyncio.ensure_future(world.put(upload, 1, bytes(10)))
    third = asyncio.ensure_future(world.put(upload, 1))
    await settle()
    assert not first.done()

    writing.let_go()
    results = await soon(asyncio.gather(first, second, third, return_exceptions=True))

    # The first was whole already when it was asked to let go.
    assert [type(result) for result in results] == [Part, PartBusy, Part]
    assert world.file(upload) == FIRST


async def test_a_sender_that_does_not_let_go_in_time_keeps_the_part(open_direct: Opens) -> None:
    world = await open_direct(wait_s=0.01)
    upload = await world.begin()
    finishing = world.part_files.hold("finish")
    first = asyncio.ensure_future(world.put(upload, 1))
    await soon(finishing.reached.wait())

    body = FakeBody(OTHER)
    with pytest.raises(PartBusy):
        await soon(world.put(upload, 1, body=body))

    assert not body.asked
    finishing.let_go()
    await soon(first)
    assert world.file(upload) == FIRST


# --- beside the parts


async def test_of_parts_that_are_named_no_row_is_read_to_sign_them(world: DirectWorld) -> None:
    # There may be ten thousand, and clients may ask for each by itself.
    upload = await world.begin()
    await world.put(upload, 2)
    world.state.fail("find_parts", StateUnavailable())

    signed = await sign(world.engine, upload.id, ANONYMOUS, [3, 2, 3])

    assert [number for number, _ in signed] == [3, 2]
    assert [request.url.split("?")[0] for _, request in signed] == [
        f"/direct/{upload.id}/3",
        f"/direct/{upload.id}/2",
    ]
    with pytest.raises(UnknownPart, match="has parts 1 to 4, not 5"):
        await sign(world.engine, upload.id, ANONYMOUS, [1, 5])
    world.state.heal()
    missing = await sign(world.engine, upload.id, ANONYMOUS, None)
    assert [number for number, _ in missing] == [1, 3, 4]


async def test_an_upload_is_not_completed_while_parts_are_on_their_way(world: DirectWorld) -> None:
    upload = await world.begin()
    for number in (1, 2, 4):
        await world.put(upload, number)
    stall = Stall()
    last = asyncio.ensure_future(world.put(upload, 3, WHOLE[20:25], stall, WHOLE[25:30]))
    await soon(stall.reached.wait())

    with pytest.raises(PartsDiffer):
        await world.complete(upload)

    stall.resume()
    await soon(last)
    assert (await world.complete(upload)).state is S.VERIFIED


async def test_who_cancels_an_upload_ends_its_senders_and_leaves_no_file(
    world: DirectWorld, tmp_path: Path
) -> None:
    files = open_files(tmp_path)
    upload = await world.begin()
    await world.put(upload, 4)
    stalls = {number: Stall() for number in (1, 2)}
    sending = [
        asyncio.ensure_future(world.put(upload, number, b"abc", stall))
        for number, stall in stalls.items()
    ]
    for stall in stalls.values():
        await soon(stall.reached.wait())

    await world.terminate(upload)

    for one in sending:
        with pytest.raises(IllegalStep):
            await one
    assert not world.has_bytes(upload)
    assert open_files(tmp_path) == files
    assert await world.steps(upload) == [S.INITIATED, S.RECEIVING, S.CANCELED]


async def test_a_part_that_is_recorded_just_then_does_not_keep_an_upload_from_being_canceled(
    world: DirectWorld,
) -> None:
    upload = await world.begin()
    committing = world.state.hold("commit")
    terminating = asyncio.ensure_future(world.terminate(upload))
    await soon(committing.reached.wait())
    await world.put(upload, 1)

    committing.let_go()

    await terminating
    assert (await world.row(upload)).state is S.CANCELED
    assert not world.has_bytes(upload)


async def test_what_a_stuck_sender_leaves_of_a_canceled_upload_is_swept(
    open_direct: Opens,
) -> None:
    world = await open_direct(wait_s=0.01)
    upload, going_on = await world.begin(), await world.begin()
    await world.put(going_on, 2)
    writing = world.part_files.hold("write")
    stuck = asyncio.ensure_future(world.put(upload, 1))
    await soon(writing.reached.wait())
    await world.terminate(upload)
    writing.let_go()
    with pytest.raises(IllegalStep):
        await soon(stuck)
    assert world.file(upload) == FIRST

    await sweep(world.engine, await OwnPartials(world.real_objects).find_all())

    assert not world.has_bytes(upload)
    assert world.bytes_of(going_on, 2) == WHOLE[10:20]


async def test_an_upload_that_expires_takes_its_senders_with_it(open_direct: Opens) -> None:
    expiry = Expiry(60.0)
    world = await open_direct(expiry=expiry)
    upload = await world.begin(expires_at=expiry.first(world.clock.now()))
    stall = Stall()
    sending = asyncio.ensure_future(world.put(upload, 1, b"abc", stall))
    await soon(stall.reached.wait())
    world.clock.advance(61)

    reaped = await soon(reap(world.engine, Limits(expiry=expiry), by="a test"))

    assert reaped.expired == 1
    with pytest.raises(IllegalStep):
        await sending
    assert not world.has_bytes(upload)


async def test_a_server_that_stops_lets_go_of_parts(world: DirectWorld) -> None:
    upload = await world.begin()
    stall = Stall()
    sending = asyncio.ensure_future(world.put(upload, 1, b"abc", stall))
    await soon(stall.reached.wait())

    world.engine.let_go()

    with pytest.raises(ShuttingDown):
        await soon(sending)
    assert await world.engine.drain(20)
    await world.restart()
    assert await world.stored(upload) == set()
    await world.put(upload, 1)


async def test_a_caller_that_is_cancelled_leaves_nothing_behind(world: DirectWorld) -> None:
    upload = await world.begin()
    stall = Stall()
    sending = asyncio.ensure_future(world.put(upload, 1, b"abc", stall))
    await soon(stall.reached.wait())

    sending.cancel()
    await asyncio.wait({sending})

    assert sending.cancelled()
    await world.check_at_rest()
    assert await world.stored(upload) == set()


# --- the row and its store


async def test_nothing_is_written_unless_the_row_says_that_the_part_is_not_stored(
    world: DirectWorld,
) -> None:
    upload = await world.begin()
    await world.put(upload, 1)
    world.state.fail("record_parts", StateUnavailable())
    body = FakeBody(OTHER)

    with pytest.raises(StateUnavailable):
        await world.put(upload, 1, body=body)

    assert not body.asked
    assert world.file(upload) == FIRST
    assert await world.stored(upload) == {1}


@pytest.mark.parametrize("after", [True, False])
async def test_a_part_whose_commit_is_in_doubt_can_be_sent_again(
    world: DirectWorld, after: bool
) -> None:
    upload = await world.begin()
    world.state.fail("record_parts", StateUnavailable(), after=after)
    with pytest.raises(StateUnavailable):
        await world.put(upload, 1)
    assert await world.stored(upload) == ({1} if after else set())

    await world.put_all(upload)

    assert (await world.complete(upload)).state is S.VERIFIED
    assert await world.content(upload) == WHOLE


async def test_a_completion_that_a_crash_came_between_goes_on(world: DirectWorld) -> None:
    upload = await world.begin()
    await world.put_all(upload)
    world.objects.fail("complete", StoreUnavailable())
    assert (await world.complete(upload)).state is S.COMPLETED

    await world.restart()

    assert (await world.row(upload)).state is S.VERIFIED
    assert await world.content(upload) == WHOLE


async def test_recovery_leaves_parts_of_unfinished_uploads_where_they_are(
    world: DirectWorld,
) -> None:
    stored, begun = await world.begin(), await world.begin()
    await world.put(stored, 3)
    with pytest.raises(ClientGone):
        await world.put(stored, 1, b"abc", ClientGone())
    with pytest.raises(ClientGone):
        await world.put(begun, 2, b"abc", ClientGone())

    await world.restart()

    assert world.bytes_of(stored, 3) == WHOLE[20:30]
    for upload in (stored, begun):
        await world.put_all(upload)
        await world.complete(upload)
        assert await world.content(upload) == WHOLE


async def test_recovery_leaves_the_file_of_a_first_part_that_arrives_just_then(
    world: DirectWorld,
) -> None:
    upload = await world.begin(10)
    stall = Stall()
    sending = asyncio.ensure_future(world.put(upload, 1, b"abc", stall, b"defghij"))
    await soon(stall.reached.wait())
    await world.real_objects.recover(await world.row(upload), confirm=settle)

    stall.resume()
    await soon(sending)

    await world.complete(upload)
    assert await world.content(upload) == b"abcdefghij"


@pytest.mark.parametrize("left", [None, 5, 19])
async def test_an_upload_whose_file_lost_stored_parts_ends(
    world: DirectWorld, tmp_path: Path, left: int | None
) -> None:
    upload = await world.begin()
    await world.put(upload, 1)
    await world.put(upload, 2)
    lose(world, upload, left)
    files = open_files(tmp_path)

    with pytest.raises(BytesMissing):
        await world.put(upload, 3)

    row = await world.row(upload)
    assert (row.state, row.error_code) == (S.ERROR, "bytes_missing")
    assert open_files(tmp_path) == files


@pytest.mark.parametrize("left", [None, 5, 31])
async def test_a_completed_upload_whose_file_is_too_short_ends(
    world: DirectWorld, left: int | None
) -> None:
    upload = await world.begin()
    await world.put_all(upload)
    lose(world, upload, left)

    upload = await world.complete(upload)

    assert (upload.state, upload.error_code) == (S.ERROR, "bytes_missing")


async def test_an_unfinished_upload_whose_file_is_gone_ends_at_the_next_start(
    world: DirectWorld,
) -> None:
    upload = await world.begin()
    await world.put(upload, 2)
    lose(world, upload, None)

    await world.restart()

    assert (await world.row(upload)).state is S.ERROR


def lose(world: DirectWorld, upload: Upload, left: Any) -> None:
    """Cut the file of an upload to its first bytes, or remove it."""
    path = Path(world.real_objects.paths.partial(upload.id))
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
