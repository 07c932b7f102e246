"""The printed table: one block per row, our server first."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.row import Row
from bench.summary import Spread, Summary, ratio, reached

# From here on the generator, not the server, may be what limits the figure.
_BUSY_LOAD = 0.85


def print_row(console: Console, row: Row, summaries: Mapping[str, Summary], ours: str) -> None:
    """Print one block. summaries are by server name; ours is the one the ratios are about."""
    table = Table(title=f"{row.name}: {row.title}", title_justify="left", title_style="bold")
    table.add_column("server", min_width=12)
    for heading in (row.figure_unit, "min - max", "ours/theirs", f"cpu {row.cpu_unit}"):
        table.add_column(heading, justify="right")
    for heading in ("cpu ours/theirs", "peak RSS MiB", "generator cpu"):
        table.add_column(heading, justify="right")
    own = summaries.get(ours)
    for name, summary in summaries.items():
        table.add_row(escape(name), *_cells(summary, own if name != ours else None))
    console.print(table)
    for name, summary in summaries.items():
        for complaint in summary.complaints:
            console.print(f"  [red]{escape(name)}: {escape(complaint)}[/red]")
        load = summary.load_cpu
        if load is not None and load.high >= _BUSY_LOAD:
            console.print(
                f"  [yellow]{escape(name)}: the generator used {load.high:.0%} of a core, "
                "it may be the bottleneck[/yellow]"
            )
        for what, value in (summary.counts | summary.beside).items():
            console.print(f"  {escape(name)}: {escape(what)}: {_number(value)}")
    if any(name in summaries for name in (ours, *row.ours)):
        _print_targets(console, row, summaries, ours)
    console.print()


def _print_targets(console: Console, row: Row, summaries: Mapping[str, Summary], ours: str) -> None:
    for target in row.targets:
        value = reached(target, summaries, ours)
        if value is None:
            verdict = "[yellow]not measured[/yellow]"
        elif target.is_met(value):
            verdict = f"{_number(value)}  [green]met[/green]"
        else:
            verdict = f"{_number(value)}  [red]not met[/red]"
        console.print(f"  target {escape(target.text)}: {verdict}")


def _cells(summary: Summary, own: Summary | None) -> list[str]:
    figure, cpu = summary.figure, summary.cpu
    # A wrong answer may well be a fast one: no ratio to it.
    comparable = own is not None and summary.is_correct and own.is_correct
    return [
        _median(figure) + ("" if summary.is_correct else " [red]![/red]"),
        "-" if figure is None else f"{_number(figure.low)} - {_number(figure.high)}",
        _times(ratio(own.figure, figure) if own and comparable else None),
        _median(cpu),
        _times(ratio(own.cpu, cpu) if own and comparable else None),
        _median(summary.peak_rss_mib),
        "-" if summary.load_cpu is None else f"{summary.load_cpu.median:.0%}",
    ]


def _median(spread: Spread | None) -> str:
    return "-" if spread is None else _number(spread.median)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} x"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
