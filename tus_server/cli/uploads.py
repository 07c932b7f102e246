"""`tus-server uploads`: look at and remove what is in a data directory."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tus_server.cli.arguments import parse_upload_id
from tus_server.cli.output import EXIT_FAILED, complain, refuse, render_time
from tus_server.cli.replies import find_detail
from tus_server.cli.upload_text import (
    render_document,
    render_facts,
    render_name,
    render_received,
)
from tus_server.core.errors import TusServerError
from tus_server.core.ids import UploadId
from tus_server.core.states import TERMINAL, UploadState

if TYPE_CHECKING:
    from rich.console import Console

    from tus_server.ports import StateReader
    from tus_server.settings import Settings

_Found = TypeVar("_Found")

app = typer.Typer(
    help="Look at and remove uploads, also while the server runs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

DataDir = Annotated[
    str | None, typer.Option("--data-dir", metavar="DIR", help="The server's. TUS_DATA_DIR")
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The server's. TUS_CONFIG")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per upload instead of tables.")
]


@app.command("ls")
def list_uploads(
    state: Annotated[
        list[UploadState] | None,
        typer.Option(
            metavar="STATE",
            help=f"Only uploads in this state ({', '.join(UploadState)}); repeatable.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most uploads to list.")] = 50,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List uploads, newest first."""
    settings = _load(config, data_dir)
    states = frozenset(state) if state else None
    uploads = _read(settings, lambda reader: reader.list_uploads(states, limit))
    if as_json:
        for upload in uploads:
            typer.echo(json.dumps(render_document(upload)))
        return
    from rich.table import Table

    table = Table("ID", "STATE", "RECEIVED", "CREATED", "NAME", box=None, pad_edge=False)
    for column in table.columns[:4]:
        column.no_wrap = True
    for upload in uploads:
        table.add_row(
            upload.id,
            upload.state.value,
            render_received(upload),
            render_time(upload.created_at),
            render_name(upload),
        )
    _console().print(table)
    if len(uploads) == limit:
        complain(f"these are the newest {limit}; --limit shows more.")


@app.command("show")
def show_upload(
    id: Annotated[str, typer.Argument(metavar="ID", help="The last part of the upload's URL.")],
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one upload and how it came to its state, newest first."""
    upload_id = parse_upload_id(id)
    settings = _load(config, data_dir)
    upload = _read(settings, lambda reader: reader.find_upload(upload_id))
    if upload is None:
        complain(f"there is no upload {upload_id}.")
        raise typer.Exit(EXIT_FAILED)
    history = _read(settings, lambda reader: reader.history(upload_id))
    if as_json:
        changes = [{"state": step.state.value, "at": step.at.isoformat()} for step in history]
        typer.echo(json.dumps({**render_document(upload), "history": changes}))
        return
    from rich.table import Table

    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in render_facts(upload):
        facts.add_row(name, value)
    steps = Table("STATE", "SINCE", box=None, pad_edge=False)
    for step in history:
        steps.add_row(step.state.value, render_time(step.at))
    console = _console()
    console.print(facts)
    console.print()
    console.print(steps)


@app.command("rm")
def remove_uploads(
    ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="The last part of each upload's URL.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Remove uploads and their files: through the running server if there is one."""
    upload_ids = [parse_upload_id(text) for text in ids]
    settings = _load(config, data_dir)
    if not yes:
        if not sys.stdin.isatty():
            raise refuse("there is nobody to ask whether to remove them; give --yes.")
        what = ids[0] if len(ids) == 1 else f"{len(ids)} uploads"
        typer.confirm(f"Remove {what} and what was received?", abort=True, err=True)

    failed = False
    for upload_id in upload_ids:
        try:
            error = _remove(settings, upload_id)
        except TusServerError as exc:
            error = str(exc)
        if error is not None:
            failed = True
            complain(f"{upload_id}: {error}")
        if as_json:
            typer.echo(json.dumps({"id": upload_id, "removed": error is None, "error": error}))
        elif error is None:
            typer.echo(upload_id)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _remove(settings: "Settings", upload_id: UploadId) -> str | None:
    """Remove one upload; give a sentence if it could not be."""
    from tus_server.app import find_running, terminate_offline
    from tus_server.logs import configure_logging

    upload = _read(settings, lambda reader: reader.find_upload(upload_id))
    if upload is None:
        return "there is no such upload."
    if upload.state in TERMINAL:
        return f"it is {upload.state} already."
    base_url = find_running(settings)
    if base_url is None:
        # The engine now runs in this process, and stdout is for results.
        configure_logging(settings.log_format, settings.log_level)
        asyncio.run(terminate_offline(settings, upload_id))
        return None
    return _delete(f"{base_url}{upload_id}")


def _delete(url: str) -> str | None:
    import requests

    # No proxy: the server is on this machine.
    with requests.Session() as session:
        session.trust_env = False
        try:
            reply = session.delete(
                url, headers={"Tus-Resumable": "1.0.0"}, timeout=60, allow_redirects=False
            )
        except requests.RequestException:
            return f"the running server does not answer at {url}."
    if reply.status_code == requests.codes.no_content:
        return None
    detail = find_detail(reply.headers, reply.content) or reply.reason
    return f"the running server answered {reply.status_code}: {detail}."


def _load(config: Path | None, data_dir: str | None) -> "Settings":
    from tus_server.settings import load_settings

    return load_settings(config, data_dir=data_dir)


def _read(
    settings: "Settings", query: "Callable[[StateReader], Coroutine[Any, Any, _Found]]"
) -> _Found:
    """Ask the state one thing."""
    from tus_server.app import open_reader

    async def read() -> _Found:
        async with open_reader(settings) as reader:
            return await query(reader)

    return asyncio.run(read())


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # Lines for other programs are not folded.
        console.width = 10_000
    return console
