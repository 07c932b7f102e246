"""`tus-server uploads`: look at what is there."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from tus_server.cli.arguments import parse_upload_id
from tus_server.cli.changes import remove_uploads, rewind_uploads
from tus_server.cli.lookup import AsJson, Config, DataDir, load, read
from tus_server.cli.output import EXIT_FAILED, complain, render_time
from tus_server.cli.upload_text import (
    render_change,
    render_document,
    render_facts,
    render_name,
    render_received,
)
from tus_server.core.states import UploadState
from tus_server.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from tus_server.core.upload import Upload
    from tus_server.ports import StateReader, StatusChange

app = typer.Typer(
    help="Look at uploads, remove them, give up lost tails; also while servers run.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


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
    settings = load(config, data_dir)
    states = frozenset(state) if state else None
    uploads = read(settings, lambda reader: reader.list_uploads(states, limit))
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
    settings = load(config, data_dir)

    async def look(reader: "StateReader") -> "tuple[Upload | None, list[StatusChange]]":
        return await reader.find_upload(upload_id), await reader.history(upload_id)

    upload, history = read(settings, look)
    if upload is None:
        complain(f"there is no upload {upload_id}.")
        raise typer.Exit(EXIT_FAILED)
    if as_json:
        changes = [render_change(change) for change in history]
        typer.echo(json.dumps({**render_document(upload), "history": changes}))
        return
    from rich.table import Table

    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in render_facts(upload):
        facts.add_row(name, value)
    steps = Table("STATE", "AT", "NOTE", box=None, pad_edge=False)
    for change in history:
        steps.add_row(change.state.value, render_time(change.at), printable(change.note or ""))
    console = _console()
    console.print(facts)
    console.print()
    console.print(steps)


app.command("rm")(remove_uploads)
app.command("rewind")(rewind_uploads)


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # Lines for other programs are not folded.
        console.width = 10_000
    return console
