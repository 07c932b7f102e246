"""The command line. Commands import what they need when they run, so that --help is quick."""

import sys
from typing import Annotated

import typer

from tus_server.cli import jobs, uploads
from tus_server.cli.doctor import doctor
from tus_server.cli.migrate import migrate
from tus_server.cli.output import EXIT_FAILED, EXIT_USAGE, complain
from tus_server.cli.put import put
from tus_server.cli.reap import reap
from tus_server.cli.serve import serve
from tus_server.core.errors import SettingsInvalid, TusServerError

app = typer.Typer(
    name="tus-server",
    help="A server for resumable uploads (tus 1.0.0), and a client for it.",
    epilog="Settings are TUS_* variables, keys of a TOML file and flags; README.md lists them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    # A traceback is for defects only, and without local variables.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(put)
app.command()(reap)
app.command()(migrate)
app.command()(doctor)
app.add_typer(uploads.app, name="uploads")
app.add_typer(jobs.app, name="jobs")


def _print_version(wanted: bool) -> None:
    if wanted:
        from tus_server import __version__

        typer.echo(f"tus-server {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command of this process; errors meant for a person are one sentence on stderr."""
    try:
        app()
    except TusServerError as exc:
        for line in str(exc).splitlines():
            complain(line)
        sys.exit(EXIT_USAGE if isinstance(exc, SettingsInvalid) else EXIT_FAILED)
