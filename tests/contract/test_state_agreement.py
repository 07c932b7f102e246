"""The fake state store and the one in an SQLite file agree, in whatever order things happen."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import FakeClock, FakeState, make_upload, planned_parts
from tus_server.core.errors import FileIdTaken, LeaseLost, RequestKeyTaken, TusServerError
from tus_server.core.jobs import Instructions, Job
from tus_server.core.states import EARLY_EVENTS, TRANSITIONS, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.ports import Attempt, Event, Letters, StateStore
from tus_server.state.sqlite import SqliteState

S = UploadState
WISHES = [
    Instructions(),
    Instructions(Job("yes", {"n": 1}), Job("no")),
    Instructions(failure_job=Job("no"), require_acceptance=True),
]
KINDS: list[dict[str, Any]] = [
    {"length": 3, "committed_bytes": 3},
    {"length": 3, "committed_bytes": 3, "concat": "partial"},
    {"protocol": Protocol.MULTIPART, "length": 3, "part_size": 2, "auto_complete": True},
]


class Standing(FakeClock):
    """A clock that goes only when it is told to: both stores see the same times."""

    def now(self) -> datetime:
        return self.moment


@dataclass
class Run:
    """Both stores, and what has been made in them. events: attempts that may be settled."""

    fake: StateStore
    real: StateStore
    clock: Standing
    rows: list[Upload] = field(default_factory=list)
    old_rows: list[Upload] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    async def both(self, call: Callable[[StateStore], Awaitable[Any]]) -> Any:
        """Do the same to both, and check that both say the same; give that."""
        said = []
        for store in (self.fake, self.real):
            try:
                said.append(await call(store))
            except TusServerError as exc:
                said.append((type(exc), exc.members))
        assert said[0] == said[1]
        return said[0]

    async def create(self, kind: int, wish: int, name: int) -> None:
        names = {"file_id": "ab"[name % 2]} if name % 3 else {}
        keys = {"request_key": f"k{name}"} if name % 4 == 1 else {}
        upload = make_upload(
            self.clock,
            instructions=WISHES[wish % 3],
            expires_at=self.clock.now() + timedelta(days=1),
            **KINDS[kind % 3],
            **names,
            **keys,
        )
        said = await self.both(lambda store: store.create_upload(upload, claim=False))
        if said is None:
            self.rows.append(upload)
        else:
            assert said[0] in (FileIdTaken, RequestKeyTaken)

    async def step(self, which: int, first: int, second: int) -> None:
        """Go one or two steps; now and then from a row as it was before."""
        if not self.rows:
            return
        place = which % len(self.rows)
        before = self.rows[place]
        if self.old_rows and first % 7 == 0:
            before = self.old_rows[which % len(self.old_rows)]
        steps: list[UploadState] = []
        for choice in (first, second)[: 1 + second % 2]:
            ways = sorted(TRANSITIONS[steps[-1] if steps else before.state])
            if ways:
                steps.append(ways[choice % len(ways)])
        unready = before.is_direct and before.committed_bytes != before.length
        if not steps or (unready and S.COMPLETED in steps):
            return
        after = before.stepped(*steps, on=self.clock.now())
        if after.state is S.ERROR:
            after = replace(after, error_code="x", error_message="y")

        async def commit(store: StateStore) -> None:
            lease = (await store.claim_upload(before.id)).lease
            assert lease is not None
            try:
                await store.commit(lease, before, after, steps=tuple(steps))
            finally:
                await store.release(lease)

        said = await self.both(commit)
        if said is None:
            self.old_rows.append(before)
            self.rows = [after if one.id == after.id else one for one in self.rows]
        else:
            assert said[0] is LeaseLost

    async def record(self, which: int, numbers: int, etag: int) -> None:
        direct = [one for one in self.rows if one.is_direct]
        if not direct:
            return
        before = direct[which % len(direct)]
        etags = ['"a"', '"b"', None]
        parts = [
            replace(part, etag=etags[(etag + part.number) % 3], crc64=numbers)
            for part in planned_parts(before)
            if numbers & part.number
        ]
        later = before.expires_at + timedelta(hours=etag % 2) if before.expires_at else None
        after = await self.both(
            lambda store: store.record_parts(before.id, parts, expires_at=later)
        )
        if after is not None:
            self.old_rows.append(before)
            self.rows = [after if one.id == after.id else one for one in self.rows]

    async def claim(self, limit: int, lasts: int, _: int) -> None:
        self.events += await self.both(
            lambda store: store.claim_events(1 + limit % 4, 1.0 + lasts % 50)
        )

    async def settle(self, which: int, how: int, who: int) -> None:
        if not self.events:
            return
        event = self.events[which % len(self.events)]
        done = event.done | (
            {"job", "hook"} if who % 3 == 0 else {"job"} if who % 3 == 1 else set()
        )
        attempt = [
            Attempt(event, frozenset(done)),
            Attempt(event, frozenset(done), "no", float(who % 40)),
            Attempt(event, frozenset(done), "never"),
        ][how % 3]
        await self.both(lambda store: store.settle_events([attempt]))

    async def retry(self, which: int, _: int, __: int) -> None:
        await self.both(lambda store: store.retry_event(which % 8))

    async def purge(self, limit: int, age: int, _: int) -> None:
        # Which may leave the newest: so only where that is not delivered.
        newest = await self.both(lambda store: store.list_events(Letters.DELIVERED, 1))
        if newest and await self.both(lambda store: store.find_event(newest[0].id + 1)):
            await self.both(
                lambda store: store.purge_events(1 + limit % 3, delivered_s=float(age % 50))
            )

    async def wait(self, seconds: int, _: int, __: int) -> None:
        self.clock.advance(seconds % 30)

    async def compare(self) -> None:
        """Check that all that can be seen is the same."""
        for kind in Letters:
            await self.both(lambda store, kind=kind: store.list_events(kind, 100))
        ids = [upload.id for upload in self.rows]
        await self.both(lambda store: store.find_uploads(ids))
        await self.both(lambda store: store.histories(ids))
        for upload_id in ids:
            await self.both(lambda store, one=upload_id: store.find_upload(one))
            await self.both(lambda store, one=upload_id: store.find_parts(one))
        await self.both(lambda store: store.find_auto_complete(10))
        for file_id in "ab":
            await self.both(lambda store, one=file_id: store.find_active(one))
            await self.both(lambda store, one=file_id: store.find_by_file_id(one, 10))


STEPS = [
    *[Run.create] * 2,
    *[Run.step] * 5,
    *[Run.record] * 2,
    *[Run.claim] * 3,
    *[Run.settle] * 4,
    Run.retry,
    Run.purge,
    Run.wait,
]
RUNS = 200
LONGEST = 80


full = pytest.mark.full


@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=full) for n in (1, 2, 3))])
async def test_the_fake_and_the_file_agree(tmp_path: Path, part: int) -> None:
    for seed in range(part * RUNS // 4, (part + 1) * RUNS // 4):
        chance, clock = random.Random(seed), Standing()
        path = tmp_path / f"{seed}.db"
        async with SqliteState(path, clock, durable=False, early_events=EARLY_EVENTS) as real:
            run = Run(FakeState(clock=clock, early_events=EARLY_EVENTS), real, clock)
            for place in range(LONGEST):
                step = chance.choice(STEPS)
                try:
                    await step(run, *(chance.randrange(84) for _ in range(3)))
                    if place % 10 == 9:
                        await run.compare()
                except AssertionError as exc:
                    raise AssertionError(f"step {place} of {seed}: {step.__name__}") from exc
