"""The Broker over its engine: whole journeys, what is refused, and what a crash came between."""

import asyncio
import random
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.integration.brokers import BASE_URL, BrokerWorld, refused, states
from tests.integration.brokers import world as world
from tests.integration.conftest import soon
from tests.support.fake_direct import PutRefused
from tests.support.fakes import PAUSE, FakeBody, Hold
from tus_server.broker import Job, Query, Reported, UploadView
from tus_server.core.checksums import crc64
from tus_server.core.errors import (
    FileIdTaken,
    IllegalStep,
    MalformedRequest,
    NoDirectUpload,
    PartBusy,
    PartsDiffer,
    RequestKeyReused,
    StateUnavailable,
    StoreUnavailable,
    UnknownPart,
    UploadGone,
    UploadNotFound,
    UploadTooLarge,
)
from tus_server.core.ids import UploadId
from tus_server.core.jobs import Outcome
from tus_server.core.states import TRANSITIONS, UNFINISHED, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.direct.complete import LOOKS
from tus_server.engine.direct.look import look
from tus_server.engine.direct.waiting import CONCURRENCY, auto_complete
from tus_server.engine.finish import finish_now
from tus_server.ports import OpenStream, Verdict

S = UploadState
WHOLE = bytes(range(40, 66))  # six parts of 4 bytes, and one of 2
JOB = Job("https://app.test/done", {"n": 1})
WAYS = ["initiated", "receiving", "completed", "verified"]


# --- journeys


async def test_parts_in_any_order_some_twice_become_an_upload_that_is_told_of_once(
    world: BrokerWorld,
) -> None:
    view = await world.broker.initiate_multipart_session(
        size=len(WHOLE), filename="a.bin", success_job=JOB
    )
    numbers = [*range(1, 8), 3, 5]
    random.shuffle(numbers)

    async def send(number: int) -> Reported | None:
        try:
            return await world.send(view.id, number, WHOLE[(number - 1) * 4 : number * 4])
        except PartBusy:  # of two senders of one part the later wins
            return None

    sent = await asyncio.gather(*(send(number) for number in numbers))
    reported = {one.number: one for one in sent if one is not None}
    completed = await soon(
        world.broker.complete_multipart_upload(view.id, list(reported.values()), wait_s=20)
    )

    assert states(completed) == WAYS
    assert await world.content(await world.find(view.id)) == WHOLE
    assert await world.events(await world.find(view.id)) == [S.VERIFIED]
    (event,) = await world.real_state.pending_events(10)
    assert (event.outcome, event.job) == (Outcome.SUCCESS, JOB)
    assert completed.completed_at is not None


async def test_one_put_is_a_whole_upload(world: BrokerWorld) -> None:
    view = await world.broker.initiate_session(size=3, filename="a")
    assert view.put is not None
    reported = await world.send(view.id, 1, b"abc")

    verified = await soon(world.broker.verify_completion(view.id))

    assert (verified.status.current.state, verified.progress) == (S.VERIFIED, "complete")
    assert verified.object is not None
    assert verified.object.url == f"{BASE_URL}{view.id}"
    assert verified.checksum is not None
    assert verified.checksum.value == b64encode(crc64(b"abc").to_bytes(8, "big")).decode()
    again = await soon(world.broker.complete_multipart_upload(view.id, [reported]))
    assert again == verified


async def test_a_session_is_sent_by_tus(world: BrokerWorld) -> None:
    view = await world.broker.initiate_resumable_session(size=3)
    assert view.tus is not None
    assert view.tus.url == f"{BASE_URL}{view.id}"
    await world.append(await world.find(view.id), b"ab")

    begun = await world.broker.resumable_session_status(view.id)
    await world.append(await world.find(view.id), b"c")
    ended = await world.broker.resumable_session_status(view.id)

    assert (begun.committed_bytes, begun.progress) == (2, "in_progress")
    assert (ended.committed_bytes, ended.progress) == (3, "complete")
    assert (await world.broker.find(view.id)).kind == "tus"


