"""The rows of the table: what each is called, what it measures, what we want to reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on our figure (or CPU), absolute or as a multiple of a peer's."""

    text: str
    bound: float
    at_least: bool
    of_cpu: bool = False
    peer: str | None = None

    def is_met(self, value: float) -> bool:
        """Whether value, already divided by the peer's if there is one, is within the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of load. figure_unit and cpu_unit name what a run of it measures.

    is_bulk: it is about bytes, so that the state of the machine's free memory shows in it.
    """

    name: str
    title: str
    figure_unit: str
    cpu_unit: str
    targets: tuple[Target, ...]
    is_bulk: bool = False


def _times(bound: float, aim: str = "") -> Target:
    text = f">= {bound:g} x tuspyserver" + (f" ({aim})" if aim else "")
    return Target(text=text, bound=bound, at_least=True, peer="tuspyserver")


ROWS: tuple[Row, ...] = (
    Row(
        name="one-patch",
        title="1 GiB in one PATCH",
        figure_unit="MB/s",
        cpu_unit="s/GB",
        is_bulk=True,
        targets=(
            _times(1.4, "tusd: 1.38"),
            Target(
                text="cpu <= 0.65 x tuspyserver (tusd: 0.85)",
                bound=0.65,
                at_least=False,
                of_cpu=True,
                peer="tuspyserver",
            ),
        ),
    ),
    Row(
        name="small-patches",
        title="256 x 1 MiB PATCHes, one connection",
        figure_unit="MB/s",
        cpu_unit="s/GB",
        is_bulk=True,
        targets=(_times(1.5),),
    ),
    Row(
        name="post-patch",
        title="POST + PATCH of 4 KiB, 16 clients",
        figure_unit="uploads/s",
        cpu_unit="ms/upload",
        targets=(_times(3.2, "aim: 4"),),
    ),
    Row(
        name="post-body",
        title="POST with a 4 KiB body, 16 clients",
        figure_unit="uploads/s",
        cpu_unit="ms/upload",
        targets=(_times(3.0),),
    ),
    Row(
        name="head",
        title="HEAD, 16 clients",
        figure_unit="requests/s",
        cpu_unit="ms/request",
        targets=(_times(4.0),),
    ),
    Row(
        name="slow",
        title="2,000 uploads at 16 KiB/s",
        figure_unit="MiB resident",
        cpu_unit="% of a core",
        targets=(Target(text="<= 160 MiB", bound=160, at_least=False),),
    ),
    Row(
        name="takeover",
        title="HEAD takes over a stalled PATCH",
        figure_unit="ms (median)",
        cpu_unit="ms/take-over",
        targets=(Target(text="<= 50 ms", bound=50, at_least=False),),
    ),
)

BY_NAME = {row.name: row for row in ROWS}
