"""`tus-server put`: upload files."""

import json
import mimetypes
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tus_server.cli.arguments import (
    check_file,
    metadata_text,
    parse_chunk_size,
    parse_endpoint,
    parse_header_field,
    parse_metadata_pair,
)
from tus_server.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, complain, render_size
from tus_server.cli.replies import TransferFailed
from tus_server.printable import printable

if TYPE_CHECKING:
    from tus_server.cli.progress import Reporter
    from tus_server.cli.stored_urls import StoredUrls


def put(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="What to upload.")],
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="Creation URL, such as http://127.0.0.1:8080/files/"),
    ],
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Metadata beside filename and filetype, or instead of them; repeatable.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="Field for every request; repeatable."),
    ] = None,
    chunk_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most bytes in one request, such as '64 MiB', where a proxy limits them. "
            "Without it all the rest goes in one; memory use is the same.",
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Attempts in a row without a byte arriving, then give up."
        ),
    ] = 5,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew even if an earlier run got part way.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only errors.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per file on stdout.")
    ] = False,
) -> None:
    """Upload files, each from where an earlier run got to.

    Prints a line `URL  FILE` on stdout for each upload; progress goes to stderr.

    A file that has changed since is a new upload. What is needed to go on is kept in
    `tus-server/uploads.json` below `$XDG_STATE_HOME` or `~/.local/state`.

    Exit status: 0 all uploaded; 1 some failed, run it again to go on; 2 wrong usage;
    130 interrupted.
    """
    endpoint = parse_endpoint(url)
    for path in files:
        check_file(path)
    extra = dict(parse_metadata_pair(text) for text in metadata or ())
    headers = dict(parse_header_field(text) for text in header or ())
    chunk = parse_chunk_size(chunk_size) if chunk_size is not None else sys.maxsize

    from tusclient.client import TusClient

    from tus_server.cli.progress import Reporter
    from tus_server.cli.transfer import send_file

    client = TusClient(endpoint, headers)
    urls = _open_urls()
    failed: list[Path] = []
    any_bytes = False
    for position, path in enumerate(files):
        about = {"filename": metadata_text(path.name), "filetype": _filetype(path), **extra}
        began = time.monotonic()
        reporter = Reporter(path, quiet=quiet)
        sent_url, error = None, None
        try:
            with reporter:
                sent_url = send_file(
                    path,
                    client,
                    metadata=about,
                    urls=urls,
                    fresh=fresh,
                    chunk_size=chunk,
                    retries=retries,
                    watcher=reporter,
                )
        except TransferFailed as exc:
            error = str(exc)
        except OSError as exc:
            error = f"{exc.filename or path}: {exc.strerror}"
        except KeyboardInterrupt:
            left = [*failed, *files[position:]]
            complain(f"interrupted at {_progress(reporter)}; {_how_to_go_on(left, files)}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        if error is not None:
            failed.append(path)
            any_bytes = any_bytes or reporter.offset > 0
            complain(f"{path}: {error}.")
        if as_json:
            result = {
                "file": str(path),
                "ok": error is None,
                "url": sent_url,
                "size_bytes": reporter.size,
                "resumed_at": reporter.resumed_at,
                "seconds": round(time.monotonic() - began, 3),
                "error": error,
            }
            typer.echo(json.dumps(result))
        elif sent_url is not None:
            typer.echo(f"{sent_url}  {printable(str(path))}")
    if failed:
        if any_bytes or len(files) > 1:
            complain(f"{len(failed)} of {len(files)} not uploaded; {_how_to_go_on(failed, files)}")
        raise typer.Exit(EXIT_FAILED)


def _open_urls() -> "StoredUrls | None":
    from tus_server.cli.stored_urls import StoredUrls, default_path

    try:
        return StoredUrls(default_path())
    except OSError as exc:
        complain(
            f"{default_path()} cannot be written ({exc.strerror}), so a later run will not know "
            "where this one got to."
        )
        return None


def _how_to_go_on(left: list[Path], files: list[Path]) -> str:
    if left == files:
        return "the same command goes on from there."
    # What is done would be uploaded once more.
    return f"to go on, run it again for {shlex.join(map(str, left))}"


def _progress(reporter: "Reporter") -> str:
    share = f"{render_size(reporter.offset)} of {render_size(reporter.size)}"
    return f"{share} of {reporter.name}"


def _filetype(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