async def test_an_empty_upload_has_one_empty_part(world: BrokerWorld) -> None:
    view = await world.broker.initiate_multipart_session(size=0)
    reported = await world.send_all(view.id, b"")

    completed = await soon(world.broker.complete_multipart_upload(view.id, reported, wait_s=20))

    assert (len(reported), completed.status.current.state) == (1, S.VERIFIED)


async def test_a_client_that_starts_again_learns_what_is_missing(world: BrokerWorld) -> None:
    view = await world.broker.initiate_multipart_session(size=len(WHOLE))
    for number in (1, 4):
        await world.send(view.id, number, WHOLE[(number - 1) * 4 : number * 4])

    await world.restart()
    found = await soon(world.broker.find_parts(view.id))
    missing = await soon(world.broker.sign_parts(view.id))

    assert [part.number for part in found.parts if part.etag] == [1, 4]
    assert found.upload.committed_bytes == 8
    assert [one.part_number for one in missing] == [2, 3, 5, 6, 7]


async def test_an_upload_that_completes_by_itself_does_so_at_a_look(world: BrokerWorld) -> None:
    view = await world.broker.initiate_multipart_session(size=6, auto_complete=True)
    await world.send_all(view.id, b"abcdef")

    await soon(world.broker.find_parts(view.id))
    await world.settle()

    assert (await world.find(view.id)).state is S.VERIFIED


async def test_an_upload_that_completes_by_itself_is_looked_at_now_and_then(
    world: BrokerWorld,
) -> None:
    view = await world.broker.initiate_multipart_session(size=6, auto_complete=True)
    other = await world.broker.initiate_multipart_session(size=6, auto_complete=True)
    await world.send_all(view.id, b"abcdef")
    await world.send(other.id, 1, b"abcd")

    await soon(auto_complete(world.engine))
    await world.settle()

    assert (await world.find(view.id)).state is S.VERIFIED
    assert (await world.find(other.id)).state in UNFINISHED


