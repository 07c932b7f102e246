"""A TCP proxy inside the test process that breaks connections on order.

    with FaultProxy(server.port) as proxy:
        connect_to(proxy.port)
        proxy.up.cut_after(2_500_000)                   # reset in the middle of a PATCH
        proxy.down.cut_after(0)                         # the request is done, its answer is lost
        proxy.up.cut_after(1000, how="close")           # an orderly end (FIN) in the middle
        proxy.up.bytes_per_second = 1 << 20             # slow link, per connection
        proxy.stalled = True                            # connections stay open, nothing moves
        proxy.refusing = True                           # new connections are reset
        proxy.reset_all()                               # every open connection, now

`up` is client to target, `down` the way back. Settings apply to open connections too. The proxy
runs on its own thread, so it also serves blocking test code.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

CHUNK = 16 * 1024  # bytes; small enough for a smooth bytes_per_second
POLL_S = 0.01  # between looks at `stalled` and at the socket's send queue
START_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 2.0  # for the bytes before a cut to leave
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close() sends RST

How = Literal["reset", "close"]
Pair = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class _Cut(Exception):
    def __init__(self, how: How) -> None:
        self.how = how


@dataclass
class Direction:
    """One way through the proxy. passed: bytes forwarded so far, over all connections."""

    bytes_per_second: float | None = None
    passed: int = 0
    _cuts: list[int] = field(default_factory=list)  # bytes to let through before each
    _how: How = "reset"

    def cut_after(self, count: int, how: How = "reset", *, times: int = 1) -> None:
        """Let `count` more bytes pass, then end the connection that carries the next one.

        Do so `times` times.
        """
        self._cuts, self._how = [count] * times, how

    @property
    def cuts_left(self) -> int:
        """How many ordered cuts have not happened."""
        return len(self._cuts)

    def admit(self, content: bytes) -> tuple[bytes, How | None]:
        """Give the part of `content` that may pass, and how to end the connection after it."""
        end = None
        if self._cuts:
            left = self._cuts[0]
            if len(content) > left:
                content, end = content[:left], self._how
                self._cuts.pop(0)
            else:
                self._cuts[0] -= len(content)
        self.passed += len(content)
        return content, end


class FaultProxy:
    """A proxy on a free port in front of `target_port`; see the module."""

    def __init__(self, target_port: int) -> None:
        self.target = ("127.0.0.1", target_port)
        self.up = Direction()
        self.down = Direction()
        self.stalled = False
        self.refusing = False
        self.accepted = 0
        self.port = 0
        self._pairs: set[Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="fault-proxy", daemon=True
        )
        self._thread.start()
        if not started.wait(START_TIMEOUT_S):
            raise RuntimeError("the fault proxy did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)

    def reset_all(self) -> None:
        """Reset every open connection."""
        done = threading.Event()

        def reset() -> None:
            self._reset_pairs()
            done.set()

        self._loop.call_soon_threadsafe(reset)
        done.wait(START_TIMEOUT_S)

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        listener = socket.socket()
        # Inherited by the connections: the kernel must not swallow megabytes of a slow upload.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * CHUNK)
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        server = await asyncio.start_server(self._accept, sock=listener, limit=CHUNK)
        started.set()
        await self._stop.wait()
        server.close()
        self._reset_pairs()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(asyncio.CancelledError):  # at the end of _serve
            await self._relay(reader, client)

    async def _relay(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self.refusing:
            _reset(client)
            return
        try:
            target_reader, target = await asyncio.open_connection(*self.target, limit=CHUNK)
        except OSError:
            _reset(client)
            return
        pair = (client, target)
        for writer in pair:
            # drain() waits until the kernel has all bytes
            writer.transport.set_write_buffer_limits(high=0)
        self._pairs.add(pair)
        end: How = "close"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, target, self.up))
                group.create_task(self._pump(target_reader, client, self.down))
        except* _Cut as cuts:
            end = next(cut.how for cut in cuts.exceptions if isinstance(cut, _Cut))
        except* OSError:
            end = "reset"
        finally:
            self._pairs.discard(pair)
            for writer in pair:
                if end == "reset":
                    _reset(writer)
                else:
                    writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        while content := await reader.read(CHUNK):
            await self._while_stalled()
            if direction.bytes_per_second:
                await asyncio.sleep(len(content) / direction.bytes_per_second)
            admitted, how = direction.admit(content)
            writer.write(admitted)
            await writer.drain()
            if how:
                await _wait_until_sent(writer)
                raise _Cut(how)
        await self._while_stalled()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _while_stalled(self) -> None:
        while self.stalled:
            await asyncio.sleep(POLL_S)

    def _reset_pairs(self) -> None:
        for pair in list(self._pairs):
            for writer in pair:
                _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # already closed
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


async def _wait_until_sent(writer: asyncio.StreamWriter) -> None:
    """A reset throws away what the kernel has not sent yet; wait until its queue is empty."""
    connection = writer.get_extra_info("socket")
    for _ in range(round(FLUSH_TIMEOUT_S / POLL_S)):
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        if struct.unpack("i", answer)[0] == 0:
            return
        await asyncio.sleep(POLL_S)
