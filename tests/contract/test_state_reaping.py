"""The contract of ports.StateStore, sentence by sentence: what has had its time, and duties."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.contract.conftest import SHARED_STATES, StateBackend
from tests.support.fakes import FakeClock, FakeState, make_upload
from tests.support.state import claim, create, row, walk
from tus_server.core.errors import LeaseLost
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Tail, Upload
from tus_server.ports import Node, NodeSeen, StateStore

S = UploadState
FINISH = (S.COMPLETED, S.VERIFIED)
shared = pytest.mark.parametrize("state_backend", SHARED_STATES, indirect=True)


class Rows:
    """Makes rows whose times lie before now, as the store sees it, and looks for them."""

    def __init__(self, backend: StateBackend, state: StateStore, clock: FakeClock) -> None:
        self.backend, self.state, self.clock = backend, state, clock

    async def new(self, *steps: UploadState, due_s: float | None = None, **fields: Any) -> Upload:
        """Create an upload that expired `due_s` seconds ago, and take it through `steps`."""
        if due_s is not None:
            fields["expires_at"] = self.backend.now() - timedelta(seconds=due_s)
        return await walk(
            self.state, self.clock, await create(self.state, self.clock, **fields), *steps
        )

    async def final(self, *partials: Upload) -> Upload:
        upload = make_upload(self.clock, concat="final;...")
        await self.state.create_upload(upload, claim=False, partials=[one.id for one in partials])
        return upload

    async def aged(self, *steps: UploadState, ago_s: float, **fields: Any) -> Upload:
        """Create an upload that came to the last of `steps` some seconds ago, freed if terminal."""
        upload = await create(self.state, self.clock, **fields)
        lease = await claim(self.state, upload)
        at = self.backend.now() - timedelta(seconds=ago_s)
        after = upload.stepped(*steps, on=at)
        if S.COMPLETED in steps:
            after = replace(after, length=after.committed_bytes)
        await self.state.commit(lease, upload, after, steps=steps, release=True)
        return after

    async def free(self, upload: Upload, *, unclean: bool = False) -> Upload:
        lease = await claim(self.state, upload)
        after = replace(upload, freed_at=self.backend.now(), unclean=unclean)
        await self.state.commit(lease, upload, after, release=True)
        return after

    async def ended(self, *, ago_s: float, **fields: Any) -> Upload:
        """Create an upload that was canceled some seconds ago, and freed."""
        return await self.free(await self.aged(S.CANCELED, ago_s=ago_s, **fields))


@pytest.fixture
def rows(state_backend: StateBackend, state: StateStore, clock: FakeClock) -> Rows:
    return Rows(state_backend, state, clock)


# --- expired


async def test_unfinished_uploads_expire_and_nothing_else_does(
    state: StateStore, rows: Rows
) -> None:
    new, receiving = await rows.new(due_s=20), await rows.new(S.RECEIVING, due_s=10)
    for steps in ((S.COMPLETED,), (S.CANCELED,), (S.ERROR,), (S.EXPIRED,)):
        await rows.new(*steps, due_s=10)
    await rows.new(*FINISH, due_s=10)
    await rows.new(*FINISH, S.ACCEPTED, due_s=10)
    await rows.new(due_s=-60)
    await rows.new()

    assert await state.find_expired(10) == [new, receiving]


async def test_verified_partial_uploads_expire_unless_a_final_one_still_needs_them(
    state: StateStore, rows: Rows
) -> None:
    unused, used, needed, unfinished = [
        await rows.new(*steps, due_s=10 - n, concat="partial")
        for n, steps in enumerate((FINISH, FINISH, FINISH, ()))
    ]
    done = await rows.final(used, used)
    waiting = await rows.final(used, needed, unfinished)
    assert await state.find_expired(10) == [unused, unfinished]

    await walk(state, rows.clock, done, *FINISH)
    assert await state.find_expired(10) == [unused, unfinished]
    await walk(state, rows.clock, waiting, S.CANCELED)

    assert await state.find_expired(10) == [unused, used, needed, unfinished]


async def test_what_is_held_expires_too(state: StateStore, rows: Rows) -> None:
    upload = await rows.new(due_s=1)
    await claim(state, upload)

    assert await state.find_expired(10) == [upload]


async def test_one_can_look_ahead(state: StateStore, rows: Rows) -> None:
    past, near = await rows.new(due_s=1), await rows.new(due_s=-50)
    await rows.new(due_s=-1000)

    assert await state.find_expired(10) == [past]
    assert await state.find_expired(10, ahead_s=60) == [past, near]


async def test_expired_uploads_come_in_pages_while_they_are_worked_off(
    state: StateStore, rows: Rows
) -> None:
    uploads = [await rows.new(due_s=due) for due in (3, 9, 5, 9, 7)]
    expected = [uploads[n] for n in (1, 3, 4, 2, 0)]  # the longest overdue first

    first = await state.find_expired(2)
    assert first == expected[:2]
    await walk(state, rows.clock, first[0], S.EXPIRED)
    await walk(state, rows.clock, first[1], S.EXPIRED)
    second = await state.find_expired(2, first[-1].id)  # of which nothing is worked off
    third = await state.find_expired(2, second[-1].id)

    assert second + third == expected[2:]
    assert await state.find_expired(2, third[-1].id) == []
    assert await state.find_expired(10) == expected[2:]


async def test_a_row_without_expiry_never_expires_and_one_may_be_put_off(
    state: StateStore, rows: Rows
) -> None:
    upload = await rows.new(S.RECEIVING, due_s=1)
    lease = await claim(state, upload)
    later = replace(upload, expires_at=rows.backend.now() + timedelta(seconds=100))
    await state.commit(lease, upload, later)
    assert await state.find_expired(10) == []

    await state.commit(lease, later, replace(later, expires_at=None), release=True)

    assert await state.find_expired(10, ahead_s=1e9) == []


# --- kept longer


async def test_what_was_finished_too_long_ago_is_found_but_no_partial(
    state: StateStore, rows: Rows
) -> None:
    kept = [
        await rows.aged(*FINISH, ago_s=90),
        await rows.aged(*FINISH, S.ACCEPTED, ago_s=80),
        await rows.aged(*FINISH, S.REJECTED, ago_s=70),
    ]
    await rows.aged(*FINISH, ago_s=90, concat="partial")
    await rows.aged(*FINISH, ago_s=30)
    await rows.aged(S.CANCELED, ago_s=90)
    await rows.aged(*FINISH, S.DELETED, ago_s=90)
    await rows.aged(S.RECEIVING, ago_s=90)
    await rows.aged(S.COMPLETED, ago_s=90)

    assert await state.find_kept_longer(10, kept_s=60) == kept
    assert await state.find_kept_longer(10, kept_s=100) == []


async def test_what_was_kept_comes_in_pages_while_it_is_deleted(
    state: StateStore, rows: Rows
) -> None:
    uploads = [await rows.aged(*FINISH, ago_s=90 - n % 3) for n in range(7)]
    expected = [uploads[n] for n in (0, 3, 6, 1, 4, 2, 5)]

    found: list[Upload] = []
    page = await state.find_kept_longer(3, kept_s=60)
    while page:
        found += page
        for upload in page[1:]:  # the first one stays
            await walk(state, rows.clock, upload, S.DELETED)
        page = await state.find_kept_longer(3, page[-1].id, kept_s=60)

    assert [one.id for one in found] == [one.id for one in expected]
    assert [one.id for one in await state.find_kept_longer(9, kept_s=60)] == [
        expected[n].id for n in (0, 3, 6)
    ]


# --- purge


async def test_a_purge_removes_all_of_what_ended_long_ago_but_its_events(
    state_backend: StateBackend, state: StateStore, rows: Rows
) -> None:
    upload = await create(state, rows.clock)
    lease = await claim(state, upload)
    after = upload.with_bytes(3, 3).stepped(
        S.RECEIVING, S.CANCELED, on=state_backend.now() - timedelta(seconds=90)
    )
    after = replace(after, freed_at=after.state_on)
    steps = (S.RECEIVING, S.CANCELED)
    parts = [Part(1, 0, 3, 3, None)]
    await state.commit(lease, upload, after, steps=steps, parts=parts, release=True)
    events = await state.pending_events(10)
    await state.find_upload(upload.id)

    assert await state.purge(10, ended_s=60) == 1

    assert await state.find_upload(upload.id) is None
    assert (await state.observe_upload(upload.id)).upload is None
    assert (await state.claim_upload(upload.id)).upload is None
    assert await state.find_parts(upload.id) == []
    assert await state.history(upload.id) == []
    assert await state.list_uploads(None, 10) == []
    assert await state.pending_events(10) == events
    assert len(events) == 1
    await state_backend.close()
    again = await state_backend.open()
    assert await again.find_upload(upload.id) is None


async def test_a_purge_leaves_what_is_not_over(state: StateStore, rows: Rows) -> None:
    kept = [
        await rows.ended(ago_s=30),
        await rows.aged(S.CANCELED, ago_s=90),  # not freed
        await rows.free(await rows.aged(S.CANCELED, ago_s=90), unclean=True),
        await rows.aged(*FINISH, ago_s=90),
        await rows.aged(S.RECEIVING, ago_s=90),
    ]
    held = await rows.ended(ago_s=90)
    lease = await claim(state, held)

    assert await state.purge(10, ended_s=60) == 0
    for upload in (*kept, held):
        assert await row(state, upload) == upload
    await state.release(lease)

    assert await state.purge(10, ended_s=60) == 1


async def test_a_purge_takes_up_to_the_limit_at_a_time(state: StateStore, rows: Rows) -> None:
    for _ in range(5):
        await rows.ended(ago_s=90)

    assert [await state.purge(2, ended_s=60) for _ in range(4)] == [2, 2, 1, 0]


async def test_a_purge_leaves_a_partial_that_an_unfinished_final_consists_of(
    state: StateStore, rows: Rows
) -> None:
    lost = await rows.ended(ago_s=90, concat="partial")
    other = await rows.new(concat="partial")
    final = await rows.final(other, lost, other)
    assert await state.purge(10, ended_s=60) == 0
    assert await state.find_partials(final.id) == [other, lost, other]

    final = await walk(state, rows.clock, final, S.ERROR)
    assert await state.purge(10, ended_s=60) == 1

    assert await state.find_partials(final.id) == [other, other]
    assert await row(state, final) == final


async def test_a_purge_of_a_final_upload_leaves_its_partials(state: StateStore, rows: Rows) -> None:
    one = await rows.new(*FINISH, concat="partial")
    final = await rows.final(one)
    lease = await claim(state, final)
    at = rows.backend.now() - timedelta(seconds=90)
    gone = replace(final.stepped(S.CANCELED, on=at), freed_at=at)
    await state.commit(lease, final, gone, steps=(S.CANCELED,), release=True)

    assert await state.purge(10, ended_s=60) == 1

    assert await state.find_partials(final.id) == []
    assert await row(state, one) == one


async def test_a_purge_beside_commits_and_claims_removes_none_of_what_they_work_on(
    state: StateStore, rows: Rows
) -> None:
    uploads = [await rows.ended(ago_s=90) for _ in range(20)]

    async def work(upload: Upload) -> Upload | None:
        """Give the row as last committed, None where the purge was faster."""
        found = await state.claim_upload(upload.id)
        if found.lease is None or found.upload is None:
            return None
        after = replace(found.upload, unclean=True)
        try:
            await state.commit(found.lease, found.upload, after, release=True)
        except LeaseLost:
            return None
        return after

    worked, first = await asyncio.gather(
        asyncio.gather(*(work(one) for one in uploads[::2])), state.purge(20, ended_s=60)
    )
    gone = first + await state.purge(20, ended_s=60)

    left = [one for one in worked if one is not None]
    assert gone == len(uploads) - len(left)
    assert sorted(await state.list_uploads(None, 50), key=lambda one: one.id) == sorted(
        left, key=lambda one: one.id
    )


# --- duties


async def test_a_duty_is_taken_on_and_gone_on_with(state: StateStore) -> None:
    assert await state.claim_duty("reap", 60)
    assert await state.claim_duty("reap", 60)
    assert await state.claim_duty("other", 60)


@shared
async def test_a_duty_is_one_processes_until_it_ends(
    state: StateStore, other_state: StateStore
) -> None:
    assert await state.claim_duty("reap", 60)
    assert not await other_state.claim_duty("reap", 60)
    assert await other_state.claim_duty("other", 60)
    assert not await state.claim_duty("other", 60)

    assert await state.claim_duty("reap", 0)  # as good as given up
    assert await other_state.claim_duty("reap", 60)

    assert not await state.claim_duty("reap", 60)


@shared
async def test_of_processes_that_claim_a_duty_at_once_one_gets_it(
    state: StateStore, other_state: StateStore
) -> None:
    for turn in range(10):
        found = await asyncio.gather(
            *(one.claim_duty(f"duty {turn}", 60) for one in (state, other_state) * 4)
        )

        assert found in ([True, False] * 4, [False, True] * 4)


@shared
async def test_purges_of_two_processes_at_once_remove_each_row_once(
    state: StateStore, other_state: StateStore, rows: Rows
) -> None:
    for _ in range(20):
        await rows.ended(ago_s=90)

    found = await asyncio.gather(*(one.purge(20, ended_s=60) for one in (state, other_state) * 2))
    rest = await state.purge(20, ended_s=60)

    assert sum(found) + rest == 20
    assert await state.list_uploads(None, 10) == []


# --- nodes


async def test_no_node_is_stale_that_was_just_heard_of(state: StateStore) -> None:
    assert await state.find_stale_nodes(3600) == []
    assert await state.forget_nodes(3600) == []


class Nodes:
    """The nodes a store knows, as a test sets them."""

    def __init__(self, state: StateStore, url: str | None) -> None:
        self._state, self._url = state, url

    async def add(self, node_id: str, silent_s: float) -> None:
        node = Node(node_id, f"label-of-{node_id}")
        if self._url is None:
            assert isinstance(self._state, FakeState)
            self._state.tables.nodes[node_id] = NodeSeen(node, silent_s)
            return
        connection = await asyncpg.connect(self._url)
        await connection.execute(
            "INSERT INTO nodes (id, label, seen_at)"
            " VALUES ($1, $2, now() - make_interval(secs => $3))",
            *(node.id, node.label, silent_s),
        )
        await connection.close()


@pytest.fixture
def nodes(request: pytest.FixtureRequest, state: StateStore) -> Nodes:
    is_fake = isinstance(state, FakeState)
    return Nodes(state, None if is_fake else request.getfixturevalue("database_url"))


@shared
async def test_silent_nodes_are_stale_unless_an_upload_still_needs_their_tail(
    state: StateStore, rows: Rows, nodes: Nodes
) -> None:
    for node_id, silent_s in (("needed", 900), ("old", 900), ("older", 1000), ("young", 100)):
        await nodes.add(node_id, silent_s)
    upload = await rows.new(S.RECEIVING, tail=Tail(3, 1, "needed", 0))
    await rows.new(S.CANCELED, tail=Tail(3, 1, "old", 0))  # nobody asks for it any more

    found = await state.find_stale_nodes(500)

    assert [seen.node for seen in found] == [
        Node("older", "label-of-older"),
        Node("old", "label-of-old"),
    ]
    assert 999 < found[0].silent_s < 1100
    forgotten = await state.forget_nodes(500)
    assert {seen.node.id for seen in forgotten} == {"older", "old"}
    assert await state.find_node("older") is None
    assert await state.forget_nodes(500) == []
    await walk(state, rows.clock, upload, S.CANCELED)

    assert [seen.node.id for seen in await state.forget_nodes(500)] == ["needed"]
    assert await state.find_node("young") is not None
