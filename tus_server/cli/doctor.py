"""`tus-server doctor`: look whether a server would work with these settings, on this machine."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tus_server.cli.lookup import Config, DataDir
from tus_server.cli.output import EXIT_FAILED
from tus_server.core.errors import SettingsInvalid
from tus_server.printable import printable

if TYPE_CHECKING:
    from tus_server.findings import Finding
    from tus_server.settings import Settings


def doctor(
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
) -> None:
    """Try out everything the settings name: folders, Postgres, S3 and the rights there.

    One line for each thing, and below it what to do where something is wrong; the exit status is
    then 1. Also while servers run: what it writes has names of its own and is removed.
    """
    from tus_server.findings import Finding, Verdict, ok, refused, warning
    from tus_server.settings import idle_settings, load_settings, unknown_environment

    counts = dict.fromkeys(Verdict, 0)

    def show(finding: Finding) -> None:
        counts[finding.verdict] += 1
        for line in _render(finding, as_json):
            typer.echo(line)

    try:
        settings = load_settings(config, data_dir=data_dir)
    except SettingsInvalid as exc:
        for sentence in exc.detail.splitlines():
            show(refused("settings", sentence))
    else:
        for sentence in unknown_environment() + idle_settings(settings):
            show(warning("settings", sentence, "correct its name, or leave it out."))
        show(ok("settings", "are understood"))
        asyncio.run(_examine(settings, show))
    if not as_json:
        typer.echo(f"Failures: {counts[Verdict.FAILED]}, warnings: {counts[Verdict.WARNING]}.")
    if counts[Verdict.FAILED]:
        raise typer.Exit(EXIT_FAILED)


async def _examine(settings: "Settings", show: "Callable[[Finding], None]") -> None:
    from tus_server.app import examine
    from tus_server.logs import configure_logging

    configure_logging(settings.log_format, "error")
    async for finding in examine(settings):
        show(finding)


def _render(finding: "Finding", as_json: bool) -> Iterator[str]:
    if as_json:
        yield json.dumps(
            {
                "check": finding.what,
                "result": finding.verdict.lower(),
                "detail": finding.detail or None,
                "fix": finding.remedy or None,
            }
        )
        return
    yield printable(f"{finding.verdict:<8} {finding.what:<30} {finding.detail}".rstrip())
    if finding.remedy:
        yield printable(f"{'':8} fix: {finding.remedy}")
