"""Many clients, each with one request in flight, driven by one epoll loop."""

from __future__ import annotations

import select
from collections.abc import Generator, Iterable
from time import monotonic

from bench.load.connection import IDLE_TIMEOUT_S, Connection
from bench.load.replies import Reply

# A client: yields whole requests, is sent their replies, ends when it has no more to ask.
Script = Generator[bytes, Reply, None]


class ClosedLoop:
    """Runs every script on a connection of its own."""

    def __init__(self, address: tuple[str, int], scripts: Iterable[Script]) -> None:
        self._epoll = select.epoll()
        self._clients: dict[int, tuple[Connection, Script]] = {}
        for script in scripts:
            request = next(script, None)
            if request is None:
                continue
            connection = Connection(address)
            self._clients[connection.fileno()] = (connection, script)
            self._epoll.register(connection.fileno(), select.EPOLLIN)
            connection.send(request)

    def run(self, seconds: float | None = None) -> None:
        """Go on for that long, or until every script has ended. May be called again.

        Raises: TimeoutError, when no client gets a reply for IDLE_TIMEOUT_S; whatever a script
        raises.
        """
        deadline = None if seconds is None else monotonic() + seconds
        clients = self._clients
        while clients:
            wait_s = IDLE_TIMEOUT_S if deadline is None else max(0.0, deadline - monotonic())
            events = self._epoll.poll(wait_s)
            if deadline is not None and monotonic() >= deadline:
                return
            if not events:
                raise TimeoutError(f"no client got a reply within {IDLE_TIMEOUT_S:g} s")
            for fd, _ in events:
                connection, script = clients[fd]
                reply = connection.receive_nowait()
                if reply is None:
                    continue
                try:
                    connection.send(script.send(reply))
                except StopIteration:
                    del clients[fd]
                    connection.close()

    def close(self) -> None:
        """Close the connections, also those with a request in flight."""
        for connection, _ in self._clients.values():
            connection.close()
        self._epoll.close()
