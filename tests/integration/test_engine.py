"""The verbs of the engine, over fakes that fail on order and over SQLite and local disk.

Every test ends with a look at what is left over: World.check_at_rest.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.integration.conftest import PART_SIZE_BYTES, World, Worlds, soon
from tests.support.fakes import (
    PAUSE,
    Failing,
    FakeBody,
    Hold,
    Stall,
    make_upload,
    settle,
    toy_limits,
)
from tus_server.authorizers import AllowAll
from tus_server.core.checksums import crc64
from tus_server.core.errors import (
    BodyInterrupted,
    BodyStalled,
    BodyTooLarge,
    BytesMissing,
    ClientGone,
    LeaseLost,
    LeaseNotObtained,
    LengthBelowOffset,
    LengthChanged,
    OffsetMismatch,
    ProtocolMismatch,
    ShuttingDown,
    StateUnavailable,
    StillFinishing,
    StorageFull,
    StoreUnavailable,
    TusServerError,
    UnusablePartial,
    UploadGone,
    UploadNotFound,
    UploadTooLarge,
)
from tus_server.core.parts import MIB
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.append import Append, Appended, append
from tus_server.engine.buffers import SMALL
from tus_server.engine.concatenate import Concatenate, concatenate
from tus_server.engine.create import Create, create
from tus_server.engine.direct.complete import complete
from tus_server.engine.direct.sign import sign
from tus_server.engine.download import check_readable
from tus_server.engine.judge import judge
from tus_server.engine.listing import Query, list_uploads
from tus_server.engine.lookup import find_for
from tus_server.engine.recover import recovery_loop
from tus_server.engine.terms import Terms
from tus_server.ports import ANONYMOUS, APPLICATION, Operation, Principal

S = UploadState
AT_ONCE = [S.INITIATED, S.RECEIVING, S.COMPLETED, S.VERIFIED]


def start(work: Awaitable[Appended]) -> "asyncio.Task[Appended]":
    return asyncio.ensure_future(work)


async def wait_for(event: asyncio.Event) -> None:
    await soon(event.wait())


# --- create


async def test_a_creation_without_a_body_makes_a_row_and_stores_nothing(world: World) -> None:
    created = await world.create(length=10, metadata="name YQ==")

    row = await world.row(created.upload)
    assert row == created.upload
    assert (row.state, row.offset, row.length, row.metadata) == (S.INITIATED, 0, 10, "name YQ==")
    assert not world.has_bytes(row)


async def test_a_creation_with_all_bytes_is_verified_at_once(world: World) -> None:
    created = await world.create(b"abc", length=3)

    assert created.stopped is None
    assert (created.upload.state, created.upload.offset) == (S.VERIFIED, 3)
    assert await world.row(created.upload) == created.upload
    assert await world.content(created.upload) == b"abc"
    assert await world.steps(created.upload) == AT_ONCE
    assert await world.events(created.upload) == [S.VERIFIED]


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_empty_upload_is_verified_at_once(world: World, chunked: bool) -> None:
    created = await world.create(length=0, chunked=chunked)

    assert created.upload.state is S.VERIFIED
    assert await world.content(created.upload) == b""
    assert await world.events(created.upload) == [S.VERIFIED]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("length", [None, 100])
async def test_a_creation_with_the_first_bytes_keeps_them(
    world: World, length: int | None, chunked: bool
) -> None:
    created = await world.create(b"abcdefgh", b"i", length=length, chunked=chunked)

    assert (created.upload.state, created.upload.offset) == (S.RECEIVING, 9)
    assert await world.row(created.upload) == created.upload


@pytest.mark.parametrize("arrived", [b"", b"abc", b"abcdefgh"])
async def test_a_creation_whose_client_goes_away_leaves_no_upload(
    world: World, arrived: bytes
) -> None:
    created = await world.create(arrived, ClientGone(), length=10)

    assert isinstance(created.stopped, ClientGone)
    assert (await world.row(created.upload)).state is S.CANCELED
    assert not world.has_bytes(created.upload)


async def test_a_creation_whose_client_goes_away_behind_the_last_byte_is_verified(
    world: World,
) -> None:
    created = await world.create(b"abcdefgh", ClientGone(), length=8, chunked=True)

    assert created.upload.state is S.VERIFIED
    assert await world.content(created.upload) == b"abcdefgh"


async def refused_before_the_body(
    world: World, error: type[TusServerError], body: FakeBody, length: int | None
) -> None:
    with pytest.raises(error):
        await world.create(length=length, body=body)

    assert not body.asked
    assert await world.real_state.list_uploads(None, 10) == []


async def test_a_creation_larger_than_the_server_takes_is_refused_before_the_body(
    open_world: Worlds,
) -> None:
    world = await open_world(max_size=10)

    await refused_before_the_body(world, UploadTooLarge, FakeBody(b"abc"), 11)
    await refused_before_the_body(world, UploadTooLarge, FakeBody(b"abc" * 4), None)
    assert (await world.create(b"0123456789", length=10)).upload.state is S.VERIFIED


async def test_a_creation_with_a_body_longer_than_the_upload_is_refused_before_the_body(
    world: World,
) -> None:
    await refused_before_the_body(world, BodyTooLarge, FakeBody(b"abcd"), 3)


async def test_a_creation_whose_chunked_body_runs_over_leaves_no_upload(world: World) -> None:
    with pytest.raises(BodyTooLarge):
        await world.create(b"0123456789", b"x", length=10, chunked=True)

    (row,) = await world.real_state.list_uploads(None, 10)
    assert row.state is S.CANCELED
    assert not world.has_bytes(row)


async def test_a_creation_the_store_has_no_space_for_leaves_no_upload(fakes: World) -> None:
    fakes.objects.fail("finish", StorageFull(), nth=2)

    with pytest.raises(StorageFull):
        await fakes.create(b"0123456789", length=20)

    (row,) = await fakes.real_state.list_uploads(None, 10)
    assert row.state is S.CANCELED
    assert not fakes.has_bytes(row)


async def test_a_creation_while_the_state_is_away_fails_and_stores_nothing(fakes: World) -> None:
    fakes.state.fail("create_upload", StateUnavailable())
    body = FakeBody(b"abc")

    with pytest.raises(StateUnavailable):
        await fakes.create(length=3, body=body)

    assert not body.asked
    assert fakes.stores.disk == {}


async def test_a_creation_whose_commit_fails_with_unknown_outcome_is_taken_back(
    fakes: World,
) -> None:
    fakes.state.fail("commit", StateUnavailable(), after=True)

    with pytest.raises(StateUnavailable):
        await fakes.create(b"abc", length=3)

    (row,) = await fakes.real_state.list_uploads(None, 10)
    assert row.state is S.DELETED  # it was verified, and nobody knows its id
    assert not fakes.has_bytes(row)


async def test_the_owner_of_an_upload_is_who_created_it(world: World) -> None:

    created = await create(world.engine, Create(None, Protocol.TUS), Principal("ann"), FakeBody())

    assert (await world.row(created.upload)).owner == "ann"


# --- append


def same(one: Upload, other: Upload) -> bool:
    """Compare all but the part numbers that a lease set aside and gives back at its end."""
    return replace(one, next_part_number=0) == replace(other, next_part_number=0)


async def test_an_upload_arrives_in_many_requests_and_parts(world: World) -> None:
    whole = Random(1).randbytes(50)
    upload = await world.new(length=50)
    for start_, end in ((0, 1), (1, 14), (14, 14), (14, 40), (40, 50)):
        upload = (await world.append(upload, whole[start_:end])).upload
        assert upload.offset == end
        assert same(await world.row(upload), upload)

    assert await world.content(upload) == whole
    assert upload.crc64 == crc64(whole)
    assert await world.steps(upload) == AT_ONCE
    assert await world.events(upload) == [S.VERIFIED]


async def test_a_body_is_cut_into_parts_of_the_planned_size(fakes: World) -> None:
    upload = await fakes.new(length=30)

    upload = (await fakes.append(upload, b"0123456789")).upload

    parts = await fakes.real_state.find_parts(upload.id)
    assert [(part.number, part.start, part.size) for part in parts] == [
        (1, 0, 4),
        (2, 4, 4),
        (3, 8, 2),
    ]
    assert [part.crc64 for part in parts] == [crc64(b"0123"), crc64(b"4567"), crc64(b"89")]
    assert upload.next_part_number == 4


async def test_a_deferred_length_can_be_settled_with_bytes(world: World) -> None:
    upload = await world.new()
    upload = (await world.append(upload, b"abcdef")).upload
    upload = (await world.append(upload, b"gh", length=10)).upload

    assert (upload.length, upload.state) == (10, S.RECEIVING)
    assert (await world.append(upload, b"ij", length=10)).upload.state is S.VERIFIED
    assert await world.content(upload) == b"abcdefghij"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_deferred_length_can_be_settled_without_bytes(world: World, chunked: bool) -> None:
    upload = await world.new()
    upload = (await world.append(upload, length=5, chunked=chunked)).upload

    assert await world.row(upload) == upload
    assert (upload.length, upload.offset, upload.state) == (5, 0, S.INITIATED)


@pytest.mark.parametrize("sent", [b"", b"a", b"abcdef"])
async def test_a_length_that_turns_out_to_be_the_offset_completes_the_upload(
    world: World, sent: bytes
) -> None:
    upload = (await world.create(sent, chunked=True)).upload

    upload = (await world.append(upload, length=len(sent))).upload

    assert upload.state is S.VERIFIED
    assert await world.content(upload) == sent


async def test_a_deferred_upload_sent_in_one_request_is_verified(world: World) -> None:
    upload = await world.new()

    upload = (await world.append(upload, b"abcdefghij", length=10, chunked=True)).upload

    assert upload.state is S.VERIFIED
    assert await world.content(upload) == b"abcdefghij"


async def test_an_empty_append_changes_nothing(world: World) -> None:
    upload = (await world.create(b"abc", length=10)).upload

    for chunked in (False, True):
        assert same((await world.append(upload, chunked=chunked)).upload, upload)

    assert await world.row(upload) == upload


REFUSALS = {
    "a smaller offset": (OffsetMismatch, {"offset": 2}),
    "a larger offset": (OffsetMismatch, {"offset": 4}),
    "an offset beyond the length": (OffsetMismatch, {"offset": 11}),
    "another length": (LengthChanged, {"length": 11}),
    "a body too long": (BodyTooLarge, {"script": (b"12345678",)}),
}


@pytest.mark.parametrize("what", REFUSALS)
async def test_an_append_is_refused_before_the_body_and_changes_nothing(
    world: World, what: str
) -> None:
    error, fields = REFUSALS[what]
    upload = (await world.create(b"abc", length=10)).upload
    body = FakeBody(*fields.get("script", (b"x",)))
    named = {name: value for name, value in fields.items() if name != "script"}

    with pytest.raises(error):
        await world.append(upload, body=body, **named)

    assert not body.asked
    assert await world.row(upload) == upload


async def test_a_length_below_the_offset_is_refused(world: World) -> None:
    upload = (await world.create(b"abc", chunked=True)).upload

    with pytest.raises(LengthBelowOffset):
        await world.append(upload, length=2)

    assert await world.row(upload) == upload


async def test_an_append_to_what_is_not_there_is_refused_before_the_body(world: World) -> None:
    body = FakeBody(b"abc")

    with pytest.raises(UploadNotFound):
        await world.append(make_upload(world.clock), body=body)

    assert not body.asked


async def test_an_append_of_another_protocol_is_refused_before_the_body(world: World) -> None:
    upload, body = await world.new(length=3), FakeBody(b"abc")
    command = Append(upload.id, 0, Protocol.RUFH)

    with pytest.raises(ProtocolMismatch):
        await append(world.engine, command, ANONYMOUS, body)

    assert not body.asked


async def test_a_mismatch_tells_the_offset(world: World) -> None:
    upload = (await world.create(b"abc", length=10)).upload

    with pytest.raises(OffsetMismatch) as caught:
        await world.append(upload, b"x", offset=7)

    assert caught.value.current == 3


async def test_an_append_that_outgrows_the_server_is_refused(open_world: Worlds) -> None:
    world = await open_world(max_size=10)
    upload = (await world.create(b"abcdef", chunked=True)).upload

    with pytest.raises(UploadTooLarge):
        await world.append(upload, b"12345")
    with pytest.raises(UploadTooLarge):
        await world.append(upload, b"1", length=11)
    with pytest.raises(UploadTooLarge):
        await world.append(upload, b"12345", chunked=True)
    upload = await world.row(upload)
    assert upload.offset <= 10
    assert (await world.append(upload, length=upload.offset)).upload.state is S.VERIFIED


async def test_a_chunked_body_that_runs_over_leaves_the_upload_where_it_can_go_on(
    world: World,
) -> None:
    upload = (await world.create(b"abc", length=13)).upload

    with pytest.raises(BodyTooLarge):
        await world.append(upload, b"defghijklm", b"!", chunked=True)

    upload = await world.status(upload)
    assert 3 <= upload.offset < 13
    rest = b"abcdefghijklm"[upload.offset :]
    upload = (await world.append(upload, rest)).upload
    assert upload.state is S.VERIFIED
    assert await world.content(upload) == b"abcdefghijklm"


@pytest.mark.parametrize("stop", [ClientGone(), BodyStalled()], ids=["gone", "stalled"])
@pytest.mark.parametrize("arrived", [b"", b"d", b"def", b"defghijk", b"defghijklmnop"])
async def test_what_arrived_before_a_body_stopped_is_kept(
    world: World, stop: ClientGone, arrived: bytes
) -> None:
    upload = (await world.create(b"abc", length=20)).upload
    body = FakeBody(arrived, stop, size=17)

    appended = await world.append(upload, body=body)

    assert appended.stopped is stop
    assert (await world.row(upload)).offset == 3 + len(arrived)
    rest = b"abcdefghijklmnopqrst"[3 + len(arrived) :]
    assert (await world.append(appended.upload, rest)).upload.state is S.VERIFIED
    assert await world.content(upload) == b"abcdefghijklmnopqrst"


async def test_a_body_in_crumbs_is_put_together(world: World) -> None:
    whole = Random(2).randbytes(23)
    script = [item for byte in whole for item in (bytes([byte]), PAUSE)]
    upload = await world.new(length=23)

    upload = (await world.append(upload, *script)).upload

    assert upload.state is S.VERIFIED
    assert await world.content(upload) == whole


@pytest.mark.parametrize("part_size_bytes", [100_000, 3 * MIB, 64 * MIB])
@pytest.mark.parametrize("buffer_bytes", [SMALL, 64 * MIB])
@pytest.mark.parametrize("pauses", [False, True])
async def test_large_bodies_arrive_whole_whatever_blocks_they_go_through(
    open_world: Worlds, part_size_bytes: int, buffer_bytes: int, pauses: bool
) -> None:
    world = await open_world(
        limits=toy_limits(part_size_bytes, parallel_parts=3), buffer_bytes=buffer_bytes
    )
    random = Random(3)
    whole = random.randbytes(7 * MIB + 12_345)
    script: list[object] = []
    position = 0
    while position < len(whole):
        size = random.choice([1, 5000, SMALL, 200_000, 2 * MIB])
        script.append(whole[position : position + size])
        position += size
        if pauses and random.random() < 0.5:
            script.append(PAUSE)
    upload = await world.new(length=len(whole))

    upload = (await world.append(upload, *script)).upload

    assert upload.state is S.VERIFIED
    assert await world.content(upload) == whole
    assert upload.crc64 == crc64(whole)


@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_slow_body_holds_no_more_than_a_small_block(
    open_world: Worlds, tmp_path: Path, on_disk: bool
) -> None:
    world = await open_world(tmp_path if on_disk else None, part_size_bytes=MIB)
    stall = Stall()
    upload = await world.new(length=10_000_000)
    running = start(world.append(upload, bytes(1000), PAUSE, bytes(1000), stall))
    await wait_for(stall.reached)

    assert world.engine.blocks.lent_bytes <= SMALL

    stall.resume()
    await running


async def test_a_finished_upload_takes_an_empty_append_at_its_end_and_nothing_else(
    world: World,
) -> None:
    upload = (await world.create(b"abc", length=3)).upload

    assert (await world.append(upload)).upload == upload
    assert (await world.append(upload, chunked=True)).upload == upload
    for chunked in (False, True):
        with pytest.raises(BodyTooLarge):
            await world.append(upload, b"x", chunked=chunked)
    with pytest.raises(OffsetMismatch):
        await world.append(upload, offset=0)
    assert await world.row(upload) == upload


# --- parts that finish in any order


async def test_only_the_contiguous_prefix_of_stored_parts_is_committed(fakes: World) -> None:
    upload = await fakes.new(length=17)
    holds = [fakes.objects.hold("finish", nth=nth) for nth in range(1, 5)]
    running = start(fakes.append(upload, b"0123456789abcdefg"))
    for hold in holds:
        await wait_for(hold.reached)

    for index, reached in ((2, 0), (1, 0), (0, 12), (3, 17)):
        holds[index].let_go()
        await settle()
        assert (await fakes.row(upload)).offset == reached

    assert (await running).upload.state is S.VERIFIED
    assert await fakes.content(upload) == b"0123456789abcdefg"


@pytest.mark.parametrize("error", [StoreUnavailable(), StorageFull()], ids=["away", "full"])
@pytest.mark.parametrize("order", ["312", "231", "123", "321"])
async def test_behind_a_part_that_fails_nothing_counts(
    fakes: World, error: TusServerError, order: str
) -> None:
    upload = await fakes.new(length=14)
    holds = {str(nth): fakes.objects.hold("finish", nth=nth) for nth in (1, 2, 3)}
    running = start(fakes.append(upload, b"0123456789abcd"))
    for hold in holds.values():
        await wait_for(hold.reached)

    for number in order:
        holds[number].let_go(error if number == "2" else None)
        await settle()

    with pytest.raises(type(error)):
        await running
    upload = await fakes.status(upload)
    assert upload.offset == 4
    assert (await fakes.append(upload, b"456789abcd")).upload.state is S.VERIFIED
    assert await fakes.content(upload) == b"0123456789abcd"


async def test_a_part_that_fails_to_begin_gives_the_request_up(fakes: World) -> None:
    upload = await fakes.new(length=14)
    fakes.objects.fail("write", StorageFull(), nth=2)

    with pytest.raises(StorageFull):
        await fakes.append(upload, b"0123456789abcd")

    upload = await fakes.status(upload)
    assert upload.offset in (0, 4)
    await fakes.append(upload, b"0123456789abcd"[upload.offset :])
    assert await fakes.content(upload) == b"0123456789abcd"


@pytest.mark.parametrize(
    ("method", "nth"),
    [*(("write", nth) for nth in range(1, 5)), *(("finish", nth) for nth in range(1, 6))],
)
async def test_wherever_the_store_fails_the_upload_goes_on_from_its_offset(
    open_world: Worlds, method: str, nth: int
) -> None:
    whole = Random(4).randbytes(5 * MIB)
    world = await open_world(limits=toy_limits(MIB + 7, parallel_parts=2, keeps_receipts=False))
    upload = await world.new(length=len(whole))
    world.objects.fail(method, StoreUnavailable(), nth=nth)
    script = [whole[at : at + 300_000] for at in range(0, len(whole), 300_000)]

    with pytest.raises(StoreUnavailable):
        await world.append(upload, *script)

    upload = await world.status(upload)
    assert (await world.append(upload, whole[upload.offset :])).upload.state is S.VERIFIED
    assert await world.content(upload) == whole


# --- the state fails


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_after_a_commit_of_unknown_outcome_the_row_decides(
    fakes: World, nth: int, after: bool
) -> None:
    upload = await fakes.new(length=12)
    fakes.state.fail("commit", StateUnavailable(), nth=nth, after=after)

    with pytest.raises(StateUnavailable):
        await fakes.append(upload, b"0123", b"4567", b"89ab")

    # Nothing that may count was undone: every byte the row tells of is there.
    upload = await fakes.status(upload)
    if upload.state is not S.VERIFIED:
        assert upload.offset == 4 * (nth - 1 + after)
        upload = (await fakes.append(upload, b"0123456789ab"[upload.offset :])).upload
    assert await fakes.content(upload) == b"0123456789ab"
    assert await fakes.events(upload) == [S.VERIFIED]


async def test_after_a_commit_of_unknown_outcome_a_restart_finds_every_byte_of_the_row(
    fakes: World,
) -> None:
    upload = await fakes.new(length=12)
    fakes.state.fail("commit", StateUnavailable(), nth=2, after=True)
    with pytest.raises(StateUnavailable):
        await fakes.append(upload, b"0123456789ab")

    await fakes.restart()

    upload = await fakes.status(upload)
    assert upload.offset == 8
    await fakes.append(upload, b"89ab")
    assert await fakes.content(upload) == b"0123456789ab"


async def test_bytes_left_by_a_commit_of_unknown_outcome_do_not_stop_a_shorter_upload(
    world: World,
) -> None:
    upload = (await world.create(b"abc", chunked=True)).upload
    world.state.fail("commit", StateUnavailable())
    with pytest.raises(StateUnavailable):
        await world.append(upload, b"xyz")

    upload = await world.status(upload)
    assert upload.offset == 3
    upload = (await world.append(upload, length=3)).upload

    assert upload.state is S.VERIFIED
    assert await world.content(upload) == b"abc"


async def test_a_state_that_is_full_takes_nothing_and_the_upload_goes_on_later(
    world: World,
) -> None:
    upload = (await world.create(b"abc", length=10)).upload
    world.state.fail("commit", StorageFull())
    with pytest.raises(StorageFull):
        await world.append(upload, b"defghij")

    upload = await world.status(upload)
    assert upload.offset == 3
    assert (await world.append(upload, b"defghij")).upload.state is S.VERIFIED
    assert await world.content(upload) == b"abcdefghij"


async def test_a_lost_lease_undoes_nothing(fakes: World) -> None:
    upload = await fakes.new(length=12)
    stall = Stall()
    running = start(fakes.append(upload, b"01234567", stall, b"89ab"))
    await wait_for(stall.reached)
    await settle()
    fakes.real_state.take_lease_away(upload.id)
    stored = dict(fakes.stores.disk[upload.id].parts)

    stall.resume()
    with pytest.raises(LeaseLost):
        await running

    # What is stored is the other writer's to judge, and so is its lease.
    assert stored.items() <= fakes.stores.disk[upload.id].parts.items()
    assert await fakes.is_held(upload)
    assert (await fakes.row(upload)).offset == 8
    fakes.real_state.tables.leases.clear()


# --- taking over


async def test_a_later_append_takes_the_upload_over(world: World) -> None:
    upload = await world.new(length=9)
    stall = Stall()
    first = start(world.append(upload, b"abcde", stall, b"XXXX"))
    await wait_for(stall.reached)

    second = await world.append(upload, b"fghi", offset=5)

    assert isinstance((await first).stopped, BodyInterrupted)
    assert second.upload.state is S.VERIFIED
    assert await world.content(upload) == b"abcdefghi"


async def test_a_status_takes_the_upload_over_and_reports_a_final_offset(world: World) -> None:
    upload = await world.new(length=9)
    stall = Stall()
    running = start(world.append(upload, b"abcde", stall))
    await wait_for(stall.reached)

    found = await world.status(upload)

    assert found.offset == 5
    assert (await running).upload.offset == 5
    assert (await world.append(found, b"fghi")).upload.state is S.VERIFIED


async def test_a_termination_takes_the_upload_over(world: World) -> None:
    upload = await world.new(length=9)
    stall = Stall()
    running = start(world.append(upload, b"abcde", stall))
    await wait_for(stall.reached)

    await world.terminate(upload)

    assert isinstance((await running).stopped, BodyInterrupted)
    assert not world.has_bytes(upload)
    assert await world.events(upload) == [S.CANCELED]
    with pytest.raises(UploadNotFound):
        await world.status(upload)


async def test_the_latest_request_wins(world: World) -> None:
    upload = await world.new(length=9)
    stalls = [Stall() for _ in range(4)]
    requests = []
    for stall in stalls:
        requests.append(start(world.append(upload, stall)))
        await settle()
    last = await world.append(upload, b"abcdefghi")

    assert last.upload.state is S.VERIFIED
    for request in requests:
        # Interrupted while it had the lease, or too late: never bytes of two writers mixed.
        outcome = (await asyncio.gather(request, return_exceptions=True))[0]
        assert isinstance(outcome, OffsetMismatch) or isinstance(outcome.stopped, BodyInterrupted)
    assert await world.content(upload) == b"abcdefghi"


async def test_many_writers_at_one_offset_have_one_winner(world: World) -> None:
    upload = await world.new(length=8)
    bodies = [bytes([value]) * 8 for value in range(8)]

    outcomes = await asyncio.gather(
        *(world.append(upload, body) for body in bodies), return_exceptions=True
    )

    won = [body for body, outcome in zip(bodies, outcomes, strict=True) if finished(outcome)]
    assert len(won) == 1
    assert await world.content(upload) == won[0]
    assert await world.events(upload) == [S.VERIFIED]


@pytest.mark.parametrize("seed", range(12))
async def test_clients_that_fight_over_an_upload_finish_it_together(
    world: World, seed: int
) -> None:
    random = Random(seed)
    whole = random.randbytes(120)
    upload = await world.new(length=len(whole))

    async def client() -> None:
        for _ in range(20):
            row = await world.status(upload)
            if row.state is S.VERIFIED:
                return
            script = [PAUSE] * random.randint(0, 3)
            for byte in whole[row.offset : row.offset + random.randint(1, 30)]:
                script.append(bytes([byte]))
                if random.random() < 0.3:
                    script.append(PAUSE)
            if random.random() < 0.2:
                script.append(ClientGone())
            with contextlib.suppress(OffsetMismatch, BodyTooLarge):
                await world.append(row, *script, chunked=random.random() < 0.5)

    await asyncio.gather(*(client() for _ in range(6)))
    row = await world.status(upload)
    if row.state is not S.VERIFIED:
        row = (await world.append(row, whole[row.offset :])).upload

    assert row.state is S.VERIFIED
    assert await world.content(upload) == whole
    assert await world.steps(upload) == AT_ONCE
    assert await world.events(upload) == [S.VERIFIED]


def finished(outcome: object) -> bool:
    return isinstance(outcome, Appended) and outcome.upload.state is S.VERIFIED


async def test_a_holder_is_not_asked_by_a_request_that_came_before_it(fakes: World) -> None:
    # B waits for A; C comes, and gets the lease first. B must not interrupt C.
    upload = await fakes.new(length=9)
    await take_turns(fakes, upload)


async def take_turns(fakes: World, upload: Upload) -> None:
    stall = Stall()
    first = start(fakes.append(upload, stall))
    await wait_for(stall.reached)
    early = fakes.state.hold("claim_upload", nth=1)
    second = start(fakes.append(upload, b"zzz"))
    await wait_for(early.reached)
    late_stall = Stall()
    third = start(fakes.append(upload, b"abc", late_stall, b"def"))
    await wait_for(late_stall.reached)

    early.let_go()
    await settle()
    late_stall.resume()

    assert (await third).stopped is None
    assert isinstance((await first).stopped, BodyInterrupted)
    with pytest.raises(OffsetMismatch):
        await second
    assert (await fakes.row(upload)).offset == 6


async def test_who_waits_too_long_is_told_so(open_world: Worlds) -> None:
    world = await open_world(wait_s=0.05)
    upload = await world.new(length=9)
    stuck = world.objects.hold("finish")
    running = start(world.append(upload, b"abc"))
    await wait_for(stuck.reached)

    for verb in (world.status(upload), world.append(upload, b"x"), world.terminate(upload)):
        with pytest.raises(LeaseNotObtained):
            await verb

    stuck.let_go()
    assert (await running).upload.offset == 3
    assert (await world.status(upload)).offset == 3


async def test_without_patience_a_held_upload_is_refused_at_once(open_world: Worlds) -> None:
    world = await open_world(wait_s=0)
    upload = await world.new(length=9)
    stall = Stall()
    running = start(world.append(upload, b"abc", stall))
    await wait_for(stall.reached)

    with pytest.raises(LeaseNotObtained):
        await world.append(upload, b"x")

    stall.resume()
    assert (await running).upload.offset == 3


async def test_a_lease_another_process_has_is_waited_for(fakes: World) -> None:
    upload = await fakes.new(length=3)
    claim = await fakes.real_state.claim_upload(upload.id)
    assert claim.lease is not None
    waiting = start(fakes.append(upload, b"abc"))
    await settle()

    await fakes.real_state.release(claim.lease)

    assert (await waiting).upload.state is S.VERIFIED


async def holding_the_last_commit(world: World, upload: Upload) -> tuple[Hold, "asyncio.Task"]:
    """Append three bytes; stop where the commit ended the lease and the caller has to learn it."""
    hold = world.state.hold("commit", after=True)
    running = start(world.append(upload, b"abc"))
    await wait_for(hold.reached)
    assert not await world.is_held(upload)
    return hold, running


@pytest.fixture
async def impatient(open_world: Worlds) -> World:
    """As `fakes`, where nobody waits longer than a moment for a lease."""
    return await open_world(wait_s=0.5)


async def test_a_request_that_claims_right_behind_a_commit_can_still_be_asked_to_let_go(
    impatient: World,
) -> None:
    upload = await impatient.new(length=9)
    hold, first = await holding_the_last_commit(impatient, upload)
    stall = Stall()
    second = start(impatient.append(upload, b"def", stall, offset=3))
    await wait_for(stall.reached)
    hold.let_go()
    await first

    found = await impatient.status(upload)

    assert found.offset == 6
    assert isinstance((await second).stopped, BodyInterrupted)


async def test_who_waits_for_a_holder_is_woken_even_if_another_claims_right_behind_it(
    impatient: World,
) -> None:
    upload = await impatient.new(length=9)
    stall = Stall()
    hold = impatient.state.hold("commit", after=True)
    first = start(impatient.append(upload, b"abc", stall))
    await wait_for(stall.reached)
    waiting = start(impatient.status(upload))  # asks the first to let go
    await wait_for(hold.reached)
    second = start(impatient.append(upload, b"def", offset=3))
    await settle()

    hold.let_go()

    assert (await first).upload.offset == 3
    assert (await second).upload.offset == 6
    assert (await waiting).offset in (3, 6)


# --- status


class Door(AllowAll):
    """An authorizer that takes its time, once asked to."""

    def __init__(self) -> None:
        self.hold: Hold | None = None

    async def check(
        self, principal: Principal, operation: Operation, upload: Upload | None
    ) -> None:
        if self.hold is not None and operation is Operation.STATUS:
            hold, self.hold = self.hold, None
            await hold.pass_by()


@pytest.mark.parametrize("length", [3, 9])
async def test_a_status_never_reports_an_offset_that_was_left_behind_while_it_was_authorized(
    open_world: Worlds,
    length: int,
) -> None:
    door = Door()
    world = await open_world(authorizer=door)
    upload = await world.new(length=length)
    stall, hold = Stall(), Hold()
    running = start(world.append(upload, stall, b"abc"))
    await wait_for(stall.reached)
    door.hold = hold
    asking = start(world.status(upload))
    await wait_for(hold.reached)
    stall.resume()
    await running

    hold.let_go()

    assert (await asking).offset == 3


async def test_a_status_of_nothing_is_refused(world: World) -> None:
    upload = await world.new()

    with pytest.raises(UploadNotFound):
        await world.status(make_upload(world.clock))
    await world.terminate(upload)
    with pytest.raises(UploadNotFound):
        await world.status(upload)


async def test_an_expired_upload_is_gone(fakes: World) -> None:
    upload = await fakes.new()
    lease = (await fakes.real_state.claim_upload(upload.id)).lease
    expired = upload.stepped(S.EXPIRED, on=fakes.clock.now())
    await fakes.real_state.commit(lease, upload, expired, steps=(S.EXPIRED,), release=True)

    for verb in (fakes.status(upload), fakes.append(upload, b"x"), fakes.terminate(upload)):
        with pytest.raises(UploadGone):
            await verb


# --- finishing


async def test_an_upload_whose_finish_fails_stays_completed_and_is_finished_by_the_next_status(
    world: World,
) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    world.objects.fail("complete", StoreUnavailable())

    with pytest.raises(StoreUnavailable):
        await world.append(upload, b"def")
    assert (await world.row(upload)).state is S.COMPLETED
    assert await world.events(upload) == []

    assert (await world.status(upload)).state is S.VERIFIED
    assert await world.content(upload) == b"abcdef"
    assert await world.events(upload) == [S.VERIFIED]


@pytest.mark.parametrize("error", [StoreUnavailable(), StorageFull()], ids=["away", "full"])
async def test_while_an_upload_cannot_be_finished_a_status_says_so(
    world: World, error: TusServerError
) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    world.objects.fail("complete", error, times=100)
    with pytest.raises(type(error)):
        await world.append(upload, b"def")

    for _ in range(2):
        with pytest.raises(StillFinishing):
            await world.status(upload)
    with pytest.raises(StillFinishing):
        await world.append(upload, offset=6)

    world.objects.heal()
    assert (await world.append(upload, offset=6)).upload.state is S.VERIFIED


async def test_recovery_finishes_what_could_not_be_finished_in_time(world: World) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    world.objects.fail("complete", StoreUnavailable(), times=2)
    with pytest.raises(StoreUnavailable):
        await world.append(upload, b"def")

    await world.recover()
    assert (await world.row(upload)).state is S.COMPLETED
    await world.recover()

    assert (await world.row(upload)).state is S.VERIFIED
    assert await world.content(upload) == b"abcdef"
    assert await world.events(upload) == [S.VERIFIED]


async def test_after_a_restart_a_completed_upload_is_finished(world: World) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    world.objects.fail("complete", StoreUnavailable(), after=True)  # the object is there
    with pytest.raises(StoreUnavailable):
        await world.append(upload, b"def")

    await world.restart()

    assert (await world.row(upload)).state is S.VERIFIED
    assert await world.content(upload) == b"abcdef"
    assert await world.events(upload) == [S.VERIFIED]


async def test_a_status_waits_for_a_finish_under_way(world: World) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    finishing = world.objects.hold("complete")
    running = start(world.append(upload, b"def"))
    await wait_for(finishing.reached)
    asking = start(world.status(upload))
    await settle()
    assert not asking.done()

    finishing.let_go()

    assert (await asking).state is S.VERIFIED
    assert (await running).upload.state is S.VERIFIED
    assert await world.events(upload) == [S.VERIFIED]


async def test_a_mark_of_verified_with_unknown_outcome_is_not_made_twice(world: World) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    # The commits are: the last part with `completed`, then `verified`.
    world.state.fail("commit", StateUnavailable(), nth=2, after=True)

    with pytest.raises(StateUnavailable):
        await world.append(upload, b"def")

    assert (await world.status(upload)).state is S.VERIFIED
    await world.recover()
    assert await world.events(upload) == [S.VERIFIED]
    assert await world.content(upload) == b"abcdef"


async def test_an_upload_whose_bytes_are_gone_ends_in_error_and_is_not_found(world: World) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    world.objects.fail("complete", BytesMissing("3 of 6"))

    with pytest.raises(BytesMissing):
        await world.append(upload, b"def")

    row = await world.row(upload)
    assert (row.state, row.error_code, row.error_message) == (S.ERROR, "bytes_missing", "3 of 6")
    assert await world.events(upload) == [S.ERROR]
    for verb in (world.status(upload), world.append(upload, offset=6), world.terminate(upload)):
        with pytest.raises(UploadNotFound):
            await verb


async def test_bytes_that_are_gone_when_a_part_is_stored_end_the_upload(fakes: World) -> None:
    upload = (await fakes.create(b"abc", length=6)).upload
    fakes.objects.fail("finish", BytesMissing())

    with pytest.raises(BytesMissing):
        await fakes.append(upload, b"def")

    assert (await fakes.row(upload)).state is S.ERROR
    assert await fakes.events(upload) == [S.ERROR]


# --- terminate


async def test_terminating_an_unfinished_upload_cancels_it_and_frees_its_bytes(
    world: World,
) -> None:
    upload = (await world.create(b"abc", length=6)).upload

    await world.terminate(upload)

    row = await world.row(upload)
    assert row.state is S.CANCELED
    assert row.freed_at is not None
    assert not world.has_bytes(upload)
    assert await world.events(upload) == [S.CANCELED]
    with pytest.raises(UploadNotFound):
        await world.terminate(upload)


async def test_terminating_a_finished_upload_deletes_it(world: World) -> None:
    upload = (await world.create(b"abc", length=3)).upload

    await world.terminate(upload)

    assert (await world.row(upload)).state is S.DELETED
    assert not world.has_bytes(upload)
    assert await world.events(upload) == [S.VERIFIED, S.DELETED]
    with pytest.raises(UploadNotFound):
        await check_readable(world.engine, await world.row(upload))


async def test_terminating_an_upload_without_bytes(world: World) -> None:
    upload = await world.new()

    await world.terminate(upload)

    assert (await world.row(upload)).state is S.CANCELED


async def test_of_two_terminations_at_once_the_second_finds_nothing(world: World) -> None:
    upload = (await world.create(b"abc", length=6)).upload

    outcomes = await asyncio.gather(
        world.terminate(upload), world.terminate(upload), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "UploadNotFound"]
    assert await world.events(upload) == [S.CANCELED]


async def test_a_termination_stands_while_the_store_is_away_and_recovery_frees_later(
    world: World,
) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    world.objects.fail("free", StoreUnavailable(), times=2)

    await world.terminate(upload)

    with pytest.raises(UploadNotFound):
        await world.status(upload)
    assert (await world.row(upload)).freed_at is None
    assert world.has_bytes(upload)

    await world.recover()
    assert world.has_bytes(upload)
    await world.recover()
    assert not world.has_bytes(upload)
    assert (await world.row(upload)).freed_at is not None
    assert await world.events(upload) == [S.CANCELED]


# --- download


async def test_only_a_finished_upload_can_be_downloaded(world: World) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    with pytest.raises(UploadNotFound):
        await check_readable(world.engine, await world.row(upload))
    await world.append(upload, b"def")

    await check_readable(world.engine, await world.row(upload))


# --- recovery and shutdown


async def test_a_restart_cuts_what_was_never_committed(world: World) -> None:
    upload = (await world.create(b"abc", length=9)).upload
    world.state.fail("commit", StateUnavailable())
    with pytest.raises(StateUnavailable):
        await world.append(upload, b"XXXXXX")

    await world.restart()

    upload = await world.status(upload)
    assert upload.offset == 3
    assert (await world.append(upload, b"defghi")).upload.state is S.VERIFIED
    assert await world.content(upload) == b"abcdefghi"


async def test_a_restart_removes_bytes_of_an_upload_that_has_none(
    open_world: Worlds, tmp_path: Path
) -> None:
    world = await open_world(tmp_path)
    upload = await stored_and_not_committed(world)

    await world.restart()

    assert not world.has_bytes(upload)
    assert (await world.append(upload, b"xyz")).upload.state is S.VERIFIED
    assert await world.content(upload) == b"xyz"


async def test_an_object_that_was_never_committed_is_adopted_by_the_same_bytes(
    fakes: World,
) -> None:
    upload = await stored_and_not_committed(fakes)
    await fakes.restart()

    assert (await fakes.append(upload, b"abc")).upload.state is S.VERIFIED

    assert await fakes.content(upload) == b"abc"


async def test_an_object_of_other_bytes_is_replaced_under_a_lease_that_is_held(
    fakes: World,
) -> None:
    upload = await stored_and_not_committed(fakes)
    await fakes.restart()

    assert (await fakes.append(upload, b"xyz")).upload.state is S.VERIFIED

    assert await fakes.content(upload) == b"xyz"


async def stored_and_not_committed(world: World) -> Upload:
    """Give an upload of length 3 whose object is stored, and whose row does not know."""
    upload = await world.new(length=3)
    world.state.fail("commit", StateUnavailable())
    with pytest.raises(StateUnavailable):
        await world.append(upload, b"abc")
    assert world.has_bytes(upload)
    return upload


async def test_an_upload_that_resists_recovery_does_not_keep_the_others_from_it(
    world: World,
) -> None:
    uploads = []
    for _ in range(3):
        upload = (await world.create(b"abc", length=6)).upload
        world.objects.fail("complete", StoreUnavailable())
        with pytest.raises(StoreUnavailable):
            await world.append(upload, b"def")
        uploads.append(upload)
    world.objects.fail("complete", StoreUnavailable())
    world.objects.fail("complete", BytesMissing(), nth=2)

    await world.recover()

    states = [(await world.row(upload)).state for upload in uploads]
    assert states == [S.COMPLETED, S.ERROR, S.VERIFIED]


async def test_bytes_of_a_receiving_upload_that_are_gone_are_found_at_start(world: World) -> None:
    upload = (await world.create(b"abc", length=6)).upload
    world.objects.fail("recover", BytesMissing("gone"))

    await world.recover()

    assert (await world.row(upload)).state is S.ERROR
    assert await world.events(upload) == [S.ERROR]


async def test_an_upload_that_cannot_even_be_given_up_does_not_keep_the_others_from_recovery(
    world: World,
) -> None:
    lost = (await world.create(b"abc", length=9)).upload
    other = (await world.create(b"abc", length=9)).upload
    world.objects.fail("recover", BytesMissing("gone"))
    world.state.fail("commit", StorageFull())

    await world.recover()

    assert (await world.row(lost)).state is S.RECEIVING  # tried again at the next start
    assert (await world.append(other, b"defghi")).upload.state is S.VERIFIED
    await world.recover()
    assert (await world.status(lost)).offset == 3


async def test_recovery_of_many_uploads_reaches_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tus_server.engine.recover.PAGE", 3)
    uploads = [await world.new() for _ in range(8)]
    world.objects.fail("free", StoreUnavailable(), times=8)
    for upload in uploads:
        await world.terminate(upload)

    await world.recover()

    for upload in uploads:
        assert (await world.row(upload)).freed_at is not None


async def test_recovery_leaves_an_upload_that_somebody_holds_alone(world: World) -> None:
    upload = await world.new(length=6)
    stall = Stall()
    running = start(world.append(upload, b"abcde", stall, b"f"))
    await wait_for(stall.reached)

    await world.recover()

    stall.resume()
    assert (await running).upload.state is S.VERIFIED
    assert await world.content(upload) == b"abcdef"


async def test_the_recovery_loop_goes_on_after_a_failure(
    fakes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tus_server.engine.recover.INTERVAL_S", 0)
    upload = await fakes.new()
    fakes.objects.fail("free", StoreUnavailable())
    await fakes.terminate(upload)
    fakes.state.fail("unfinished_work", StateUnavailable(), times=2)

    loop = asyncio.create_task(recovery_loop(fakes.engine))
    while (await fakes.row(upload)).freed_at is None:
        await asyncio.sleep(0)

    loop.cancel()
    await asyncio.wait({loop})


async def test_shutting_down_stores_what_has_arrived(world: World) -> None:
    uploads = [await world.new(length=9) for _ in range(3)]
    stalls = [Stall() for _ in uploads]
    running = [
        start(world.append(upload, b"abcde", stall))
        for upload, stall in zip(uploads, stalls, strict=True)
    ]
    for stall in stalls:
        await wait_for(stall.reached)

    world.engine.let_go()

    assert await world.engine.drain(20)
    for upload, task in zip(uploads, running, strict=True):
        assert isinstance((await task).stopped, BodyInterrupted)
        assert (await world.row(upload)).offset == 5


async def test_after_the_signal_no_body_is_taken(world: World) -> None:
    upload = await world.new(length=9)
    world.engine.let_go()
    body = FakeBody(b"abc")

    with pytest.raises(ShuttingDown):
        await world.append(upload, body=body)
    with pytest.raises(ShuttingDown):
        await world.create(length=3, body=body)

    assert not body.asked
    assert (await world.status(upload)).offset == 0


async def test_a_drain_that_takes_too_long_says_so(fakes: World) -> None:
    upload = await fakes.new(length=9)
    stuck = fakes.objects.hold("finish")
    running = start(fakes.append(upload, b"abc"))
    await wait_for(stuck.reached)

    assert not await fakes.engine.drain(0.01)

    stuck.let_go()
    await running
    assert await fakes.engine.drain(0.01)


# --- who may


async def test_every_verb_asks_the_authorizer_before_anything_else(fakes: World) -> None:
    upload = (await fakes.create(b"abc", length=3)).upload
    operations: list[Operation] = []

    class Nobody(AllowAll):
        def __init__(self, *, but: Operation | None = None) -> None:
            self._but = but

        async def check(
            self, principal: Principal, operation: Operation, upload: Upload | None
        ) -> None:
            operations.append(operation)
            if operation is not self._but:
                raise UploadNotFound

    command = Create(None, Protocol.TUS, Terms(length=0), is_partial=True)
    partial = (await create(fakes.engine, command, ANONYMOUS, FakeBody())).upload
    fakes.engine.authorizer = Nobody()
    body = FakeBody(b"x")
    for verb in (
        fakes.create(length=1, body=body),
        fakes.status(upload),
        fakes.append(upload, body=body),
        fakes.terminate(upload),
        find_for(fakes.engine, upload.id, ANONYMOUS, Operation.DOWNLOAD),
    ):
        with pytest.raises(UploadNotFound):
            await verb
    fakes.engine.authorizer = Nobody(but=Operation.CREATE)
    with pytest.raises(UnusablePartial):
        await concatenate(fakes.engine, Concatenate("", [partial.id], None), ANONYMOUS)
    del operations[-2]
    fakes.engine.authorizer = Nobody()
    for verb_of_application in (
        sign(fakes.engine, upload.id, APPLICATION, None),
        complete(fakes.engine, upload.id, APPLICATION),
        judge(fakes.engine, upload.id, APPLICATION, accepts=True),
        list_uploads(fakes.engine, Query(before=upload.id), APPLICATION),
    ):
        with pytest.raises(UploadNotFound):
            await verb_of_application

    assert operations == list(Operation)
    assert not body.asked
    assert await fakes.row(upload) == upload


def test_failing_counts_calls_from_the_order_on() -> None:
    # The wrapper all of this rests on.
    class Thing:
        async def work(self) -> int:
            return 1

    async def check() -> None:
        thing = Failing(Thing())
        assert await thing.work() == 1
        thing.fail("work", StoreUnavailable(), nth=2)
        assert await thing.work() == 1
        with pytest.raises(StoreUnavailable):
            await thing.work()
        assert await thing.work() == 1

    asyncio.run(check())


assert PART_SIZE_BYTES == 4  # the bodies above are cut by hand
