"""Getting the right to append, from a holder who is asked to let go (T125).

The state store decides who holds a lease; this module knows the holders of this process, can ask
them directly, and keeps the others waiting in turn. The latest request wins: a holder is asked
only by requests that came after it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from tus_server.core.errors import LeaseNotObtained, UploadNotFound
from tus_server.core.ids import UploadId
from tus_server.core.upload import Upload
from tus_server.ports import Clock, Lease, StateStore

# The net under direct wake-ups: how often a lease held by another process is looked at.
POLL_S = 0.05


def stay() -> None:
    """Be a holder that does not let go: finishing and terminating are short, who asks waits."""


@dataclass(slots=True)
class _Holder:
    epoch: int
    ticket: int
    let_go: Callable[[], None]
    waiters: list["asyncio.Future[None]"] = field(default_factory=list)

    def wake_waiters(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class Leases:
    """The leases this process holds or waits for."""

    def __init__(self, state: StateStore, clock: Clock, *, wait_s: float) -> None:
        self._state = state
        self._clock = clock
        self._wait_s = wait_s
        self._holders: dict[UploadId, _Holder] = {}
        self._tickets = count()

    async def acquire(
        self, upload_id: UploadId, let_go: Callable[[], None]
    ) -> tuple[Lease, Upload]:
        """Take the lease, over from an earlier holder if there is one; give the row with it.

        `let_go` is called, from the loop, when a later request wants the upload: it must return
        at once and bring the holder to release() soon. Raises: UploadNotFound, LeaseNotObtained
        (not within TUS_LEASE_WAIT_S), StateUnavailable.
        """
        ticket = next(self._tickets)
        deadline_s = self._clock.monotonic_s() + self._wait_s
        while True:
            claim = await self._state.claim_upload(upload_id)
            if claim.upload is None:
                raise UploadNotFound
            if claim.lease is not None:
                self._register(claim.lease, ticket, let_go)
                return claim.lease, claim.upload
            await self._wait_for_holder(upload_id, ticket, deadline_s)

    def adopt(self, lease: Lease, let_go: Callable[[], None]) -> None:
        """Register a lease that came with the creation of its upload."""
        self._register(lease, next(self._tickets), let_go)

    async def settle(self, upload_id: UploadId) -> None:
        """Return when nobody holds the upload; an earlier holder is asked to let go.

        Raises: LeaseNotObtained, StateUnavailable.
        """
        ticket = next(self._tickets)
        deadline_s = self._clock.monotonic_s() + self._wait_s
        while await self._state.is_held(upload_id):
            await self._wait_for_holder(upload_id, ticket, deadline_s)

    async def release(self, lease: Lease) -> None:
        """End the lease if it has not ended with a commit, and wake who waits for it."""
        try:
            await self._state.release(lease)
        finally:
            holder = self._holders.get(lease.upload_id)
            # The lease may have ended with a commit, and another request have taken it since.
            if holder is not None and holder.epoch == lease.epoch:
                del self._holders[lease.upload_id]
                holder.wake_waiters()

    def ask_all(self) -> None:
        """Ask every holder of this process to let go: shutdown."""
        for holder in list(self._holders.values()):
            holder.let_go()

    @property
    def held(self) -> int:
        """How many leases this process holds."""
        return len(self._holders)

    def _register(self, lease: Lease, ticket: int, let_go: Callable[[], None]) -> None:
        before = self._holders.get(lease.upload_id)
        self._holders[lease.upload_id] = _Holder(lease.epoch, ticket, let_go)
        if before is not None:
            before.wake_waiters()

    async def _wait_for_holder(self, upload_id: UploadId, ticket: int, deadline_s: float) -> None:
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise LeaseNotObtained
        holder = self._holders.get(upload_id)
        if holder is None:
            await asyncio.sleep(min(POLL_S, left_s))
            return
        if holder.ticket < ticket:
            holder.let_go()
        waiter = asyncio.get_running_loop().create_future()
        holder.waiters.append(waiter)
        try:
            async with asyncio.timeout(left_s):
                await waiter
        except TimeoutError:
            raise LeaseNotObtained from None
