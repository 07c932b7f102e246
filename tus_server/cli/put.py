"""`tus-server put`: upload files."""

import mimetypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tus_server.cli.arguments import (
    check_file,
    metadata_text,
    parse_api_endpoint,
    parse_chunk_size,
    parse_endpoint,
    parse_file_id,
    parse_header_field,
    parse_metadata_pair,
    with_token,
)
from tus_server.cli.output import refuse

if TYPE_CHECKING:
    from tus_server.cli.progress import Reporter
    from tus_server.cli.sending import Send

_PARALLEL = 4
_MOST_PARALLEL = 64


def put(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="What to upload.")],
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Creation URL, such as http://127.0.0.1:8080/files/; with --direct any URL of "
            "the server.",
        ),
    ],
    direct: Annotated[
        bool,
        typer.Option(
            "--direct", help="Send parts straight to the store, by requests the server has signed."
        ),
    ] = False,
    file_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="With --direct: what the application knows the file by. At most one upload of it "
            "is active.",
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help=f"With --direct: parts on their way at once; {_PARALLEL} if not given.",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Metadata beside filename and filetype, or instead of them; repeatable.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: VALUE'",
            help="Field for every request to the server; repeatable.",
        ),
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
            metavar="N",
            min=0,
            help="Attempts in a row without a byte (--direct: a part) arriving, then give up.",
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

    With `--direct` the server is shown the token in `TUS_API_TOKEN`, and an upload is done when
    the server has verified it.

    Exit status: 0 all uploaded; 1 some failed, run it again to go on; 2 wrong usage;
    130 interrupted.
    """
    extra = dict(parse_metadata_pair(text) for text in metadata or ())
    headers = dict(parse_header_field(text) for text in header or ())
    send: Send
    if direct:
        if chunk_size is not None:
            raise refuse("--chunk-size is not for --direct: the server says how large parts are.")
        if file_id is not None and len(files) > 1:
            raise refuse("--file-id is of one file; name one file.")
        if parallel is not None and not 1 <= parallel <= _MOST_PARALLEL:
            raise refuse(f"--parallel {parallel} is no number from 1 to {_MOST_PARALLEL}.")
        endpoint = parse_api_endpoint(url)
        headers = with_token(headers, os.environ.get("TUS_API_TOKEN", ""))
        known_as = None if file_id is None else parse_file_id(file_id)
        _check_files(files)
        send = _direct_sender(
            endpoint,
            headers,
            extra,
            file_id=known_as,
            parallel=parallel or _PARALLEL,
            retries=retries,
            fresh=fresh,
        )
    else:
        for option, given in (("--file-id", file_id), ("--parallel", parallel)):
            if given is not None:
                raise refuse(f"{option} is for --direct only.")
        endpoint = parse_endpoint(url)
        chunk = parse_chunk_size(chunk_size) if chunk_size is not None else sys.maxsize
        _check_files(files)
        send = _tus_sender(endpoint, headers, extra, chunk_size=chunk, retries=retries, fresh=fresh)

    from tus_server.cli.sending import send_files

    send_files(files, send, quiet=quiet, as_json=as_json)


def _tus_sender(
    endpoint: str,
    headers: dict[str, str],
    extra: dict[str, str],
    *,
    chunk_size: int,
    retries: int,
    fresh: bool,
) -> "Send":
    from tusclient.client import TusClient

    from tus_server.cli.sending import open_urls
    from tus_server.cli.transfer import send_file

    client = TusClient(endpoint, headers)
    urls = open_urls()

    def send(path: Path, watcher: "Reporter", facts: dict[str, Any]) -> str:
        return send_file(
            path,
            client,
            metadata=_describe(path) | extra,
            urls=urls,
            fresh=fresh,
            chunk_size=chunk_size,
            retries=retries,
            watcher=watcher,
        )

    return send


def _direct_sender(
    endpoint: str,
    headers: dict[str, str],
    extra: dict[str, str],
    *,
    file_id: str | None,
    parallel: int,
    retries: int,
    fresh: bool,
) -> "Send":
    from tus_server.cli.direct import About, DirectTransfer
    from tus_server.cli.direct_api import DirectApi
    from tus_server.cli.sending import open_urls

    api = DirectApi(endpoint, headers)
    urls = open_urls()

    def send(path: Path, watcher: "Reporter", facts: dict[str, Any]) -> str:
        about = About(_describe(path) | extra, file_id)
        facts |= {"id": None, "kind": "multipart", "state": None}
        transfer = DirectTransfer(
            path, api, about, urls=urls, parallel=parallel, retries=retries, watcher=watcher
        )
        try:
            return transfer.send(fresh=fresh)
        finally:
            if transfer.upload is not None:
                facts |= {"id": transfer.upload.id, "state": transfer.upload.state.value}

    return send


def _check_files(files: list[Path]) -> None:
    for path in files:
        check_file(path)


def _describe(path: Path) -> dict[str, str]:
    filetype = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"filename": metadata_text(path.name), "filetype": filetype}
