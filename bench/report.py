"""The result as JSON: every run, the medians and the verdicts."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping

from bench.row import Row
from bench.rows import BY_NAME
from bench.summary import Results, Spread, Summary, reached


def to_document(results: Results, ours: Mapping[str, str]) -> dict[str, object]:
    """A JSON-ready document of results; units are those of the table.

    ours: which server of ours the ratios of a row are about, by row.
    """
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "rows": {name: _row(BY_NAME[name], found, ours[name]) for name, found in results.items()},
    }


def _row(row: Row, summaries: Mapping[str, Summary], ours: str) -> dict[str, object]:
    return {
        "title": row.title,
        "ours": ours,
        "figure_unit": row.figure_unit,
        "cpu_unit": row.cpu_unit,
        "servers": {name: _server(summary) for name, summary in summaries.items()},
        "targets": _targets(row, summaries, ours),
    }


def _server(summary: Summary) -> dict[str, object]:
    return {
        "figure": _spread(summary.figure),
        "cpu": _spread(summary.cpu),
        "peak_rss_mib": _spread(summary.peak_rss_mib),
        "load_cpu": _spread(summary.load_cpu),
        "counts": summary.counts,
        "beside": summary.beside,
        "runs": [dataclasses.asdict(outcome) for outcome in summary.outcomes],
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else dataclasses.asdict(spread)


def _targets(row: Row, summaries: Mapping[str, Summary], ours: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for target in row.targets:
        value = reached(target, summaries, ours)
        met = None if value is None else target.is_met(value)
        found.append({"target": target.text, "value": value, "met": met})
    return found
