"""`tus-server uploads`: look at and remove what is in a data directory."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tus_server.cli.output import (
    EXIT_FAILED,
    complain,
    refuse,
    render_size,
    render_time,
)
from tus_server.core.errors import TusServerError
from tus_server.core.ids import UploadId, find_upload_id
from tus_server.core.states import TERMINAL, UploadState
from tus_server.core.upload import Upload
from tus_server.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from tus_server.ports import StatusChange
    from tus_server.settings import Settings

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

    async def read() -> list[Upload]:
        from tus_server.app import open_reader

        async with open_reader(settings) as reader:
            return await reader.list_uploads(frozenset(state) if state else None, limit)

    uploads = asyncio.run(read())
    if as_json:
        for upload in uploads:
            typer.echo(json.dumps(_document(upload)))
        return
    from rich.table import Table

    table = Table("ID", "STATE", "RECEIVED", "CREATED", "NAME", box=None, pad_edge=False)
    for column in table.columns[:4]:
        column.no_wrap = True
    for upload in uploads:
        table.add_row(
            upload.id,
            upload.state.value,
            _received(upload),
            render_time(upload.created_at),
            _name(upload),
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
    upload_id = _parse_id(id)
    settings = _load(config, data_dir)

    async def read() -> "tuple[Upload | None, list[StatusChange]]":
        from tus_server.app import open_reader

        async with open_reader(settings) as reader:
            return await reader.find_upload(upload_id), await reader.history(upload_id)

    upload, history = asyncio.run(read())
    if upload is None:
        complain(f"there is no upload {upload_id}.")
        raise typer.Exit(EXIT_FAILED)
    if as_json:
        changes = [{"state": step.state.value, "at": step.at.isoformat()} for step in history]
        typer.echo(json.dumps({**_document(upload), "history": changes}))
        return
    from rich.table import Table

    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _facts(upload):
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
    upload_ids = [_parse_id(text) for text in ids]
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
    from tus_server.app import find_running, open_reader, terminate_offline

    async def read() -> Upload | None:
        async with open_reader(settings) as reader:
            return await reader.find_upload(upload_id)

    upload = asyncio.run(read())
    if upload is None:
        return "there is no such upload."
    if upload.state in TERMINAL:
        return f"it is {upload.state} already."
    base_url = find_running(settings)
    if base_url is None:
        asyncio.run(terminate_offline(settings, upload_id))
        return None
    return _delete(f"{base_url}{upload_id}")


def _delete(url: str) -> str | None:
    import requests

    from tus_server.cli.transfer import find_detail

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


def _parse_id(text: str) -> UploadId:
    upload_id = find_upload_id(text)
    if upload_id is None:
        raise refuse(f"'{text}' is no upload id; it is the last part of an upload's URL.")
    return upload_id


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # Lines for other programs are not folded.
        console.width = 10_000
    return console


# --- an upload in words --------------------------------------------------------------------------


def _document(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "state": upload.state.value,
        "protocol": upload.protocol.value,
        "offset": upload.offset,
        "length": upload.length,
        "created_at": upload.created_at.isoformat(),
        "state_on": upload.state_on.isoformat(),
        "owner": upload.owner,
        "metadata": _metadata(upload),
        "error_code": upload.error_code,
        "error_message": upload.error_message,
    }


def _facts(upload: Upload) -> list[tuple[str, str]]:
    facts = [
        ("ID", upload.id),
        ("state", f"{upload.state.value} since {render_time(upload.state_on)}"),
        ("received", _received(upload)),
        ("bytes", f"{upload.offset} of {'?' if upload.length is None else upload.length}"),
        ("created", f"{render_time(upload.created_at)} by {upload.protocol.value}"),
    ]
    if upload.owner is not None:
        facts.append(("owner", printable(upload.owner)))
    if upload.error_code is not None:
        message = printable(upload.error_message or "")
        facts.append(("error", f"{printable(upload.error_code)} {message}"))
    facts += [(f"metadata {key}", printable(value)) for key, value in _metadata(upload).items()]
    return facts


def _received(upload: Upload) -> str:
    if upload.length is None:
        return f"{render_size(upload.offset)} of ?"
    if upload.offset == upload.length:
        return render_size(upload.length)
    return f"{render_size(upload.offset)} of {render_size(upload.length)}"


def _name(upload: Upload) -> str:
    metadata = _metadata(upload)
    return printable(metadata.get("filename") or metadata.get("name") or "")


def _metadata(upload: Upload) -> dict[str, str]:
    from tus_server.core.errors import MalformedMetadata
    from tus_server.wire.metadata import parse_metadata

    try:
        found = parse_metadata(upload.metadata)
    except MalformedMetadata:
        return {}
    return {printable(key): value.decode("utf-8", "replace") for key, value in found.items()}
