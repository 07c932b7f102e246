"""What the bench and its load generator say to each other, as JSON over a pipe."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from bench.sizes import Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reap:
    """The command that ends expired uploads of a server of ours, without its options."""

    command: list[str]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of one row against the tus creation endpoint at url.

    pid is the server's process, when its CPU can be read. delete_after asks for a DELETE of every
    upload the row created, for servers whose folder the bench does not own. The rest: see Endpoint.
    """

    row: str
    url: str
    pid: int | None
    delete_after: bool
    sizes: Sizes
    other_url: str | None = None
    counts_url: str | None = None
    state_port: int | None = None
    reap: Reap | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        fields = json.loads(text)
        reap = Reap(**fields["reap"]) if fields["reap"] else None
        return cls(**{**fields, "sizes": Sizes(**fields["sizes"]), "reap": reap})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run measured, in the units of its Row.

    load_cpu is the generator's own use of one core, 0 to 1. faults are wrong answers that left a
    figure to show; with an error there is none. counts are figures beside the figure, by name, of
    which the highest of all runs counts, and beside such of which the median does.
    """

    figure: float | None = None
    cpu: float | None = None
    load_cpu: float | None = None
    peak_rss_mib: float | None = None
    faults: tuple[str, ...] = ()
    counts: dict[str, float] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        fields = json.loads(text)
        return cls(**{**fields, "faults": tuple(fields["faults"])})
