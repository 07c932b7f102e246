"""The ASGI application: opened by its lifespan, or by its first request.

Everything is opened on one AsyncExitStack, in this order: lock of the data directory, state,
objects; then what a crash left on this disk is cleaned up, and only then is the first request
answered.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from starlette.applications import Starlette

from tus_server.app.applications import find_early_events, start_delivery
from tus_server.app.brokering import make_broker
from tus_server.app.guarded import make_guarded
from tus_server.app.opening import Opened, Prepared, open_engine
from tus_server.app.reaping import make_limits
from tus_server.authorizers import AllowAll
from tus_server.broker import Broker
from tus_server.engine.direct.waiting import auto_complete_loop
from tus_server.engine.engine import Engine
from tus_server.engine.join import join_loop
from tus_server.engine.reap import reap_loop
from tus_server.engine.recover import recover, recovery_loop
from tus_server.engine.sweep import sweep_loop
from tus_server.http.asgi import AsgiOptions, UploadsAsgi
from tus_server.http.body import Receive
from tus_server.http.direct import DirectHandler
from tus_server.http.exchange import Scope, Send
from tus_server.http.ops import ops_app
from tus_server.http.page import Page, PageOptions
from tus_server.http.places import Places
from tus_server.http.uploads import Uploads, UploadsOptions
from tus_server.jobs.targets import OnEvent
from tus_server.logs import log_through_standard_library
from tus_server.ports import Authorizer
from tus_server.settings import Settings
from tus_server.wire.cors import Origins
from tus_server.wire.forwarded import TrustedProxies

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Running:
    opened: Opened
    asgi: UploadsAsgi


class App:
    """The ASGI application; mount it, or serve it.

    Inside another application give `lifespan` to that one, since a mounted application gets no
    lifespan events of its own; without that it opens on its first request, and what runs when
    the process ends is not stored before it ends.
    """

    def __init__(
        self,
        settings: Settings,
        authorizer: Authorizer,
        prepared: Prepared | None = None,
        *,
        on_event: OnEvent | None = None,
        mounted_at: str = "",
    ) -> None:
        """prepared: what a supervisor, who holds the lock of the data directory, has found out.

        on_event, mounted_at: see create_app.
        """
        if not structlog.is_configured():
            log_through_standard_library()
        self._settings = settings
        self._authorizer = authorizer
        self._prepared = prepared
        self._on_event = on_event
        self._mounted_at = mounted_at.rstrip("/")
        self._running: _Running | None = None
        self._opening = asyncio.Lock()
        self._late = AsyncExitStack()
        self._outer = Starlette(lifespan=self.lifespan)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Open everything, and on leaving store what has arrived and close.

        Raises: DataDirInUse, DataDirUnusable, NodeNameTaken, SchemaMismatch, SettingsInvalid,
        StateUnavailable, StoreUnavailable.
        """
        async with AsyncExitStack() as stack:
            running = await self._open(stack)
            try:
                yield
            finally:
                engine = running.opened.engine
                engine.let_go()
                if not await engine.drain(self._settings.shutdown_timeout_s):
                    log.warning("shutdown.requests_left", count=engine.leases.held)
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
        return self._running.opened.engine

    @property
    def broker(self) -> Broker:
        """Direct uploads and sessions for this process, while the application is open."""
        return make_broker(self.engine, self._settings, mounted_at=self._mounted_at)

    def announce(self, url: str | None) -> None:
        """Tell the commands on this machine where the server is, if that is ours to tell."""
        if self._running is not None and self._running.opened.data_dir is not None:
            self._running.opened.data_dir.announce(url)

    async def _open_late(self) -> _Running:
        async with self._opening:
            if self._running is None:
                log.warning("app.opened_late", hint="give App.lifespan to the outer application")
                await self._open(self._late)
            assert self._running is not None
            return self._running

    async def _open(self, stack: AsyncExitStack) -> _Running:
        settings = self._settings
        opened = await open_engine(
            settings,
            self._authorizer,
            stack,
            prepared=self._prepared,
            early_events=find_early_events(settings, self._on_event),
        )
        engine = opened.engine
        await start_delivery(
            settings, engine, opened.checks, stack, self._on_event, mounted_at=self._mounted_at
        )
        if not settings.uses_s3:
            # A disk has bytes behind the offsets; nobody else can be at work on it.
            # What the application's checks take their time for must not keep us from starting.
            await recover(engine, receiving=True, finishing=not engine.verifiers)
        loops = [
            engine.leases.keep(),
            recovery_loop(engine),
            join_loop(engine),
            auto_complete_loop(engine),
            sweep_loop(engine, opened.own_files),
            reap_loop(engine, make_limits(settings)),
        ]
        for loop in loops:
            task = asyncio.create_task(loop)
            stack.callback(task.cancel)
        self._running = _Running(opened, _build_asgi(settings, engine))
        return self._running


def create_app(
    settings: Settings | None = None,
    *,
    authorizer: Authorizer | None = None,
    on_event: OnEvent | None = None,
    mounted_at: str = "",
) -> App:
    """Make the ASGI application; nothing is opened before its lifespan.

    settings None: from the environment and the TOML file. on_event: a coroutine function, awaited
    with every event after its commit, at least once, those of an upload in order, in one of all
    processes; if it raises, it is called again later. mounted_at: the path at which another
    application has this one, such as /uploads: for the URLs that its Broker and its events tell,
    where no request does. Raises: SettingsInvalid.
    """
    if settings is None:
        from tus_server.settings import load_settings

        settings = load_settings()
    return App(settings, authorizer or AllowAll(), on_event=on_event, mounted_at=mounted_at)


def _build_asgi(settings: Settings, engine: Engine) -> UploadsAsgi:
    uploads = Uploads(
        engine,
        UploadsOptions(
            max_header_bytes=settings.max_header_bytes,
            downloads=settings.downloads != "off",
            redirects=settings.downloads == "redirect",
            public_url=settings.public_url,
            proxies=TrustedProxies(settings.proxies),
        ),
    )
    others = Places(
        make_guarded(settings, engine),
        ops_app(engine, settings.base_path, _make_page(settings, engine)),
    )
    return UploadsAsgi(
        uploads,
        others,
        AsgiOptions(
            base_path=settings.base_path,
            other_places=others.prefixes,
            origins=Origins(settings.origins),
            credentials=settings.cors_credentials,
            allow_headers=settings.cors_allow_headers,
            expose_headers=settings.cors_expose_headers,
            body_idle_timeout_s=settings.body_idle_timeout_s,
            fast_bodies=settings.body_path != "plain",
        ),
        DirectHandler(engine) if engine.part_files is not None else None,
    )


def _make_page(settings: Settings, engine: Engine) -> Page | None:
    if settings.page == "off" or settings.base_path == "/":  # there the uploads have the root
        return None
    return Page(
        PageOptions(
            creation_path=settings.base_path,
            max_size=engine.max_size,
            downloads=settings.downloads != "off",
            is_open=engine.authorizer.takes_all,
            public_url=settings.public_url,
        )
    )
