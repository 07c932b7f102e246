"""What commands print, and how they end."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import typer

from tus_server.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def complain(sentence: str) -> None:
    """Print one sentence on stderr."""
    typer.echo(f"tus-server: {printable(sentence)}", err=True)


def refuse(sentence: str) -> typer.Exit:
    """Print what is wrong with the command; raise what this gives."""
    complain(sentence)
    return typer.Exit(EXIT_USAGE)


def render_size(size: int) -> str:
    """Render a number of bytes for a person."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / 1024**power:.1f} {_UNITS[power - 1]}"


def render_time(at: datetime) -> str:
    """Render a moment in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def open_console() -> "Console":
    """Give what tables are printed on."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # Lines for other programs are not folded.
        console.width = 10_000
    return console