async def test_a_check_that_hangs_keeps_no_other_from_completing_by_itself(
    world: BrokerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tus_server.engine.direct.waiting.PATIENCE_S", 0.01)
    answered = asyncio.Event()

    async def check(upload: Upload, open_stream: OpenStream) -> Verdict:
        if upload.length == 5:
            await answered.wait()
        return Verdict()

    world.engine.verifiers = (check,)
    begin = partial(world.broker.initiate_multipart_session, auto_complete=True)
    hanging = [await begin(size=5) for _ in range(CONCURRENCY + 1)]
    fine = await begin(size=6)
    for view in hanging:
        await world.send_all(view.id, b"hang!")
    await world.send_all(fine.id, b"abcdef")

    await soon(auto_complete(world.engine))

    assert (await world.find(fine.id)).state is S.VERIFIED
    assert {(await world.find(one.id)).state for one in hanging} == {S.COMPLETED}
    answered.set()
    await world.settle()
    assert {(await world.find(one.id)).state for one in hanging} == {S.VERIFIED}


# --- what is refused


async def test_a_part_that_has_not_arrived_is_named_and_nothing_is_changed(
    world: BrokerWorld,
) -> None:
    view = await world.broker.initiate_multipart_session(size=6)
    await world.send(view.id, 2, b"ef")

    with pytest.raises(PartsDiffer) as caught:
        await soon(world.broker.complete_multipart_upload(view.id))

    assert caught.value.members == {"part": 1}
    assert (await world.find(view.id)).state in UNFINISHED
    await world.send(view.id, 1, b"abcd")
    await soon(world.broker.complete_multipart_upload(view.id))


async def test_parts_are_compared_with_what_is_reported(world: BrokerWorld) -> None:
    view = await world.broker.initiate_multipart_session(size=6)
    first, second = await world.send_all(view.id, b"abcdef")

    for report, part in (
        ([first, replace(second, etag='"other"')], 2),
        ([first], 2),
        ([], 1),
    ):
        with pytest.raises(PartsDiffer) as caught:
            await soon(world.broker.complete_multipart_upload(view.id, report))
        assert caught.value.members == {"part": part}
    with pytest.raises(UnknownPart):
        await soon(world.broker.complete_multipart_upload(view.id, [first, second, Reported(3)]))
    with pytest.raises(MalformedRequest, match="twice"):
        await soon(world.broker.complete_multipart_upload(view.id, [first, second, first]))

    assert (await world.find(view.id)).state in UNFINISHED
    # Quotes around an ETag mean nothing.
    bare = [Reported(one.number, (one.etag or "").strip('"')) for one in (first, second)]
    assert (await soon(world.broker.complete_multipart_upload(view.id, bare))).id == view.id


async def test_checksums_that_clients_report_have_to_be_those_of_the_object(
    world: BrokerWorld,
) -> None:
    view = await world.broker.initiate_multipart_session(size=6)
    reported = await world.send_all(view.id, b"abcdef")
    told = [replace(reported[0], crc64=crc64(b"abcd")), replace(reported[1], crc64=crc64(b"xx"))]

    outcome = await refused(world.broker.complete_multipart_upload(view.id, told, wait_s=20))
    await world.settle()

    # Known at once where this server has received the part, else from the object.
    row = await world.find(view.id)
    if outcome is None:
        assert (row.state, row.error_code) == (S.ERROR, "digest_mismatch")
    else:
        assert (outcome, row.state in UNFINISHED) == ("parts_differ", True)


async def test_only_direct_uploads_take_signed_requests(world: BrokerWorld) -> None:
    view = await world.broker.initiate_resumable_session(size=3)

    for call in (
        world.broker.sign_url(view.id),
        world.broker.sign_parts(view.id),
        world.broker.find_parts(view.id),
        world.broker.complete_multipart_upload(view.id),
    ):
        with pytest.raises(NoDirectUpload):
            await soon(call)


async def test_a_multipart_upload_is_not_signed_as_one(world: BrokerWorld) -> None:
    view = await world.broker.initiate_multipart_session(size=3)

    with pytest.raises(NoDirectUpload):
        await soon(world.broker.sign_url(view.id))


@pytest.mark.parametrize("upload_id", ["", "x", "0" * 32, "../x", "\0"])
async def test_what_is_no_id_is_no_upload(world: BrokerWorld, upload_id: str) -> None:
    for call in (
        world.broker.find(upload_id),
        world.broker.sign_url(upload_id),
        world.broker.complete_multipart_upload(upload_id),
        world.broker.accept(upload_id),
        world.broker.cancel_resumable_session(upload_id),
        world.broker.watch(upload_id),
    ):
        with pytest.raises(UploadNotFound):
            await soon(call)


async def test_of_a_file_id_one_upload_is_active(world: BrokerWorld) -> None:
    first = await world.broker.initiate_multipart_session(size=3, file_id="f")

    with pytest.raises(FileIdTaken) as caught:
        await world.broker.initiate_resumable_session(size=3, file_id="f")
    await world.broker.cancel_resumable_session(first.id)
    second = await world.broker.initiate_session(size=3, file_id="f")

    assert caught.value.members == {"upload": first.id, "state": "initiated"}
    found = await world.broker.list(Query(file_id="f"))
    assert [view.id for view in found] == [second.id, first.id]


async def test_the_same_request_under_its_key_gives_the_same_upload(world: BrokerWorld) -> None:
    views = await asyncio.gather(
        *(world.broker.initiate_multipart_session(size=3, idempotency_key="k") for _ in range(4))
    )

    assert len({view.id for view in views}) == 1
    with pytest.raises(RequestKeyReused):
        await world.broker.initiate_multipart_session(size=4, idempotency_key="k")


async def test_a_direct_upload_has_a_size_that_the_server_takes(world: BrokerWorld) -> None:
    world.engine.max_size = 100

    with pytest.raises(UploadTooLarge):
        await world.broker.initiate_multipart_session(size=101)
    with pytest.raises(MalformedRequest, match="size"):
        await world.broker.initiate("single", size=None)
    assert await world.real_state.list_uploads(None, 10) == []


async def test_when_its_time_is_over_nothing_more_is_taken(world: BrokerWorld) -> None:
    view = await world.broker.initiate_session(size=3, expires_in_s=60)
    await world.send(view.id, 1, b"abc")
    world.clock.advance(61)

    for call in (
        world.broker.sign_url(view.id),
        world.broker.complete_multipart_upload(view.id),
    ):
        with pytest.raises(UploadGone):
            await soon(call)
    assert (await world.broker.find(view.id)).progress == "expired"


async def test_a_cursor_behind_an_upload_that_is_no_more_is_refused(world: BrokerWorld) -> None:
    with pytest.raises(MalformedRequest):
        await world.broker.list(Query(before=UploadId("0" * 32)))


# --- the life cycle

VERBS = ("sign", "complete", "accept", "reject", "delete")
# What a verb does in a state: the state after it, or the code of its refusal.
TABLE = {
    S.INITIATED: ("initiated", "parts_differ", "illegal_step", "illegal_step", "canceled"),
    S.RECEIVING: ("receiving", "verified", "illegal_step", "illegal_step", "canceled"),
    S.COMPLETED: ("illegal_step", "verified", "illegal_step", "illegal_step", "canceled"),
    S.VERIFIED: ("illegal_step", "verified", "accepted", "rejected", "deleted"),
    S.ACCEPTED: ("illegal_step", "accepted", "accepted", "illegal_step", "deleted"),
    S.REJECTED: ("illegal_step", "rejected", "illegal_step", "rejected", "deleted"),
    S.DELETED: ("illegal_step", "deleted", "illegal_step", "illegal_step", "deleted"),
    S.ERROR: ("illegal_step", "illegal_step", "illegal_step", "illegal_step", "error"),
    S.CANCELED: ("illegal_step", "illegal_step", "illegal_step", "illegal_step", "canceled"),
    S.EXPIRED: ("illegal_step", "illegal_step", "illegal_step", "illegal_step", "expired"),
}


def test_the_table_is_that_of_the_life_cycle() -> None:
    ways = {"accept": {S.ACCEPTED}, "reject": {S.REJECTED}, "delete": {S.CANCELED, S.DELETED}}
    for state, results in TABLE.items():
        for verb, result in zip(VERBS, results, strict=True):
            if verb in ways:
                leads = ways[verb] & TRANSITIONS[state]
                assert (result in leads) == bool(leads), (verb, state)


@pytest.mark.parametrize("state", list(S))
async def test_every_verb_in_every_state_does_what_the_table_says(
    world: BrokerWorld, state: UploadState
) -> None:
    for verb, expected in zip(VERBS, TABLE[state], strict=True):
        upload_id = await world.reach(state)
        before = await world.find(upload_id)
        history = await world.real_state.history(before.id)
        call = {
            "sign": lambda one: world.broker.sign_parts(one),
            "complete": lambda one: world.broker.complete_multipart_upload(one),
            "accept": lambda one: world.broker.accept(one),
            "reject": lambda one: world.broker.reject(one),
            "delete": lambda one: world.broker.cancel_resumable_session(one),
        }[verb]

        for _ in range(2):  # a call that is repeated gives the same answer
            code = await refused(call(upload_id))
            await world.settle()
            after = await world.find(upload_id)
            assert (code or after.state) == expected, (verb, state)
            if code is not None and code != "parts_differ":
                assert (after, await world.real_state.history(after.id)) == (before, history)


async def test_a_verdict_that_took_effect_can_be_repeated_after_the_deletion(
    world: BrokerWorld,
) -> None:
    upload_id = await world.reach(S.ACCEPTED)
    await world.broker.cancel_resumable_session(upload_id)

    assert (await world.broker.accept(upload_id)).status.current.state is S.DELETED
    with pytest.raises(IllegalStep):
        await world.broker.reject(upload_id)


async def test_a_completion_that_took_effect_can_be_repeated_after_its_failure(
    world: BrokerWorld,
) -> None:
    view = await world.broker.initiate_session(size=3, checksum=("md5", bytes(16)))
    await world.send(view.id, 1, b"abc")

    first = await soon(world.broker.complete_multipart_upload(view.id, wait_s=20))
    again = await soon(world.broker.complete_multipart_upload(view.id))

    assert (first.status.current.state, first.progress) == (S.ERROR, "expired")
    assert first.error is not None
    assert first.error.code == "digest_mismatch"
    assert again == first


async def test_a_verdict_decides_where_acceptance_is_required(world: BrokerWorld) -> None:
    failed = Job("https://app.test/failed")
    uploads = []
    for _ in range(2):
        view = await world.broker.initiate_session(
            size=3, require_acceptance=True, success_job=JOB, failure_job=failed
        )
        await world.send(view.id, 1, b"abc")
        verified = await soon(world.broker.verify_completion(view.id))
        assert verified.completed_at is None
        uploads.append(view.id)

    accepted = await world.broker.accept(uploads[0], note="fine")
    rejected = await world.broker.reject(uploads[1])

    assert accepted.status.current.note == "fine"
    assert accepted.completed_at is not None
    assert rejected.completed_at is not None
    jobs = [(event.kind, event.job) for event in await world.real_state.pending_events(9)]
    assert [job for kind, job in jobs if kind is S.VERIFIED] == [None, None]
    assert [job for kind, job in jobs if kind is not S.VERIFIED] == [JOB, failed]


async def test_cancelling_while_completing_ends_it_once(world: BrokerWorld) -> None:
    view = await world.broker.initiate_multipart_session(size=6)
    await world.send_all(view.id, b"abcdef")
    hold = world.objects.hold("complete")
    await soon(world.broker.complete_multipart_upload(view.id))
    await soon(hold.reached.wait())

    cancelling = asyncio.ensure_future(world.broker.cancel_resumable_session(view.id))
    hold.let_go()
    ended = await soon(cancelling)
    await world.settle()

    # The finish has the lease: it is over before, and what is finished is deleted.
    assert ended.status.current.state is S.DELETED
    assert states(ended) == [*WAYS, "deleted"]


# --- faults


async def test_a_store_that_is_away_changes_nothing(world: BrokerWorld) -> None:
    view = await world.broker.initiate_multipart_session(size=6)
    reported = await world.send_all(view.id, b"abcdef")
    world.objects.fail("complete", StoreUnavailable())

    completed = await soon(world.broker.complete_multipart_upload(view.id, reported))
    await world.settle()
    assert (await world.find(view.id)).state is S.COMPLETED
    await world.recover()

    assert completed.status.current.state is S.COMPLETED
    assert (await world.find(view.id)).state is S.VERIFIED
    assert await world.events(await world.find(view.id)) == [S.VERIFIED]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["commit", "find_parts", "history", "find_upload"])
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_wherever_the_state_fails_a_completion_can_be_repeated(
    world: BrokerWorld, method: str, nth: int, after: bool
) -> None:
    view = await world.broker.initiate_multipart_session(size=6, success_job=JOB)
    reported = await world.send_all(view.id, b"abcdef")
    world.state.fail(method, StateUnavailable(), nth=nth, after=after)

    await refused(world.broker.complete_multipart_upload(view.id, reported))
    await world.settle()
    world.state.heal()
    await world.restart()
    await refused(world.broker.complete_multipart_upload(view.id, reported, wait_s=20))
    await world.settle()

    row = await world.find(view.id)
    assert row.state is S.VERIFIED
    assert await world.content(row) == b"abcdef"
    assert await world.events(row) == [S.VERIFIED]
    assert await world.steps(row) == [S.INITIATED, S.RECEIVING, S.COMPLETED, S.VERIFIED]


