"""Processes of several nodes on one database, in this process."""

import asyncio
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from tests.support.waiting import DEADLINE_S, POLL_S
from tus_server.ports import Node
from tus_server.state.postgres import PostgresOptions, PostgresState


class Cluster:
    """Opens stores, closes them at the end, and looks into the database from outside."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stack = AsyncExitStack()
        self._ended: dict[str, set[str]] = {}  # by node id
        self._tokens: dict[PostgresState, tuple[str, str]] = {}

    async def open(self, label: str = "a", **options: Any) -> PostgresState:
        """Open the store of a new process of the node with that label."""
        node, process = Node(f"id-of-{label}", label), secrets.token_hex(16)
        ended = self._ended.setdefault(node.id, set())
        state = PostgresState(
            PostgresOptions(**({"url": self.url} | options)),
            node=node,
            process=process,
            has_ended=ended.__contains__,
        )
        self._tokens[state] = node.id, process
        return await self._stack.enter_async_context(state)

    def kill(self, state: PostgresState) -> None:
        """Let the other processes of its node know that the process of `state` has ended."""
        node_id, process = self._tokens[state]
        self._ended[node_id].add(process)

    async def query(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own."""
        connection = await asyncpg.connect(self.url)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *args)]
        finally:
            await connection.close()

    async def close(self) -> None:
        """Close every store."""
        await self._stack.aclose()


async def eventually(probe: Callable[[], Any], what: str) -> Any:
    """Call `probe`, awaiting what it gives, until it is true; give that. Raises AssertionError."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        found = probe()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"after {DEADLINE_S:g} s it is still not so that {what}")
        await asyncio.sleep(POLL_S)


@pytest.fixture
async def cluster(database_url: str) -> AsyncIterator[Cluster]:
    """An empty database with our tables, and as many processes on it as a test opens."""
    found = Cluster(database_url)
    yield found
    await found.close()
