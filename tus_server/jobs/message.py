"""What an application is told of an event: one form, for webhooks, callables and callbacks."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from tus_server.core.jobs import Job
from tus_server.core.upload import Upload
from tus_server.ports import Event, StatusChange
from tus_server.wire.upload_view import UploadView, render

# An upload as the JSON API shows it.
View = Callable[[Upload, Sequence[StatusChange]], UploadView]
Message = dict[str, Any]


def make_message(event: Event, job: Job | None, view: UploadView | None) -> Message:
    """Give what is JSON already. view: of the upload as it is now; None: its row was removed."""
    message = _begin(event, job)
    message["data"]["upload"] = (
        {"id": event.upload_id}
        if view is None
        else view.model_dump(mode="json", exclude_unset=True)
    )
    return message


def render_message(event: Event, job: Job | None, view: UploadView | None) -> bytes:
    """Give the bytes of that: those that are signed."""
    if view is None:
        return json.dumps(make_message(event, job, None)).encode()
    # pydantic renders the most of it in a tenth of the time.
    begun = json.dumps(_begin(event, job)).encode()
    return b'%s, "upload": %s}}' % (begun[:-2], render(view))


def message_id(event: Event) -> str:
    """Give what stays the same however often an event is delivered."""
    return f"{event.upload_id}.{event.kind}"


def _begin(event: Event, job: Job | None) -> Message:
    """Give all but the upload, which is the last of its members."""
    return {
        "type": f"upload.{event.kind}",
        "timestamp": _render_time(event.at),
        "data": {
            "outcome": event.outcome,
            "job": None if job is None else {"name": job.name, "kwargs": dict(job.kwargs)},
        },
    }


def _render_time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
