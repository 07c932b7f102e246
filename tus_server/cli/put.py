"""`tus-server put`: upload files."""

import json
import mimetypes
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from tus_server.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, complain, refuse, render_size
from tus_server.printable import printable

if TYPE_CHECKING:
    from tus_server.cli.progress import Reporter


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
    endpoint = _parse_endpoint(url)
    for path in files:
        _check_file(path)
    extra = dict(_parse_metadata(text) for text in metadata or ())
    headers = dict(_parse_header(text) for text in header or ())
    chunk = _parse_size(chunk_size) if chunk_size is not None else sys.maxsize

    from tusclient.client import TusClient

    from tus_server.cli.progress import Reporter
    from tus_server.cli.stored_urls import FileFingerprint, StoredUrls, default_path
    from tus_server.cli.transfer import TransferFailed, send_file

    client = TusClient(endpoint, headers)
    try:
        urls: StoredUrls | None = StoredUrls(default_path())
    except OSError as exc:
        urls = None
        complain(
            f"{default_path()} cannot be written ({exc.strerror}), so a later run will not know "
            "where this one got to."
        )

    failed: list[Path] = []
    any_bytes = False
    for position, path in enumerate(files):
        about = {"filename": _text(path.name), "filetype": _filetype(path), **extra}
        began = time.monotonic()
        reporter = Reporter(path, quiet=quiet)
        sent_url, error = None, None
        try:
            with reporter:
                if fresh and urls is not None:
                    with path.open("rb") as file:
                        urls.remove_item(FileFingerprint(endpoint, about).get_fingerprint(file))
                sent_url = send_file(
                    path,
                    client,
                    metadata=about,
                    urls=urls,
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


def _how_to_go_on(left: list[Path], files: list[Path]) -> str:
    if left == files:
        return "the same command goes on from there."
    # What is done would be uploaded once more.
    return f"to go on, run it again for {shlex.join(map(str, left))}"


def _progress(reporter: "Reporter") -> str:
    share = f"{render_size(reporter.offset)} of {render_size(reporter.size)}"
    return f"{share} of {reporter.name}"


# --- what was given ------------------------------------------------------------------------------


def _parse_endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise refuse(
            f"'{url}' is no URL; the last argument is the creation URL of a tus server, such as "
            "http://127.0.0.1:8080/files/."
        )
    return url


def _check_file(path: Path) -> None:
    if str(path) == "-":
        raise refuse("standard input cannot be sent, for it cannot be read again; name a file.")
    if path.is_dir():
        raise refuse(f"'{path}' is a directory; name the files in it.")
    if not path.exists():
        raise refuse(f"there is no file '{path}'.")
    if not path.is_file():
        raise refuse(f"'{path}' is no regular file.")
    if not os.access(path, os.R_OK):
        raise refuse(f"'{path}' may not be read by this user.")


def _parse_metadata(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    # tus 1.0.0, Upload-Metadata: the key MUST NOT contain spaces and commas and MUST NOT be empty.
    if not separator or not re.fullmatch(r"[!-+\--~]+", key):
        raise refuse(
            f"--metadata '{text}' is not KEY=VALUE with a key of visible ASCII characters "
            "without a comma."
        )
    return key, _text(value)


def _parse_header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    value = value.strip()
    if (
        not separator
        or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
        or not re.fullmatch(r"[\t -~\x80-\xff]*", value)
    ):
        # Without the value, which is often a secret.
        raise refuse("--header is not 'NAME: VALUE' on one line.")
    return name, value


def _parse_size(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        size = ByteSize(0)
    if size < 1:
        raise refuse(f"--chunk-size '{text}' is no size such as '64 MiB'.")
    return size


def _filetype(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _text(name: str) -> str:
    """Give a name with bytes that are not UTF-8 replaced, for metadata is text."""
    return os.fsencode(name).decode("utf-8", "replace")
