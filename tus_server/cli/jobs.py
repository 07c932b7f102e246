"""`tus-server jobs`: look at jobs and events, and at what became of them."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from tus_server.cli.arguments import parse_upload_id
from tus_server.cli.job_text import render_facts, render_job, render_when
from tus_server.cli.lookup import Config, DataDir, load, read
from tus_server.cli.output import EXIT_FAILED, complain, open_console
from tus_server.cli.retry import retry_jobs
from tus_server.ports import Letters
from tus_server.printable import printable

if TYPE_CHECKING:
    from tus_server.core.ids import UploadId
    from tus_server.ports import Event, StateReader

app = typer.Typer(
    help="Look at jobs and events, and try those again that were given up; also while servers run.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per event instead of tables.")
]


@app.command("ls")
def list_jobs(
    kind: Annotated[
        list[Letters] | None,
        typer.Option(
            metavar="KIND",
            help=f"Only {', '.join(Letters)} ones; repeatable. Otherwise pending and dead.",
        ),
    ] = None,
    upload: Annotated[str | None, typer.Option(metavar="ID", help="Only of this upload.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most events of a kind.")] = 50,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: _AsJson = False,
) -> None:
    """List events, newest first: those that wait for delivery, and those that were given up."""
    upload_id = None if upload is None else parse_upload_id(upload)
    settings = load(config, data_dir)
    kinds = kind or [Letters.DEAD, Letters.PENDING]
    events = read(settings, lambda reader: _find(reader, kinds, limit, upload_id))
    if as_json:
        from tus_server.wire.event_view import view_event

        for event in events:
            typer.echo(view_event(event).model_dump_json())
        return
    from rich.table import Table

    table = Table("ID", "EVENT", "UPLOAD", "DELIVERY", "TRIES", "JOB", "ERROR", box=None)
    for column in table.columns[:5]:
        column.no_wrap = True
    for event in events:
        table.add_row(
            str(event.id),
            event.kind.value,
            event.upload_id,
            render_when(event),
            str(event.attempts),
            render_job(event),
            printable(event.error or ""),
        )
    open_console().print(table)
    if len(events) >= limit:
        complain(f"of each kind these are at most the newest {limit}; --limit shows more.")


@app.command("show")
def show_job(
    id: Annotated[int, typer.Argument(metavar="ID", min=1, help="As `jobs ls` lists it.")],
    data_dir: DataDir = None,
    config: Config = None,
    as_json: _AsJson = False,
) -> None:
    """Show one event, its job, and what became of it."""
    settings = load(config, data_dir)
    event = read(settings, lambda reader: reader.find_event(id))
    if event is None:
        complain(f"there is no event {id}.")
        raise typer.Exit(EXIT_FAILED)
    if as_json:
        from tus_server.wire.event_view import view_event

        typer.echo(json.dumps(view_event(event).model_dump(mode="json")))
        return
    from rich.table import Table

    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in render_facts(event):
        facts.add_row(name, value)
    open_console().print(facts)


app.command("retry")(retry_jobs)


async def _find(
    reader: "StateReader", kinds: list[Letters], limit: int, upload_id: "UploadId | None"
) -> "list[Event]":
    found: list[Event] = []
    for kind in dict.fromkeys(kinds):
        found += await reader.list_events(kind, limit, upload_id=upload_id)
    return sorted(found, key=lambda event: -event.id)
