"""Gates in the database: statements of servers that wait, as they are, until a test lets them go.

    with Gates(url) as gates:
        gates.close("commit verified", upload_id)   # from now on, for that upload
        ...
        gates.wait_reached(1)                       # one statement waits
        server.kill()
        gates.lose()                                # it never took effect ...
        gates.open()                                # ... or it does now, behind its sender's back

Triggers do it, which only this database has: the servers are what they always are.
"""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncpg

from tests.support.postgres import execute
from tests.support.waiting import wait_until

T = TypeVar("T")

LOCK = 4711
WAITING = (
    "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    f" WHERE datname = current_database() AND locktype = 'advisory' AND objid = {LOCK}"
    " AND NOT granted"
)
FUNCTION = f"""
CREATE FUNCTION {{name}}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gates WHERE upload_id = {{upload_id}} AND place = '{{place}}') THEN
        PERFORM pg_advisory_xact_lock_shared({LOCK});
    END IF;
    RETURN NEW;
END $$
"""
# What a statement does -> table, when its row goes by the gate, and the id of the upload.
GATES = {
    "record a part": ("upload_parts", "NEW.etag IS DISTINCT FROM OLD.etag"),
    "commit completed": ("uploads", "NEW.state = 'completed' AND OLD.state <> NEW.state"),
    "commit verified": ("uploads", "NEW.state = 'verified' AND OLD.state <> NEW.state"),
    "claim": ("outbox", "NEW.attempts > OLD.attempts"),
    "settle": ("outbox", "NEW.delivered_at IS NOT NULL AND OLD.delivered_at IS NULL"),
}
IDS = {
    "uploads": "NEW.id",
    "outbox": "NEW.upload_id",
    "upload_parts": "(SELECT id FROM uploads WHERE seq = NEW.upload_seq)",
}


class Gates:
    """See the module. What waits goes on when its sender has died: Postgres does not look."""

    def __init__(self, url: str) -> None:
        self._url = url
        statements = ["CREATE TABLE gates (upload_id text, place text)"]
        for number, (place, (table, when)) in enumerate(GATES.items()):
            name = f"gate_{number}"
            statements.append(FUNCTION.format(name=name, upload_id=IDS[table], place=place))
            statements.append(
                f"CREATE TRIGGER {name} BEFORE UPDATE ON {table}"
                f" FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {name}()"
            )
        execute(url, *statements)

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()
        self._keeper = self._run(asyncpg.connect(self._url))
        self._run(self._keeper.execute(f"SELECT pg_advisory_lock({LOCK})"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._run(self._keeper.close())
        with self._thread:
            self._thread.submit(self._runner.close).result()

    def close(self, place: str, upload_id: str) -> None:
        """Let whatever comes by there for an upload wait."""
        insert = "INSERT INTO gates (upload_id, place) VALUES ($1, $2)"
        self._run(self._keeper.execute(insert, upload_id, place))

    def wait_reached(self, count: int) -> None:
        """Return when so many statements wait."""
        wait_until(lambda: len(self._waiting()) >= count, f"{count} statements wait")

    def lose(self) -> None:
        """End the sessions that wait: nothing of their statements is done."""
        self._end("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid")

    def open(self) -> None:
        """Let what waits go on, and return when it has ended. Its sender is dead."""
        self._end("SELECT pg_advisory_unlock_all() FROM unnest($1::int[])")

    def _end(self, sql: str) -> None:
        pids = self._waiting()
        self._run(self._keeper.execute("DELETE FROM gates"))
        self._run(self._keeper.execute(sql, pids))
        left = "SELECT pid FROM pg_stat_activity WHERE pid = ANY ($1::int[])"
        wait_until(lambda: not self._run(self._keeper.fetch(left, pids)), "their sessions end")

    def _waiting(self) -> list[int]:
        return [row[0] for row in self._run(self._keeper.fetch(WAITING))]

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.submit(self._runner.run, work).result()
