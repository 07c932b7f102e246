"""The schema's version: finding it out, and bringing it up to date."""

from importlib.resources import files

import asyncpg

from tus_server.core.errors import SchemaMismatch
from tus_server.state.postgres.errors import DRIVER_ERRORS, at_start
from tus_server.state.postgres.options import PostgresOptions
from tus_server.state.postgres.pool import Session, close, connect
from tus_server.state.postgres.rows import SQL

_LONG_S = 86_400.0  # a migration, or waiting for another node that does it
# Any number that other applications are unlikely to lock: 'tus1' twice.
_LOCK = 0x7475733174757331


def migrations() -> list[str]:
    """Give the scripts in order; the nth brings a database from version n - 1 to n."""
    folder = files(__package__).joinpath("migrations")
    scripts = {one.name: one for one in folder.iterdir() if one.name.endswith(".sql")}
    for number, name in enumerate(sorted(scripts), 1):
        assert name.startswith(f"{number:04}_"), name
    return [scripts[name].read_text(encoding="utf-8") for name in sorted(scripts)]


VERSION = len(migrations())


async def find_version(connection: Session) -> int:
    """Give the version of the schema, 0 where there is none."""
    if not await connection.fetchval(SQL["has_schema"]):
        return 0
    found: int | None = await connection.fetchval(SQL["schema_version"])
    return found or 0


async def expect_current(connection: Session) -> None:
    """Raise SchemaMismatch unless the schema is the one this server knows."""
    version = await find_version(connection)
    if version == 0:
        raise SchemaMismatch(
            "The database of TUS_STATE_URL has no tables of tus_server yet: run"
            " `tus-server migrate` (or serve --migrate)."
        )
    if version < VERSION:
        raise SchemaMismatch(
            f"The database of TUS_STATE_URL has schema {version}, this server needs {VERSION}:"
            " run `tus-server migrate` (or serve --migrate)."
        )
    if version > VERSION:
        raise SchemaMismatch(
            f"This server knows schema {VERSION}, the database of TUS_STATE_URL has {version}:"
            " install the version of tus-server that the other nodes run."
        )


async def migrate(options: PostgresOptions) -> tuple[int, int]:
    """Bring the schema up to date; give the version before and after.

    Idempotent; of several nodes that do it at once one does the work. Each migration is a
    transaction. Raises: SettingsInvalid, SchemaMismatch.
    """
    try:
        connection = await connect(options)
    except (TimeoutError, ValueError, *DRIVER_ERRORS) as exc:
        raise at_start(exc, options.url) from exc
    try:
        async with connection.transaction():  # for the sake of poolers
            before = await find_version(connection)
        for number, script in enumerate(migrations(), 1):
            await _apply(connection, number, script)
        return before, max(before, VERSION)
    except asyncpg.DuplicateTableError as exc:
        raise SchemaMismatch(
            f"The database of TUS_STATE_URL has tables of another application ({exc}): use a"
            " database, or a schema in its search_path, of its own."
        ) from exc
    except (TimeoutError, *DRIVER_ERRORS) as exc:
        raise at_start(exc, options.url) from exc
    finally:
        await close(connection)


async def _apply(connection: Session, number: int, script: str) -> None:
    async with connection.transaction():
        # Of the transaction, not of the session: also behind a pooler.
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute(SQL["lock"], _LOCK, timeout=_LONG_S)
        if await find_version(connection) >= number:
            return
        await connection.execute(script, timeout=_LONG_S)
        await connection.execute(SQL["add_version"], number)
