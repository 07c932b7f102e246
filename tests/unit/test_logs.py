"""Log lines: their form, their level, and that nothing in them can forge another."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import structlog

from tus_server.logs import configure_logging

EXTRA = {"port": 1, "color_message": "from uvicorn, in red"}
NASTY = "a\nb\r\x1b[31m\x7f\x9b\u2028\u202e\udcff"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().err.splitlines()


def log() -> Any:
    return structlog.get_logger()


def test_json_lines_have_event_level_time_and_values(lines: Callable[[], list[str]]) -> None:
    configure_logging("json", "info")

    log().warning("slow disk", path=Path("/x"), seconds=1.5)

    (line,) = lines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "slow disk", "level": "warning", "path": "/x", "seconds": 1.5}


def test_the_console_form_is_plain_where_there_is_no_terminal(
    lines: Callable[[], list[str]],
) -> None:
    configure_logging("console", "info")

    log().info("ready", url="http://[::1]/")

    (line,) = lines()
    assert "ready" in line
    assert "url=http://[::1]/" in line
    assert "\x1b" not in line


def test_auto_is_json_without_a_terminal_and_colours_with_one(
    lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    configure_logging("auto", "info")
    log().info("ready")
    assert json.loads(lines()[0])["event"] == "ready"

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    configure_logging("auto", "info")
    log().info("ready")
    assert "\x1b[" in terminal.getvalue()
    assert "ready" in terminal.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_below_the_level_are_not_written(form: str, lines: Callable[[], list[str]]) -> None:
    configure_logging(form, "warning")

    log().info("not this")
    logging.getLogger("uvicorn.error").info("nor this")
    log().error("this")

    (line,) = lines()
    assert "this" in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_standard_library_is_written_in_the_same_form(
    form: str, lines: Callable[[], list[str]]
) -> None:
    configure_logging(form, "info")
    configure_logging(form, "info")

    logging.getLogger("uvicorn.error").warning("from %s", "uvicorn", extra=EXTRA)

    (line,) = lines()
    if form == "json":
        event = json.loads(line)
        assert (event["event"], event["level"], event["port"]) == ("from uvicorn", "warning", 1)
    else:
        assert "from uvicorn" in line
        assert "port=1" in line
    assert "red" not in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_control_character_gets_into_a_line(form: str, lines: Callable[[], list[str]]) -> None:
    configure_logging(form, "info")

    log().info(NASTY, text=NASTY, nested={NASTY: [NASTY, (NASTY,)]}, other=ValueError(NASTY))
    logging.getLogger("uvicorn.error").info("%s", NASTY)

    written = lines()
    assert len(written) == 2
    assert all(line.isprintable() for line in written)
    if form == "json":
        event = json.loads(written[0])
        assert event["event"].isprintable()
        assert event["text"] == r"a\nb\r\x1b[31m\x7f\x9b\u2028\u202e\udcff"


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_are_written_without_values_and_control_characters(
    form: str, lines: Callable[[], list[str]]
) -> None:
    configure_logging(form, "info")

    try:
        secret = "s3cret"
        raise ValueError(f"bad\x1b {len(secret)}")
    except ValueError:
        log().exception("failed")

    written = lines()
    assert all(line.isprintable() for line in written)
    assert any("ValueError: bad\\" in line for line in written)
    assert "Traceback" in " ".join(written)
    assert (len(written) == 1) is (form == "json")


@pytest.mark.parametrize("form", ["json", "console"])
def test_enums_are_shown_by_value(form: str, lines: Callable[[], list[str]]) -> None:
    class State(StrEnum):
        DONE = "done"

    configure_logging(form, "info")

    log().info("moved", state=State.DONE)

    (line,) = lines()
    assert "done" in line
    assert "State" not in line


def test_context_variables_are_part_of_each_line(lines: Callable[[], list[str]]) -> None:
    configure_logging("json", "info")

    with structlog.contextvars.bound_contextvars(upload="abc"):
        log().info("moved")

    assert json.loads(lines()[0])["upload"] == "abc"


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    script = (
        "import logging, structlog; from tus_server.logs import configure_logging;"
        "configure_logging('json', 'info'); structlog.get_logger().info('one');"
        "logging.getLogger('uvicorn').warning('two'); print('went on')"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stderr=full, stdout=subprocess.PIPE, check=True
        )

    assert done.stdout == b"went on\n"
