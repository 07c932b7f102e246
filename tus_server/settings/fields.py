"""How a setting is declared: its variable, and the words it carries beside type and default."""

from typing import Any, Final

from pydantic import Field
from pydantic.fields import FieldInfo

PREFIX: Final = "TUS_"


def setting(
    description: str, expects: str, *, default: Any, shown: str | None = None, **limits: Any
) -> Any:
    """Declare a field; `expects` ends the sentence on a wrong value, `shown` is a default in words.

    Sizes are in bytes.
    """
    extra: dict[str, Any] = {"expects": expects, "shown": shown}
    return Field(default=default, description=description, json_schema_extra=extra, **limits)


def variable(name: str) -> str:
    """Give the environment variable of the field `name`."""
    return PREFIX + name.upper()


def get_expects(field: FieldInfo) -> str:
    """Give what `setting` was told about good values."""
    return str(_extra(field)["expects"])


def find_shown(field: FieldInfo) -> str | None:
    """Give the default in words, if it has any."""
    shown: str | None = _extra(field)["shown"]
    return shown


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return extra
