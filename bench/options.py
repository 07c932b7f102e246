"""The bench's command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from bench.catalogue import OURS, REGISTRY_PEERS, external
from bench.rows import ROWS
from bench.servers import ExternalServer
from bench.sizes import FULL, QUICK, Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run. names are the servers, in order; ours is the one the ratios are about."""

    names: tuple[str, ...]
    externals: tuple[ExternalServer, ...]
    rows: tuple[str, ...]
    runs: int
    folder: Path | None
    json_file: Path | None
    sizes: Sizes
    ours: str


def parse_options(arguments: list[str] | None = None) -> Options:
    """Options from the command line; exits with a message when they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure our server beside others on this machine, in turn.",
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        type=_external,
        metavar="NAME=URL[@PID]",
        help="a running tus server to compare with: its creation URL and, to read its CPU and "
        "memory, its process id; may be repeated",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=[row.name for row in ROWS],
        metavar="ROW",
        help=f"rows to run, default all: {' '.join(row.name for row in ROWS)}",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"run this server only, may be repeated: {OURS}, {', '.join(REGISTRY_PEERS)} or a "
        "--peer's name",
    )
    parser.add_argument(
        "--runs", type=_positive, default=3, metavar="N", help="runs of each row, default 3"
    )
    parser.add_argument(
        "--dir",
        type=_folder,
        metavar="DIR",
        help="put the uploads under this folder; default /dev/shm if that is a tmpfs with room, "
        "else the temp folder",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every run there")
    parser.add_argument(
        "--quick", action="store_true", help="tiny rows, to see that everything works"
    )
    # For work on the bench itself: another server plays ours.
    parser.add_argument("--ours", default=OURS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    known = [OURS, *REGISTRY_PEERS, *(peer.name for peer in given.peer)]
    if len(set(known)) < len(known):
        parser.error("two servers have the same name")
    for name in [*(given.only or []), given.ours]:
        if name not in known:
            parser.error(f"no server is called {name}; there are {', '.join(known)}")
    return Options(
        names=tuple(name for name in known if not given.only or name in given.only),
        externals=tuple(given.peer),
        rows=tuple(row.name for row in ROWS if not given.rows or row.name in given.rows),
        runs=given.runs,
        folder=given.dir,
        json_file=given.json,
        sizes=QUICK if given.quick else FULL,
        ours=given.ours,
    )


def _external(text: str) -> ExternalServer:
    try:
        return external(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return int(text)


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"not a folder: {text}")
    return Path(text)
