"""A few connections for many requests: each is held for one statement and no longer.

asyncpg has a pool of its own. This one is smaller, costs less for each statement, and knows what
matters here: after one connection was lost all idle ones are suspects, a connection on which a
statement did not end is never used again, and waiting for a connection counts as part of the
operation.
"""

import asyncio
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

import asyncpg
from asyncpg import Record

from tus_server.core.errors import StateUnavailable
from tus_server.state.postgres.errors import DRIVER_ERRORS, is_lost, translated
from tus_server.state.postgres.options import PostgresOptions

# Generic in the stubs alone.
if TYPE_CHECKING:
    Session = asyncpg.Connection[Record]
else:
    Session = asyncpg.Connection

# Firewalls forget connections that are silent for long, and tell nobody.
MAX_IDLE_S = 240.0
CLOSE_TIMEOUT_S = 2.0
_BEGIN = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '5s'"


async def connect(options: PostgresOptions, url: str | None = None) -> Session:
    """Open a connection. Raises what the driver raises, TimeoutError among it."""
    settings = {"application_name": "tus-server"}
    if options.prepared_statements:
        # A statement whose client gave up is not carried out much later. A pooler in transaction
        # mode would refuse the parameter.
        settings["statement_timeout"] = str(round(options.statement_timeout_s * 1000))
    return await asyncpg.connect(
        url or options.url,
        timeout=options.connect_timeout_s,
        command_timeout=options.statement_timeout_s,
        statement_cache_size=100 if options.prepared_statements else 0,
        server_settings=settings,
    )


async def close(connection: Session) -> None:
    """Say goodbye, but do not wait long for the answer."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT_S)
    except (TimeoutError, *DRIVER_ERRORS):
        connection.terminate()


class Pool:
    """Runs statements, each in a transaction of its own."""

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._slots = asyncio.Semaphore(options.pool_size)
        self._idle: list[tuple[Session, float]] = []  # the last used is the last
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            await close(connection)

    def adopt(self, connection: Session) -> None:
        """Take a connection that was opened elsewhere, as the first idle one."""
        self._idle.append((connection, monotonic()))

    async def fetch(
        self, query: str, *args: object, repeatable: bool, timeout_s: float | None = None
    ) -> list[Record]:
        """Run one statement; give its rows.

        repeatable: it may run again when the connection turns out to be lost. Raises:
        StateUnavailable (not `repeatable`: it may have taken effect), StorageFull, and the
        driver's own errors for what is a defect of ours.
        """
        limit_s = self._options.statement_timeout_s
        if timeout_s is not None:
            limit_s = min(limit_s, timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                return await self._fetch(query, args, repeatable=repeatable)
        except TimeoutError as exc:
            raise StateUnavailable("Postgres does not answer in time.") from exc

    async def _fetch(
        self, query: str, args: tuple[object, ...], *, repeatable: bool
    ) -> list[Record]:
        async with self._slots:
            while True:
                connection = self._pop()
                try:
                    is_new = connection is None
                    if connection is None:
                        connection = await connect(self._options)
                    rows = await self._run(connection, query, args)
                except BaseException as exc:
                    self._put_back(connection, exc)
                    if is_lost(exc) and not is_new:
                        # Whatever ended this connection has probably ended the others too.
                        self._drop_idle()
                        if repeatable:
                            continue
                    if isinstance(exc, DRIVER_ERRORS) and not isinstance(exc, TimeoutError):
                        error = translated(exc)
                        if error is not exc:
                            raise error from exc
                    raise
                self._put_back(connection)
                return rows

    async def _run(self, connection: Session, query: str, args: tuple[object, ...]) -> list[Record]:
        if self._options.prepared_statements:
            return await connection.fetch(query, *args)
        # A pooler in transaction mode gives the server's connection to somebody else between
        # preparing a statement and running it, unless both are in one transaction. A client that
        # is stopped in the middle must not keep its locks.
        await connection.execute(_BEGIN)
        rows = await connection.fetch(query, *args)
        await connection.execute("COMMIT")
        return rows

    def _pop(self) -> Session | None:
        if self._closed:
            raise StateUnavailable("The state store is closed.")
        while self._idle:
            connection, since_s = self._idle.pop()
            if monotonic() - since_s > MAX_IDLE_S:
                connection.terminate()
                self._drop_idle()  # the others are idle for even longer
            elif not connection.is_closed():
                return connection
        return None

    def _put_back(self, connection: Session | None, error: BaseException | None = None) -> None:
        if connection is None:
            return
        # After an error that the server has reported the session is as good as before; after
        # anything else nobody knows what it will answer to the next statement.
        usable = error is None or (
            isinstance(error, asyncpg.PostgresError)
            and not is_lost(error)
            and not connection.is_in_transaction()
        )
        if usable and not self._closed and not connection.is_closed():
            self._idle.append((connection, monotonic()))
        else:
            connection.terminate()

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.terminate()
