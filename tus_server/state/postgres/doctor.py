"""Examining a Postgres as an operator would: what is found, and what to do about it."""

import asyncio
import ipaddress
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
from asyncpg import Record

from tus_server.core.errors import SchemaMismatch
from tus_server.findings import Finding, failed, note, ok, refused, skipped, warning, within
from tus_server.state.postgres.errors import DRIVER_ERRORS, at_start
from tus_server.state.postgres.inspect import MIN_VERSION, Facts, inspect
from tus_server.state.postgres.listener import PROOF_S
from tus_server.state.postgres.nodes import SILENT_S
from tus_server.state.postgres.options import PostgresOptions
from tus_server.state.postgres.pool import Session, close, connect
from tus_server.state.postgres.rows import SQL
from tus_server.state.postgres.schema import VERSION, expect_current
from tus_server.state.queries import load_queries

SKEW_LIMIT_S = 5.0
ASKED = load_queries(__package__, "doctor.sql")


@dataclass(frozen=True, slots=True)
class PostgresPlan:
    """What servers will do with the database.

    node_id, label: None where they are made at the first start. processes: of this node.
    migrates: a start brings the schema up to date.
    """

    node_id: str | None
    label: str | None
    processes: int
    migrates: bool


async def examine(options: PostgresOptions, plan: PostgresPlan) -> AsyncIterator[Finding]:
    """Look at everything, one thing after the other; changes nothing."""
    try:
        connection = await connect(options)
    except (TimeoutError, ValueError, *DRIVER_ERRORS) as exc:
        yield refused("Postgres", at_start(exc, options.url).detail)
        yield skipped("all else in Postgres", "there is no connection")
        return
    try:
        examination = _Examination(options, plan, connection)
        async for finding in examination.run():
            yield finding
    finally:
        await close(connection)


