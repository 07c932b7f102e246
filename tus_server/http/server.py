"""uvicorn as `tus-server serve` runs it: our protocol class, and a stop that loses nothing."""

import asyncio
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
import uvicorn
from starlette.types import ASGIApp

from tus_server.core.errors import SettingsInvalid
from tus_server.http.uvicorn_protocol import find_protocol

log = structlog.get_logger(__name__)
BACKLOG = 2048  # connections that wait to be accepted
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What of the settings shapes the server."""

    shutdown_timeout_s: float
    keep_alive_timeout_s: float
    max_header_bytes: int
    fast_bodies: bool
    refusal_headers: Sequence[tuple[bytes, bytes]]  # of replies to what is no request


class Server(uvicorn.Server):
    """Asks every running upload to store what it has before uvicorn waits for connections.

    Under plain uvicorn a stop waits for bodies to end by themselves, and then cancels.
    """

    def __init__(self, config: uvicorn.Config, let_go: Callable[[], None]) -> None:
        super().__init__(config)
        self._let_go = let_go

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._let_go()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn raises the signal again when it has stopped; that would end the process before
        # the state database is closed.
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)


def make_server(app: ASGIApp, options: ServerOptions, let_go: Callable[[], None]) -> Server:
    """Configure a server for an application whose lifespan is already running."""
    protocol = find_protocol(fast=options.fast_bodies)
    if protocol is not None:
        protocol.max_header_bytes = 2 * options.max_header_bytes
        protocol.refusal_headers = options.refusal_headers
    else:
        log.warning(
            "server.plain_bodies",
            uvicorn=uvicorn.__version__,
            why="not a uvicorn version the fast body path was tested with",
        )
    config = uvicorn.Config(
        app,
        http=protocol or "httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # The application decides what a proxy may say (TUS_BEHIND_PROXY).
        proxy_headers=False,
        timeout_keep_alive=max(1, round(options.keep_alive_timeout_s)),
        timeout_graceful_shutdown=max(1, round(options.shutdown_timeout_s)),
        backlog=BACKLOG,
    )
    return Server(config, let_go)


def bind(host: str, port: int) -> socket.socket:
    """Take the address to listen on. Raises SettingsInvalid naming TUS_HOST and TUS_PORT."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as exc:
        raise SettingsInvalid(
            f"Cannot listen on {host}:{port} ({exc.strerror}): set TUS_HOST and TUS_PORT"
            " (--host, --port) to an address that is free on this machine."
        ) from exc
    listener.setblocking(False)
    return listener
