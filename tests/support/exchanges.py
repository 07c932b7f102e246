"""A server that does with each exchange what its query says: for tests of the connection itself.

Steps, with commas between: `inform` (a numbered 104), `flood-N` (N long ones), `unsafe` (one with a
line break in a field), `note` (tells the test), `read-N` (N bytes of the body), `rest` (the rest of
it), `gone` (waits for the client to go), `start` and `end` (of a reply), `reply`: a JSON object of
what the exchange told.
"""

import json
import threading
from types import TracebackType
from typing import Any, Self

import uvicorn

from tests.support.waiting import wait_until
from tus_server.core.errors import BodyStopped
from tus_server.http.exchange import Exchange


class ExchangeServer:
    """uvicorn in a thread of this process, with a protocol class, or its own by name.

    endings: what became of each request, as the application saw it.
    """

    def __init__(self, http: Any, *, fast: bool) -> None:
        self._fast = fast
        self.endings: list[str] = []
        config = uvicorn.Config(
            self._application,
            interface="asgi3",
            http=http,
            ws="none",
            lifespan="off",
            log_config=None,
            port=0,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._server.started, "the server listens")
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, idle_timeout_s=30.0, fast=self._fast)
        try:
            await self._take_steps(exchange, scope["query_string"].decode().split(","))
        except BaseException as exc:
            self.endings.append(repr(exc))
            raise
        self.endings.append("answered" if exchange.answered else "left")

    async def _take_steps(self, exchange: Exchange, steps: list[str]) -> None:
        told: dict[str, Any] = {
            "can_inform": exchange.can_inform,
            "has_trailers": exchange.has_trailers,
            "headers": sorted(exchange.fields.as_text()),
        }
        content = b""
        for number, step in enumerate(steps):
            match step.partition("-"):
                case ("inform", _, _):
                    await exchange.inform(104, [(b"step", b"%d" % number)])
                case ("flood", _, count):
                    for index in range(int(count)):
                        await exchange.inform(104, [(b"step", b"%d" % index), (b"x", b"y" * 1000)])
                case ("unsafe", _, _):
                    await exchange.inform(104, [(b"step", b"a\r\nContent-Length: 5")])
                    await exchange.inform(104, [(b"st ep", b"a")])
                case ("read", _, count):
                    content += await _read(exchange, int(count))
                case ("rest", _, _):
                    content += await _read(exchange, None)
                    told |= {
                        "body": content.decode("latin-1"),
                        "trailers": exchange.trailers().as_text(),
                    }
                case ("gone", _, _):
                    try:
                        await _read(exchange, None)
                    except BodyStopped:
                        await exchange.inform(104, [(b"late", b"1")])
                    exchange.answered = True
                case ("note", _, _):
                    self.endings.append("noted")
                case ("start", _, _):
                    await exchange.start(200, [(b"content-length", b"2")])
                case ("end", _, _):
                    await exchange.send_content(b"ok", more=False)
                case ("reply", _, _):
                    await exchange.reply(200, [], json.dumps(told).encode())
                case _:
                    raise AssertionError(step)


async def _read(exchange: Exchange, count: int | None) -> bytes:
    """Read that many bytes, or all."""
    body, content = exchange.body(), b""
    while count is None or len(content) < count:
        room = memoryview(bytearray(64 * 1024 if count is None else count - len(content)))
        size = await body.read_into(room)
        if size == 0:
            break
        content += bytes(room[:size])
    return content
