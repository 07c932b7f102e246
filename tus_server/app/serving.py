"""Serving: one process for itself, or one of several under a supervisor."""

import asyncio
import gc
import resource
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from tus_server.app.asgi import App
from tus_server.app.opening import Prepared, prepare_stores
from tus_server.authorizers import AllowAll
from tus_server.http.server import BACKLOG, ServerOptions, bind, make_server
from tus_server.settings import Settings
from tus_server.wire.cors import Origins, render_cors

log = structlog.get_logger(__name__)

__all__ = ["Prepared", "prepare", "run", "run_worker"]


def run(settings: Settings) -> int:
    """Serve until a signal; give the exit status.

    Raises, before anything is served: DataDirInUse, DataDirUnusable, NodeNameTaken,
    SchemaMismatch, SettingsInvalid, StateUnavailable, StoreUnavailable.
    """

    async def serve() -> None:
        with bind(settings.host, settings.port) as listener:
            await _serve(settings, App(settings, AllowAll()), listener)

    _run(serve)
    return 0


def prepare(settings: Settings) -> Prepared:
    """Check, once for all workers of a node, what they would otherwise all check at start.

    Raises: as run.
    """
    return asyncio.run(prepare_stores(settings))


def run_worker(
    settings: Settings,
    listener: socket.socket,
    prepared: Prepared,
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Serve on a socket that several processes accept from, until a signal.

    The supervisor holds the lock of the data directory. ready: called when requests are answered.
    Raises: as run.
    """

    async def serve() -> None:
        await _serve(settings, App(settings, AllowAll(), prepared), listener, ready)

    _run(serve)
    return 0


def url_of(settings: Settings, listener: socket.socket) -> str:
    """Give the creation URL as seen from this machine."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}{settings.base_path}"


async def _serve(
    settings: Settings,
    app: App,
    listener: socket.socket,
    ready: Callable[[], None] = lambda: None,
) -> None:
    origins = Origins(settings.origins)
    options = ServerOptions(
        shutdown_timeout_s=settings.shutdown_timeout_s,
        keep_alive_timeout_s=settings.keep_alive_timeout_s,
        max_header_bytes=settings.max_header_bytes,
        fast_bodies=settings.body_path != "plain",
        # Pages of all origins may read them. Which one asks is not known there.
        refusal_headers=render_cors(None, origins, credentials=False, preflight=False),
    )
    async with app.lifespan():
        url = url_of(settings, listener)
        # From here on a connection waits for us instead of being refused.
        listener.listen(BACKLOG)
        app.announce(url)
        log.info("server.listening", url=url, data_dir=str(settings.data_dir))
        server = make_server(app, options, app.engine.let_go)
        ready()
        await server.serve(sockets=[listener])
        log.info("server.stopped")


def _run(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the process's one coroutine, on the fastest loop there is."""
    _raise_file_limit()
    _quiet_collector()
    # This process logs one way for life: binding each logger again took 4 % of a small upload.
    structlog.configure(cache_logger_on_first_use=True)
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve())


def _quiet_collector() -> None:
    """Leave what was imported out of every collection, and collect less often.

    A request makes few cycles and hundreds of objects: with the defaults the collector took 6 %
    of the time of small uploads, mostly walking modules.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _raise_file_limit() -> None:
    """Every running upload has a socket and a file: take what the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            log.warning("server.file_limit", files=soft)  # macOS names a limit it does not grant
