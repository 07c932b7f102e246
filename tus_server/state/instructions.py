"""Instructions and jobs <-> the JSON that rows have of them; SQLite's triggers read it too."""

import json
from typing import Any

from tus_server.core.jobs import NONE, Instructions, Job


def render_instructions(instructions: Instructions) -> str | None:
    """Give a JSON object without what is not asked for; None for nothing."""
    if instructions is NONE or instructions == NONE:
        return None
    found: dict[str, Any] = {}
    for name in ("success_job", "failure_job"):
        job: Job | None = getattr(instructions, name)
        if job is not None:
            found[name] = {"name": job.name, "kwargs": job.kwargs}
    for name in ("require_acceptance", "by_application", "fixed_expiry"):
        if getattr(instructions, name):
            found[name] = True
    if instructions.request_digest is not None:
        found["request_digest"] = instructions.request_digest
    return json.dumps(found)


def parse_instructions(text: str | None) -> Instructions:
    """Give back what render_instructions() was given."""
    if text is None:
        return NONE
    found = json.loads(text)
    for name in ("success_job", "failure_job"):
        if name in found:
            found[name] = Job(**found[name])
    return Instructions(**found)


def render_job(job: Job | None) -> str | None:
    """Give what a row of the outbox has of a job."""
    return None if job is None else json.dumps({"name": job.name, "kwargs": job.kwargs})


def parse_job(text: str | None) -> Job | None:
    """Give back what render_job() was given."""
    return None if text is None else Job(**json.loads(text))
