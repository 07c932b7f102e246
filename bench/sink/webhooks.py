"""A receiver of webhooks: `python -m bench.sink.webhooks --port N`.

It holds its answers until POST /__open, so that a backlog can gather, and counts what it answers:
GET /__counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import cast

import uvloop

OPEN_PATH, COUNTS_PATH = b"/__open", b"/__counts"
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s"


class Receiver:
    """What all connections share. held: those that wait for their answer."""

    def __init__(self) -> None:
        self.answered = 0
        self.is_open = False
        self.held: list[asyncio.Transport] = []

    def open(self) -> None:
        self.is_open = True
        for transport in self.held:
            self.answer(transport)
        self.held.clear()

    def receive(self, transport: asyncio.Transport) -> None:
        """Take a webhook."""
        if self.is_open:
            self.answer(transport)
        else:
            self.held.append(transport)

    def answer(self, transport: asyncio.Transport) -> None:
        self.answered += 1
        transport.write(_OK % (2, b"{}"))


class Connection(asyncio.Protocol):
    """One request after the other, each with a Content-Length."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end]
        if len(self._received) < end + 4 + _length(head):
            return
        self._received = b""
        path = head.split(b" ", 2)[1]
        if path == COUNTS_PATH:
            counts = json.dumps({"webhooks": self._receiver.answered}).encode()
            self._transport.write(_OK % (len(counts), counts))
        elif path == OPEN_PATH:
            self._receiver.open()
            self._transport.write(_OK % (0, b""))
        else:
            self._receiver.receive(self._transport)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _serve(port: int) -> None:
    receiver = Receiver()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(receiver), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sink.webhooks")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
