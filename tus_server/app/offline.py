"""For the command line: looking at the state, and acting on uploads beside or without a server."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from tus_server import datadir
from tus_server.app.opening import open_engine, open_state, postgres_options
from tus_server.authorizers import AllowAll
from tus_server.core.errors import UploadNotFound
from tus_server.core.ids import UploadId, find_upload_id
from tus_server.core.upload import Upload
from tus_server.engine.rewind import rewind
from tus_server.engine.terminate import terminate
from tus_server.ports import APPLICATION, StateReader
from tus_server.settings import Settings


def open_reader(settings: Settings) -> AbstractAsyncContextManager[StateReader]:
    """Look into the state from outside, also while servers run."""
    if settings.uses_postgres:
        from tus_server.state.postgres import PostgresReader

        return PostgresReader(postgres_options(settings))
    from tus_server.state.sqlite import SqliteReader

    return SqliteReader(settings.state_path)


def find_running(settings: Settings) -> str | None:
    """Give the creation URL of the server that runs on the data directory, if one does."""
    return datadir.find_server(settings.data_dir)


async def migrate_state(settings: Settings) -> tuple[int, int]:
    """Bring the tables in Postgres up to date; give the version before and after.

    Raises: SettingsInvalid, SchemaMismatch.
    """
    from tus_server.state.postgres import migrate

    return await migrate(postgres_options(settings))


async def terminate_offline(settings: Settings, upload_id: str) -> None:
    """Terminate an upload; with SQLite only while no server runs.

    Raises: UploadNotFound, DataDirInUse, LeaseNotObtained.
    """
    async with AsyncExitStack() as stack:
        opened = await open_engine(settings, AllowAll(), stack, shared=settings.uses_postgres)
        await terminate(opened.engine, _parse_id(upload_id), APPLICATION)


async def rewind_offline(settings: Settings, upload_id: str) -> tuple[Upload, Upload]:
    """Give up the tail of an upload; give the row before and after.

    Raises: UploadNotFound, NothingToRewind, DataDirInUse, LeaseNotObtained.
    """
    async with AsyncExitStack() as stack:
        opened = await open_engine(settings, AllowAll(), stack, shared=settings.uses_postgres)
        return await rewind(opened.engine, _parse_id(upload_id))


async def retry_offline(settings: Settings, event_ids: Sequence[int]) -> list[bool]:
    """Let dead letters be tried again; tell of each whether it was one.

    With SQLite only while no server runs. Raises: DataDirInUse.
    """
    async with AsyncExitStack() as stack:
        state = await open_state(settings, stack)
        return [await state.retry_event(event_id) for event_id in event_ids]


def _parse_id(text: str) -> UploadId:
    found = find_upload_id(text)
    if found is None:
        raise UploadNotFound
    return found
