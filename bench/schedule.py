"""The order of the runs: row by row, the servers alternating within a row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.job import Outcome
from bench.options import Options
from bench.row import Mode, Row
from bench.rows import BY_NAME
from bench.runner import run_once
from bench.servers import CannotStart, Server
from bench.summary import Results, Summary


def run_all(
    console: Console, servers: list[Server], options: Options, parents: Mapping[str, Path]
) -> Results:
    """Every chosen row on every server, as often as asked; one line of progress for each run.

    parents: by row, where folders for its uploads can be made.
    A server that does not start is not tried again: its other runs have the same error.
    """
    down: dict[str, str] = {}
    results: dict[str, dict[str, Summary]] = {}
    for row in map(BY_NAME.__getitem__, options.rows):
        turns = [server for server in servers if server.name in options.servers[row.name]]
        outcomes: dict[str, list[Outcome]] = {server.name: [] for server in turns}
        # Servers take turns within a row, so that the machine's drift hits all alike.
        for run in range(1, options.runs + 1):
            for server in turns:
                if server.name in down:
                    outcomes[server.name].append(Outcome(error=down[server.name]))
                    continue
                try:
                    outcome = run_once(server, row, options.sizes, parents[row.name])
                    is_s3_peer = row.mode is Mode.S3 and server.name not in row.ours
                    if outcome.error is not None and is_s3_peer:
                        # A peer may trip over a connection its S3 server has just closed.
                        console.print(f"again: {escape(server.name)}: {escape(outcome.error)}")
                        outcome = run_once(server, row, options.sizes, parents[row.name])
                except CannotStart as exc:
                    # The whole log once, here; the table gets its last line.
                    console.print(f"[bold red]{escape(str(exc))}[/bold red]")
                    down[server.name] = f"did not start: {str(exc).splitlines()[-1]}"
                    outcome = Outcome(error=down[server.name])
                outcomes[server.name].append(outcome)
                label = f"{row.name:14} {run}/{options.runs} {server.name:15}"
                console.print(f"{escape(label)} {_describe(row, outcome)}")
        if outcomes:
            results[row.name] = {name: Summary(tuple(runs)) for name, runs in outcomes.items()}
    return results


def _describe(row: Row, outcome: Outcome) -> str:
    figure = "-" if outcome.figure is None else f"{outcome.figure:,.1f} {row.figure_unit}"
    trouble = outcome.error or "; ".join(outcome.faults)
    return f"{figure}  [red]{escape(trouble)}[/red]" if trouble else figure
