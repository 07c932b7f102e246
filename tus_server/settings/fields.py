"""How a setting is declared: its variable, and the words it carries beside type and default."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

from tus_server.settings import values

PREFIX: Final = "TUS_"
KIB: Final = 1024
MIB: Final = 1024 * KIB

WORD: Final = BeforeValidator(values.fold_case)
OPTIONAL: Final = BeforeValidator(values.blank_is_unset)
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.split_list)]


def setting(
    description: str,
    expects: str,
    *,
    default: Any,
    shown: str | None = None,
    secret: bool = False,
    **limits: Any,
) -> Any:
    """Declare a field; `expects` ends the sentence on a wrong value, `shown` is a default in words.

    Sizes are in bytes. secret: the value is shown nowhere, wrong or not.
    """
    extra: dict[str, Any] = {"expects": expects, "shown": shown, "secret": secret}
    if secret:
        limits["repr"] = False
    return Field(default=default, description=description, json_schema_extra=extra, **limits)


def seconds(description: str, *, default: float, zero: bool = False) -> Any:
    """Declare a time in seconds; zero: 0 has a meaning."""
    expects = f"give a number of seconds{', at least' if zero else ' above'} 0"
    limits: dict[str, Any] = {"ge": 0} if zero else {"gt": 0}
    return setting(description, expects, default=default, allow_inf_nan=False, **limits)


def count(description: str, *, default: int, most: int) -> Any:
    """Declare a number from 1 to `most`."""
    return setting(description, f"give a number from 1 to {most}", default=default, ge=1, le=most)


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


def is_secret(field: FieldInfo) -> bool:
    """Tell whether the value is never shown."""
    return bool(_extra(field)["secret"])


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return extra
