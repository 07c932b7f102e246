"""What is made for its first request: once, beside other requests, and again if it failed."""

import asyncio
import threading
from typing import Any

import pytest

from tests.integration.conftest import soon
from tus_server.http.lazily import Lazily

Asked = list[str]


async def ask(application: Lazily, path: str) -> None:
    async def receive() -> Any:
        raise AssertionError("nobody reads a body here")

    async def send(message: Any) -> None:
        raise AssertionError("nobody replies here")

    await soon(application({"type": "http", "path": path}, receive, send))


def answer_into(asked: Asked) -> Any:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])

    return answer


async def test_it_is_made_once_for_all_that_wait_and_nobody_else_has_to() -> None:
    asked: Asked = []
    made: list[int] = []
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def make() -> Any:
        made.append(threading.get_ident())
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(20)
        return answer_into(asked)

    application = Lazily(make)
    assert not made
    waiting = [asyncio.ensure_future(ask(application, f"/{number}")) for number in range(3)]
    await soon(begun.wait())  # the loop runs while it is made
    assert not asked

    go_on.set()

    await soon(asyncio.gather(*waiting))
    await ask(application, "/3")
    assert sorted(asked) == ["/0", "/1", "/2", "/3"]
    assert len(made) == 1
    assert made != [threading.get_ident()]


async def test_what_could_not_be_made_is_tried_again() -> None:
    asked: Asked = []
    results: list[Any] = [OSError("no room"), answer_into(asked)]

    def make() -> Any:
        result = results.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    application = Lazily(make)
    with pytest.raises(OSError, match="no room"):
        await ask(application, "/1")

    await ask(application, "/2")

    assert asked == ["/2"]
