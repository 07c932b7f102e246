"""What a row of the table is: its name, what it measures, what we want to reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """Where the servers of a row keep uploads: only servers of one mode can be compared."""

    DISK = "disk"
    S3 = "s3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on our figure (or CPU, or a count), absolute or as a multiple of a peer's.

    of_beside: on the median of a figure beside the figure instead. server: the one of ours it is
    about; None: the row's first.
    """

    text: str
    bound: float
    at_least: bool
    of_cpu: bool = False
    of_count: str | None = None
    of_beside: str | None = None
    peer: str | None = None
    server: str | None = None

    def is_met(self, value: float) -> bool:
        """Whether value, already divided by the peer's if there is one, is within the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of load. figure_unit and cpu_unit name what a run of it measures.

    ours: the servers of ours that run it; ratios are about the first. alone: no peer does.
    is_bulk: it is about bytes, so that the state of the machine's free memory shows in it.
    of_memory: the figure is the server's peak RSS.
    """

    name: str
    title: str
    figure_unit: str
    cpu_unit: str
    targets: tuple[Target, ...] = ()
    mode: Mode = Mode.DISK
    ours: tuple[str, ...] = ("ours",)
    alone: bool = False
    is_bulk: bool = False
    of_memory: bool = False


def times(bound: float, peer: str, aim: str = "") -> Target:
    """Our figure is to be at least bound times the peer's."""
    text = f">= {bound:g} x {peer}" + (f" ({aim})" if aim else "")
    return Target(text=text, bound=bound, at_least=True, peer=peer)
