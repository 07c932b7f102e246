"""Every implementation of a port, each behind the same few handles a contract suite needs."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest

from tests.support.fakes import (
    FakeClock,
    FakeObjects,
    FakeState,
    FakeTails,
    StoredUpload,
    Tables,
    toy_limits,
)
from tests.support.s3 import S3Service
from tests.support.s3_backend import S3Backend, S3TailsBackend
from tus_server.core.errors import BytesMissing, TusServerError
from tus_server.core.ids import UploadId
from tus_server.core.parts import MIB
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.disk.threads import FileThreads
from tus_server.engine.buffers import BlockPool
from tus_server.objects.local import LocalObjects
from tus_server.ports import Node, ObjectStore, StateStore, TailStore
from tus_server.state.postgres import PostgresOptions, PostgresState
from tus_server.state.sqlite import SqliteState
from tus_server.tails import DiskTails, tail_path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


# --- state


NO_STATES = frozenset[UploadState]()


class StateBackend(Protocol):
    """An implementation of StateStore, as a process uses it; what is opened next is its successor.

    A process that has been closed is known to have ended, with all leases it still had.
    """

    async def open(self, *, early_events: frozenset[UploadState] = NO_STATES) -> StateStore: ...
    async def close(self) -> None:
        """End every process that is open."""

    def now(self) -> datetime:
        """Give the time as the store sees it."""

    async def let_outbox_wait(self, seconds: float) -> None:
        """Let so much time pass for the events of the outbox."""

    async def abandon(self, upload_id: UploadId) -> StateStore:
        """Let the holder of an upload die without letting go; give the store to go on with.

        The lease had set part numbers aside. A store with leases that run out may let just this
        one run out, and go on.
        """


class SharedStateBackend(StateBackend, Protocol):
    """One for several processes at a time."""

    async def open_other(self) -> StateStore:
        """Open the same data as another process, beside the first."""


class FakeStateBackend:
    def __init__(self, clock: FakeClock) -> None:
        self._tables = Tables()
        self._clock = clock
        self._state: StateStore | None = None

    async def open(self, *, early_events: frozenset[UploadState] = NO_STATES) -> StateStore:
        self._state = FakeState(self._tables, clock=self._clock, early_events=early_events)
        return self._state

    async def open_other(self) -> StateStore:
        return FakeState(self._tables, process="other", clock=self._clock)

    async def close(self) -> None:
        self._tables.kill()

    def now(self) -> datetime:
        return self._clock.now()

    async def abandon(self, upload_id: UploadId) -> StateStore:
        assert self._state is not None
        self._tables.expire(upload_id)
        return self._state

    async def let_outbox_wait(self, seconds: float) -> None:
        self._clock.advance(seconds)


class SqliteBackend:
    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self._path = folder / "state.db"
        self._clock = clock
        self._stack = AsyncExitStack()

    async def open(self, *, early_events: frozenset[UploadState] = NO_STATES) -> StateStore:
        state = SqliteState(self._path, self._clock, early_events=early_events)
        return await self._stack.enter_async_context(state)

    async def close(self) -> None:
        await self._stack.aclose()

    def now(self) -> datetime:
        return self._clock.now()

    async def abandon(self, upload_id: UploadId) -> StateStore:
        await self.close()
        return await self.open()

    async def let_outbox_wait(self, seconds: float) -> None:
        self._clock.advance(seconds)


class PostgresBackend:
    """Every process is one of the same node, so the others know when it has ended."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = AsyncExitStack()
        self._open: set[str] = set()
        self._ended: set[str] = set()
        self._state: StateStore | None = None

    async def open(self, *, early_events: frozenset[UploadState] = NO_STATES) -> StateStore:
        self._state = await self.open_other(early_events=early_events)
        return self._state

    async def open_other(self, *, early_events: frozenset[UploadState] = NO_STATES) -> StateStore:
        process = secrets.token_hex(16)
        state = PostgresState(
            PostgresOptions(self._url),
            node=Node("0" * 32, "node-1"),
            process=process,
            has_ended=self._ended.__contains__,
            early_events=early_events,
        )
        self._open.add(process)
        return await self._stack.enter_async_context(state)

    async def close(self) -> None:
        await self._stack.aclose()
        self._ended |= self._open

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def abandon(self, upload_id: UploadId) -> StateStore:
        assert self._state is not None
        run_out = "UPDATE uploads SET lease_until = now() - interval '1 s' WHERE id = $1"
        await self._execute(run_out, upload_id)
        return self._state

    async def let_outbox_wait(self, seconds: float) -> None:
        # All times but those that have passed: since when an event is due tells an attempt to
        # deliver it from one of before it was a dead letter.
        earlier = "make_interval(secs => $1)"
        await self._execute(
            f"UPDATE outbox SET claimed_until = claimed_until - {earlier},"
            f" delivered_at = delivered_at - {earlier},"
            f" due_at = CASE WHEN due_at > now() THEN due_at - {earlier} ELSE due_at END",
            seconds,
        )

    async def _execute(self, statement: str, *values: object) -> None:
        connection = await asyncpg.connect(self._url)
        await connection.execute(statement, *values)
        await connection.close()


