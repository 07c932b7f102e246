"""See ports.JobQueue: a queue of procrastinate, in the same database."""

import json

import asyncpg

from tus_server.core.errors import DeliveryFailed, StateUnavailable
from tus_server.ports import Event
from tus_server.state.postgres.pool import Pool
from tus_server.state.queries import load_queries

SQL = load_queries(__package__, "procrastinate.sql")

_DATA, _INTEGRITY = "22", "23"  # classes of SQLSTATE
_NOT_THERE = (
    "Postgres has no queue of procrastinate: run `procrastinate schema --apply` on the database of"
    " TUS_STATE_URL, in a schema of its search_path; version 2.0.3 or later."
)


class Procrastinate:
    """Jobs for the workers of procrastinate that use the database of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        # First the one that was there the last time: until procrastinate has migrated.
        self._queries = list(SQL.values())

    async def defer(self, event: Event, target: str, *, queue: str, task: str, lock: str) -> bool:
        assert event.job is not None
        arguments = json.dumps(dict(event.job.kwargs))
        values = (event.id, event.attempts, event.due_at, target, queue, task, lock, arguments)
        for query in tuple(self._queries):
            try:
                # Repeatable: a first time that took effect has left the target in the event.
                found = await self._pool.fetch(query, *values, repeatable=True)
            except (asyncpg.UndefinedFunctionError, asyncpg.UndefinedObjectError):
                continue
            except asyncpg.PostgresError as exc:
                raise _refusal(exc) from exc
            except StateUnavailable as exc:
                if isinstance(exc.__cause__, asyncpg.InsufficientPrivilegeError):
                    raise DeliveryFailed(f"{exc.detail}: GRANT it to the user.") from exc
                raise
            if query != self._queries[0]:
                self._queries.remove(query)
                self._queries.insert(0, query)
            return bool(found)
        raise DeliveryFailed(_NOT_THERE)


def _refusal(error: asyncpg.PostgresError) -> Exception:
    """Give the error for what the queue does not take; `error` itself for a defect of ours."""
    state = error.sqlstate or ""
    text = f"procrastinate does not take the job: {error}."
    if state.startswith(_DATA):  # a name that is too long, or a NUL in a text
        return DeliveryFailed(text, is_final=True)
    if state.startswith(_INTEGRITY):  # a rule that somebody has added, and may change
        return DeliveryFailed(text)
    return error
