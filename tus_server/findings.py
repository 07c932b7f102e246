"""What an examination has found: a line each, and what to do about it."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """NOTE: worth knowing, nothing to do. WARNING: works, and may not always, or loses bytes."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report. what: was looked at. remedy: of a failure or warning."""

    what: str
    verdict: Verdict
    detail: str = ""
    remedy: str = ""


def ok(what: str, detail: str = "") -> Finding:
    return Finding(what, Verdict.OK, detail)


def note(what: str, detail: str) -> Finding:
    return Finding(what, Verdict.NOTE, detail)


def warning(what: str, detail: str, remedy: str) -> Finding:
    return Finding(what, Verdict.WARNING, detail, remedy)


def failed(what: str, detail: str, remedy: str) -> Finding:
    return Finding(what, Verdict.FAILED, detail, remedy)


def refused(what: str, sentence: str) -> Finding:
    """Give what keeps the server from starting; our sentences end with the remedy."""
    detail, _, remedy = sentence.rpartition(": ")
    return failed(what, detail, remedy)


def skipped(what: str, because: str) -> Finding:
    return Finding(what, Verdict.SKIPPED, f"because {because}")


async def within(what: str, timeout_s: float, check: Awaitable[Finding]) -> Finding:
    """Give what `check` finds, or that it took too long."""
    try:
        async with asyncio.timeout(timeout_s):
            return await check
    except TimeoutError:
        return failed(
            what,
            f"did not end within {timeout_s:g} s",
            "find out what keeps it: the network, the load, or the disk behind it.",
        )
