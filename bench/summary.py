"""Several runs of one row on one server, brought together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from bench.job import Outcome
from bench.row import Target


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of one quantity over the runs that measured it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """All runs of one row on one server."""

    outcomes: tuple[Outcome, ...]

    @property
    def figure(self) -> Spread | None:
        return _spread([one.figure for one in self.outcomes])

    @property
    def cpu(self) -> Spread | None:
        return _spread([one.cpu for one in self.outcomes])

    @property
    def load_cpu(self) -> Spread | None:
        return _spread([one.load_cpu for one in self.outcomes])

    @property
    def peak_rss_mib(self) -> Spread | None:
        return _spread([one.peak_rss_mib for one in self.outcomes])

    @property
    def counts(self) -> dict[str, float]:
        """What was counted beside the figure: the highest of each over the runs."""
        found: dict[str, float] = {}
        for outcome in self.outcomes:
            for name, value in outcome.counts.items():
                found[name] = max(value, found.get(name, value))
        return found

    @property
    def beside(self) -> dict[str, float]:
        """What was measured beside the figure: the median of each over the runs."""
        names = dict.fromkeys(name for one in self.outcomes for name in one.beside)
        return {
            name: statistics.median(one.beside[name] for one in self.outcomes if name in one.beside)
            for name in names
        }

    @property
    def complaints(self) -> tuple[str, ...]:
        """What went wrong in any run, each thing once."""
        found = [text for one in self.outcomes for text in (*one.faults, one.error) if text]
        return tuple(dict.fromkeys(found))

    @property
    def is_correct(self) -> bool:
        return not self.complaints


# Row name -> server name -> its runs.
Results = Mapping[str, Mapping[str, Summary]]


def ratio(ours: Spread | None, theirs: Spread | None) -> float | None:
    """Our median divided by theirs, if there are both."""
    if ours is None or theirs is None or theirs.median <= 0:
        return None
    return ours.median / theirs.median


def reached(target: Target, summaries: Mapping[str, Summary], ours: str) -> float | None:
    """The value to hold against target, or None when it was not measured (correctly)."""
    own = summaries.get(target.server or ours)
    if own is None or not own.is_correct:
        return None
    if target.of_count is not None:
        return own.counts.get(target.of_count)
    if target.of_beside is not None:
        return own.beside.get(target.of_beside)
    spread = own.cpu if target.of_cpu else own.figure
    if target.peer is None:
        return None if spread is None else spread.median
    peer = summaries.get(target.peer)
    if peer is None or not peer.is_correct:
        return None
    return ratio(spread, peer.cpu if target.of_cpu else peer.figure)


def _spread(values: list[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(statistics.median(known), min(known), max(known))
