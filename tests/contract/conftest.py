"""Every implementation of a port, each behind the same few handles a contract suite needs."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.fakes import FakeClock, FakeObjects, FakeState, Tables, toy_limits
from tus_server.core.parts import MIB
from tus_server.core.upload import Upload
from tus_server.objects.local import LocalObjects
from tus_server.objects.threads import FileThreads
from tus_server.ports import ObjectStore, StateStore
from tus_server.state.sqlite import SqliteState


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


# --- state


class StateBackend(Protocol):
    """An implementation of StateStore; at most one store is open at a time."""

    async def open(self) -> StateStore: ...
    async def close(self) -> None: ...


class FakeStateBackend:
    def __init__(self) -> None:
        self._tables = Tables()

    async def open(self) -> StateStore:
        return FakeState(self._tables)

    async def close(self) -> None:
        pass


class SqliteBackend:
    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self._path = folder / "state.db"
        self._clock = clock
        self._stack = AsyncExitStack()

    async def open(self) -> StateStore:
        return await self._stack.enter_async_context(SqliteState(self._path, self._clock))

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture(params=["fake", "sqlite"])
async def state_backend(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[StateBackend]:
    backend = FakeStateBackend() if request.param == "fake" else SqliteBackend(tmp_path, clock)
    yield backend
    await backend.close()


@pytest.fixture
async def state(state_backend: StateBackend) -> StateStore:
    return await state_backend.open()


# --- objects


class ObjectsBackend(Protocol):
    """An implementation of ObjectStore, and what a test does to the bytes behind its back."""

    async def open(self) -> ObjectStore: ...
    async def close(self) -> None: ...

    def shorten(self, upload: Upload, size: int) -> None:
        """Lose all but the first `size` bytes of what is stored."""

    def has_anything(self, upload: Upload) -> bool:
        """Tell whether a byte or a name is stored."""


class FakeObjectsBackend:
    def __init__(self, *, keeps_receipts: bool) -> None:
        self._limits = toy_limits(
            4, keeps_receipts=keeps_receipts, parallel_parts=4 if keeps_receipts else 2
        )
        self._objects = FakeObjects(self._limits)

    async def open(self) -> ObjectStore:
        self._objects = FakeObjects(self._limits, self._objects.disk)
        return self._objects

    async def close(self) -> None:
        pass

    def shorten(self, upload: Upload, size: int) -> None:
        stored = self._objects.disk[upload.id]
        if stored.whole is not None:
            stored.whole = stored.whole[:size]
        for number, (start, block) in list(stored.parts.items()):
            stored.parts[number] = start, block[: max(0, size - start)]

    def has_anything(self, upload: Upload) -> bool:
        return upload.id in self._objects.disk


class LocalBackend:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = AsyncExitStack()

    async def open(self) -> ObjectStore:
        threads = self._stack.enter_context(FileThreads(4))
        return LocalObjects(self._folder, threads, part_size_bytes=MIB)

    async def close(self) -> None:
        await self._stack.aclose()

    def shorten(self, upload: Upload, size: int) -> None:
        for path in self._files(upload):
            os.truncate(path, size)

    def has_anything(self, upload: Upload) -> bool:
        return bool(self._files(upload))

    def _files(self, upload: Upload) -> list[Path]:
        return list(self._folder.rglob(f"{upload.id}*"))


@pytest.fixture(params=["fake-parts", "fake-disk", "local"])
async def objects_backend(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[ObjectsBackend]:
    backend: ObjectsBackend
    if request.param == "local":
        backend = LocalBackend(tmp_path)
    else:
        backend = FakeObjectsBackend(keeps_receipts=request.param == "fake-parts")
    yield backend
    await backend.close()


@pytest.fixture
async def objects(objects_backend: ObjectsBackend) -> ObjectStore:
    return await objects_backend.open()
