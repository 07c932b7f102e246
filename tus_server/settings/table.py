"""The table of all settings in README.md, as values."""

from pathlib import Path
from typing import NamedTuple

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from tus_server.settings.fields import KIB, MIB, find_shown, variable
from tus_server.settings.model import Settings


class SettingRow(NamedTuple):
    """One line of the table."""

    name: str
    default: str
    description: str


def settings_table() -> list[SettingRow]:
    """List every setting: its variable, its default and its meaning, the last two as Markdown."""
    return [
        SettingRow(variable(name), _shown_default(field), str(field.description))
        for name, field in Settings.model_fields.items()
    ]


def _shown_default(field: FieldInfo) -> str:
    if (shown := find_shown(field)) is not None:
        return shown
    default = field.default
    if isinstance(default, ByteSize):
        text = f"{default // MIB} MiB" if default % MIB == 0 else f"{default // KIB} KiB"
    elif isinstance(default, Path):
        text = f"./{default}"
    elif isinstance(default, tuple):
        text = ",".join(default)
    elif isinstance(default, bool):
        text = str(default).lower()
    else:
        text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"`{text}`"
