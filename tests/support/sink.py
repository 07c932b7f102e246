"""A receiver of HTTP requests that answers as it is told: well, badly, late, or not at all."""

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came. fields: by lower-case name."""

    method: str
    path: str
    fields: Mapping[str, str]
    body: bytes
    connection: int  # its number

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """How a request is answered.

    hangs: never; cuts: the connection is closed, after the head if `after_head`; endless: the body
    goes on for ever. delay_s: before the head.
    """

    status: int = 200
    body: bytes = b"{}"
    fields: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    hangs: bool = False
    cuts: bool = False
    after_head: bool = False
    endless: bool = False


OK = Reply()
HANGS = Reply(hangs=True)


class Sink:
    """Listens on 127.0.0.1 on the loop of the test. Use as an async context manager.

    Each request takes its reply from `script`, and at the end of that from `otherwise`.
    """

    def __init__(self, *script: Reply, otherwise: Reply = OK) -> None:
        self.script = deque(script)
        self.otherwise = otherwise
        self.received: list[Received] = []
        self.decide: Callable[[Received], Reply] | None = None
        self.sent_bytes = 0
        self._connections = 0
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def url(self, path: str = "/hook", *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        self._connections += 1
        number = self._connections
        try:
            while (request := await _read(reader, number)) is not None:
                self.received.append(request)
                if self.decide is not None:
                    reply = self.decide(request)
                else:
                    reply = self.script.popleft() if self.script else self.otherwise
                if not await self._answer(reply, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass  # the end of the test; of a cancelled task asyncio's own callback would complain
        finally:
            self._running.discard(task)
            writer.close()

    async def _answer(self, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        """Answer; tell whether the connection stays open."""
        if reply.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(reply.delay_s)
        if reply.cuts and not reply.after_head:
            return False
        fields = {"Content-Type": "application/json", "Content-Length": str(len(reply.body))}
        if reply.endless:
            fields["Content-Length"] = str(1 << 40)
        fields |= dict(reply.fields)
        lines = [f"HTTP/1.1 {reply.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await writer.drain()
        if reply.cuts:
            return False
        if reply.endless:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                self.sent_bytes += 65536
        writer.write(reply.body)
        await writer.drain()
        return True


class SinkThread:
    """A sink beside the test, on a loop of its own: for servers that are other processes."""

    def __init__(self, *script: Reply, otherwise: Reply = OK) -> None:
        self.sink = Sink(*script, otherwise=otherwise)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Sink:
        self._thread.start()
        assert self._ready.wait(10)
        return self.sink

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        async with self.sink:
            self._ready.set()
            await self._done.wait()


async def _read(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    return Received(method, path, fields, body, connection)
