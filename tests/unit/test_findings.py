"""Findings of an examination."""

import asyncio

import pytest

from tus_server.findings import Finding, Verdict, ok, refused, within


@pytest.mark.parametrize(
    ("sentence", "detail", "remedy"),
    [
        ("The port is taken: name another.", "The port is taken", "name another."),
        ("TUS_X: it is wrong: correct it.", "TUS_X: it is wrong", "correct it."),
        ("Something must be done.", "", "Something must be done."),
    ],
)
def test_the_end_of_a_sentence_is_the_remedy(sentence: str, detail: str, remedy: str) -> None:
    assert refused("x", sentence) == Finding("x", Verdict.FAILED, detail, remedy)


async def test_a_check_in_time_gives_what_it_found() -> None:
    async def check() -> Finding:
        return ok("x", "fine")

    assert await within("x", 10, check()) == ok("x", "fine")


async def test_a_check_that_does_not_end_has_failed() -> None:
    async def check() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    found = await within("x", 0.01, check())

    assert found.verdict is Verdict.FAILED
    assert "did not end within 0.01 s" in found.detail
