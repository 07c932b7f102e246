"""What the reaper takes by the settings; for the command line, one pass and a look at it."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from datetime import datetime, timedelta
from typing import NamedTuple

from tus_server.app.offline import open_reader
from tus_server.app.opening import make_expiry, open_engine
from tus_server.authorizers import AllowAll
from tus_server.clock import SystemClock
from tus_server.core.upload import Upload
from tus_server.engine.reap import (
    NODE_SILENT_S,
    Limits,
    Reaped,
    find_expired,
    find_kept_longer,
    reap,
)
from tus_server.engine.recover import recover
from tus_server.engine.sweep import sweep
from tus_server.ports import NodeSeen
from tus_server.settings import Settings


class Reapable(NamedTuple):
    """What a pass would end: uploads that expire, or were kept for long, each with since when."""

    expired: list[tuple[Upload, datetime]]
    kept: list[tuple[Upload, datetime]]
    nodes: list[NodeSeen]


def make_limits(settings: Settings, *, idle_s: float | None = None) -> Limits:
    """Give what a pass takes; idle_s: also what got no byte for that long."""
    return Limits(expiry=make_expiry(settings), kept_s=settings.keep_finished_s, idle_s=idle_s)


async def find_reapable(settings: Settings, *, idle_s: float | None) -> Reapable:
    """Look at what a pass would end, and change nothing; also while servers run."""
    limits = make_limits(settings, idle_s=idle_s)
    found = Reapable([], [], [])
    async with open_reader(settings) as state:
        async with aclosing(find_expired(state, limits, SystemClock().now)) as pages:
            async for page in pages:
                found.expired.extend((each, each.expires_at or each.state_on) for each in page)
        async with aclosing(find_kept_longer(state, limits)) as pages:
            async for page in pages:
                kept = timedelta(seconds=limits.kept_s or 0.0)
                found.kept.extend((each, each.state_on + kept) for each in page)
        found.nodes.extend(await state.find_stale_nodes(NODE_SILENT_S))
    return found


async def reap_now(settings: Settings, *, idle_s: float | None) -> Reaped:
    """Do one pass, and what an earlier one may have left; with SQLite only while no server runs.

    Raises: DataDirInUse, DataDirUnusable, StateUnavailable.
    """
    async with open_reader(settings):
        pass  # a slip in the settings makes no folders
    async with AsyncExitStack() as stack:
        opened = await open_engine(settings, AllowAll(), stack, shared=settings.uses_postgres)
        engine = opened.engine
        keeping = asyncio.create_task(engine.leases.keep())
        stack.callback(keeping.cancel)
        reaped = await reap(engine, make_limits(settings, idle_s=idle_s), by="by tus-server reap")
        await recover(engine, receiving=False)
        if opened.data_dir is not None:
            for kind in opened.own_files:
                await sweep(engine, await kind.find_all())
        return reaped
