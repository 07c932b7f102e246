"""What the application that creates an upload wants done with it, and how that turned out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tus_server.core.states import TERMINAL, UploadState


class Outcome(StrEnum):
    """How an upload ended for the application: exactly one of these, once."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Job:
    """A completion job. name: where it goes (see jobs/names); kwargs: JSON."""

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Instructions:
    """What was asked for with the creation of an upload; it does not change.

    success_job, failure_job: None: the server's default. require_acceptance: the outcome is the
    application's verdict on the verified upload. request_digest: of the request that created it,
    so that another one under the same Idempotency-Key is told from a repetition. by_application:
    it was created through the API, for whatever kind of client. fixed_expiry: bytes do not extend
    its life.
    """

    success_job: Job | None = None
    failure_job: Job | None = None
    require_acceptance: bool = False
    request_digest: str | None = None
    by_application: bool = False
    fixed_expiry: bool = False


NONE = Instructions()


def outcome_of(state: UploadState, *, require_acceptance: bool) -> Outcome | None:
    """Tell what entering `state` decides; None: nothing yet."""
    if state is UploadState.VERIFIED:
        return None if require_acceptance else Outcome.SUCCESS
    if state is UploadState.ACCEPTED:
        return Outcome.SUCCESS
    if state is UploadState.REJECTED or state in TERMINAL:
        return Outcome.FAILURE
    return None
