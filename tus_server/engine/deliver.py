"""Delivery: events of the outbox, given to every target that wants them, at least once.

Any number of processes deliver. An event is claimed for longer than an attempt may take, so no two
are at it at a time, and what a crash leaves half-way is due again when its claim is over. Of an
upload the state store gives the oldest event only, until that is settled: so they come in order.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import structlog

from tus_server.core.backoff import pause_s
from tus_server.core.errors import DeliveryFailed, TusServerError
from tus_server.core.ids import UploadId
from tus_server.core.jobs import Outcome
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.ports import Attempt, Event, JobTarget, StatusChange

log = structlog.get_logger(__name__)

POLL_S = 0.5
CONCURRENCY = 128  # events of a process that are claimed and not settled
LEAST_ROOM = 32  # to claim again before POLL_S has passed: a claim costs the same for one or many
SETTLED_PAGE = 1000  # events that nobody wants
GATHER_S = 0.01  # what ends in that time is settled together
CLAIM_MARGIN_S = 30.0  # beyond an attempt: to look at the rows, and to settle
RETRY_S = 1.0  # where the state store does not take an outcome
CLOSE_WAIT_S = 5.0  # for attempts under way when the server stops
MAX_ERROR_CHARS = 500


class Delivery:
    """What one process delivers. targets: by different names. timeout_s: of one attempt."""

    def __init__(
        self,
        engine: Engine,
        targets: Sequence[JobTarget],
        *,
        timeout_s: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._engine = engine
        self._targets = targets
        self._unwanted = _find_unwanted(targets)
        self._timeout_s = timeout_s
        self._chance = chance
        self._taken = 0
        self._running: set[asyncio.Task[None]] = set()
        self._ended: list[Attempt] = []
        self._settling: asyncio.Task[None] | None = None
        self._settled = asyncio.Condition()
        self._settles = 0
        self._closing = False

    async def run(self) -> None:
        """Until the engine closes: begin with what is due, as far as there is room."""
        while not (self._closing or self._engine.closing):
            settles = self._settles
            try:
                if self._room:
                    await self._begin()
            except TusServerError as exc:
                log.warning("delivery.postponed", code=exc.code, detail=exc.detail)
            except Exception:
                log.exception("delivery.failed")
            await self._wait_for_work(settles)

    async def deliver_due(self) -> int:
        """Deliver what is due, until nothing is; tell how many attempts that took.

        Raises: StateUnavailable.
        """
        attempts = 0
        while begun := await self._begin():
            attempts += begun
            async with self._settled:
                await self._settled.wait_for(lambda: not self._taken)
        return attempts

    async def stop(self) -> None:
        """Let run() come to its end."""
        self._closing = True
        async with self._settled:
            self._settled.notify_all()

    async def close(self) -> None:
        """End what is under way, after a while by force: it is then due again at once."""
        await _wait(self._running, CLOSE_WAIT_S)
        for task in self._running:
            task.cancel()
        await _wait(self._running)
        settling = [self._settling] if self._settling is not None else []
        await _wait(settling, CLOSE_WAIT_S)
        for task in settling:
            task.cancel()  # what is not settled is due again when its claim runs out
        await _wait(settling)

    # --- claiming

    @property
    def _room(self) -> int:
        return CONCURRENCY - self._taken

    async def _begin(self) -> int:
        """Begin attempts at what is due; tell how many."""
        # Where nothing is configured that is all of them: a twentieth of the price of an attempt.
        settled = SETTLED_PAGE
        while self._unwanted and settled == SETTLED_PAGE:
            settled = await self._engine.state.settle_unwanted(SETTLED_PAGE, self._unwanted)
        lasts_s = self._timeout_s + CLAIM_MARGIN_S
        events = await self._engine.state.claim_events(self._room, lasts_s)
        self._taken += len(events)
        wanted: dict[int, list[JobTarget]] = {}
        for event in events:
            targets = [one for one in self._targets if one.name not in event.done]
            wanted[event.id] = [one for one in targets if one.wants(event)]
            if not wanted[event.id]:
                self._end(Attempt(event, event.done))
        awaited = [event for event in events if wanted[event.id]]
        if awaited:
            await self._begin_each(awaited, wanted)
        return len(events)

    async def _begin_each(
        self, events: Sequence[Event], wanted: dict[int, list[JobTarget]]
    ) -> None:
        ids = [event.upload_id for event in events]
        try:
            rows = await self._engine.state.find_uploads(ids)
            histories = await self._engine.state.histories(ids)
        except Exception as exc:
            if not isinstance(exc, TusServerError):
                log.exception("delivery.failed")
            for event in events:
                self._end(self._failed(event, event.done, [DeliveryFailed(str(exc))]))
            return
        for event in events:
            row, history = rows.get(event.upload_id), histories.get(event.upload_id, [])
            task = asyncio.create_task(self._attempt(event, wanted[event.id], row, history))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _wait_for_work(self, settles: int) -> None:
        """Return when it is time to look again: with what was settled, later events come up.

        settles: how many there were before the last look.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S), self._settled:
                await self._settled.wait_for(
                    lambda: self._closing or (self._settles != settles and self._room >= LEAST_ROOM)
                )

    # --- an attempt

    async def _attempt(
        self,
        event: Event,
        targets: Sequence[JobTarget],
        upload: Upload | None,
        history: list[StatusChange],
    ) -> None:
        done = set(event.done)
        telling = [self._deliver(one, event, upload, history, done) for one in targets]
        try:
            if len(telling) == 1:
                outcomes = [await telling[0]]
            else:
                outcomes = await asyncio.gather(*telling)
        except asyncio.CancelledError:
            self._end(Attempt(event, frozenset(done), "The server was stopped.", 0.0))
            raise
        failures = [failure for failure in outcomes if failure is not None]
        if failures:
            self._end(self._failed(event, frozenset(done), failures))
        else:
            self._end(Attempt(event, frozenset(done)))

    async def _deliver(
        self,
        target: JobTarget,
        event: Event,
        upload: Upload | None,
        history: list[StatusChange],
        done: set[str],
    ) -> DeliveryFailed | None:
        """Deliver to one target, and add that to `done`; give what was in the way."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await target.deliver(event, upload, history)
        except TimeoutError:
            return DeliveryFailed(f"{target.name}: no end after {self._timeout_s:g} s.")
        except DeliveryFailed as exc:
            return DeliveryFailed(f"{target.name}: {exc}", is_final=exc.is_final)
        except TusServerError as exc:
            return DeliveryFailed(f"{target.name}: {exc}")
        except Exception as exc:  # a defect, which must not hold up the events of others
            log.exception("delivery.failed", target=target.name, event_id=event.id)
            return DeliveryFailed(f"{target.name}: {type(exc).__name__}.")
        done.add(target.name)
        return None

    def _failed(
        self, event: Event, done: frozenset[str], failures: Sequence[DeliveryFailed]
    ) -> Attempt:
        """Give the outcome: tried again later, or given up where that would not help."""
        error = " ".join(str(failure) for failure in failures)[:MAX_ERROR_CHARS]
        is_final = all(failure.is_final for failure in failures)
        retry_in_s = None if is_final else pause_s(event.attempts, self._chance())
        return Attempt(event, done, error, retry_in_s)

    # --- outcomes

    def _end(self, attempt: Attempt) -> None:
        self._ended.append(attempt)
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle())

    async def _settle(self) -> None:
        """Write down outcomes, those that come close together at once, until there is none."""
        while self._ended:
            await asyncio.sleep(GATHER_S)
            attempts, self._ended = self._ended, []
            try:
                await self._engine.state.settle_events(attempts)
            except TusServerError as exc:
                log.warning("delivery.not_settled", code=exc.code, detail=exc.detail)
                self._ended = attempts + self._ended
                await asyncio.sleep(RETRY_S)
                continue
            except Exception:  # due again when the claims run out
                log.exception("delivery.not_settled")
            self._taken -= len(attempts)
            self._settles += 1
            async with self._settled:
                self._settled.notify_all()
            _tell_failures(attempts)
        self._settling = None


def _find_unwanted(
    targets: Sequence[JobTarget],
) -> tuple[tuple[UploadState, Outcome | None], ...]:
    """Give the kinds and outcomes of which nobody wants an event without a job of its own."""
    any_id, at = UploadId(""), datetime.fromtimestamp(0, UTC)
    found = []
    for kind in UploadState:
        for outcome in (None, *Outcome):
            event = Event(any_id, kind, at, outcome=outcome)
            if not any(target.wants(event) for target in targets):
                found.append((kind, outcome))
    return tuple(found)


@asynccontextmanager
async def delivering(
    engine: Engine, targets: Sequence[JobTarget], *, timeout_s: float
) -> AsyncIterator[None]:
    """Deliver in the background; at the end what is under way ends, or is put back."""
    delivery = Delivery(engine, targets, timeout_s=timeout_s)
    running = asyncio.create_task(delivery.run())
    try:
        yield
    finally:
        await delivery.stop()
        await _wait({running})  # a claim whose answer nobody awaits would lie idle
        await delivery.close()


async def _wait(tasks: Collection["asyncio.Task[None]"], timeout_s: float | None = None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout_s)


def _tell_failures(attempts: Sequence[Attempt]) -> None:
    failed = [one for one in attempts if one.error is not None]
    for one in failed:
        if one.retry_in_s is None:
            log.error(
                "delivery.given_up",
                event_id=one.event.id,
                upload=one.event.upload_id,
                kind=one.event.kind,
                attempts=one.event.attempts,
                detail=one.error,
            )
    postponed = [one for one in failed if one.retry_in_s is not None]
    if postponed:
        # One line for all: a target that is down fails hundreds at a time.
        log.warning("delivery.postponed", events=len(postponed), detail=postponed[0].error)