async def test_a_part_that_was_not_kept_is_found_out_at_complete(tmp_path: Path) -> None:
    async with BrokerWorld() as world:
        view = await world.broker.initiate_multipart_session(size=6)
        reported = await world.send_all(view.id, b"abcdef")
        assert world.fake_direct is not None
        world.fake_direct.lose(await world.find(view.id), 2)

        with pytest.raises(PartsDiffer) as caught:
            await soon(world.broker.complete_multipart_upload(view.id, reported))

        assert caught.value.members == {"part": 2}


async def move(world: BrokerWorld, upload_id: str, number: int) -> None:
    """Write down another part than there is, as a node whose look is older may do."""
    row = await world.find(upload_id)
    part = (await world.real_state.find_parts(row.id))[number - 1]
    stale = replace(part, etag=f'"of generation {row.generation}"')
    assert await world.real_state.record_parts(row.id, [stale], expires_at=row.expires_at)


async def complete_held(world: BrokerWorld) -> tuple[UploadView, Hold, asyncio.Future[UploadView]]:
    """Let a completion stand still between its look and its commit."""
    view = await world.broker.initiate_multipart_session(size=6)
    reported = await world.send_all(view.id, b"abcdef")
    claiming = world.state.hold("claim_upload")
    completing = asyncio.ensure_future(world.broker.complete_multipart_upload(view.id, reported))
    await soon(claiming.reached.wait())
    return view, claiming, completing


