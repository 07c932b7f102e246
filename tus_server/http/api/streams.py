"""Streams of events: each polls its upload, and holds nothing but its connection."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from starlette.responses import Response

from tus_server.broker import Changed, Moved, Watch
from tus_server.core.errors import TooManyStreams, TryAgainError, UploadNotFound
from tus_server.engine.engine import Engine
from tus_server.http.body import Receive
from tus_server.http.exchange import Scope, Send
from tus_server.wire.event_stream import CONTENT_TYPE, HEARTBEAT, render_event, render_retry
from tus_server.wire.upload_view import render

MOST = 200  # of a process; each asks the state twice a second
POLL_S = 0.5
PROGRESS_EVERY_S = 1.0
HEARTBEAT_EVERY_S = 15.0
RETRY_MS = 2000
# A client that reads nothing at a stop is not waited for.
LAST_WORDS_S = 1.0
_FIELDS = [
    (b"content-type", CONTENT_TYPE),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back until it has 4 KiB
]

News = Sequence[Changed | Moved]


class Streams:
    """The streams of a process that are open."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.open = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Raises: TooManyStreams, ShuttingDown."""
        self.engine.check_open()
        if self.open >= MOST:
            raise TooManyStreams(f"{MOST} clients follow uploads; ask for the upload itself.")
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class EventStream(Response):
    """Sends news of an upload until there can be none, the client goes, or the server stops."""

    media_type = CONTENT_TYPE.decode()

    def __init__(self, watch: Watch, news: News, streams: Streams) -> None:
        super().__init__(None)
        self._watch = watch
        self._news = news
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.one_more():
            async with self._streams.engine.until_closing() as closing:
                sending = asyncio.create_task(self._send_all(send, closing))
                gone = asyncio.create_task(_wait_until_gone(receive))
                tasks = {sending, gone}
                try:
                    await asyncio.wait({*tasks, closing}, return_when=asyncio.FIRST_COMPLETED)
                    if closing.done() and not gone.done():
                        await asyncio.wait({sending}, timeout=LAST_WORDS_S)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                if not sending.cancelled():
                    with suppress(OSError):  # the client is gone (ASGI 2.4)
                        sending.result()

    async def _send_all(self, send: Send, closing: "asyncio.Task[bool]") -> None:
        loop = asyncio.get_running_loop()
        await send({"type": "http.response.start", "status": 200, "headers": _FIELDS})
        await _send(send, render_retry(RETRY_MS))
        news: News | None = self._news
        held: Moved | None = None
        sent_at_s = moved_at_s = loop.time()
        while news is not None and not closing.done():
            now_s = loop.time()
            text = b""
            for one in news:
                if isinstance(one, Changed):
                    text += render_event("status", render(one.view), event_id=one.position)
                    held = None
                else:
                    held = one
            if held is not None and now_s - moved_at_s >= PROGRESS_EVERY_S:
                text += render_event("progress", render(held))
                held, moved_at_s = None, now_s
            if not text and now_s - sent_at_s >= HEARTBEAT_EVERY_S:
                text = HEARTBEAT
            if text:
                await _send(send, text)
                sent_at_s = now_s
            if self._watch.is_over:
                break
            await asyncio.wait({closing}, timeout=POLL_S)
            news = await self._look()
        await send({"type": "http.response.body", "body": b""})

    async def _look(self) -> News | None:
        """Give what is new; None: the upload is there no more."""
        try:
            return await self._watch.look()
        except UploadNotFound:
            return None
        except TryAgainError:  # the next look may succeed
            return ()


async def _send(send: Send, content: bytes) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": True})


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
