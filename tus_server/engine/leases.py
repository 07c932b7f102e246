"""Getting the right to append, from a holder who is asked to let go (T125).

The state store decides who holds a lease. This module knows the holders of this process, asks them
directly and keeps the others waiting in turn: the latest request wins, a holder is asked only by
requests that came after it. Holders in other processes are asked through the state store. What
this process holds is renewed in the background, and a holder that was not heard of for a while
(a stopped process that wakes up) has to ask before it does anything that lasts (P3).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

import structlog

from tus_server.core.errors import (
    LeaseLost,
    LeaseNotObtained,
    StateUnavailable,
    TusServerError,
    UploadNotFound,
)
from tus_server.core.ids import UploadId
from tus_server.core.upload import Upload
from tus_server.ports import Claim, Clock, Lease, StateStore

log = structlog.get_logger(__name__)

# The net under direct wake-ups: when a lease held by another process is looked at again.
POLL_S = 0.05
POLL_AT_MOST_S = 0.5
RENEW_S = 2.5
# While nobody can call us, we have to look for who waits.
RENEW_UNHEARD_S = 0.5
# A lease renewed longer ago is asked for before it is relied on: half of what it lasts.
TRUST_S = 5.0


# Asked with the row, and whether somebody holds it.
Admit = Callable[[Upload, bool], Awaitable[None]]


def stay() -> None:
    """Be a holder that does not let go: finishing and terminating are short, who asks waits."""


@dataclass(slots=True)
class _Holder:
    lease: Lease
    ticket: int
    let_go: Callable[[], None]
    renewed_s: float
    lost: bool = False
    waiters: list["asyncio.Future[None]"] = field(default_factory=list)


class Leases:
    """The leases this process holds or waits for."""

    def __init__(
        self,
        state: StateStore,
        clock: Clock,
        *,
        wait_s: float,
        retry_s: float = 0.0,
        numbers: int = 0,
    ) -> None:
        """retry_s: how long a holder waits for a state store that is away. numbers: how many part
        numbers a lease to append sets aside.
        """
        self._state = state
        self._clock = clock
        self._wait_s = wait_s
        self._retry_s = retry_s
        self._numbers = numbers
        self._steady_since_s: float | None = clock.monotonic_s()
        self._holders: dict[UploadId, _Holder] = {}
        self._taking: set[asyncio.Task[Upload | None]] = set()
        self._elsewhere: dict[UploadId, list[asyncio.Future[None]]] = {}
        self._tickets = count()
        state.watch(wanted=self._let_go, freed=self._freed)

    async def claim(
        self,
        upload_id: UploadId,
        let_go: Callable[[], None],
        *,
        offset: int | None = None,
        admit: Admit | None = None,
    ) -> Claim:
        """Take the lease, over from an earlier holder if there is one; give the row with it.

        `let_go` is called, from the loop, when a later request wants the upload: it must return
        at once and bring the holder to release() soon. offset: to append there, with part numbers
        set aside; without a lease in the answer the row is no unfinished one at this offset.
        admit: asked once with the row, before a holder is disturbed; what it raises ends the
        claim. Raises: UploadNotFound, LeaseNotObtained (not within TUS_LEASE_WAIT_S),
        StateUnavailable.
        """
        ticket = next(self._tickets)
        deadline_s = self._clock.monotonic_s() + self._wait_s
        numbers = 0 if offset is None else self._numbers
        poll_s = POLL_S
        while True:
            asked_s = self._clock.monotonic_s()
            claim = await self._state.claim_upload(upload_id, offset=offset, numbers=numbers)
            if claim.upload is None:
                raise UploadNotFound
            if claim.lease is not None:
                self._register(claim.lease, ticket, let_go, asked_s)
            if admit is not None:
                await self._admit(admit, claim)
                admit = None
            if not claim.held:
                return claim
            await self._wait_for_holder(upload_id, ticket, deadline_s, poll_s)
            poll_s = min(2 * poll_s, POLL_AT_MOST_S)

    async def acquire(
        self,
        upload_id: UploadId,
        let_go: Callable[[], None],
        *,
        admit: Admit | None = None,
    ) -> tuple[Lease, Upload]:
        """Take the lease of an upload whatever its state. Raises: as claim."""
        claim = await self.claim(upload_id, let_go, admit=admit)
        assert claim.lease is not None
        assert claim.upload is not None
        return claim.lease, claim.upload

    def adopt(self, lease: Lease, let_go: Callable[[], None]) -> None:
        """Register a lease that came with something else, such as the creation of its upload."""
        self._register(lease, next(self._tickets), let_go, self._clock.monotonic_s())

    async def settle(self, upload_id: UploadId) -> Upload:
        """Give the row once nobody holds the upload; an earlier holder is asked to let go.

        One that has died, or is stopped, has lost its right by then: the offset is final. Raises:
        as claim.
        """
        ticket = next(self._tickets)
        deadline_s = self._clock.monotonic_s() + self._wait_s
        poll_s = POLL_S
        while True:
            taking = asyncio.create_task(self._take_and_release(upload_id, ticket))
            self._taking.add(taking)
            taking.add_done_callback(self._taken)
            # A caller who is cancelled must not leave a lease behind.
            upload = await asyncio.shield(taking)
            if upload is not None:
                return upload
            await self._wait_for_holder(upload_id, ticket, deadline_s, poll_s)
            poll_s = min(2 * poll_s, POLL_AT_MOST_S)

    async def ensure(self, lease: Lease) -> None:
        """Return if the lease is ours, as far as a recent renewal tells.

        Asks where there was none, and waits for a state store that is away as long as a commit
        would. Raises: LeaseLost, StateUnavailable.
        """
        holder = self._held(lease)
        if not holder.lost and self._clock.monotonic_s() - holder.renewed_s <= TRUST_S:
            return
        deadline_s = self._clock.monotonic_s() + self._retry_s
        while True:
            try:
                await self.confirm(lease)
                return
            except StateUnavailable:
                if self._clock.monotonic_s() >= deadline_s:
                    raise
            await asyncio.sleep(POLL_AT_MOST_S)

    async def confirm(self, lease: Lease) -> None:
        """Return if the lease is ours just now, by the state store. Raises: as ensure."""
        holder = self._held(lease)
        asked_s = self._clock.monotonic_s()
        if not holder.lost:
            beat = await self._state.beat([lease])
            holder.lost = lease.upload_id in beat.lost
            holder.renewed_s = asked_s
        if holder.lost:
            raise LeaseLost

    async def release(
        self, lease: Lease, *, next_part_number: int | None = None, clean: bool = True
    ) -> None:
        """End the lease if it has not ended with a commit, and wake who waits for it.

        The rest as ports.StateStore.release. What cannot be told to the state store now expires
        there by itself.
        """
        holder = self._holders.get(lease.upload_id)
        # The lease may have ended with a commit, and another request have taken it since.
        if holder is None or holder.lease.epoch != lease.epoch:
            return
        try:
            await self._state.release(lease, next_part_number=next_part_number, clean=clean)
        except TusServerError as exc:
            log.warning("lease.left_to_expire", upload=lease.upload_id, code=exc.code)
        finally:
            if self._holders.get(lease.upload_id) is holder:
                del self._holders[lease.upload_id]
            _wake(holder.waiters)

    async def keep(self) -> None:
        """For ever: renew what is held, and let go of what others want or have."""
        while True:
            await asyncio.sleep(RENEW_S if self._state.hears else RENEW_UNHEARD_S)
            try:
                await self._renew()
            except TusServerError as exc:
                self._steady_since_s = None
                log.warning("leases.not_renewed", count=self.held, code=exc.code)
            except Exception:  # without this loop every lease would run out
                log.exception("leases.not_renewed", count=self.held)

    def ask_all(self) -> None:
        """Ask every holder of this process to let go: shutdown."""
        for holder in list(self._holders.values()):
            holder.let_go()

    @property
    def steady_s(self) -> float:
        """Seconds for which this process has shown without a gap that it is alive.

        Who could not do so itself must not call others dead for their silence.
        """
        since_s = self._steady_since_s
        return 0.0 if since_s is None else self._clock.monotonic_s() - since_s

    @property
    def wait_s(self) -> float:
        """How long a request waits for another one to let go."""
        return self._wait_s

    @property
    def held(self) -> int:
        """How many leases this process holds."""
        return len(self._holders)

    async def _renew(self) -> None:
        holders = list(self._holders.values())
        asked_s = self._clock.monotonic_s()
        beat = await self._state.beat([holder.lease for holder in holders])
        if self._steady_since_s is None:
            self._steady_since_s = asked_s
        for holder in holders:
            upload_id = holder.lease.upload_id
            if self._holders.get(upload_id) is not holder:
                continue  # it ended meanwhile
            if upload_id in beat.lost:
                log.warning("lease.lost", upload=upload_id)
                holder.lost = True
            else:
                holder.renewed_s = asked_s
            if upload_id in beat.lost or upload_id in beat.wanted:
                holder.let_go()

    def _held(self, lease: Lease) -> _Holder:
        holder = self._holders.get(lease.upload_id)
        if holder is None or holder.lease.epoch != lease.epoch:
            raise LeaseLost
        return holder

    async def _take_and_release(self, upload_id: UploadId, ticket: int) -> Upload | None:
        asked_s = self._clock.monotonic_s()
        claim = await self._state.claim_upload(upload_id)
        if claim.upload is None:
            raise UploadNotFound
        if claim.lease is None:
            return None
        self._register(claim.lease, ticket, stay, asked_s)
        await self.release(claim.lease)
        return claim.upload

    def _taken(self, taking: "asyncio.Task[Upload | None]") -> None:
        self._taking.discard(taking)
        if not taking.cancelled():
            taking.exception()  # retrieved: a cancelled caller does not

    async def _admit(self, admit: Admit, claim: Claim) -> None:
        assert claim.upload is not None
        try:
            await admit(claim.upload, claim.held)
        except BaseException:  # whatever an authorizer raises: nobody else would end the lease
            if claim.lease is not None:
                await self.release(claim.lease, next_part_number=claim.lease.numbers.start)
            raise

    def _register(
        self, lease: Lease, ticket: int, let_go: Callable[[], None], asked_s: float
    ) -> None:
        before = self._holders.get(lease.upload_id)
        self._holders[lease.upload_id] = _Holder(lease, ticket, let_go, asked_s)
        if before is not None:
            _wake(before.waiters)

    def _let_go(self, upload_id: UploadId) -> None:
        holder = self._holders.get(upload_id)
        if holder is not None:
            holder.let_go()

    def _freed(self, upload_id: UploadId) -> None:
        _wake(self._elsewhere.get(upload_id, []))

    async def _wait_for_holder(
        self, upload_id: UploadId, ticket: int, deadline_s: float, poll_s: float
    ) -> None:
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise LeaseNotObtained
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        holder = self._holders.get(upload_id)
        if holder is None:
            await self._wait_for_another_process(upload_id, waiter, min(poll_s, left_s))
            return
        if holder.ticket < ticket:
            holder.let_go()
        holder.waiters.append(waiter)
        await asyncio.wait({waiter}, timeout=left_s)
        if not waiter.done():
            waiter.cancel()
            raise LeaseNotObtained

    async def _wait_for_another_process(
        self, upload_id: UploadId, waiter: "asyncio.Future[None]", poll_s: float
    ) -> None:
        waiters = self._elsewhere.setdefault(upload_id, [])
        waiters.append(waiter)
        try:
            await self._state.ask_release(upload_id)
            await asyncio.wait({waiter}, timeout=poll_s)
        finally:
            waiters.remove(waiter)
            if not waiters:
                self._elsewhere.pop(upload_id, None)


def _wake(waiters: "list[asyncio.Future[None]]") -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
