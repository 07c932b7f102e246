"""Composition root: settings -> stores -> engine -> ASGI application.

The only place that knows the concrete classes. Everything is opened on one AsyncExitStack, in
this order: lock of the data directory, state, objects; then what a crash left is cleaned up, and
only then is the first request answered.
"""

import asyncio
import gc
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from starlette.applications import Starlette

from tus_server import datadir
from tus_server.authorizers import AllowAll
from tus_server.clock import SystemClock
from tus_server.core.errors import DataDirUnusable, UploadNotFound
from tus_server.core.ids import find_upload_id
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER
from tus_server.engine.buffers import BlockPool
from tus_server.engine.engine import Engine
from tus_server.engine.leases import Leases
from tus_server.engine.recover import recover, recovery_loop
from tus_server.engine.terminate import terminate
from tus_server.folders import make_lasting_folder
from tus_server.http.asgi import AsgiOptions, UploadsAsgi
from tus_server.http.body import Receive
from tus_server.http.exchange import Scope, Send
from tus_server.http.ops import ops_app
from tus_server.http.server import BACKLOG, ServerOptions, bind, make_server
from tus_server.http.tus import TusHandler, TusOptions
from tus_server.logs import log_through_standard_library
from tus_server.objects.local import LocalObjects
from tus_server.objects.threads import FileThreads
from tus_server.ports import ANONYMOUS, Authorizer
from tus_server.settings import Settings
from tus_server.state.sqlite import SqliteReader, SqliteState
from tus_server.wire.cors import Origins
from tus_server.wire.forwarded import TrustedProxies

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Running:
    engine: Engine
    data_dir: datadir.DataDir
    asgi: UploadsAsgi