async def test_what_moves_between_look_and_commit_is_looked_at_again() -> None:
    async with BrokerWorld() as world:
        view, claiming, completing = await complete_held(world)
        await move(world, view.id, 2)

        claiming.let_go()

        await soon(completing)
        await world.settle()
        row = await world.find(view.id)
        assert row.state is S.VERIFIED
        assert await world.content(row) == b"abcdef"


async def test_a_part_replaced_between_look_and_commit_is_not_what_was_reported() -> None:
    async with BrokerWorld() as world:
        view, claiming, completing = await complete_held(world)
        await world.send(view.id, 2, b"XX")
        await move(world, view.id, 2)

        claiming.let_go()

        with pytest.raises(PartsDiffer) as caught:
            await soon(completing)
        assert caught.value.members == {"part": 2}


async def test_of_an_upload_that_another_node_has_completed_no_part_is_missed() -> None:
    async with BrokerWorld() as world:
        view = await world.broker.initiate_multipart_session(size=6)
        reported = await world.send_all(view.id, b"abcdef")
        row = await world.find(view.id)
        holds = [world.direct.hold("find_stored", nth=nth) for nth in (1, 2)]
        looking = asyncio.ensure_future(look(world.engine, row))
        completing = asyncio.ensure_future(
            world.broker.complete_multipart_upload(view.id, reported)
        )
        for hold in holds:
            await soon(hold.reached.wait())

        await complete_elsewhere(world, row)
        for hold in holds:
            hold.let_go()

        assert (await soon(looking)).missing == []
        await soon(completing)
        assert (await world.find(view.id)).state is S.VERIFIED


