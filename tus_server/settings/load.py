"""Settings for this process, with a sentence for each thing that is wrong with what was given."""

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tus_server.core.errors import SettingsInvalid
from tus_server.settings.fields import PREFIX, get_expects, is_secret, variable
from tus_server.settings.model import Settings
from tus_server.settings.sentences import render_hint, render_wrong_setting
from tus_server.settings.sources import find_config, read_config


def load_settings(config: Path | None = None, **flags: object) -> Settings:
    """Load the settings of this process; a flag that is None was not given.

    Raises: SettingsInvalid, with one line for each wrong setting.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if config is not None:
        given["config"] = config
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic's to check
    except ValidationError as exc:
        # `from None`: that error could show what was given, passwords included.
        raise SettingsInvalid("\n".join(_render_lines(exc, config, given))) from None


def unknown_environment() -> list[str]:
    """Give a sentence for each TUS_* variable that is no setting: allowed, but likely a slip."""
    known = {variable(name) for name in Settings.model_fields}
    return [
        f"{name} is no setting{render_hint(name.upper(), known)}"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]


def _render_lines(
    failure: ValidationError, config: Path | None, flags: dict[str, object]
) -> list[str]:
    fields = Settings.model_fields
    path = find_config(config)
    in_file = read_config(path, fields) if path else {}
    lines = []
    for error in failure.errors(include_url=False):
        name = str(error["loc"][0])
        if name in fields:
            expects, origin = get_expects(fields[name]), _origin(name, flags, path, in_file)
            line = render_wrong_setting(
                variable(name),
                error,
                expects=expects,
                origin=origin,
                is_secret=is_secret(fields[name]),
            )
        else:
            line = f"{name!r} is no setting{render_hint(name, fields)}"
        lines.append(line)
    return lines


def _origin(name: str, flags: dict[str, object], path: Path | None, in_file: dict[str, Any]) -> str:
    """Tell where a value came from, by precedence; nothing for the environment's."""
    if name in flags:
        return f", by --{name.replace('_', '-')}"
    if variable(name) in map(str.upper, os.environ):
        return ""
    return f", by the key {name!r} in {path}" if name in in_file else ""
