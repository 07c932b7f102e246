"""A proxy before an S3 service that knows requests: it counts them, and holds back what it is told.

    with S3Proxy(service) as proxy:
        held = proxy.hold("PUT", "partNumber=")     # the next one waits here, with all its bytes
        ...                                         # a server at proxy.endpoint sends it
        held.wait_arrived()
        held.release()                              # S3 gets it now, however its sender is
        proxy.counts()                              # {"UploadPart": 1, ...}

S3 sees the Host that the client signed. The proxy runs on a thread of its own.
"""

import asyncio
import contextlib
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

from tests.support.s3 import S3Service
from tests.support.waiting import wait_until

START_TIMEOUT_S = 10.0
POLL_S = 0.002
CHUNK = 256 * 1024
CUT_OFF = 599
MAX_HEAD = 64 * 1024
_LENGTH = re.compile(rb"^content-length:\s*(\d+)", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^transfer-encoding:\s*chunked", re.IGNORECASE | re.MULTILINE)
_EXPECTS = re.compile(rb"^expect:\s*100-continue", re.IGNORECASE | re.MULTILINE)


@dataclass(eq=False)
class Held:
    """One request that waits. answer: S3 gets it at once, its answer is held back."""

    operation: str
    answer: bool
    is_here: bool = False
    status: int = 0  # of S3's answer; CUT_OFF where it hung up instead
    _released: threading.Event = field(default_factory=threading.Event)

    def wait_arrived(self) -> None:
        """Return once the request is here as a whole; with `answer`, once S3 has answered."""
        wait_until(
            lambda: self.status if self.answer else self.is_here, f"{self.operation} is here"
        )

    def release(self) -> None:
        """Let it go on."""
        self._released.set()

    def wait_answered(self) -> int:
        """Give the status S3 has answered with."""
        return wait_until(lambda: self.status, f"{self.operation} is answered")

    async def wait_released(self) -> None:
        while not self._released.is_set():
            await asyncio.sleep(POLL_S)


class S3Proxy:
    """See the module. requests: operations of S3 forwarded so far, in their order."""

    def __init__(self, service: S3Service) -> None:
        self.target = service.address
        self.requests: list[str] = []
        self.port = 0
        self._holds: list[Held] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold(self, operation: str, *, answer: bool = False) -> Held:
        """Hold back the next request for an operation of S3, or its answer."""
        held = Held(operation, answer)
        self._holds.append(held)
        return held

    def counts(self) -> Counter[str]:
        """Count the requests by operation."""
        return Counter(self.requests)

    def forget(self) -> None:
        """Begin to count anew."""
        self.requests.clear()

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="s3-proxy", daemon=True
        )
        self._thread.start()
        if not started.wait(START_TIMEOUT_S):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=MAX_HEAD)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        client = _Stream(reader, writer)
        s3: _Stream | None = None
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                s3 = _Stream(*await asyncio.open_connection(*self.target, limit=MAX_HEAD))
                while True:
                    await self._relay_one(client, s3)
        finally:
            client.abort()
            if s3 is not None:
                s3.abort()

    async def _relay_one(self, client: "_Stream", s3: "_Stream") -> None:
        head = await client.read_head()
        method, target = head.decode("latin-1").split(" ", 2)[:2]
        operation = operation_of(method, target)
        held = next((one for one in self._holds if one.operation == operation), None)
        if held is not None:
            self._holds.remove(held)
        size = _length(head)
        try:
            if held is not None and not held.answer and not _EXPECTS.search(head):
                # Taken in as a whole: it arrives even when its sender is no more.
                body = await client.reader.readexactly(size)
                held.is_here = True
                await held.wait_released()
                self.requests.append(operation)
                await s3.write(head + body)
            else:
                self.requests.append(operation)
                await s3.write(head)
                if _EXPECTS.search(head):
                    interim = await s3.read_head()
                    await client.write(interim)
                    if _status(interim) != 100:
                        await s3.copy_body(interim, client, method)
                        return
                await client.copy(size, s3)
            answer = await s3.read_head()
        except (OSError, EOFError):
            if held is not None:
                held.status = CUT_OFF
            raise
        if held is not None:
            held.status = _status(answer)
            if held.answer:
                await held.wait_released()
        await client.write(answer)
        await s3.copy_body(answer, client, method)


class _Stream:
    """One side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def read_head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def write(self, content: bytes) -> None:
        self._writer.write(content)
        await self._writer.drain()

    async def copy(self, size: int, to: "_Stream") -> None:
        while size:
            content = await self.reader.read(min(size, CHUNK))
            if not content:
                raise EOFError
            size -= len(content)
            await to.write(content)

    async def copy_body(self, head: bytes, to: "_Stream", method: str) -> None:
        if method == "HEAD" or _status(head) in (204, 304):
            return
        if not _CHUNKED.search(head):
            await self.copy(_length(head), to)
            return
        while True:
            line = await self.reader.readuntil(b"\r\n")
            await to.write(line)
            size = int(line.split(b";")[0], 16)
            await self.copy(size + 2, to)
            if size == 0:
                return

    def abort(self) -> None:
        self._writer.transport.abort()


def operation_of(method: str, target: str) -> str:
    """Name the operation of S3 that a request asks for, as its reference does."""
    path, _, query = target.partition("?")
    fields = parse_qs(query, keep_blank_values=True)
    is_key = path.strip("/").count("/") > 0
    if "uploadId" in fields:
        kinds = {"PUT": "UploadPart", "POST": "CompleteMultipartUpload"}
        kinds |= {"DELETE": "AbortMultipartUpload", "GET": "ListParts"}
        return kinds[method]
    if "uploads" in fields:
        return {"POST": "CreateMultipartUpload", "GET": "ListMultipartUploads"}[method]
    return {
        "PUT": "PutObject",
        "GET": "GetObject" if is_key else "ListObjects",
        "HEAD": "HeadObject" if is_key else "HeadBucket",
        "DELETE": "DeleteObject",
    }[method]


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


def _status(head: bytes) -> int:
    return int(head.split(b" ", 2)[1])