async def complete_elsewhere(world: BrokerWorld, row: Upload) -> None:
    """Complete and verify an upload as another node would, knowing nothing of what goes on here."""
    assert world.fake_direct is not None
    found = await world.fake_direct.find_stored(row)
    planned = await world.real_state.find_parts(row.id)
    parts = [replace(part, etag=found[part.number].etag) for part in planned]
    seen = await world.real_state.record_parts(row.id, parts, expires_at=row.expires_at)
    assert seen is not None
    lease, seen = await world.engine.leases.acquire(row.id, lambda: None)
    after = replace(seen, crc64=None).stepped(S.COMPLETED, on=world.clock.now())
    await world.real_state.commit(lease, seen, after, steps=(S.COMPLETED,), release=True)
    await world.engine.leases.release(lease)
    await soon(finish_now(world.engine, row.id))


async def test_what_never_stands_still_is_not_completed() -> None:
    async with BrokerWorld() as world:
        view = await world.broker.initiate_multipart_session(size=6)
        await world.send_all(view.id, b"abcdef")
        holds = [world.state.hold("claim_upload", nth=nth) for nth in range(1, LOOKS + 1)]
        completing = asyncio.ensure_future(world.broker.complete_multipart_upload(view.id))
        for hold in holds:
            await soon(hold.reached.wait())
            await move(world, view.id, 2)
            hold.let_go()

        with pytest.raises(PartsDiffer, match="while the upload was being completed"):
            await soon(completing)
        assert (await world.find(view.id)).state in UNFINISHED


