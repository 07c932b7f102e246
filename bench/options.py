"""The bench's command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from bench.catalogue import MODES, OURS, SERVERS, external
from bench.row import Row
from bench.rows import ROWS
from bench.servers import ExternalServer
from bench.sizes import FULL, QUICK, Sizes

_OUR_NAMES = frozenset(name for row in ROWS for name in row.ours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run. servers are their names by row, in order; ours are those of the ratios."""

    servers: dict[str, tuple[str, ...]]
    ours: dict[str, str]
    externals: tuple[ExternalServer, ...]
    rows: tuple[str, ...]
    runs: int
    folder: Path | None
    json_file: Path | None
    sizes: Sizes

    @property
    def names(self) -> tuple[str, ...]:
        """Every server that any of the rows needs, once."""
        return tuple(dict.fromkeys(name for names in self.servers.values() for name in names))


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
        "memory, its process id; one whose name ends in -s3 gets the S3 rows; may be repeated",
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
        help=f"run this server only, may be repeated: {', '.join(SERVERS)} or a --peer's name",
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
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    modes = {**MODES, **{peer.name: peer.mode for peer in given.peer}}
    if len(modes) < len(MODES) + len(given.peer):
        parser.error("two servers have the same name")
    for name in [*(given.only or []), given.ours or OURS]:
        if name not in modes:
            parser.error(f"no server is called {name}; there are {', '.join(modes)}")
    rows = [row for row in ROWS if not given.rows or row.name in given.rows]

    def takes_part(name: str, row: Row) -> bool:
        if given.only and name not in given.only:
            return False
        if modes[name] is not row.mode:
            return False
        is_peer = name not in _OUR_NAMES and not row.alone
        return is_peer or name in row.ours or bool(name == given.ours)

    servers = {row.name: tuple(name for name in modes if takes_part(name, row)) for row in rows}
    if not any(servers.values()):
        parser.error("none of these servers runs any of these rows")
    return Options(
        servers={name: names for name, names in servers.items() if names},
        ours={
            row.name: given.ours if modes.get(given.ours) == row.mode else row.ours[0]
            for row in rows
        },
        externals=tuple(given.peer),
        rows=tuple(row.name for row in rows if servers[row.name]),
        runs=given.runs,
        folder=given.dir,
        json_file=given.json,
        sizes=QUICK if given.quick else FULL,
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
