"""The TOML file of settings: which one it is, and what it says."""

import os
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from tus_server.core.errors import SettingsInvalid
from tus_server.settings.sentences import render_hint

DEFAULT_CONFIG: Final = Path("tus-server.toml")


def find_config(given: str | Path | None = None) -> Path | None:
    """Find the TOML file to read: the one given, that of TUS_CONFIG, the default if it exists."""
    named = given or os.environ.get("TUS_CONFIG", "").strip()
    if named:
        return Path(named).expanduser()
    return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None


def read_config(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read a TOML file of settings.

    Raises: SettingsInvalid (also for a key that is not among `known`, and for `config`, since a
    file names no other).
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as exc:
        raise SettingsInvalid(
            f"TUS_CONFIG is '{path}', which cannot be read: {exc.strerror}."
        ) from exc
    except ValueError as exc:  # no TOML, or no UTF-8
        raise SettingsInvalid(f"TUS_CONFIG is '{path}', which is no TOML file: {exc}.") from exc
    keys = set(known) - {"config"}
    lines = [
        f"{path} has the key {key!r}, which is no setting{render_hint(key.lower(), keys)}"
        for key in found
        if key not in keys
    ]
    if lines:
        raise SettingsInvalid("\n".join(lines))
    return found
