"""Several runs of one row on one server, brought together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from bench.job import Outcome
from bench.rows import Target


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


def reached(target: Target, ours: Summary, peer: Summary | None) -> float | None:
    """The value to hold against target, or None when it was not measured (correctly)."""
    if not ours.is_correct:
        return None
    own = ours.cpu if target.of_cpu else ours.figure
    if target.peer is None:
        return None if own is None else own.median
    if peer is None or not peer.is_correct:
        return None
    return ratio(own, peer.cpu if target.of_cpu else peer.figure)


def _spread(values: list[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(statistics.median(known), min(known), max(known))