async def test_a_part_that_is_sent_behind_the_completion_does_not_count() -> None:
    async with BrokerWorld() as world:
        view = await world.broker.initiate_multipart_session(size=6)
        signed = {one.part_number: one.url for one in await world.broker.sign_parts(view.id)}
        await world.send_all(view.id, b"abcdef")
        hold = world.objects.hold("complete")
        await soon(world.broker.complete_multipart_upload(view.id))
        await soon(hold.reached.wait())
        assert world.fake_direct is not None
        await world.fake_direct.put(signed[2], b"XX")

        hold.let_go()
        await world.settle()

        # What was compared is not there any more: an end that says so, and no other bytes.
        row = await world.find(view.id)
        assert (row.state, row.error_code) == (S.ERROR, "parts_differ")
        await world.recover()
        with pytest.raises(PutRefused):
            await world.fake_direct.put(signed[2], b"ef")


async def test_a_part_of_another_size_has_not_arrived() -> None:
    async with BrokerWorld() as world:
        view = await world.broker.initiate_multipart_session(size=6)
        await world.send(view.id, 1, b"abcd")
        await world.broker.sign_parts(view.id, [2])
        assert world.fake_direct is not None
        world.fake_direct.store(await world.find(view.id), 2, b"e")

        with pytest.raises(PartsDiffer, match="1 bytes, not 2"):
            await soon(world.broker.complete_multipart_upload(view.id))


async def test_what_a_begin_left_whose_commit_failed_is_removed() -> None:
    async with BrokerWorld() as world:
        view = await world.broker.initiate_multipart_session(size=6)
        world.state.fail("commit", StateUnavailable())

        assert await refused(world.broker.sign_parts(view.id)) == "state_unavailable"
        assert len(world.stores.disk[UploadId(view.id)].multiparts) == 1
        await world.restart()

        assert not world.has_bytes(await world.find(view.id))
        assert len(await soon(world.broker.sign_parts(view.id))) == 2


async def test_where_the_store_is_away_a_single_upload_is_begun_and_signed_later() -> None:
    async with BrokerWorld() as world:
        world.direct.fail("begin", StoreUnavailable())

        view = await world.broker.initiate_session(size=3)

        assert view.put is None
        assert (await soon(world.broker.sign_url(view.id))).part_number == 1


async def test_signing_and_looking_keep_a_direct_upload_from_expiring() -> None:
    from tus_server.core.expiry import Expiry

    async with BrokerWorld(expiry=Expiry(after_s=60)) as world:
        view = await world.broker.initiate_multipart_session(size=6)
        for number, content in ((1, b"abcd"), (2, b"ef")):
            world.clock.advance(50)
            await world.send(view.id, number, content)
            await world.broker.find_parts(view.id)

        row = await world.find(view.id)
        assert row.expires_at is not None
        assert row.expires_at - world.clock.now() > timedelta(seconds=50)


async def test_a_body_that_stops_is_no_part(world: BrokerWorld) -> None:
    # Of either kind of store: what was not stored whole is not there.
    view = await world.broker.initiate_resumable_session(size=3)
    await world.append(await world.find(view.id), body=FakeBody(b"a", PAUSE, b"b"))

    assert (await world.broker.resumable_session_status(view.id)).committed_bytes == 2