class _Examination:
    def __init__(self, options: PostgresOptions, plan: PostgresPlan, connection: Session) -> None:
        self._options = options
        self._plan = plan
        self._connection = connection
        self._has_tables = False

    async def run(self) -> AsyncIterator[Finding]:
        yield await self._tried("Postgres", self._server)
        yield await self._tried("Postgres prepared statements", self._prepared)
        yield await self._tried("Postgres schema", self._schema)
        for what, check in (
            ("Postgres rights", self._rights),
            ("Postgres writes", self._writes),
            ("Postgres durability", self._durability),
            ("Postgres clock", self._clock),
            ("Postgres notifications", self._notifications),
        ):
            yield await self._tried(what, check)
        for what, check in (
            ("Postgres connections", self._connections),
            ("node name", self._name),
        ):
            if self._has_tables:
                yield await self._tried(what, check)
            else:
                yield skipped(what, "there are no tables")

    async def _tried(self, what: str, check: Callable[[str], Awaitable[Finding]]) -> Finding:
        async def translated() -> Finding:
            try:
                return await check(what)
            except DRIVER_ERRORS as exc:
                if isinstance(exc, TimeoutError):
                    raise
                return refused(what, at_start(exc, self._options.url).detail)

        return await within(what, self._options.statement_timeout_s, translated())

    async def _row(self, query: str, *values: object) -> Record | None:
        async with self._connection.transaction():
            return await self._connection.fetchrow(query, *values)

    async def _known(self, query: str, *values: object) -> Record:
        row = await self._row(query, *values)
        assert row is not None
        return row

    async def _facts(self) -> Facts:
        async with self._connection.transaction():
            return await inspect(self._connection)

    # --- checks

    async def _server(self, what: str) -> Finding:
        facts = await self._facts()
        encrypted = (await self._known(ASKED["surroundings"]))[0]
        host = urlsplit(self._options.url).hostname
        text = f"{facts.server_version} at {host or 'this machine'}, TLS: {_yes(encrypted)}"
        if facts.major_version < MIN_VERSION:
            return failed(what, text, f"use Postgres {MIN_VERSION} or later.")
        if not encrypted and not _is_near(host):
            return warning(
                what,
                text,
                "let sslmode=verify-full stand in TUS_STATE_URL, unless the network is trusted.",
            )
        return ok(what, text)

    async def _prepared(self, what: str) -> Finding:
        """Use a statement again while another client has the server's connection, if there is one.

        A pooler in transaction mode then gives another one, which does not know the statement.
        """
        if not self._options.prepared_statements:
            return ok(what, "switched off (TUS_STATE_PREPARED)")
        before = (await self._known(ASKED["backend"]))[0]
        other = await connect(self._options)
        try:
            async with other.transaction():
                await other.fetchval(ASKED["backend"])
                after = await self._connection.fetchval(ASKED["backend"])
        except (
            asyncpg.InvalidSQLStatementNameError,
            asyncpg.DuplicatePreparedStatementError,
        ) as exc:
            return failed(
                what,
                f"a pooler is in between that does not know them ({exc})",
                "set TUS_STATE_PREPARED=false, and TUS_STATE_LISTEN_URL to Postgres itself.",
            )
        finally:
            await close(other)
        if before != after:
            return ok(what, "a pooler is in between, and knows them")
        return ok(what, "they work")

    async def _schema(self, what: str) -> Finding:
        facts = await self._facts()
        self._has_tables = facts.schema > 0
        may_create, user, schema = (await self._known(ASKED["surroundings"]))[3:6]
        try:
            async with self._connection.transaction():
                await expect_current(self._connection)
        except SchemaMismatch as exc:
            if facts.schema > VERSION:
                return refused(what, exc.detail)
            if not may_create:
                return failed(
                    what,
                    f"version {facts.schema} of {VERSION}, and {user} may not make tables",
                    f"run `tus-server migrate` as a user who may, or GRANT CREATE ON SCHEMA"
                    f" {schema or 'public'} TO {user}.",
                )
            if self._plan.migrates:
                return note(what, f"version {facts.schema}; serve makes it {VERSION}")
            return refused(what, exc.detail)
        ends = "" if may_create else f"; {user} may not make tables: `migrate` needs another user"
        return ok(what, f"version {facts.schema}{ends}")

    async def _rights(self, what: str) -> Finding:
        facts = await self._facts()
        if facts.missing_rights:
            rights = ", ".join(facts.missing_rights)
            return failed(what, f"missing: {rights}", f"GRANT {rights} to the user.")
        if not facts.schema:
            return skipped(what, "there are no tables")
        return ok(what, "SELECT, INSERT, UPDATE and DELETE on all tables")

    async def _writes(self, what: str) -> Finding:
        if (await self._facts()).is_read_only:
            return failed(
                what,
                "it takes none: a standby, or default_transaction_read_only",
                "let TUS_STATE_URL lead to the primary.",
            )
        return ok(what, "it is a primary")

    async def _durability(self, what: str) -> Finding:
        facts = await self._facts()
        full_pages = (await self._known(ASKED["surroundings"]))[1]
        text = (
            f"fsync {_on(facts.fsync)}, synchronous_commit {facts.synchronous_commit},"
            f" full_page_writes {_on(full_pages)}"
        )
        if not facts.fsync or not full_pages or facts.synchronous_commit == "off":
            return warning(
                what, text, "switch all of them on: Postgres would forget acknowledged bytes."
            )
        return ok(what, text)

    async def _clock(self, what: str) -> Finding:
        before_s = time.time()
        there_s: float = (await self._known(ASKED["clock"]))[0]
        after_s = time.time()
        apart_s = max(before_s - there_s, there_s - after_s, 0.0)
        if apart_s > SKEW_LIMIT_S:
            return warning(what, f"{apart_s:.1f} s apart", "set the clocks of both machines (NTP).")
        return ok(what, f"{apart_s:.1f} s apart")

    async def _notifications(self, what: str) -> Finding:
        """Send one by TUS_STATE_URL, and hear it where a server listens: it is one Postgres."""
        url = self._options.listen_url or self._options.url
        setting = "TUS_STATE_LISTEN_URL" if self._options.listen_url else "TUS_STATE_URL"
        channel = f"tus_proof_{secrets.token_hex(8)}"
        heard = asyncio.Event()
        try:
            listening = await connect(self._options, url)
        except (TimeoutError, ValueError, *DRIVER_ERRORS) as exc:
            return refused(what, at_start(exc, url, setting).detail)
        try:
            await listening.add_listener(channel, lambda *_: heard.set())
            await self._row(SQL["notify"], channel)
            async with asyncio.timeout(PROOF_S):
                await heard.wait()
        except TimeoutError:
            return failed(
                what,
                f"none arrives at {setting}",
                "set TUS_STATE_LISTEN_URL to the same database on Postgres itself, not a pooler;"
                " without it a take-over takes seconds.",
            )
        finally:
            await close(listening)
        return ok(what, f"sent by TUS_STATE_URL, heard by {setting}")

    async def _connections(self, what: str) -> Finding:
        most: int = (await self._known(ASKED["surroundings"]))[2]
        others = await self._known(ASKED["living_nodes"], self._plan.node_id or "", SILENT_S)
        each = self._plan.processes * (self._options.pool_size + 1)
        nodes = 1 + others[0]
        text = f"{nodes} node(s) like this one take up to {nodes * each} of {most}"
        # A pooler shares few among many.
        if nodes * each > most and self._options.listen_url is None:
            return warning(
                what, text, "raise max_connections, or lower TUS_STATE_POOL_SIZE or TUS_WORKERS."
            )
        return ok(what, text)

    async def _name(self, what: str) -> Finding:
        label = self._plan.label
        if label is None:
            return note(what, "a random one, made at the first start (TUS_NODE_NAME)")
        other = await self._row(ASKED["namesake"], label, self._plan.node_id or "", SILENT_S)
        if other is not None:
            return failed(
                what,
                f"{label}; node {other[0]} runs under it, last seen {max(other[1], 0):.0f} s ago",
                "give this one a name of its own (TUS_NODE_NAME), or stop the other one.",
            )
        return ok(what, f"{label}, and no other node runs under it")


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _on(is_on: bool) -> str:
    return "on" if is_on else "off"


def _is_near(host: str | None) -> bool:
    """Tell whether what is sent stays on this machine."""
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
