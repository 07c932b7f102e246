"""An event as `tus-server jobs` shows it: cells of a table."""

import json

from tus_server.cli.output import render_time
from tus_server.ports import Event
from tus_server.printable import printable


def render_when(event: Event) -> str:
    """Say what became of it, and since or until when."""
    if event.delivered_at is not None:
        return f"delivered {render_time(event.delivered_at)}"
    if event.given_up_at is not None:
        return f"dead {render_time(event.given_up_at)}"
    if event.due_at is None or not event.attempts:
        return "pending"
    return f"pending, again {render_time(event.due_at)}"


def render_job(event: Event) -> str:
    """Give the name of the job, or whether the server's default is meant."""
    if event.outcome is None:
        return ""
    if event.job is None:
        return f"({event.outcome.value}: the server's)"
    return printable(event.job.name)


def render_facts(event: Event) -> list[tuple[str, str]]:
    facts = [
        ("ID", str(event.id)),
        ("event", f"{event.kind.value} at {render_time(event.at)}"),
        ("upload", event.upload_id),
        ("delivery", render_when(event)),
        ("tries", str(event.attempts)),
    ]
    if event.outcome is not None:
        facts += [("outcome", event.outcome.value), ("job", render_job(event))]
    if event.job is not None and event.job.kwargs:
        facts.append(("kwargs", printable(json.dumps(event.job.kwargs, ensure_ascii=False))))
    if event.done:
        facts.append(("done", ", ".join(sorted(event.done))))
    if event.error is not None:
        facts.append(("error", printable(event.error)))
    return facts
