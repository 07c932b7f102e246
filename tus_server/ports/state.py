"""Rows, leases, history and events: the contract of SQLite and Postgres."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol as Port

from tus_server.core.ids import UploadId
from tus_server.core.jobs import Outcome
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports.rows import (
    Attempt,
    Beat,
    Claim,
    Event,
    Lease,
    Letters,
    NodeSeen,
    StatusChange,
)

# After a terminal upload was freed: longer than any call that was under way then can last.
SECOND_PASS_S = 3600.0


class StateReader(Port):
    """Reading rows, with no right to change them. Every method raises StateUnavailable."""

    async def find_upload(self, upload_id: UploadId) -> Upload | None:
        """Give the row as last committed."""

    async def find_uploads(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, Upload]:
        """Give those of the rows that exist, as last committed, in one round trip."""

    async def find_partials(self, upload_id: UploadId) -> list[Upload]:
        """Give what a final upload consists of, in order, one that is used twice twice.

        Empty for any other upload.
        """

    async def find_expired(
        self, limit: int, after: UploadId | None = None, *, ahead_s: float = 0.0
    ) -> list[Upload]:
        """Give rows whose expires_at is past, or less than `ahead_s` away, oldest first, from
        behind row `after`.

        Those are unfinished uploads, and verified partial ones that no final upload in state
        initiated consists of. Held ones too. Of the time the state store's own clock decides.
        """

    async def find_kept_longer(
        self, limit: int, after: UploadId | None = None, *, kept_s: float
    ) -> list[Upload]:
        """Give finished uploads, no partial ones, that were finished more than `kept_s` ago,
        oldest first, from behind row `after`, by the state store's own clock.
        """

    async def list_uploads(
        self,
        states: frozenset[UploadState] | None,
        limit: int,
        before: UploadId | None = None,
    ) -> list[Upload]:
        """Give up to `limit` rows in `states` (None: all), newest first, older than `before`."""

    async def history(self, upload_id: UploadId) -> list[StatusChange]:
        """Give the status changes of an upload, newest first; empty for an unknown id."""

    async def histories(self, upload_ids: Sequence[UploadId]) -> dict[UploadId, list[StatusChange]]:
        """Give the history of each, in one round trip; unknown ids are left out."""

    async def find_by_file_id(
        self, file_id: str, limit: int, before: UploadId | None = None
    ) -> list[Upload]:
        """Give up to `limit` uploads of a file_id, newest first, older than `before`."""

    async def find_active(self, file_id: str) -> Upload | None:
        """Give the upload of a file_id that is in one of states.ACTIVE."""

    async def find_requested(self, request_key: str) -> Upload | None:
        """Give the upload that was created with an Idempotency-Key."""

    async def find_auto_complete(self, limit: int, after: UploadId | None = None) -> list[Upload]:
        """Give unfinished direct uploads that are to complete by themselves, oldest first."""

    async def find_parts(self, upload_id: UploadId) -> list[Part]:
        """Give the receipts committed for an upload, by start; of a direct upload all that are
        planned, those without an ETag too.
        """

    async def pending_events(self, limit: int) -> list[Event]:
        """Give the oldest undelivered events of the outbox, oldest first; no dead letters."""

    async def list_events(
        self,
        kind: Letters,
        limit: int,
        before: int | None = None,
        *,
        upload_id: UploadId | None = None,
    ) -> list[Event]:
        """Give up to `limit` events of a kind, newest first, with ids below `before`."""

    async def find_event(self, event_id: int) -> Event | None:
        """Give one event."""

    async def find_node(self, node_id: str) -> NodeSeen | None:
        """Give what is known of a node."""

    async def find_stale_nodes(self, silent_s: float) -> list[NodeSeen]:
        """Give nodes that were not heard of for longer, and of which no upload has a tail."""


class StateStore(StateReader, Port):
    """The truth about every upload. What a method has returned from is durable.

    Every method raises StateUnavailable where the store does not answer in time.
    """

    @property
    def hears(self) -> bool:
        """Tell whether watch() works now, so that nobody has to look again and again."""

    def watch(
        self, *, wanted: Callable[[UploadId], None], freed: Callable[[UploadId], None]
    ) -> None:
        """From now on call, on the loop, `wanted` when another process waits for a lease of this
        one, and `freed` when another process has let go of an upload somebody waits for.

        Best effort, and only from other processes: beat() and claims tell the same later.
        """

    async def create_upload(
        self,
        upload: Upload,
        *,
        claim: bool,
        numbers: int = 0,
        partials: Sequence[UploadId] = (),
    ) -> Lease | None:
        """Insert a new row, its first history row, and with `claim` a lease on it, atomically.

        upload.next_part_number is that of the row before `numbers` were set aside. partials: what
        a final upload consists of, in order; rows that exist. Of a direct upload the planned parts
        are inserted too, by length and part_size. Raises: FileIdTaken (another one of its file_id
        is active), RequestKeyTaken (another one was created with its request_key), in either case
        naming that one, StateUnavailable (the row may exist; nobody knows its id), StorageFull.
        """

    async def record_parts(
        self, upload_id: UploadId, parts: Sequence[Part], *, expires_at: datetime | None = None
    ) -> Upload | None:
        """Write down what has arrived of an unfinished direct upload, and give its row after it.

        parts: planned ones, each with ETag and CRC as it is stored now; without an ETag it is not
        stored any more. committed_bytes follows, and the first one that is stored begins
        `receiving`; all atomically. expires_at: when it expires, if that is later than it was.
        None: there is no such upload, or it is not unfinished; nothing was changed. Idempotent.
        Needs no lease: a commit from a row as it was before this one loses, for what changes
        anything changes `generation` of the row too.
        """

    def now(self) -> datetime:
        """Give the time by the clock that decides what has expired; aware UTC, no round trip."""

    async def find_ready_finals(
        self, limit: int, after: UploadId | None = None, *, of: UploadId | None = None
    ) -> list[UploadId]:
        """Give final uploads in state initiated that wait for no partial any more, oldest first,
        from behind row `after`.

        All of those are finished, or one has ended otherwise. of: only those with this partial.
        """

    async def is_needed(self, upload_id: UploadId) -> bool:
        """Tell whether a final upload consists of it that is initiated or completed."""

    async def let_partials_expire(self, upload_id: UploadId, after_s: float) -> None:
        """Let the partials of a final upload expire `after_s` from now, if not sooner.

        Also those that would never have expired. Idempotent: a repetition puts nothing off.
        """

    async def purge(self, limit: int, *, ended_s: float) -> int:
        """Remove rows of terminal uploads, and all that belongs to them but events; tell how many.

        Those that ended more than `ended_s` ago, were freed, and need no second look; no partial
        that a final upload in state initiated consists of. After it nobody knows their ids.
        """

    async def forget_nodes(self, silent_s: float) -> list[NodeSeen]:
        """Remove the nodes that find_stale_nodes() gives, and give them."""

    async def claim_duty(self, name: str, lasts_s: float) -> bool:
        """Take on, or go on with, what one process at a time does; False: another one has it.

        It ends `lasts_s` from now by itself, unless claimed again.
        """

    async def observe_upload(self, upload_id: UploadId) -> Claim:
        """Give the row, and whether it is held; a holder that has died counts. One round trip."""

    async def claim_upload(
        self, upload_id: UploadId, *, offset: int | None = None, numbers: int = 0
    ) -> Claim:
        """Take the lease of an upload if nobody has it; never waits for a holder.

        A holder whose lease has run out, or whose process is known to have ended, has it no more;
        then `generation` of the row becomes the epoch of the new lease, and `unclean` true.
        offset: grant it only where the upload is unfinished and at this offset. numbers: how
        many part numbers to set aside from row.next_part_number on (durably, with the claim).
        The row in the answer is the one after the claim. One round trip. Cancelled: the lease
        may have been taken; it then expires.
        """

    async def ask_release(self, upload_id: UploadId) -> None:
        """Let the holder in another process know that its lease is wanted."""

    async def beat(self, leases: Sequence[Lease]) -> Beat:
        """Renew `leases`, and show that this process and its node are alive."""

    async def commit(
        self,
        lease: Lease,
        before: Upload,
        after: Upload,
        *,
        steps: tuple[UploadState, ...] = (),
        parts: Sequence[Part] = (),
        note: str | None = None,
        release: bool = False,
    ) -> None:
        """Replace row `before` by `after`, atomically and fenced by the lease.

        Writes with it: a history row for each of `steps` (with `note` a single one in any case),
        a row of the outbox for each step in states.EVENTS (none for a partial upload: T100), with
        the outcome and its job where the commit sets completed_at, the receipts `parts`, and with
        `release` the clean end of the lease. Without `release` it takes no part numbers back that
        are set aside. `steps` is the way from before.state to after.state.
        Repeating a commit that took effect succeeds while no later lease was granted. Raises:
        LeaseLost (the lease is not the current one, or the row is not at before.offset, in
        before.state and of before.generation; nothing was changed), StateUnavailable (may or may
        not have taken effect; re-read before trusting memory), StorageFull (had no effect).
        Cancelled: as StateUnavailable.
        """

    async def release(
        self, lease: Lease, *, next_part_number: int | None = None, clean: bool = True
    ) -> None:
        """End the lease. One that is not the current one, or ended with a commit, is left alone.

        next_part_number: gives part numbers back that were never used. clean: every thread and
        store call of the holder has ended, and left nothing beside the row; else `unclean` of
        the row becomes true.
        """

    async def claim_unfinished(
        self, limit: int, after: UploadId | None = None, *, receiving: bool, numbers: int = 0
    ) -> list[tuple[Upload, Lease]]:
        """Claim rows a crash may have left half-way, oldest first, from behind row `after`.

        Those are, where nobody holds them: completed; terminal with freed_at None; unclean; held
        by who has died; with `receiving` also initiated and receiving. A terminal row that is
        unclean and was freed once comes again SECOND_PASS_S after that, for what arrived late.
        Rows that another claim is looking at just now are skipped, not waited for.
        """

    # --- the outbox

    async def claim_events(self, limit: int, lasts_s: float) -> list[Event]:
        """Take events to deliver for `lasts_s`; then anybody may have them again.

        Those that are due for longest, given by their ids; not delivered, given up or claimed; and
        in order: of an upload none while an earlier one is neither delivered nor given up. Counts
        the attempt.
        """

    async def settle_events(self, attempts: Sequence[Attempt]) -> None:
        """Write down how attempts went, in one round trip.

        One that was claimed again since by somebody else, or is no longer due since
        event.due_at, is left alone. Idempotent.
        """

    async def settle_unwanted(
        self, limit: int, unwanted: Collection[tuple[UploadState, Outcome | None]]
    ) -> int:
        """Let up to `limit` events be delivered that nobody wants, by their kind and outcome; tell
        how many.

        Of those that are due and not claimed, without a job of their own. Idempotent.
        """

    async def retry_event(self, event_id: int) -> bool:
        """Let a dead letter be tried again from now on, as if it were new; False: it is none."""

    async def purge_events(self, limit: int, *, delivered_s: float) -> int:
        """Remove events that were delivered more than `delivered_s` ago; tell how many.

        The newest event of all may stay.
        """

    async def check(self) -> None:
        """Raise StateUnavailable or StorageFull unless a write would succeed now."""


class JobQueue(Port):
    """A queue in the same database as the state (procrastinate)."""

    async def defer(self, event: Event, target: str, *, queue: str, task: str, lock: str) -> bool:
        """Enqueue event.job as `task`, and write down that `target` has it, atomically.

        So it is enqueued once, however often the event is delivered. False: the event is not this
        attempt's any more. Raises: StateUnavailable (may have taken effect; the event's row tells),
        DeliveryFailed (the queue is not there, or refuses).
        """
