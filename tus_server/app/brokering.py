"""The Broker of a process: beside the server in it, or without any."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tus_server.broker import Broker
from tus_server.engine.engine import Engine
from tus_server.settings import Settings


def make_broker(engine: Engine, settings: Settings, *, mounted_at: str = "") -> Broker:
    """Give the Broker over an engine that is open.

    Its URLs begin with TUS_PUBLIC_URL; without that they are paths, as in Location. mounted_at:
    see create_app.
    """
    origin = f"{settings.public_url or ''}{mounted_at}"
    return Broker(engine, base_url=f"{origin}{settings.base_path}", origin=origin)


@asynccontextmanager
async def open_broker(settings: Settings | None = None) -> AsyncIterator[Broker]:
    """Open everything for an application that serves no uploads itself, and give the Broker.

    With SQLite only while no server runs on the data directory. Raises: as App.lifespan.
    """
    from tus_server.app.asgi import create_app

    app = create_app(settings)
    async with app.lifespan():
        yield app.broker
