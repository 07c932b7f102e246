"""The contract of ports.StateStore, sentence by sentence: what there is one of, and lookups by it.

One active upload of a file_id, one upload for each Idempotency-Key.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.contract.conftest import SHARED_STATES, StateBackend
from tests.support.fakes import FakeClock, make_upload
from tests.support.state import NOBODY, create, everything, is_held, row, walk
from tus_server.core.errors import FileIdTaken, RequestKeyTaken
from tus_server.core.ids import UploadId
from tus_server.core.jobs import Instructions, Job
from tus_server.core.states import ACTIVE, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.ports import StateStore

S = UploadState
shared = pytest.mark.parametrize("state_backend", SHARED_STATES, indirect=True)
DIRECT: dict[str, Any] = {"protocol": Protocol.MULTIPART, "length": 10, "part_size": 4}
TEXTS = ["\0", "a\0␛0␛␛b", "\u241b", "🙈", "Å\n\t'\";--\\u0000", "", "\uffff\U0010ffff", "x" * 4000]

LIVES: dict[UploadState, tuple[UploadState, ...]] = {
    S.INITIATED: (),
    S.RECEIVING: (S.RECEIVING,),
    S.COMPLETED: (S.COMPLETED,),
    S.VERIFIED: (S.COMPLETED, S.VERIFIED),
    S.ACCEPTED: (S.COMPLETED, S.VERIFIED, S.ACCEPTED),
    S.REJECTED: (S.COMPLETED, S.VERIFIED, S.REJECTED),
    S.DELETED: (S.COMPLETED, S.VERIFIED, S.DELETED),
    S.ERROR: (S.ERROR,),
    S.CANCELED: (S.CANCELED,),
    S.EXPIRED: (S.EXPIRED,),
}


async def pages(state: StateStore, file_id: str, limit: int) -> list[UploadId]:
    """Give the ids of all uploads of a file_id, page by page."""
    found: list[UploadId] = []
    page = await state.find_by_file_id(file_id, limit)
    while page:
        assert len(page) <= limit
        found += [upload.id for upload in page]
        page = await state.find_by_file_id(file_id, limit, before=page[-1].id)
    return found


# --- one active upload of a file_id


@pytest.mark.parametrize("life", [one for one in LIVES if one in ACTIVE])
async def test_a_second_upload_of_a_file_is_refused_while_one_is_active(
    state: StateStore, clock: FakeClock, life: UploadState
) -> None:
    first = await create(state, clock, file_id="f")
    first = await walk(state, clock, first, *LIVES[life])
    known = await everything(state, first.id)

    for fields, claims in (({}, False), ({}, True), (DIRECT, False), (DIRECT, True)):
        second = make_upload(clock, file_id="f", **fields)
        with pytest.raises(FileIdTaken) as caught:
            await state.create_upload(second, claim=claims)
        assert caught.value.members == {"upload": first.id, "state": life}
        assert await everything(state, second.id) == (None, [], [], [])
        assert not await is_held(state, second.id)

    assert await everything(state, first.id) == known
    assert await state.find_active("f") == first


@pytest.mark.parametrize("life", [one for one in LIVES if one not in ACTIVE])
async def test_a_file_may_be_uploaded_again_once_no_upload_of_it_is_active(
    state: StateStore, clock: FakeClock, life: UploadState
) -> None:
    first = await create(state, clock, file_id="f")
    await walk(state, clock, first, *LIVES[life])
    assert await state.find_active("f") is None

    second = await create(state, clock, file_id="f", **DIRECT)

    assert await state.find_active("f") == second
    with pytest.raises(FileIdTaken) as caught:
        await create(state, clock, file_id="f")
    assert caught.value.members["upload"] == second.id


async def test_uploads_of_other_files_or_of_none_do_not_matter(
    state: StateStore, clock: FakeClock
) -> None:
    uploads = [await create(state, clock, file_id=one) for one in (None, None, "a", "b", "", "A")]

    assert await state.find_active("a") == uploads[2]
    assert await state.find_active("") == uploads[4]
    assert await state.find_active("c") is None


@pytest.mark.parametrize("rounds", range(3))
async def test_of_creations_of_one_file_at_once_exactly_one_succeeds(
    state: StateStore, clock: FakeClock, rounds: int
) -> None:
    uploads = [make_upload(clock, file_id="f", **(DIRECT if n % 2 else {})) for n in range(8)]

    outcomes = await asyncio.gather(
        *(state.create_upload(one, claim=False) for one in uploads), return_exceptions=True
    )

    [first] = [one for one, said in zip(uploads, outcomes, strict=True) if said is None]
    refusals = [said for said in outcomes if said is not None]
    assert all(isinstance(one, FileIdTaken) for one in refusals)
    assert {one.members["upload"] for one in refusals if isinstance(one, FileIdTaken)} == {first.id}
    assert await state.list_uploads(None, 10) == [first]


@shared
async def test_of_creations_of_one_file_by_two_processes_exactly_one_succeeds(
    state: StateStore, other_state: StateStore, clock: FakeClock
) -> None:
    for turn in range(5):
        uploads = [make_upload(clock, file_id=f"f{turn}", **DIRECT) for _ in range(8)]

        outcomes = await asyncio.gather(
            *(
                (state, other_state)[n % 2].create_upload(one, claim=False)
                for n, one in enumerate(uploads)
            ),
            return_exceptions=True,
        )

        [first] = [one for one, said in zip(uploads, outcomes, strict=True) if said is None]
        assert sum(isinstance(said, FileIdTaken) for said in outcomes) == 7
        assert await other_state.find_active(f"f{turn}") == first


# --- one upload for each Idempotency-Key


@pytest.mark.parametrize("life", LIVES)
async def test_a_key_is_taken_whatever_became_of_the_upload(
    state: StateStore, clock: FakeClock, life: UploadState
) -> None:
    first = await create(state, clock, request_key="k")
    first = await walk(state, clock, first, *LIVES[life])

    for fields in ({}, DIRECT):
        second = make_upload(clock, request_key="k", **fields)
        with pytest.raises(RequestKeyTaken) as caught:
            await state.create_upload(second, claim=False)
        assert caught.value.members == {"upload": first.id}
        assert await everything(state, second.id) == (None, [], [], [])

    assert await state.find_requested("k") == first
    assert await state.find_requested("K") is None


async def test_a_repeated_request_is_told_from_a_second_one_of_its_file(
    state: StateStore, clock: FakeClock
) -> None:
    first = await create(state, clock, file_id="f", request_key="k")
    other = await create(state, clock, file_id="g")

    for file_id in ("f", "g", None):
        with pytest.raises(RequestKeyTaken) as caught:
            await create(state, clock, file_id=file_id, request_key="k")
        assert caught.value.members == {"upload": first.id}
    with pytest.raises(FileIdTaken) as taken:
        await create(state, clock, file_id="g", request_key="another")
    assert taken.value.members["upload"] == other.id


async def test_of_creations_with_one_key_at_once_exactly_one_succeeds(
    state: StateStore, clock: FakeClock
) -> None:
    uploads = [make_upload(clock, request_key="k", file_id="f", **DIRECT) for _ in range(6)]

    outcomes = await asyncio.gather(
        *(state.create_upload(one, claim=True) for one in uploads), return_exceptions=True
    )

    [first] = [
        one
        for one, said in zip(uploads, outcomes, strict=True)
        if not isinstance(said, BaseException)
    ]
    refusals = [said for said in outcomes if isinstance(said, RequestKeyTaken)]
    assert [one.members["upload"] for one in refusals] == [first.id] * 5
    assert await state.list_uploads(None, 10) == [first]


# --- lookups


async def test_uploads_of_a_file_are_listed_newest_first_in_pages(
    state: StateStore, clock: FakeClock
) -> None:
    ids = []
    for number in range(7):
        upload = await create(state, clock, file_id="f", **(DIRECT if number % 2 else {}))
        ids.append((await walk(state, clock, upload, S.CANCELED)).id)
        await create(state, clock, file_id=f"g{number}")
    ids.append((await create(state, clock, file_id="f")).id)

    for limit in (1, 3, 8, 100):
        assert await pages(state, "f", limit) == ids[::-1]
    assert await pages(state, "h", 3) == []


async def test_uploads_that_complete_by_themselves_are_found_until_they_do(
    state: StateStore, clock: FakeClock
) -> None:
    uploads = [await create(state, clock, auto_complete=True, **DIRECT) for _ in range(5)]
    await create(state, clock, **DIRECT)
    await create(state, clock, auto_complete=True)  # of a tus client
    uploads[1] = await walk(state, clock, uploads[1], S.RECEIVING)
    await walk(state, clock, uploads[2], S.CANCELED)
    expected = [one.id for one in uploads if one is not uploads[2]]

    found: list[UploadId] = []
    page = await state.find_auto_complete(3)
    while page:
        assert len(page) <= 3
        found += [upload.id for upload in page]
        page = await state.find_auto_complete(3, after=page[-1].id)

    assert found == expected
    assert (await state.find_auto_complete(1))[0] == uploads[0]


async def test_histories_of_many_are_those_of_each(state: StateStore, clock: FakeClock) -> None:
    uploads = [await create(state, clock) for _ in range(4)]
    await walk(state, clock, uploads[1], S.RECEIVING, S.CANCELED)
    await walk(state, clock, uploads[2], S.COMPLETED)
    ids = [one.id for one in uploads]

    found = await state.histories([ids[2], NOBODY, ids[0], ids[1]])

    assert found == {one: await state.history(one) for one in ids[:3]}
    assert [change.state for change in found[ids[1]]] == [S.CANCELED, S.RECEIVING, S.INITIATED]
    assert await state.histories([]) == {}


# --- what lasts


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_any_text_of_the_application_survives(
    state_backend: StateBackend, state: StateStore, clock: FakeClock, text: str
) -> None:
    job = Job("ü", {"text": text, text: [text, None, 1, 2.5, True, {"a": {text: []}}]})
    upload = await create(
        state,
        clock,
        file_id=text,
        request_key=f"key {text}",
        instructions=Instructions(success_job=job, failure_job=Job(text), request_digest="d"),
    )
    await create(state, clock, file_id=f"{text}.")

    await state_backend.close()
    again = await state_backend.open()

    assert await again.find_upload(upload.id) == upload
    assert await again.find_active(text) == upload
    assert await again.find_by_file_id(text, 10) == [upload]
    assert await again.find_requested(f"key {text}") == upload
    with pytest.raises(FileIdTaken):
        await create(again, clock, file_id=text)
    with pytest.raises(RequestKeyTaken):
        await create(again, clock, request_key=f"key {text}")
    ended = await walk(again, clock, upload, S.CANCELED)
    assert ended.instructions == upload.instructions
    [event] = await again.pending_events(10)
    assert event.job == Job(text)


INSTRUCTIONS = [
    Instructions(),
    Instructions(success_job=Job("a")),
    Instructions(failure_job=Job("b", {"n": 1})),
    Instructions(require_acceptance=True),
    Instructions(request_digest="d" * 64),
    Instructions(by_application=True),
    Instructions(Job("a", {"x": {}}), Job("b"), True, "d", True),
]


@pytest.mark.parametrize("instructions", INSTRUCTIONS, ids=range(len(INSTRUCTIONS)))
async def test_every_new_field_survives(
    state_backend: StateBackend,
    state: StateStore,
    clock: FakeClock,
    instructions: Instructions,
) -> None:
    fields = DIRECT | {"crc64": None, "auto_complete": True, "instructions": instructions}
    upload = await create(state, clock, file_id="f", request_key="k", **fields)
    decided = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    other: Upload = await create(
        state, clock, state=S.CANCELED, completed_at=decided, content_type="text/x-é"
    )

    await state_backend.close()
    again = await state_backend.open()

    assert await row(again, upload) == upload
    assert await row(again, other) == other
