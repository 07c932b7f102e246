"""What an application is told of an event: one form, for webhooks, callables and callbacks."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from tus_server.core.jobs import Job
from tus_server.core.upload import Upload
from tus_server.ports import Event, StatusChange

# An upload as the JSON API shows it.
View = Callable[[Upload, Sequence[StatusChange]], dict[str, Any]]
Message = dict[str, Any]


def make_message(
    event: Event,
    job: Job | None,
    upload: Upload | None,
    history: Sequence[StatusChange],
    view: View,
) -> Message:
    """Give what is JSON already. upload: as it is now; None: only its id is known any more."""
    return {
        "type": f"upload.{event.kind}",
        "timestamp": render_time(event.at),
        "data": {
            "outcome": event.outcome,
            "job": None if job is None else {"name": job.name, "kwargs": dict(job.kwargs)},
            "upload": {"id": event.upload_id} if upload is None else view(upload, history),
        },
    }


def render_message(message: Message) -> bytes:
    """Give its bytes: those that are signed."""
    return json.dumps(message, separators=(",", ":")).encode()


def message_id(event: Event) -> str:
    """Give what stays the same however often an event is delivered."""
    return f"{event.upload_id}.{event.kind}"


def render_time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
