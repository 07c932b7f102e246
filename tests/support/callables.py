"""What jobs and checks name by a dotted path in tests."""

import asyncio
import functools
import threading
from typing import Any

from tus_server.core.upload import Upload
from tus_server.ports import OpenStream, Verdict

CALLED: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = []
HOLD = threading.Event()
NOT_CALLABLE = 17


def _note(name: str, message: dict[str, Any], kwargs: dict[str, Any]) -> None:
    is_main = threading.current_thread() is threading.main_thread()
    CALLED.append((name, message, kwargs, is_main))


def plain(message: dict[str, Any], **kwargs: Any) -> None:
    _note("plain", message, kwargs)


async def coroutine(message: dict[str, Any], **kwargs: Any) -> None:
    await asyncio.sleep(0)
    _note("coroutine", message, kwargs)


class Callable_:
    async def __call__(self, message: dict[str, Any], **kwargs: Any) -> None:
        _note("object", message, kwargs)

    async def method(self, message: dict[str, Any], **kwargs: Any) -> None:
        _note("method", message, kwargs)


instance = Callable_()
partial = functools.partial(coroutine, extra=1)


def failing(message: dict[str, Any], **kwargs: Any) -> None:
    raise ValueError("no such\nrow")


def silent(message: dict[str, Any], **kwargs: Any) -> None:
    raise KeyError


def exits(message: dict[str, Any], **kwargs: Any) -> None:
    raise SystemExit(3)


def hangs(message: dict[str, Any], **kwargs: Any) -> None:
    HOLD.wait(30)


async def hangs_too(message: dict[str, Any], **kwargs: Any) -> None:
    await asyncio.Event().wait()


async def accepts(upload: Upload, open_stream: OpenStream) -> Verdict:
    return Verdict()


async def refuses_x(upload: Upload, open_stream: OpenStream) -> Verdict:
    """Refuse whatever begins with x."""
    async for block in open_stream(0, 1):
        if block.startswith(b"x"):
            return Verdict("has_x", "It begins with x.")
    return Verdict()


async def says_nothing(upload: Upload, open_stream: OpenStream) -> None:
    return None


async def never_says(upload: Upload, open_stream: OpenStream) -> Verdict:
    await asyncio.Event().wait()
    raise AssertionError


async def is_late_itself(upload: Upload, open_stream: OpenStream) -> Verdict:
    raise TimeoutError("its own")
