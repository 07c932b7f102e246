"""Files sent one after the other: results on stdout, failures and how to go on on stderr."""

import json
import shlex
import time
from pathlib import Path
from typing import Any, Protocol

import typer

from tus_server.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, complain, render_size
from tus_server.cli.progress import Reporter
from tus_server.cli.replies import TransferFailed
from tus_server.cli.stored_urls import StoredUrls, default_path
from tus_server.printable import printable


class Send(Protocol):
    """Sends one file, in one of the ways there are."""

    def __call__(self, path: Path, watcher: Reporter, facts: dict[str, Any]) -> str:
        """Give the URL of what was sent. facts: to be filled, for JSON, also where it raises.

        Raises: TransferFailed, OSError (the file cannot be read).
        """


def send_files(files: list[Path], send: Send, *, quiet: bool, as_json: bool) -> None:
    """Send all of them, whatever becomes of the others. Raises: typer.Exit."""
    failed: list[Path] = []
    any_bytes = False
    for position, path in enumerate(files):
        began = time.monotonic()
        reporter = Reporter(path, quiet=quiet)
        sent_url, error = None, None
        facts: dict[str, Any] = {}
        try:
            with reporter:
                sent_url = send(path, reporter, facts)
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
                **facts,
            }
            typer.echo(json.dumps(result))
        elif sent_url is not None:
            typer.echo(f"{sent_url}  {printable(str(path))}")
    if failed:
        if any_bytes or len(files) > 1:
            complain(f"{len(failed)} of {len(files)} not uploaded; {_how_to_go_on(failed, files)}")
        raise typer.Exit(EXIT_FAILED)


def open_urls() -> StoredUrls | None:
    """Open what is kept from run to run; None, with a complaint, where nothing can be."""
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


def _progress(reporter: Reporter) -> str:
    share = f"{render_size(reporter.offset)} of {render_size(reporter.size)}"
    return f"{share} of {reporter.name}"
