"""What a state store tells and takes beside uploads: leases, nodes, changes, events."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tus_server.core.ids import UploadId
from tus_server.core.jobs import Job, Outcome
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to append to one upload. A higher epoch makes every earlier lease void (P3).

    numbers: the part numbers set aside for it. No other lease is ever given them, so a number
    never carries the bytes of two writers, however late a call of the first arrives.
    """

    upload_id: UploadId
    epoch: int
    numbers: range = range(0)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim found: the row after it, and the lease if it was granted.

    upload None: no such row. lease None: somebody else holds it (`held`), or the row is not what
    the claim asked for.
    """

    upload: Upload | None
    lease: Lease | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """What a process hears when it shows that it is alive.

    lost: leases that are another's by now. wanted: those somebody waits for.
    """

    lost: frozenset[UploadId] = frozenset()
    wanted: frozenset[UploadId] = frozenset()


@dataclass(frozen=True, slots=True)
class Node:
    """A data directory and the processes that share it. label: in the ids of its uploads."""

    id: str
    label: str


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node as the others know it. silent_s: seconds since it last showed that it is alive."""

    node: Node
    silent_s: float


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One row of an upload's history. note: what happened beside a change of state."""

    state: UploadState
    at: datetime
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the outbox: something the application may want to know.

    id: grows with each event. outcome: what entering the state has decided, with `job` as the
    upload's instructions have it (None: the server's default). attempts: to deliver it, this one
    included. done: the targets that have it. error: how the last attempt failed. given_up_at: no
    more attempts are made (a dead letter), until it is retried.
    """

    upload_id: UploadId
    kind: UploadState
    at: datetime
    id: int = 0
    outcome: Outcome | None = None
    job: Job | None = None
    attempts: int = 0
    done: frozenset[str] = frozenset()
    error: str | None = None
    due_at: datetime | None = None
    delivered_at: datetime | None = None
    given_up_at: datetime | None = None


class Letters(StrEnum):
    """Kinds of rows of the outbox, by what became of them."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt to deliver `event` went, as claim_events() gave it.

    done: the targets that have it by now, beside those that had it. error: None: it is delivered.
    retry_in_s: when to try again; None with an error: give it up.
    """

    event: Event
    done: frozenset[str]
    error: str | None = None
    retry_in_s: float | None = None