SHARED_STATES = ["fake", "postgres"]  # those that are SharedStateBackend


@pytest.fixture(params=["fake", "sqlite", "postgres"])
async def state_backend(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[StateBackend]:
    backend: StateBackend
    if request.param == "postgres":
        backend = PostgresBackend(request.getfixturevalue("database_url"))
    else:
        fake = request.param == "fake"
        backend = FakeStateBackend(clock) if fake else SqliteBackend(tmp_path, clock)
    yield backend
    await backend.close()


@pytest.fixture
async def state(state_backend: StateBackend) -> StateStore:
    return await state_backend.open()


@pytest.fixture
async def other_state(state_backend: SharedStateBackend, state: StateStore) -> StateStore:
    """Give a second process beside the one of `state`."""
    return await state_backend.open_other()


# --- objects


class ObjectsBackend(Protocol):
    """An implementation of ObjectStore, and what a test does to the bytes behind its back.

    blocks: the pool the store gives kept blocks back to. losses: what complete() and reading
    raise when committed bytes are gone. recover_finds_losses: recover() raises BytesMissing then.
    """

    blocks: BlockPool
    losses: tuple[type[TusServerError], ...]
    recover_finds_losses: bool

    async def open(self) -> ObjectStore:
        """Open the store; again after close(), on the same bytes."""

    async def close(self) -> None: ...

    async def shorten(self, upload: Upload, size: int) -> None:
        """Lose what is stored, but at most its first `size` bytes."""

    async def has_anything(self, upload: Upload) -> bool:
        """Tell whether a byte, a name or a multipart upload is stored."""


class FakeObjectsBackend:
    losses: tuple[type[TusServerError], ...] = (BytesMissing,)

    def __init__(self, *, keeps_receipts: bool, min_part_size: int = 1) -> None:
        self.blocks = BlockPool(1 << 20)
        self.recover_finds_losses = not keeps_receipts
        self._limits = toy_limits(
            4,
            min_part_size=min_part_size,
            keeps_receipts=keeps_receipts,
            parallel_parts=4 if keeps_receipts else 2,
            reserved_numbers=16 if keeps_receipts else 0,
        )
        self._objects = FakeObjects(self._limits)

    async def open(self) -> ObjectStore:
        self._objects = FakeObjects(self._limits, self._objects.disk, self.blocks)
        return self._objects

    async def close(self) -> None:
        pass

    async def shorten(self, upload: Upload, size: int) -> None:
        stored = self._objects.disk[upload.id]
        if stored.whole is not None:
            stored.whole = stored.whole[:size]
        if stored.partial is not None:
            stored.partial = stored.partial[:size]
        for parts in stored.multiparts.values():
            for number, (start, block) in list(parts.items()):
                parts[number] = start, block[: max(0, size - start)]

    async def has_anything(self, upload: Upload) -> bool:
        return upload.id in self._objects.disk


class LocalBackend:
    losses: tuple[type[TusServerError], ...] = (BytesMissing,)
    recover_finds_losses = True

    def __init__(self, folder: Path) -> None:
        self.blocks = BlockPool(1 << 20)
        self._folder = folder
        self._stack = AsyncExitStack()

    async def open(self) -> ObjectStore:
        threads = self._stack.enter_context(FileThreads(4))
        return LocalObjects(self._folder, threads, part_size_bytes=MIB)

    async def close(self) -> None:
        await self._stack.aclose()

    async def shorten(self, upload: Upload, size: int) -> None:
        for path in self._files(upload):
            os.truncate(path, size)

    async def has_anything(self, upload: Upload) -> bool:
        return bool(self._files(upload))

    def _files(self, upload: Upload) -> list[Path]:
        return list(self._folder.rglob(f"{upload.id}*"))


def s3_service(request: pytest.FixtureRequest) -> S3Service:
    """Give the one S3 service that takes parts of a few bytes, with its keys in the environment."""
    service: S3Service = request.getfixturevalue("swift")
    environment: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in service.environment.items():
        environment.setenv(name, value)
    return service


@pytest.fixture(
    params=["fake-parts", "fake-disk", "local", pytest.param("s3", marks=pytest.mark.full)]
)
async def objects_backend(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[ObjectsBackend]:
    backend: ObjectsBackend
    if request.param == "local":
        backend = LocalBackend(tmp_path)
    elif request.param == "s3":
        backend = S3Backend(s3_service(request), tmp_path)
    else:
        parts = request.param == "fake-parts"
        backend = FakeObjectsBackend(keeps_receipts=parts, min_part_size=3 if parts else 1)
    yield backend
    await backend.close()


@pytest.fixture
async def objects(objects_backend: ObjectsBackend) -> ObjectStore:
    return await objects_backend.open()


# --- tails


class TailsBackend(Protocol):
    """An implementation of TailStore, and what a test does to the bytes behind its back.

    node_id: what the row says of where the tails are; None: parked in the object store.
    """

    blocks: BlockPool

    @property
    def node_id(self) -> str | None: ...

    async def open(self) -> TailStore:
        """Open the store; again after close(), on the same bytes."""

    async def close(self) -> None: ...

    async def get(self, upload: Upload, generation: int) -> bytes | None:
        """Give what is stored, None if there is nothing."""

    async def put(self, upload: Upload, generation: int, content: bytes | None) -> None:
        """Store other bytes in its place; None: none."""


class FakeTailsBackend:
    def __init__(self, node: Node | None) -> None:
        self.node_id = node.id if node else None
        self.blocks = BlockPool(1 << 20)
        self._node = node
        self._disk: dict[UploadId, StoredUpload] = {}

    async def open(self) -> TailStore:
        return FakeTails(self._disk, node=self._node)

    async def close(self) -> None:
        pass

    async def get(self, upload: Upload, generation: int) -> bytes | None:
        return self._disk.get(upload.id, StoredUpload()).tails.get(generation)

    async def put(self, upload: Upload, generation: int, content: bytes | None) -> None:
        tails = self._disk.setdefault(upload.id, StoredUpload()).tails
        tails.pop(generation, None)
        if content is not None:
            tails[generation] = content


class DiskTailsBackend:
    def __init__(self, folder: Path) -> None:
        self.blocks = BlockPool(1 << 22)
        self._folder = folder
        self._node = Node("1" * 32, "node-1")
        self.node_id: str | None = self._node.id
        self._stack = AsyncExitStack()

    async def open(self) -> TailStore:
        threads = self._stack.enter_context(FileThreads(4))
        return DiskTails(self._folder, threads, node=self._node, blocks=self.blocks, durable=True)

    async def close(self) -> None:
        await self._stack.aclose()

    async def get(self, upload: Upload, generation: int) -> bytes | None:
        path = tail_path(self._folder, upload.id, generation)
        return path.read_bytes() if path.exists() else None

    async def put(self, upload: Upload, generation: int, content: bytes | None) -> None:
        path = tail_path(self._folder, upload.id, generation)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)


@pytest.fixture(params=["fake-disk", "fake-parked", "disk", "s3"])
async def tails_backend(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[TailsBackend]:
    backend: TailsBackend
    if request.param == "disk":
        backend = DiskTailsBackend(tmp_path)
    elif request.param == "s3":
        backend = S3TailsBackend(s3_service(request), tmp_path)
    else:
        backend = FakeTailsBackend(
            Node("1" * 32, "node-1") if request.param == "fake-disk" else None
        )
    yield backend
    await backend.close()


@pytest.fixture
async def tails(tails_backend: TailsBackend) -> TailStore:
    return await tails_backend.open()
