"""Run the rows on every server in turn and print the table."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.catalogue import SERVERS
from bench.database import Database
from bench.folder import NoRoom, find_parent
from bench.install import CannotInstall
from bench.options import Options, parse_options
from bench.report import to_document
from bench.rows import BY_NAME
from bench.schedule import run_all
from bench.servers import Server
from bench.sizes import QUICK
from bench.summary import Results
from bench.table import print_row
from bench.turn import own_turn

_WIDTH_UNLESS_TERMINAL = 130


def main() -> int:
    """The exit status: 0 unless a row could not be run correctly on our server."""
    if sys.platform != "linux":
        sys.exit("the bench needs Linux: it uses epoll and /proc")
    options = parse_options()
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=_WIDTH_UNLESS_TERMINAL)
    _raise_file_limit()
    # So that the servers and folders of an interrupted bench go too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with own_turn(console):
        results = _measure(console, options)
    console.print()
    for name, summaries in results.items():
        print_row(console, BY_NAME[name], summaries, options.ours[name])
    if options.json_file is not None:
        document = to_document(results, options.ours)
        options.json_file.write_text(json.dumps(document, indent=2) + "\n")
    broken = [
        f"{name} on {server}"
        for name, summaries in results.items()
        for server in (*BY_NAME[name].ours, options.ours[name])
        if server in summaries and not summaries[server].is_correct
    ]
    if broken:
        console.print(f"[red]not run correctly: {', '.join(dict.fromkeys(broken))}[/red]")
    return 1 if broken else 0


def _measure(console: Console, options: Options) -> Results:
    """Get the servers, say what is special about this bench, and run it."""
    with closing(Database()) as database:
        servers = _prepare(console, options, database)
        if not servers:
            sys.exit("no server to measure")
        _tell_settings(console)
        if options.sizes is QUICK:
            console.print("[yellow]quick: rows are far smaller than their titles say[/yellow]")
        try:
            parents = {
                row: find_parent(options.folder, options.sizes.room_bytes(row))
                for row in options.rows
            }
        except NoRoom as exc:
            sys.exit(f"{exc}; choose another folder with --dir, or rows with --rows")
        for parent in dict.fromkeys(parents.values()):
            rows = "" if len(set(parents.values())) == 1 else _rows_in(parents, parent)
            console.print(f"uploads{rows} go to {escape(str(parent))}")
        console.print()
        return run_all(console, servers, options, parents)


def _rows_in(parents: dict[str, Path], parent: Path) -> str:
    return " of " + ", ".join(row for row, found in parents.items() if found == parent)


def _prepare(console: Console, options: Options, database: Database) -> list[Server]:
    """The chosen servers, peers installed; one that cannot be had is named and left out."""
    externals = {peer.name: peer for peer in options.externals}
    servers: list[Server] = []
    for name in options.names:
        if name in externals:
            servers.append(externals[name])
            continue
        try:
            with console.status(f"installing what {name} needs, the first time only"):
                servers.append(SERVERS[name](database))
        except CannotInstall as exc:
            console.print(f"[bold red]SKIPPED {escape(name)}: {escape(str(exc))}[/bold red]")
    return servers


def _tell_settings(console: Console) -> None:
    """Name the settings of our server that this shell changes: they would colour the figures."""
    for key, value in os.environ.items():
        if key.startswith("TUS_") and key not in ("TUS_DATA_DIR", "TUS_BASE_PATH"):
            console.print(f"[yellow]our server runs with {escape(f'{key}={value}')}[/yellow]")


def _raise_file_limit() -> None:
    """Let the generator and the servers, which inherit this, open as many files as allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
