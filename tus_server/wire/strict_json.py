"""JSON in requests, as RFC 7493 (I-JSON) has it.

Refused is what two parsers could read differently, and what a database or a client of ours cannot
hold: NUL characters, lone surrogates, numbers that are none or too large. Pure.
"""

import json
import math
from typing import Any

from tus_server.core.errors import MalformedRequest

MAX_DEPTH = 32
_MAX_INTEGER = 2**64  # in kwargs of jobs; what we read ourselves is narrower
_MAX_DIGITS = 20


def parse_json(content: bytes) -> Any:
    """Parse a body. Raises: MalformedRequest, with what is wrong."""
    try:
        text = content.decode()
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except UnicodeDecodeError as exc:
        raise _malformed("it is not UTF-8") from exc
    except json.JSONDecodeError as exc:
        raise _malformed(f"{exc.msg.lower()}, at character {exc.pos}") from exc
    except RecursionError as exc:
        raise _too_deep() from exc
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _malformed("an object has two members of one name")
    return members


def _refuse_constant(name: str) -> Any:
    raise _malformed(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _malformed("a number is too large")
    return number


def _integer(text: str) -> int:
    # int() itself refuses thousands of digits, by an error of its own.
    if len(text) > _MAX_DIGITS + 1 or abs(number := int(text)) >= _MAX_INTEGER:
        raise _malformed("a number is too large")
    return number


def _check(value: Any) -> None:
    """Raise for texts that nobody can keep, and for nesting that nobody means."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, str):
                _check_text(one)
            elif isinstance(one, dict):
                for name in one:
                    _check_text(name)
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        if not inner:
            return
        level = inner
    raise _too_deep()


def _check_text(text: str) -> None:
    if "\0" in text:
        raise _malformed("a text has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise _malformed("a text has half of a surrogate pair") from exc


def _too_deep() -> MalformedRequest:
    return _malformed(f"it is nested more than {MAX_DEPTH} deep")


def _malformed(why: str) -> MalformedRequest:
    return MalformedRequest(f"The body is not the JSON that is taken here: {why}.")
