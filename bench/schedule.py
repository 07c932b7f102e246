"""The order of the runs: row by row, the servers alternating within a row."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.job import Outcome
from bench.options import Options
from bench.rows import BY_NAME, Row
from bench.runner import run_once
from bench.servers import CannotStart, Server
from bench.summary import Results, Summary


def run_all(console: Console, servers: list[Server], options: Options, folder: Path) -> Results:
    """Every chosen row on every server, as often as asked; one line of progress for each run.

    A server that does not start is not tried again: its other runs have the same error.
    """
    down: dict[str, str] = {}
    results: dict[str, dict[str, Summary]] = {}
    for row in map(BY_NAME.__getitem__, options.rows):
        outcomes: dict[str, list[Outcome]] = {server.name: [] for server in servers}
        # Servers take turns within a row, so that the machine's drift hits all alike.
        for run in range(1, options.runs + 1):
            for server in servers:
                if server.name in down:
                    outcomes[server.name].append(Outcome(error=down[server.name]))
                    continue
                try:
                    outcome = run_once(server, row, options.sizes, folder)
                except CannotStart as exc:
                    # The whole log once, here; the table gets its last line.
                    console.print(f"[bold red]{escape(str(exc))}[/bold red]")
                    down[server.name] = f"did not start: {str(exc).splitlines()[-1]}"
                    outcome = Outcome(error=down[server.name])
                outcomes[server.name].append(outcome)
                label = f"{row.name:14} {run}/{options.runs} {server.name:14}"
                console.print(f"{escape(label)} {_describe(row, outcome)}")
        results[row.name] = {name: Summary(tuple(runs)) for name, runs in outcomes.items()}
    return results


def _describe(row: Row, outcome: Outcome) -> str:
    figure = "-" if outcome.figure is None else f"{outcome.figure:,.1f} {row.figure_unit}"
    trouble = outcome.error or "; ".join(outcome.faults)
    return f"{figure}  [red]{escape(trouble)}[/red]" if trouble else figure
