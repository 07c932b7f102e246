"""The one connection of a process that waits for notifications."""

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import structlog

from tus_server.core.errors import SettingsInvalid, TusServerError
from tus_server.state.postgres.errors import DRIVER_ERRORS, at_start
from tus_server.state.postgres.options import PostgresOptions
from tus_server.state.postgres.pool import CLOSE_TIMEOUT_S, Pool, Session, connect
from tus_server.state.postgres.rows import SQL

log = structlog.get_logger(__name__)

# A connection that died without a word is found out by asking.
KEEP_ALIVE_S = 5.0
PROOF_S = 2.0  # for a notification to come back
BACKOFF_S = (0.1, 5.0)  # between two attempts to connect: at first, at most


class Listener:
    """Hears notifications on its channels for as long as it is open; connects again by itself."""

    def __init__(
        self, options: PostgresOptions, pool: Pool, channels: Mapping[str, Callable[[str], None]]
    ) -> None:
        """channels: what to call, on the loop, with the payload of a notification on each."""
        self._options = options
        self._pool = pool
        self._url = options.listen_url or options.url
        self._setting = "TUS_STATE_LISTEN_URL" if options.listen_url else "TUS_STATE_URL"
        self._channels = channels
        self._tried = asyncio.Event()
        self._complained = False
        self._is_proven = False
        self.hears = False

    async def __aenter__(self) -> Self:
        """Return after the first attempt: without a listener everything works, but slower."""
        self._task = asyncio.create_task(self._run(), name="postgres-listener")
        await self._tried.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        pause_s = BACKOFF_S[0]
        while True:
            try:
                connection = await self._connect()
                pause_s = BACKOFF_S[0]
                try:
                    await self._stay(connection)
                finally:
                    self.hears = False
                    await self._hang_up(connection)
            except TusServerError as exc:
                self._complain(exc.detail)
            except (TimeoutError, *DRIVER_ERRORS) as exc:
                self._complain(at_start(exc, self._url, self._setting).detail)
            self._tried.set()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
            pause_s = min(2 * pause_s, BACKOFF_S[1])

    async def _connect(self) -> Session:
        connection = await connect(self._options, self._url)
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                for channel, heard in self._channels.items():
                    await connection.add_listener(channel, _callback(heard))
            await self._prove(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _prove(self, connection: Session) -> None:
        """Send a notification to ourselves: a pooler takes LISTEN, and then nothing is heard."""
        channel = f"tus_proof_{secrets.token_hex(8)}"
        heard = asyncio.Event()
        await connection.add_listener(channel, lambda *_: heard.set())
        await self._pool.fetch(SQL["notify"], channel, repeatable=True)
        try:
            async with asyncio.timeout(PROOF_S):
                await heard.wait()
        except TimeoutError:
            if self._is_proven:  # the way is right, so it is the network, or Postgres
                raise
            raise SettingsInvalid(
                f"{self._setting}: notifications do not arrive: TUS_STATE_LISTEN_URL must lead to"
                " Postgres itself, not to a pooler."
            ) from None
        self._is_proven = True

    async def _stay(self, connection: Session) -> None:
        """Return when the connection is lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        if self._complained:
            self._complained = False
            log.info("postgres.listening", setting=self._setting)
        self.hears = True
        self._tried.set()
        while not lost.is_set():
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await lost.wait()
            except TimeoutError:
                await connection.fetchval("SELECT 1", timeout=KEEP_ALIVE_S)

    async def _hang_up(self, connection: Session) -> None:
        # Not close() with its own time limit when cancelled: what is open is cut either way.
        try:
            if not connection.is_closed():
                await connection.close(timeout=CLOSE_TIMEOUT_S)
        except (TimeoutError, asyncio.CancelledError, *DRIVER_ERRORS) as exc:
            connection.terminate()
            if isinstance(exc, asyncio.CancelledError):
                raise

    def _complain(self, detail: str) -> None:
        if not self._complained:  # once for each outage
            self._complained = True
            log.warning("postgres.not_listening", detail=detail, meanwhile="leases are polled for")


def _callback(heard: Callable[[str], None]) -> Callable[..., None]:
    def call(connection: object, pid: int, channel: str, payload: object) -> None:
        heard(str(payload))

    return call
