"""The contract of ports.StateStore, sentence by sentence: the parts of direct uploads."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.contract.conftest import SHARED_STATES, StateBackend
from tests.support.fakes import FakeClock, make_upload, planned_parts
from tests.support.state import NOBODY, claim, create, everything, is_held, row, walk
from tus_server.core.errors import LeaseLost
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.ports import Lease, StateStore

S = UploadState
shared = pytest.mark.parametrize("state_backend", SHARED_STATES, indirect=True)


async def direct(
    state: StateStore, clock: FakeClock, *, length: int = 10, part_size: int = 4, **fields: Any
) -> Upload:
    """Create a direct upload; by default of parts of 4, 4 and 2 bytes."""
    fields = {"protocol": Protocol.MULTIPART} | fields
    return await create(state, clock, length=length, part_size=part_size, **fields)


def part(upload: Upload, number: int, crc: int | None = 5, etag: str | None = '"e"') -> Part:
    """Give part `number` as it is stored; etag None: as it is not stored any more."""
    planned = planned_parts(upload)[number - 1]
    return replace(planned, crc64=crc if etag else None, etag=etag)


def gone(upload: Upload, number: int) -> Part:
    return part(upload, number, etag=None)


async def record(state: StateStore, upload: Upload, *parts: Part, **options: Any) -> Upload:
    """Write parts down of an upload that takes them; give its row."""
    found = await state.record_parts(upload.id, parts, **options)
    assert found is not None
    assert await row(state, upload) == found
    return found


async def states(state: StateStore, upload: Upload) -> list[UploadState]:
    return [change.state for change in await state.history(upload.id)]


# --- planned parts


@pytest.mark.parametrize(
    ("length", "part_size", "expected"),
    [
        (10, 4, [(1, 0, 4), (2, 4, 4), (3, 8, 2)]),
        (8, 4, [(1, 0, 4), (2, 4, 4)]),
        (1, 4, [(1, 0, 1)]),
        (0, 4, [(1, 0, 0)]),
        (5 * 2**40, 2**42, [(1, 0, 2**42), (2, 2**42, 2**40)]),
    ],
)
async def test_a_direct_upload_has_its_planned_parts_from_the_creation_on(
    state_backend: StateBackend,
    state: StateStore,
    clock: FakeClock,
    length: int,
    part_size: int,
    expected: list[tuple[int, int, int]],
) -> None:
    upload = await direct(state, clock, length=length, part_size=part_size)
    planned = [Part(*one, None, None) for one in expected]

    assert await row(state, upload) == upload
    assert await state.find_parts(upload.id) == planned
    await state_backend.close()
    again = await state_backend.open()
    assert await row(again, upload) == upload
    assert await again.find_parts(upload.id) == planned


async def test_a_single_upload_has_one_part(state: StateStore, clock: FakeClock) -> None:
    upload = await direct(state, clock, length=7, part_size=7, protocol=Protocol.SINGLE)

    assert await state.find_parts(upload.id) == [Part(1, 0, 7, None, None)]


async def test_a_direct_upload_may_have_ten_thousand_parts(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock, length=29_999, part_size=3)

    found = await state.find_parts(upload.id)

    assert len(found) == 10_000
    assert found == planned_parts(upload)
    assert found[-1] == Part(10_000, 29_997, 2, None, None)


async def test_any_other_upload_has_no_planned_parts(state: StateStore, clock: FakeClock) -> None:
    upload = await create(state, clock, length=10, part_size=4)

    assert await state.find_parts(upload.id) == []


async def test_a_direct_upload_can_be_created_with_a_claim(
    state: StateStore, clock: FakeClock
) -> None:
    upload = make_upload(clock, protocol=Protocol.MULTIPART, length=10, part_size=4)

    lease = await state.create_upload(upload, claim=True)

    assert lease is not None
    await state.commit(lease, upload, replace(upload, multipart_id="m"), release=True)
    assert await state.find_parts(upload.id) == planned_parts(upload)


# --- what has arrived


async def test_the_first_part_begins_receiving(state: StateStore, clock: FakeClock) -> None:
    upload = await direct(state, clock)

    after = await record(state, upload, part(upload, 2, 2**64 - 1, '"é"'))

    assert (after.state, after.committed_bytes) == (S.RECEIVING, 4)
    first, second, third = planned_parts(upload)
    stored = replace(second, crc64=2**64 - 1, etag='"é"')
    assert await state.find_parts(upload.id) == [first, stored, third]
    history = await state.history(upload.id)
    assert [change.state for change in history] == [S.RECEIVING, S.INITIATED]
    assert history[0].at == after.state_on
    assert after.state_on.tzinfo is not None


async def test_parts_may_arrive_in_any_order_and_add_up(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock)

    sizes = [(await record(state, upload, part(upload, n))).committed_bytes for n in (3, 1, 2)]

    assert sizes == [2, 6, 10]
    assert await states(state, upload) == [S.RECEIVING, S.INITIATED]
    known = await everything(state, upload.id)
    await state_backend.close()
    assert await everything(await state_backend.open(), upload.id) == known


async def test_all_parts_may_be_recorded_at_once(state: StateStore, clock: FakeClock) -> None:
    upload = await direct(state, clock, length=29_999, part_size=3)
    parts = [part(upload, 1, 1)] + [
        replace(one, crc64=one.number, etag=f'"{one.number}"') for one in planned_parts(upload)[1:]
    ]

    after = await record(state, upload, *parts)

    assert after.committed_bytes == upload.length
    assert await state.find_parts(upload.id) == parts


async def test_a_part_whose_checksum_nobody_tells_has_none(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock)

    await record(state, upload, part(upload, 1, None))

    assert (await state.find_parts(upload.id))[0] == Part(1, 0, 4, None, '"e"')


async def test_a_part_that_is_sent_again_replaces_the_one_before(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock)
    await record(state, upload, part(upload, 1, 1, '"a"'), part(upload, 2, 2, '"b"'))

    after = await record(state, upload, part(upload, 1, 3, '"c"'))

    assert after.committed_bytes == 8
    assert (await state.find_parts(upload.id))[0] == part(upload, 1, 3, '"c"')


async def test_a_part_may_be_no_longer_stored(state: StateStore, clock: FakeClock) -> None:
    upload = await direct(state, clock)
    await record(state, upload, part(upload, 1), part(upload, 3))

    after = await record(state, upload, gone(upload, 3))

    assert (after.state, after.committed_bytes) == (S.RECEIVING, 4)
    assert (await state.find_parts(upload.id))[2] == planned_parts(upload)[2]
    after = await record(state, upload, gone(upload, 1), part(upload, 2), gone(upload, 3))
    assert (after.state, after.committed_bytes) == (S.RECEIVING, 4)
    assert await states(state, upload) == [S.RECEIVING, S.INITIATED]


async def test_that_a_part_has_not_arrived_begins_nothing(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock)
    known = await everything(state, upload.id)

    assert await record(state, upload, gone(upload, 1), gone(upload, 2)) == upload
    assert await record(state, upload) == upload

    assert await everything(state, upload.id) == known


async def test_an_empty_part_has_to_arrive_too(state: StateStore, clock: FakeClock) -> None:
    upload = await direct(state, clock, length=0)

    after = await record(state, upload, part(upload, 1))

    assert (after.state, after.committed_bytes) == (S.RECEIVING, 0)
    assert (await state.find_parts(upload.id))[0].etag == '"e"'


async def test_recording_the_same_again_changes_nothing(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock, expires_at=clock.now())
    later = clock.now()
    told = [part(upload, 1), gone(upload, 2)]
    first = await record(state, upload, *told, expires_at=later)
    known = await everything(state, upload.id)

    for _ in range(3):
        assert await record(state, upload, *told, expires_at=later) == first

    assert await everything(state, upload.id) == known


async def test_of_a_part_that_is_told_of_twice_the_last_counts(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock)

    after = await record(state, upload, part(upload, 1, 1, '"a"'), part(upload, 1, 2, '"b"'))

    assert after.committed_bytes == 4
    assert (await state.find_parts(upload.id))[0] == part(upload, 1, 2, '"b"')


async def test_parts_of_uploads_do_not_mix(state: StateStore, clock: FakeClock) -> None:
    upload, other = await direct(state, clock), await direct(state, clock)

    await record(state, upload, part(upload, 1))

    assert await state.find_parts(other.id) == planned_parts(other)
    assert await row(state, other) == other


async def test_nothing_is_recorded_of_what_takes_no_parts(
    state: StateStore, clock: FakeClock
) -> None:
    uploads = []
    for steps in (
        (S.CANCELED,),
        (S.ERROR,),
        (S.EXPIRED,),
        (S.COMPLETED,),
        (S.COMPLETED, S.VERIFIED),
    ):
        upload = await direct(state, clock)
        await record(state, upload, *(part(upload, n) for n in (1, 2, 3)))
        uploads.append(await walk(state, clock, await row(state, upload), *steps))
    uploads.append(await create(state, clock, length=10, part_size=4))
    later = clock.now() + timedelta(days=1)

    for upload in uploads:
        known = await everything(state, upload.id)
        told = replace(part(upload, 1, 9, '"other"'))
        assert await state.record_parts(upload.id, [told], expires_at=later) is None
        assert await everything(state, upload.id) == known
    assert await state.record_parts(NOBODY, []) is None


async def test_a_part_puts_the_expiry_off_and_never_forward(
    state: StateStore, clock: FakeClock
) -> None:
    at = clock.now()
    upload, forever = await direct(state, clock, expires_at=at), await direct(state, clock)

    async def put(one: Upload, moment: datetime | None, *parts: Part) -> datetime | None:
        return (await record(state, one, *parts, expires_at=moment)).expires_at

    assert await put(upload, at + timedelta(seconds=9), part(upload, 1)) == at + timedelta(
        seconds=9
    )
    assert await put(upload, at, part(upload, 2)) == at + timedelta(seconds=9)
    assert await put(upload, None, part(upload, 3)) == at + timedelta(seconds=9)
    assert await put(upload, at + timedelta(days=1)) == at + timedelta(days=1)
    assert await put(forever, at, part(forever, 1)) is None


# --- beside leases


async def test_parts_are_recorded_whoever_has_the_lease(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock)
    lease = await claim(state, upload)

    after = await record(state, upload, part(upload, 1))

    assert await is_held(state, upload.id)
    completed = replace(after, multipart_id="m")
    await state.commit(lease, after, completed, release=True)
    assert await row(state, upload) == completed


Changes = list[Callable[[Upload], Part]]
CHANGES: dict[str, list[Changes]] = {
    "stored": [[lambda one: part(one, 2)]],
    "replaced": [[lambda one: part(one, 1, 9)]],
    "not stored any more": [[lambda one: gone(one, 1)]],
    "gone and stored again": [[lambda one: gone(one, 1)], [lambda one: part(one, 1)]],
    "one stored, one of that size gone": [[lambda one: part(one, 2), lambda one: gone(one, 1)]],
}


@pytest.mark.parametrize("records", CHANGES.values(), ids=CHANGES.keys())
async def test_a_commit_from_a_row_as_it_was_before_loses_and_changes_nothing(
    state: StateStore, clock: FakeClock, records: list[Changes]
) -> None:
    upload = await direct(state, clock)
    before = await record(state, upload, part(upload, 1))
    lease = await claim(state, upload)
    for changes in records:
        await record(state, upload, *(change(upload) for change in changes))
    known = await everything(state, upload.id)

    canceled = before.stepped(S.CANCELED, on=clock.now())
    for after, steps in ((canceled, (S.CANCELED,)), (replace(before, multipart_id="m"), ())):
        with pytest.raises(LeaseLost):
            await state.commit(lease, before, after, steps=steps, release=True)

    assert await everything(state, upload.id) == known
    assert await row(state, upload) == known[0]


async def test_a_commit_does_not_put_the_expiry_back(state: StateStore, clock: FakeClock) -> None:
    upload = await direct(state, clock, expires_at=clock.now())
    lease = await claim(state, upload)
    after = await record(state, upload, expires_at=clock.now() + timedelta(days=1))

    with pytest.raises(LeaseLost):
        await state.commit(lease, upload, replace(upload, multipart_id="m"))

    assert await row(state, upload) == after


async def test_a_record_that_changes_nothing_does_not_stop_a_commit(
    state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock)
    before = await record(state, upload, part(upload, 1))
    lease = await claim(state, upload)
    await record(state, upload, part(upload, 1), gone(upload, 2))

    after = before.stepped(S.CANCELED, on=clock.now())
    await state.commit(lease, before, after, steps=(S.CANCELED,), release=True)

    assert await row(state, upload) == after


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_claims_under_way_and_a_part_do_not_undo_each_other(
    state_backend: StateBackend, state: StateStore, clock: FakeClock, order: tuple[int, ...]
) -> None:
    upload = await direct(state, clock)
    await row(state, upload)

    async def claim_one() -> Lease | None:
        return (await state.claim_upload(upload.id, numbers=4)).lease

    async def claim_some() -> Lease | None:
        page = await state.claim_unfinished(1, receiving=True, numbers=4)
        return page[0][1] if page else None

    async def arrive() -> None:
        await state.record_parts(upload.id, [part(upload, 1)])

    steps = [claim_one, claim_some, arrive]
    leases = await asyncio.gather(*(steps[one]() for one in order))

    now = await row(state, upload)
    assert (now.committed_bytes, now.next_part_number) == (4, 5)
    [lease] = [one for one in leases if one is not None]
    await state.commit(lease, now, replace(now, multipart_id="m"), release=True)
    known = await everything(state, upload.id)
    await state_backend.close()
    assert await everything(await state_backend.open(), upload.id) == known


async def test_of_a_completion_and_a_part_at_once_one_wins(
    state: StateStore, clock: FakeClock
) -> None:
    for turn in range(6):
        upload = await direct(state, clock)
        before = await record(state, upload, *(part(upload, n) for n in (1, 2, 3)))
        lease = await claim(state, upload)
        steps = (S.COMPLETED,)
        after = before.stepped(*steps, on=clock.now())

        moves = [
            state.commit(lease, before, after, steps=steps),
            state.record_parts(upload.id, [gone(upload, 2)]),
        ]
        found = await asyncio.gather(*moves[:: 1 if turn % 2 else -1], return_exceptions=True)
        completion, recorded = found[:: 1 if turn % 2 else -1]

        now = await row(state, upload)
        if completion is None:
            assert (recorded, now) == (None, after)
        else:
            assert isinstance(completion, LeaseLost)
            assert (now.state, now.committed_bytes) == (S.RECEIVING, 6)
            assert recorded == now


async def test_parts_that_arrive_at_once_add_up(
    state_backend: StateBackend, state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock, length=1000, part_size=7)
    planned = planned_parts(upload)
    told = [
        [
            part(upload, number, number * turn, f'"{turn}"' if (number + turn) % 5 else None)
            for number in range(first, min(first + 9, len(planned) + 1))
        ]
        for turn in range(1, 4)
        for first in range(turn, len(planned), 5)
    ]

    rows = await asyncio.gather(*(state.record_parts(upload.id, parts) for parts in told))

    assert None not in rows
    now = await row(state, upload)
    stored = [one for one in await state.find_parts(upload.id) if one.etag is not None]
    assert now.committed_bytes == sum(one.size for one in stored) > 0
    assert await states(state, upload) == [S.RECEIVING, S.INITIATED]
    known = await everything(state, upload.id)
    await state_backend.close()
    assert await everything(await state_backend.open(), upload.id) == known


@shared
async def test_what_one_process_records_the_others_find(
    state: StateStore, other_state: StateStore, clock: FakeClock
) -> None:
    upload = await direct(state, clock)

    after = await record(state, upload, part(upload, 1))

    assert await row(other_state, upload) == after
    assert await other_state.find_parts(upload.id) == await state.find_parts(upload.id)
    assert (await record(other_state, upload, part(upload, 2))).committed_bytes == 8
    assert (await row(state, upload)).committed_bytes == 8
