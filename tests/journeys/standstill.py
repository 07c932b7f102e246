"""`tus-server serve` that stands still where it is told to, for tests that end it there.

    python -m tests.journeys.standstill FOLDER serve

A file FOLDER/{upload id} names a moment: `before` or `after` a call of a port, such as "before
commit verified". When the server gets there in the work on that upload, FOLDER/{upload id}.reached
appears, and that task goes no further, while everything else does. "freeze ..." stops the whole
process instead, before anybody else takes a step.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from tus_server.cli import main
from tus_server.jobs.targets import CompletionJobs
from tus_server.objects.local import LocalObjects
from tus_server.ports import Attempt, Event
from tus_server.state.sqlite import SqliteState

FOLDER = Path(sys.argv.pop(1))
Method = Callable[..., Awaitable[Any]]
Find = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[str, Sequence[str]]]


async def pass_by(moment: str, upload_ids: Sequence[str]) -> None:
    """Come by a moment in the work on some uploads: for ever, if it is that of one of them."""
    for upload_id in upload_ids:
        path = FOLDER / upload_id
        wanted = path.read_text() if path.exists() else ""
        if wanted == f"freeze {moment}":
            path.rename(f"{path}.reached")
            os.kill(os.getpid(), signal.SIGSTOP)
        if wanted == moment:
            path.rename(f"{path}.reached")
            await asyncio.Event().wait()


def watch(method: Method, find: Find) -> Method:
    """Give a method that passes by two moments. find: tells from result and arguments of a call
    its name and its uploads; the result is None before it.
    """

    @wraps(method)
    async def watched(self: object, *args: Any, **named: Any) -> Any:
        name, upload_ids = find(None, args, named)
        await pass_by(f"before {name}", upload_ids)
        result = await method(self, *args, **named)
        name, upload_ids = find(result, args, named)
        await pass_by(f"after {name}", upload_ids)
        return result

    return watched


def of_commit(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[str, Sequence[str]]:
    steps = named.get("steps") or ("nothing",)
    return f"commit {steps[-1]}", [args[0].upload_id]


def of_claim(found: list[Event] | None, *_: Any) -> tuple[str, Sequence[str]]:
    return "claim", [event.upload_id for event in found or ()]


def of_settle(_: Any, args: tuple[Sequence[Attempt]], __: Any) -> tuple[str, Sequence[str]]:
    return "settle", [attempt.event.upload_id for attempt in args[0]]


def of_complete(_: Any, args: tuple[Any, ...], __: Any) -> tuple[str, Sequence[str]]:
    return "complete", [args[0].id]


def of_deliver(_: Any, args: tuple[Any, ...], __: Any) -> tuple[str, Sequence[str]]:
    return "deliver", [args[0].upload_id]


def watch_all() -> None:
    """Watch what happens between the client's word and the last row that it leaves."""
    for owner, name, find in (
        (SqliteState, "commit", of_commit),
        (SqliteState, "claim_events", of_claim),
        (SqliteState, "settle_events", of_settle),
        (LocalObjects, "complete", of_complete),
        (CompletionJobs, "deliver", of_deliver),
    ):
        setattr(owner, name, watch(getattr(owner, name), find))
    read = LocalObjects.read

    async def watched_read(
        self: LocalObjects, upload: Any, start: int, end: int
    ) -> AsyncGenerator[bytes, None]:
        await pass_by("before read", [upload.id])
        async for block in read(self, upload, start, end):
            yield block

    LocalObjects.read = watched_read  # type: ignore[method-assign]


if __name__ == "__main__":
    watch_all()
    main()
