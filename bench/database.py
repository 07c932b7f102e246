"""The Postgres behind our servers: started when first needed, a fresh database for every run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from typing import Protocol
from urllib.parse import urlsplit

import asyncpg


class _Postgres(Protocol):
    """The throw-away server of the tests, as far as it is used here."""

    port: int

    def start(self) -> None: ...

    def url(self, database: str = ...) -> str: ...

    def close(self) -> None: ...


class Database:
    """One Postgres for the whole bench, without fsync. Close it at the end."""

    def __init__(self) -> None:
        self._server: _Postgres | None = None
        self._numbers = count(1)

    @property
    def port(self) -> int:
        return self._started().port

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The URL of an empty database, dropped at the end."""
        server = self._started()
        name = f"bench_{next(self._numbers)}"
        _execute(server.url(), f"CREATE DATABASE {name}")
        try:
            yield server.url(name)
        finally:
            _execute(server.url(), f"DROP DATABASE {name} WITH (FORCE)")

    def through(self, url: str, port: int) -> str:
        """The same database by way of another port; in clear, so that a relay can read along."""
        parts = urlsplit(url)
        address = f"{parts.username}@127.0.0.1:{port}"
        return parts._replace(netloc=address, query="sslmode=disable").geturl()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def _started(self) -> _Postgres:
        if self._server is None:
            # Not an import statement: the tests are not type-checked, and who measures peers alone
            # does not need their tools.
            server: _Postgres = import_module("tests.support.postgres").PostgresServer()
            server.start()
            self._server = server
        return self._server


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())
