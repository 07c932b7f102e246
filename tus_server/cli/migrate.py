"""`tus-server migrate`: bring the tables in Postgres up to date."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def migrate(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The server's. TUS_CONFIG")
    ] = None,
) -> None:
    """Bring the tables in Postgres (TUS_STATE_URL) up to date; to be run before new servers.

    Safe to repeat, and while servers of this version run. Servers of an older version refuse to
    start afterwards.
    """
    from tus_server.settings import load_settings

    settings = load_settings(config)
    if not settings.uses_postgres:
        typer.echo("Nothing to do: the state is in SQLite, which `serve` brings up to date itself.")
        return

    from tus_server.app import migrate_state

    before, after = asyncio.run(migrate_state(settings))
    if before == after:
        typer.echo(f"Nothing to do: the tables have version {after} already.")
    elif before == 0:
        typer.echo(f"Made the tables, version {after}.")
    else:
        typer.echo(f"Brought the tables from version {before} to {after}.")
