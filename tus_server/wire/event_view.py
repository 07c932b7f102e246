"""An event of the outbox as applications and commands see it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from tus_server.core.jobs import Outcome
from tus_server.core.states import UploadState
from tus_server.ports import Event, Letters


class JobView(BaseModel):
    """A completion job."""

    name: str
    kwargs: dict[str, Any]


class EventView(BaseModel):
    """An event. delivery: what became of it; job: as the upload asks for it, null: the server's.

    attempts: so far; due_at: of the next one; done: the targets that have it; error: why the last
    attempt failed.
    """

    id: int
    upload: str
    event: UploadState
    event_on: datetime
    outcome: Outcome | None
    job: JobView | None
    delivery: Letters
    attempts: int
    done: list[str]
    error: str | None
    due_at: datetime | None
    delivered_at: datetime | None
    given_up_at: datetime | None


def view_event(event: Event) -> EventView:
    """Give an event as applications see it."""
    delivery = find_delivery(event)
    job = event.job
    return EventView(
        id=event.id,
        upload=event.upload_id,
        event=event.kind,
        event_on=event.at,
        outcome=event.outcome,
        job=None if job is None else JobView(name=job.name, kwargs=dict(job.kwargs)),
        delivery=delivery,
        attempts=event.attempts,
        done=sorted(event.done),
        error=event.error,
        due_at=event.due_at if delivery is Letters.PENDING else None,
        delivered_at=event.delivered_at,
        given_up_at=event.given_up_at,
    )


def find_delivery(event: Event) -> Letters:
    """Tell what became of an event."""
    if event.delivered_at is not None:
        return Letters.DELIVERED
    return Letters.PENDING if event.given_up_at is None else Letters.DEAD
