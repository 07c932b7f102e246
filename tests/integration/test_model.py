"""A model of uploads, driven beside the engine over disk and over fakes: they always agree.

The model is a dict of what a client knows it has sent. TUS_TEST_FULL=1 takes more and longer runs.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    precondition,
    rule,
)

from tests.integration.conftest import World
from tests.support.fakes import PAUSE, FakeBody, Script, Stall, toy_limits
from tus_server.core.checksums import crc64
from tus_server.core.errors import (
    BodyInterrupted,
    BodyStalled,
    BodyTooLarge,
    ClientGone,
    LengthChanged,
    OffsetMismatch,
    StateUnavailable,
    StorageFull,
    StoreUnavailable,
    TusServerError,
    UploadNotFound,
)
from tus_server.core.states import TERMINAL, UploadState
from tus_server.core.upload import Upload
from tus_server.ports import StoreLimits

S = UploadState
T = TypeVar("T")
FULL = os.environ.get("TUS_TEST_FULL") == "1"
LONGEST = 64

SIZES = st.integers(0, 14)
STOPS = st.sampled_from([ClientGone, BodyStalled])
FAULTS = st.sampled_from(
    [
        ("objects", "write", StoreUnavailable),
        ("objects", "write", StorageFull),
        ("objects", "finish", StorageFull),
        ("objects", "finish", StoreUnavailable),
        ("objects", "complete", StoreUnavailable),
        ("state", "commit", StateUnavailable),
        ("tails", "save", StorageFull),
        ("tails", "save", StoreUnavailable),
    ]
)


@dataclass(eq=False)
class Known:
    """What the client knows of an upload, and would send."""

    upload: Upload
    data: bytes
    length: int | None
    offset: int = 0
    ended: UploadState | None = None

    @property
    def finished(self) -> bool:
        return self.offset == self.length

    @property
    def remaining(self) -> int:
        return (LONGEST if self.length is None else self.length) - self.offset

    def next(self, size: int) -> bytes:
        return self.data[self.offset : self.offset + size]

    def steps(self) -> list[UploadState]:
        steps = [S.INITIATED]
        if self.offset:
            steps.append(S.RECEIVING)
        if self.finished:
            steps += [S.COMPLETED, S.VERIFIED]
        return [*steps, self.ended] if self.ended else steps

    def events(self) -> list[UploadState]:
        return [step for step in self.steps() if step in (S.VERIFIED, S.DELETED, S.CANCELED)]


def with_pauses(block: bytes, cuts: list[int]) -> list[Script]:
    """Let `block` arrive in pieces."""
    script: list[Script] = []
    for cut in sorted(cuts, reverse=True):
        if cut < len(block):
            script = [PAUSE, block[cut:], *script]
            block = block[:cut]
    return [block, *script]


async def reach(stall: Stall, running: "asyncio.Future[Any]") -> None:
    """Wait until a request has come to its stall; one that ends before it fails."""
    reached = asyncio.ensure_future(stall.reached.wait())
    await asyncio.wait({running, reached}, return_when=asyncio.FIRST_COMPLETED)
    assert not running.done(), running.result()


class Uploads(RuleBasedStateMachine):
    """Rules are what clients, disks and operators do; each ends with a look at the whole upload."""

    uploads = Bundle("uploads")
    on_disk = True
    limits: StoreLimits | None = None

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="tus-model-"))
        self.world = World(self.folder if self.on_disk else None, limits=self.limits)
        self.known: list[Known] = []
        self.run(self.world.open())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        try:
            self.restart()
        finally:
            self.run(self.world.close())
            self.loop.close()
            shutil.rmtree(self.folder)

    # --- creation

    @rule(target=uploads, length=st.none() | st.integers(0, 30), size=SIZES, chunked=st.booleans())
    def create(self, length: int | None, size: int, chunked: bool) -> Any:
        number = len(self.known)
        data = bytes((number * 31 + index * 7 + 1) % 256 for index in range(LONGEST))
        body = FakeBody(data[:size], chunked=chunked)
        if length is not None and size > length:
            with pytest.raises(BodyTooLarge):
                self.run(self.world.create(length=length, body=body))
            return multiple()
        created = self.run(self.world.create(length=length, body=body))
        known = Known(created.upload, data, length, size)
        self.known.append(known)
        self.compare(known)
        return known

    @rule(length=st.integers(1, 30), size=SIZES, stop=STOPS)
    def create_with_a_body_that_stops(
        self, length: int, size: int, stop: type[TusServerError]
    ) -> None:
        body = bytes(min(size, length - 1))
        created = self.run(self.world.create(body, stop(), length=length))
        # The client never learns the id.
        assert self.run(self.world.row(created.upload)).state is S.CANCELED

    @rule(length=st.integers(1, 30), method=st.sampled_from(["write", "finish"]))
    def create_while_the_store_fails(self, length: int, method: str) -> None:
        self.world.objects.fail(method, StoreUnavailable())
        try:
            self.run(self.world.create(bytes(length), length=length))
        except StoreUnavailable:
            return
        finally:
            self.world.objects.heal()
        # A part small enough is never written before it is finished.
        (newest,) = self.run(self.world.real_state.list_uploads(None, 1))
        self.run(self.world.terminate(newest))

    # --- appending

    @rule(
        known=uploads,
        size=SIZES,
        chunked=st.booleans(),
        cuts=st.lists(st.integers(1, 13), max_size=3),
    )
    def append(self, known: Known, size: int, chunked: bool, cuts: list[int]) -> None:
        block = known.next(size)
        body = FakeBody(*with_pauses(block, cuts), chunked=chunked)
        if known.ended:
            with pytest.raises(UploadNotFound):
                self.run(self.append_(known, body))
        elif len(block) > known.remaining:
            with pytest.raises(BodyTooLarge):
                self.run(self.append_(known, body))
            assert body.asked == chunked
            self.look_up(known, known.offset + known.remaining)
            assert known.offset < (known.length or 0) or known.finished
        else:
            appended = self.run(self.append_(known, body))
            known.offset += len(block)
            assert appended.stopped is None
            assert appended.upload.offset == known.offset
        self.compare(known)

    @rule(known=uploads)
    def send_the_rest(self, known: Known) -> None:
        if not known.ended:
            length = known.length if known.length is not None else min(known.offset + 3, LONGEST)
            body = FakeBody(known.data[known.offset : length])
            self.run(self.append_(known, body, length=length))
            known.length = known.offset = length
        self.compare(known)

    @rule(known=uploads, more=st.integers(0, 9), size=SIZES)
    def settle_the_length(self, known: Known, more: int, size: int) -> None:
        if known.ended or known.length is not None:
            return
        length = min(known.offset + more, LONGEST)
        block = known.data[known.offset : min(known.offset + size, length)]
        self.run(self.append_(known, FakeBody(block), length=length))
        known.length = length
        known.offset += len(block)
        self.compare(known)

    @rule(known=uploads, change=st.integers(-5, 5).filter(bool))
    def change_the_length(self, known: Known, change: int) -> None:
        if known.ended or known.length is None:
            return
        length = max(0, known.length + change)
        if length != known.length:
            with pytest.raises(LengthChanged):
                self.run(self.append_(known, FakeBody(), length=length))
        self.compare(known)

    @rule(known=uploads, distance=st.integers(-70, 70).filter(bool), size=SIZES)
    def append_at_a_wrong_offset(self, known: Known, distance: int, size: int) -> None:
        if known.ended or known.offset + distance < 0:
            return
        body = FakeBody(bytes(size))
        with pytest.raises(OffsetMismatch) as caught:
            self.run(self.world.append(known.upload, offset=known.offset + distance, body=body))
        assert caught.value.current == known.offset
        assert not body.asked
        self.compare(known)

    @rule(known=uploads, size=SIZES, stop=STOPS, chunked=st.booleans())
    def append_a_body_that_stops(
        self, known: Known, size: int, stop: type[TusServerError], chunked: bool
    ) -> None:
        block = known.next(min(size, known.remaining - 1))
        if known.ended or known.remaining < 1:
            return
        appended = self.run(self.append_(known, FakeBody(block, stop(), chunked=chunked)))
        assert isinstance(appended.stopped, stop)
        known.offset += len(block)
        self.compare(known)

    @rule(
        known=uploads,
        size=SIZES,
        verb=st.sampled_from(["append", "status", "terminate", "many"]),
        after=SIZES,
    )
    def take_over(self, known: Known, size: int, verb: str, after: int) -> None:
        if known.ended or known.remaining < 1:
            return
        block = known.next(min(size, known.remaining - 1))
        self.run(self.take_over_(known, block, verb, after))
        self.compare(known)

    async def take_over_(self, known: Known, block: bytes, verb: str, after: int) -> None:
        world, stall = self.world, Stall()
        first = asyncio.ensure_future(self.append_(known, FakeBody(block, stall)))
        await reach(stall, first)
        known.offset += len(block)
        if verb == "status":
            assert (await world.status(known.upload)).offset == known.offset
        elif verb == "terminate":
            await world.terminate(known.upload)
            known.ended = S.CANCELED
        else:
            rest = known.next(min(after, known.remaining))
            if verb == "many":
                asked = [world.status(known.upload) for _ in range(3)]
                statuses = [asyncio.ensure_future(one) for one in asked]
            appended = await self.append_(known, FakeBody(rest))
            assert appended.upload.offset == known.offset + len(rest)
            if verb == "many":
                for status in statuses:
                    found = (await status).offset
                    assert found in (known.offset, known.offset + len(rest))
            known.offset += len(rest)
        assert isinstance((await first).stopped, BodyInterrupted)

    @rule(
        known=uploads,
        size=st.integers(1, 14),
        fault=FAULTS,
        nth=st.integers(1, 4),
        after=st.booleans(),
    )
    def append_while_a_store_fails(
        self,
        known: Known,
        size: int,
        fault: tuple[str, str, type[TusServerError]],
        nth: int,
        after: bool,
    ) -> None:
        if known.ended:
            return
        where, method, error = fault
        store = getattr(self.world, where, None)
        if store is None:
            return  # tails, where there are none
        store.fail(method, error(), nth=nth, after=after)
        block = known.next(min(size, known.remaining))
        try:
            self.run(self.append_(known, FakeBody(block)))
        except error as exc:
            note(f"failed as ordered: {exc!r}")
        store.heal()
        self.look_up(known, known.offset + len(block))
        self.compare(known)

    # --- the end of uploads and of processes

    @rule(known=consumes(uploads) | uploads)
    def terminate(self, known: Known) -> None:
        if known.ended:
            with pytest.raises(UploadNotFound):
                self.run(self.world.terminate(known.upload))
        else:
            self.run(self.world.terminate(known.upload))
            known.ended = S.DELETED if known.finished else S.CANCELED
        self.compare(known)

    @rule(known=uploads)
    def terminate_while_the_store_is_away(self, known: Known) -> None:
        if known.ended:
            return
        self.world.objects.fail("free", StoreUnavailable())
        self.run(self.world.terminate(known.upload))
        known.ended = S.DELETED if known.finished else S.CANCELED
        self.run(self.world.recover())
        self.compare(known)

    @precondition(lambda self: self.known)
    @rule()
    def restart(self) -> None:
        self.run(self.world.restart())
        for known in self.known:
            self.compare(known)
        rows = self.run(self.world.real_state.list_uploads(None, 10_000))
        ours = {known.upload.id for known in self.known}
        for row in rows:
            # Of a creation that failed nothing is left but the row.
            assert row.id in ours or (row.state in TERMINAL and row.freed_at is not None)

    @rule(known=uploads, size=SIZES)
    def restart_in_the_middle_of_an_append(self, known: Known, size: int) -> None:
        if known.ended or known.remaining < 1:
            return
        block = known.next(min(size, known.remaining - 1))
        self.run(self.tear_down(known, block))
        self.look_up(known, known.offset + len(block))
        self.compare(known)

    async def tear_down(self, known: Known, block: bytes) -> None:
        """End as a loop does that is torn down, which cancels everything, and come up again."""
        stall = Stall()
        caller = asyncio.ensure_future(self.append_(known, FakeBody(block, stall)))
        await reach(stall, caller)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert caller.cancelled()
        await self.world.restart()

    @rule()
    def let_recovery_pass(self) -> None:
        self.run(self.world.recover())

    # --- looking

    async def append_(self, known: Known, body: FakeBody, *, length: int | None = None) -> Any:
        return await self.world.append(known.upload, offset=known.offset, body=body, length=length)

    def look_up(self, known: Known, most: int) -> None:
        """Learn the offset after a request whose outcome the client was not told."""
        if known.ended:
            return
        found = self.run(self.world.status(known.upload))
        assert known.offset <= found.offset <= most
        known.offset = found.offset

    def compare(self, known: Known) -> None:
        """Check that engine, row, history, outbox and bytes are what the model says."""
        self.run(self.compare_(known))

    async def compare_(self, known: Known) -> None:
        world, upload = self.world, known.upload
        await world.check_at_rest()
        row = await world.row(upload)
        assert (row.offset, row.length) == (known.offset, known.length)
        assert row.crc64 == crc64(known.data[: row.committed_bytes])
        if row.tail is not None:
            assert row.tail.crc64 == crc64(known.data[row.committed_bytes : known.offset])
        assert await world.steps(upload) == known.steps()
        assert row.state is known.steps()[-1]
        assert await world.events(upload) == known.events()
        parts = await world.real_state.find_parts(upload.id)
        assert not parts or sum(part.size for part in parts) == row.committed_bytes
        if known.ended:
            assert not world.has_bytes(upload)
            assert row.freed_at is not None
            with pytest.raises(UploadNotFound):
                await world.status(upload)
        else:
            assert await world.status(upload) == row
            if known.finished:
                assert await world.content(upload) == known.data[: known.offset]


class UploadsOverFakes(Uploads):
    """The same over a store that keeps receipts and takes four parts at once."""

    on_disk = False


class UploadsWithTails(Uploads):
    """The same over a store that takes no small parts: what is left lies on the node's disk."""

    on_disk = False
    limits = toy_limits(8, min_part_size=5, parallel_parts=3)


class UploadsOfEqualParts(Uploads):
    """The same over a store that wants all parts of an upload to have one size."""

    on_disk = False
    limits = toy_limits(8, min_part_size=5, parallel_parts=3, equal_parts=True, reserved_numbers=0)


SETTINGS = settings(
    max_examples=300 if FULL else 30,
    stateful_step_count=50 if FULL else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
pytestmark = pytest.mark.timeout(900 if FULL else 120)
TestOnDisk = Uploads.TestCase
TestOnDisk.settings = SETTINGS
TestOverFakes = UploadsOverFakes.TestCase
TestOverFakes.settings = SETTINGS
TestWithTails = UploadsWithTails.TestCase
TestWithTails.settings = SETTINGS
TestOfEqualParts = UploadsOfEqualParts.TestCase
TestOfEqualParts.settings = SETTINGS