class App:
    """The ASGI application; mount it, or serve it.

    Inside another application give `lifespan` to that one, since a mounted application gets no
    lifespan events of its own; without that it opens on its first request, and what runs when
    the process ends is not stored before it ends.
    """

    def __init__(self, settings: Settings, authorizer: Authorizer) -> None:
        if not structlog.is_configured():
            log_through_standard_library()
        self._settings = settings
        self._authorizer = authorizer
        self._running: _Running | None = None
        self._opening = asyncio.Lock()
        self._late = AsyncExitStack()
        self._outer = Starlette(lifespan=self.lifespan)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Open everything, and on leaving store what has arrived and close.

        Raises: DataDirInUse, DataDirUnusable, SchemaMismatch, SettingsInvalid.
        """
        async with AsyncExitStack() as stack:
            running = await self._open(stack)
            loop = asyncio.create_task(recovery_loop(running.engine))
            try:
                yield
            finally:
                loop.cancel()
                running.engine.let_go()
                if not await running.engine.drain(self._settings.shutdown_timeout_s):
                    log.warning("shutdown.requests_left", count=running.engine.leases.held)
                self._running = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._outer(scope, receive, send)
        elif scope["type"] == "http":
            running = self._running or await self._open_late()
            await running.asgi(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    @property
    def engine(self) -> Engine:
        """The engine, while the application is open."""
        assert self._running is not None, "the application is not open"
        return self._running.engine

    def announce(self, url: str | None) -> None:
        """Tell the commands on this machine where the server is."""
        if self._running is not None:
            self._running.data_dir.announce(url)

    async def _open_late(self) -> _Running:
        async with self._opening:
            if self._running is None:
                log.warning("app.opened_late", hint="give App.lifespan to the outer application")
                await self._open(self._late)
            assert self._running is not None
            return self._running

    async def _open(self, stack: AsyncExitStack) -> _Running:
        settings = self._settings
        data_dir = stack.enter_context(datadir.DataDir(settings.data_dir))
        engine = await _open_engine(settings, self._authorizer, stack)
        await recover(engine)
        self._running = _Running(engine, data_dir, _build_asgi(settings, engine))
        return self._running


def create_app(settings: Settings | None = None, *, authorizer: Authorizer | None = None) -> App:
    """Make the ASGI application; nothing is opened before its lifespan.

    settings None: from the environment and the TOML file. Raises: SettingsInvalid.
    """
    if settings is None:
        from tus_server.settings import load_settings

        settings = load_settings()
    return App(settings, authorizer or AllowAll())


def run(settings: Settings) -> int:
    """Serve until a signal; give the exit status.

    Raises, before anything is served: DataDirInUse, DataDirUnusable, SchemaMismatch,
    SettingsInvalid (the address cannot be listened on).
    """
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
        runner.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    app = create_app(settings)
    options = ServerOptions(
        shutdown_timeout_s=settings.shutdown_timeout_s,
        keep_alive_timeout_s=settings.keep_alive_timeout_s,
        max_header_bytes=settings.max_header_bytes,
        fast_bodies=settings.body_path != "plain",
    )
    with bind(settings.host, settings.port) as listener:
        async with app.lifespan():
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{port}{settings.base_path}"
            # From here on a connection waits for us instead of being refused.
            listener.listen(BACKLOG)
            app.announce(url)
            log.info("server.listening", url=url, data_dir=str(settings.data_dir))
            server = make_server(app, options, app.engine.let_go)
            await server.serve(sockets=[listener])
            log.info("server.stopped")


async def _open_engine(settings: Settings, authorizer: Authorizer, stack: AsyncExitStack) -> Engine:
    clock = SystemClock()
    durable = settings.durability == "full"
    try:
        make_lasting_folder(settings.state_path.parent)
        make_lasting_folder(settings.store_path)
    except OSError as exc:
        raise DataDirUnusable(
            f"{exc.filename} cannot be made ({exc.strerror}): see TUS_STATE_URL, TUS_STORE_URL."
        ) from exc
    state = await stack.enter_async_context(
        SqliteState(settings.state_path, clock, durable=durable)
    )
    threads = stack.enter_context(FileThreads(settings.file_threads))
    objects = LocalObjects(
        settings.store_path,
        threads,
        part_size_bytes=settings.part_size_bytes,
        durable=durable,
    )
    largest = min(objects.limits.max_object_size, MAX_ANNOUNCED_INTEGER)
    return Engine(
        state=state,
        objects=objects,
        leases=Leases(state, clock, wait_s=settings.lease_wait_s),
        authorizer=authorizer,
        clock=clock,
        blocks=BlockPool(settings.buffer_bytes),
        max_size=min(settings.max_size or largest, largest),
    )


def _build_asgi(settings: Settings, engine: Engine) -> UploadsAsgi:
    tus = TusHandler(
        engine,
        TusOptions(
            max_header_bytes=settings.max_header_bytes,
            downloads=settings.downloads != "off",
            public_url=settings.public_url,
            proxies=TrustedProxies(settings.proxies),
        ),
    )
    return UploadsAsgi(
        tus,
        ops_app(engine, settings.base_path),
        AsgiOptions(
            base_path=settings.base_path,
            origins=Origins(settings.origins),
            credentials=settings.cors_credentials,
            body_idle_timeout_s=settings.body_idle_timeout_s,
            fast_bodies=settings.body_path != "plain",
        ),
    )


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


# --- for the command line


def open_reader(settings: Settings) -> SqliteReader:
    """Look into the state from outside, also while a server runs; an async context manager."""
    return SqliteReader(settings.state_path)


def find_running(settings: Settings) -> str | None:
    """Give the creation URL of the server that runs on the data directory, if one does."""
    return datadir.find_server(settings.data_dir)


async def terminate_offline(settings: Settings, upload_id: str) -> None:
    """Terminate an upload while no server runs. Raises: UploadNotFound, DataDirInUse."""
    found = find_upload_id(upload_id)
    if found is None:
        raise UploadNotFound
    async with AsyncExitStack() as stack:
        stack.enter_context(datadir.DataDir(settings.data_dir))
        engine = await _open_engine(settings, AllowAll(), stack)
        await terminate(engine, found, ANONYMOUS)
