"""HTTP requests to the application: bounded in time and size, sent to where the URL says.

No redirect is followed, for it would lead past the check of the address; no proxy of the
environment is used, for it would connect in our place; cookies are not kept.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from tus_server.ports import Clock
from tus_server.printable import printable

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

CONNECT_TIMEOUT_S = 10.0
MOST_CONNECTIONS = 256  # more than are delivered at once: they never wait for one another here
KEEP_ALIVE_S = 4.0  # below the 5 s of uvicorn: a connection closed under a request is a failure
IGNORED_WAIT_S = 1.0  # for a body that nobody reads, so that its connection can be used again
IGNORED_BYTES = 4096
MOST_BYTES = 64 * 1024  # of a body that is read
SILENT_AFTER = 3  # times without an answer in a row
SILENT_S = 30.0
MAX_ORIGINS = 1000


class NoAnswer(Exception):
    """There was no answer, or not all of it; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. body: as much of it as was read."""

    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def __str__(self) -> str:
        """Say it in a line."""
        text = printable(self.body[:200].decode("utf-8", errors="replace").strip())
        return f"answered {self.status}" + (f": {text}" if text else "")


class Outgoing:
    """Sends; an async context manager on the loop that serves. Its session opens when needed.

    agent: what it calls itself. timeout_s: of one request. open_socket: makes the socket to an
    address, or raises OSError.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        agent: str,
        timeout_s: float,
        open_socket: Callable[[tuple[Any, ...]], Any] | None = None,
    ) -> None:
        self._agent = agent
        self._timeout_s = timeout_s
        self._open_socket = open_socket
        self._silences = Silences(clock)
        self._session: ClientSession | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, reads: bool = False
    ) -> Answer:
        """POST JSON; reads: the body of the answer counts, and is read to its end.

        Raises: NoAnswer.
        """
        session = self._session or await self._open()
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url)).lower()
        self._silences.check(origin)
        try:
            async with asyncio.timeout(self._timeout_s):
                async with session.post(
                    url, data=body, headers=headers, allow_redirects=False
                ) as response:
                    self._silences.heard(origin)
                    content = await (_read(response) if reads else _read_some(response))
                    return Answer(response.status, content)
        except TimeoutError as exc:  # aiohttp's are such too
            self._silences.missed(origin)
            raise NoAnswer(f"no answer within {self._timeout_s:g} s") from exc
        except (OSError, ValueError, self._client_error) as exc:
            raise NoAnswer(_words(exc)) from exc

    async def _open(self) -> "ClientSession":
        async with self._opening:
            if self._session is None:
                # A fifth of a second, for who needs it only.
                aiohttp = await asyncio.to_thread(_import_aiohttp)
                self._client_error: type[Exception] = aiohttp.ClientError
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        limit=MOST_CONNECTIONS,
                        keepalive_timeout=KEEP_ALIVE_S,
                        socket_factory=self._open_socket,
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                    headers={
                        "User-Agent": self._agent,
                        "Content-Type": "application/json",
                        "Accept-Encoding": "identity",
                    },
                    auto_decompress=False,
                    trust_env=False,
                )
            return self._session


class Silences:
    """Origins that let requests run into their timeouts: one at a time tries, the others fail.

    Else a few of them would take all the room that deliveries have.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._missed: OrderedDict[str, tuple[int, float]] = OrderedDict()  # times, until

    def check(self, origin: str) -> None:
        """Return if one may try. Raises: NoAnswer."""
        times, until_s = self._missed.get(origin, (0, 0.0))
        if times < SILENT_AFTER:
            return
        now_s = self._clock.monotonic_s()
        if now_s < until_s:
            raise NoAnswer(f"not tried, for it did not answer {times} times in a row")
        self._missed[origin] = times, now_s + SILENT_S  # the others wait for how this one fares

    def heard(self, origin: str) -> None:
        """Note an answer, whatever it says."""
        self._missed.pop(origin, None)

    def missed(self, origin: str) -> None:
        """Note that none came in time."""
        times, _ = self._missed.pop(origin, (0, 0.0))
        self._missed[origin] = times + 1, self._clock.monotonic_s() + SILENT_S
        if len(self._missed) > MAX_ORIGINS:
            self._missed.popitem(last=False)


async def _read(response: "ClientResponse") -> bytes:
    content = b""
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > MOST_BYTES:
            raise NoAnswer(f"its answer has more than {MOST_BYTES} bytes")
    return content


async def _read_some(response: "ClientResponse") -> bytes:
    """Read a small body, so that the connection can be used again; of a large one the beginning.

    Never raises: the status is what counts, and it is here.
    """
    content = b""
    if response.content.is_eof():
        return response.content.read_nowait(IGNORED_BYTES)  # it came with the status
    try:
        async with asyncio.timeout(IGNORED_WAIT_S):
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > IGNORED_BYTES:
                    break
    except (OSError, _import_aiohttp().ClientError):
        pass  # TimeoutError is an OSError
    return content


def _words(exc: Exception) -> str:
    """Say what went wrong; of a connection that could not be made that is what the system says."""
    cause = getattr(exc, "os_error", None)
    said = printable(str(exc if cause is None else cause.strerror or cause))
    return f"no connection, {said}" if cause is not None else said or type(exc).__name__


def _import_aiohttp() -> Any:
    import aiohttp

    return aiohttp
