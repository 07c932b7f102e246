"""The life cycle of an upload: states, and the table of transitions."""

from enum import StrEnum
from itertools import pairwise


class UploadState(StrEnum):
    INITIATED = "initiated"
    RECEIVING = "receiving"
    COMPLETED = "completed"  # all bytes are in the store
    VERIFIED = "verified"  # the object is there and right
    ACCEPTED = "accepted"  # the application's own verdict, optional
    REJECTED = "rejected"
    DELETED = "deleted"  # removed after it was verified
    ERROR = "error"
    CANCELED = "canceled"
    EXPIRED = "expired"


S = UploadState
TRANSITIONS: dict[UploadState, frozenset[UploadState]] = {
    S.INITIATED: frozenset({S.RECEIVING, S.COMPLETED, S.ERROR, S.CANCELED, S.EXPIRED}),
    S.RECEIVING: frozenset({S.COMPLETED, S.ERROR, S.CANCELED, S.EXPIRED}),
    S.COMPLETED: frozenset({S.VERIFIED, S.ERROR, S.CANCELED, S.EXPIRED}),
    # Expired from here: a partial upload that was used, or that nobody has used.
    S.VERIFIED: frozenset({S.ACCEPTED, S.REJECTED, S.DELETED, S.ERROR, S.EXPIRED}),
    S.ACCEPTED: frozenset({S.DELETED}),
    S.REJECTED: frozenset({S.DELETED}),
    S.DELETED: frozenset(),
    S.ERROR: frozenset(),
    S.CANCELED: frozenset(),
    S.EXPIRED: frozenset(),
}
UNFINISHED = frozenset({S.INITIATED, S.RECEIVING})
FINISHED = frozenset({S.VERIFIED, S.ACCEPTED, S.REJECTED})  # the object is there and right
TERMINAL = frozenset({S.DELETED, S.ERROR, S.CANCELED, S.EXPIRED})
# Of one file_id at most one upload is in any of these.
ACTIVE = UNFINISHED | {S.COMPLETED, S.VERIFIED, S.ACCEPTED}

# Entering one of these is an event for the application: a row of the outbox, written in the
# transaction that makes the transition (P6), so it can be neither lost nor invented.
EVENTS = FINISHED | TERMINAL
# Events too where somebody wants to hear of them (tusd's post-create, post-receive).
EARLY_EVENTS = frozenset({S.INITIATED, S.RECEIVING})


class IllegalTransition(ValueError):
    """A defect of the caller: the table of transitions has no such step."""


def check_steps(start: UploadState, steps: tuple[UploadState, ...]) -> None:
    """Raise IllegalTransition unless each of `steps` may follow the one before it."""
    for before, after in pairwise((start, *steps)):
        if after not in TRANSITIONS[before]:
            raise IllegalTransition(f"{before} -> {after}")
