"""What the commands of `tus-server uploads` share: their options, and looking at the state."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from tus_server.ports import StateReader
    from tus_server.settings import Settings

_Found = TypeVar("_Found")

DataDir = Annotated[
    str | None, typer.Option("--data-dir", metavar="DIR", help="The server's. TUS_DATA_DIR")
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The server's. TUS_CONFIG")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per upload instead of tables.")
]
Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", help="The last part of each upload's URL.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def load(config: Path | None, data_dir: str | None) -> "Settings":
    """Load the settings of the server. Raises: SettingsInvalid."""
    from tus_server.settings import load_settings

    return load_settings(config, data_dir=data_dir)


def read(
    settings: "Settings", query: "Callable[[StateReader], Coroutine[Any, Any, _Found]]"
) -> _Found:
    """Ask the state for something."""
    from tus_server.app import open_reader

    async def ask() -> _Found:
        async with open_reader(settings) as reader:
            return await query(reader)

    return asyncio.run(ask())
