"""`tus-server uploads`: look at what is there."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from tus_server.cli.arguments import parse_upload_id
from tus_server.cli.changes import remove_uploads, rewind_uploads
from tus_server.cli.lookup import AsJson, Config, DataDir, load, read
from tus_server.cli.output import EXIT_FAILED, complain, open_console, render_time
from tus_server.cli.upload_text import (
    render_document,
    render_facts,
    render_more,
    render_name,
    render_received,
)
from tus_server.cli.wanted import Wanted, find_wanted
from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol
from tus_server.printable import printable

if TYPE_CHECKING:
    from tus_server.core.upload import Part, Upload
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
    kind: Annotated[
        list[Protocol] | None,
        typer.Option(
            metavar="KIND",
            help=f"Only uploads of this kind ({', '.join(Protocol)}); repeatable.",
        ),
    ] = None,
    file_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only uploads of this file_id, the active one and others."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most uploads to list.")] = 50,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List uploads, newest first."""
    settings = load(config, data_dir)
    wanted = Wanted(
        states=frozenset(state) if state else None,
        kinds=frozenset(kind) if kind else None,
        file_id=file_id,
    )
    uploads = read(settings, lambda reader: find_wanted(reader, wanted, limit))
    if as_json:
        for upload in uploads:
            typer.echo(json.dumps(render_document(upload)))
        return
    from rich.table import Table

    # Who gives no file_id need not look at the column.
    more = ["FILE ID"] if any(upload.file_id is not None for upload in uploads) else []
    table = Table("ID", "STATE", "RECEIVED", "CREATED", "KIND", *more, "NAME", box=None)
    table.pad_edge = False
    for column in table.columns[:-1]:
        column.no_wrap = True
    for upload in uploads:
        table.add_row(
            upload.id,
            upload.state.value,
            render_received(upload),
            render_time(upload.created_at),
            upload.protocol.value,
            *(printable(upload.file_id or "") for _ in more),
            render_name(upload),
        )
    open_console().print(table)
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

    async def look(
        reader: "StateReader",
    ) -> "tuple[Upload | None, list[StatusChange], list[Part]]":
        upload = await reader.find_upload(upload_id)
        is_direct = upload is not None and upload.is_direct
        parts = await reader.find_parts(upload_id) if is_direct else []
        return upload, await reader.history(upload_id), parts

    upload, history, parts = read(settings, look)
    if upload is None:
        complain(f"there is no upload {upload_id}.")
        raise typer.Exit(EXIT_FAILED)
    if as_json:
        more = render_more(upload, history, parts)
        typer.echo(json.dumps({**render_document(upload), **more}))
        return
    from rich.table import Table

    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in render_facts(upload, history, parts):
        facts.add_row(name, value)
    steps = Table("STATE", "AT", "NOTE", box=None, pad_edge=False)
    for change in history:
        steps.add_row(change.state.value, render_time(change.at), printable(change.note or ""))
    console = open_console()
    console.print(facts)
    console.print()
    console.print(steps)


app.command("rm")(remove_uploads)
app.command("rewind")(rewind_uploads)
