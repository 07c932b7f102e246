"""Examining what the settings name for state and bytes."""

from collections.abc import AsyncIterator

from tus_server.app.doctor.folder import LITTLE_BYTES, examine_folder
from tus_server.app.offline import open_reader
from tus_server.app.opening import postgres_options
from tus_server.app.storage import s3_options
from tus_server.core.errors import TusServerError
from tus_server.disk.threads import FileThreads
from tus_server.findings import Finding, note, ok, refused, within
from tus_server.ports import Node
from tus_server.settings import Settings

SQLITE_TIMEOUT_S = 20.0


async def examine_state(settings: Settings, node: Node | None) -> AsyncIterator[Finding]:
    """Look at Postgres or SQLite."""
    if not settings.uses_postgres:
        yield await within("SQLite", SQLITE_TIMEOUT_S, _sqlite(settings))
        if settings.state_path.parent != settings.data_dir.absolute():
            async for finding in examine_folder(
                "SQLite folder",
                settings.state_path.parent,
                needed_bytes=LITTLE_BYTES // 4,
                why="the state of uploads",
            ):
                yield finding
        return
    from tus_server.state.postgres.doctor import PostgresPlan, examine

    plan = PostgresPlan(
        node_id=node.id if node else None,
        label=settings.node_name or (node.label if node else None),
        processes=settings.workers,
        migrates=settings.migrate,
    )
    async for finding in examine(postgres_options(settings), plan):
        yield finding


async def examine_objects(settings: Settings) -> AsyncIterator[Finding]:
    """Look at S3, or at the folder of files where it is not the data directory."""
    if settings.uses_s3:
        from tus_server.objects.s3.inspect import inspect

        with FileThreads(1) as threads:
            async for finding in inspect(s3_options(settings), threads):
                yield finding
    elif settings.store_path != settings.data_dir.absolute():
        async for finding in examine_folder(
            "files", settings.store_path, needed_bytes=LITTLE_BYTES, why="a few uploads"
        ):
            yield finding


async def _sqlite(settings: Settings) -> Finding:
    what = "SQLite"
    if not settings.state_path.exists():
        return note(what, f"{settings.state_path} is made at the first start")
    try:
        async with open_reader(settings) as reader:
            await reader.list_uploads(None, 1)
    except TusServerError as exc:
        return refused(what, exc.detail)
    return ok(what, f"{settings.state_path} can be read, and has the right schema")
