"""Log lines on stderr, for a person or as JSON; those of the standard library take the same way."""

import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tus_server.printable import printable

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# Texts of several lines by nature; their lines are escaped one by one.
_MULTI_LINE = frozenset({"exception", "stack"})


def configure_logging(format: str, level: str) -> None:
    """Send log lines of at least `level` to stderr as "console" or "json".

    "auto" is console on a terminal, else json. Idempotent; other handlers of the root logger stay.
    """
    stream = sys.stderr
    if format == "auto":
        format = "console" if stream.isatty() else "json"
    render = _console(stream) if format == "console" else structlog.processors.JSONRenderer()
    enrich: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    finish: list[Processor] = [structlog.processors.format_exc_info, escape_values, render]
    structlog.configure(
        processors=[*enrich, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Unbreakable(stream))),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(stream, LEVELS[level], enrich, finish)


def log_through_standard_library() -> None:
    """Send our log lines to the loggers `tus_server.*` of the standard library.

    For an application that mounts us and has not configured structlog: its defaults would print
    to standard output, tracebacks with local variables and so with credentials.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            escape_values,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


class _Unbreakable:
    """A stream for lines that may get lost: a full disk under the log must not stop uploads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it is closed
            pass

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            pass


def escape_values(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Leave nothing in an event that could forge a line or drive a terminal (P9)."""
    for key, value in list(event.items()):
        if key.startswith("_"):  # structlog's own, taken out later
            continue
        if key in _MULTI_LINE and isinstance(value, str):
            event[key] = "\n".join(map(printable, value.split("\n")))
        else:
            event[key] = _escaped(value)
    return event


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return printable(str(value))  # str() for StrEnum, which console and JSON show differently
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, MutableMapping):
        return {printable(str(key)): _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_escaped(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return printable(os.fspath(value) if isinstance(value, os.PathLike) else repr(value))


def _drop_coloured_message(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)  # uvicorn's: the message once more, with escape sequences
    return event


class _StandardLibraryHandler(logging.StreamHandler[TextIO]):
    """Ours, to be told from others when logging is configured again."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line: telling of it would go the same way."""


def _route_standard_library(
    stream: TextIO, level: int, enrich: list[Processor], finish: list[Processor]
) -> None:
    handler = _StandardLibraryHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*enrich, structlog.stdlib.ExtraAdder(), _drop_coloured_message],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    for old in [found for found in root.handlers if isinstance(found, _StandardLibraryHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("botocore", "aiobotocore"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))  # tells of every credential
    # uvicorn brings handlers of its own, unless it was told log_config=None.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _console(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        # The default draws tracebacks with rich, local variables included.
        exception_formatter=structlog.dev.plain_traceback,
    )
