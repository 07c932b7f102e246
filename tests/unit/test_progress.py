import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from tus_server.http import progress as module
from tus_server.http.exchange import Exchange, Header
from tus_server.http.progress import Progress

VERSION: Header = (b"upload-draft-interop-version", b"8")


class Informed:
    """The part of an exchange that progress needs; `gate` holds replies back."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.changed = asyncio.Event()

    async def inform(self, status: int, headers: Sequence[Header]) -> None:
        await self.gate.wait()
        assert status == 104
        assert headers[0] == VERSION
        assert [name for name, _ in headers] == [VERSION[0], b"upload-offset"]
        self.offsets.append(int(headers[1][1]))
        self.changed.set()

    async def wait_for(self, offset: int) -> None:
        async with asyncio.timeout(30):
            while offset not in self.offsets:
                self.changed.clear()
                await self.changed.wait()


def start(informed: Informed) -> Progress:
    return Progress(cast(Exchange, informed), [VERSION])


async def test_the_first_offset_is_told_at_once() -> None:
    informed = Informed()
    async with start(informed) as progress:
        progress.tell(5)
        await informed.wait_for(5)

    assert informed.offsets == [5]


async def test_offsets_between_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.01)
    informed = Informed()
    async with start(informed) as progress:
        progress.tell(1)
        await informed.wait_for(1)
        for offset in (2, 3, 4):
            progress.tell(offset)
        await informed.wait_for(4)

    assert informed.offsets == [1, 4]


async def test_within_an_interval_nothing_more_is_told() -> None:
    informed = Informed()
    async with start(informed) as progress:
        progress.tell(1)
        await informed.wait_for(1)
        progress.tell(2)
        for _ in range(10):
            await asyncio.sleep(0)

    assert informed.offsets == [1]


async def test_an_offset_that_has_not_grown_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """R2."""
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    informed = Informed()
    async with start(informed) as progress:
        progress.tell(5)
        await informed.wait_for(5)
        progress.tell(5)
        progress.tell(3)
        for _ in range(10):
            await asyncio.sleep(0)

    assert informed.offsets == [5]


async def test_nothing_is_told_once_it_is_over() -> None:
    """Section 5: not behind the final reply."""
    informed = Informed()
    informed.gate.clear()
    async with start(informed) as progress:
        progress.tell(1)
        await asyncio.sleep(0)
    progress.tell(2)
    informed.gate.set()
    await asyncio.sleep(0)

    assert informed.offsets == []


async def test_an_error_passes_through() -> None:
    async def fail() -> None:
        async with start(Informed()) as progress:
            progress.tell(1)
            raise RuntimeError("append")

    with pytest.raises(RuntimeError, match="append"):
        await fail()
