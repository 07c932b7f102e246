"""An engine over its stores, with faults on order and the verbs in short."""

import asyncio
import hashlib
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

from tests.support.fakes import (
    Failing,
    FakeBody,
    FakeClock,
    FakeObjects,
    FakeState,
    FakeTails,
    Script,
    StoredUpload,
    Tables,
    settle,
    toy_limits,
)
from tus_server.authorizers import AllowAll
from tus_server.core.expiry import NEVER, Expiry
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER, Protocol, Upload
from tus_server.disk.threads import FileThreads
from tus_server.engine.append import Append, Appended, append
from tus_server.engine.buffers import BlockPool
from tus_server.engine.create import Create, create
from tus_server.engine.engine import Engine
from tus_server.engine.leases import Leases
from tus_server.engine.recover import recover
from tus_server.engine.status import status
from tus_server.engine.tails import TailPolicy, Tails
from tus_server.engine.terminate import terminate
from tus_server.engine.terms import Terms
from tus_server.objects.local import LocalObjects
from tus_server.objects.local_direct import LocalDirect
from tus_server.ports import ANONYMOUS, Authorizer, Node, ObjectStore, StateStore, StoreLimits
from tus_server.state.sqlite import SqliteState

T = TypeVar("T")
Worlds = Callable[..., Awaitable["World"]]

PART_SIZE_BYTES = 4
SIGNING_KEY = bytes(range(32))
PATIENCE_S = 20.0  # only bounds how long a failing test takes


async def soon(awaitable: Awaitable[T]) -> T:
    """Await what must not take long."""
    async with asyncio.timeout(PATIENCE_S):
        return await awaitable


class Stores:
    """Stores that can be opened again: over files, or in memory with folder None.

    Those in memory may be shared: by worlds that are then processes of one cluster. `tails` are
    the disks of the nodes, by their label.
    """

    def __init__(
        self,
        folder: Path | None,
        clock: FakeClock,
        *,
        part_size_bytes: int,
        limits: StoreLimits | None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._part_size_bytes = part_size_bytes
        self.limits = limits or toy_limits(part_size_bytes, parallel_parts=4)
        self.tables = Tables()
        self.disk: dict[UploadId, StoredUpload] = {}
        self.tails: defaultdict[str, dict[UploadId, StoredUpload]] = defaultdict(dict)

    async def open(
        self, stack: AsyncExitStack, blocks: BlockPool, process: str | None
    ) -> tuple[StateStore, ObjectStore]:
        if self._folder is None:
            state = FakeState(self.tables, process=process, clock=self._clock)
            return state, FakeObjects(self.limits, self.disk, blocks=blocks)
        state = await stack.enter_async_context(SqliteState(self._folder / "state.db", self._clock))
        threads = stack.enter_context(FileThreads(4))
        return state, LocalObjects(self._folder, threads, part_size_bytes=self._part_size_bytes)


class World:
    """An engine and what it works on; restart() leaves only what is durable.

    `state` and `objects` take orders to fail (see fakes.Failing).
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        part_size_bytes: int = PART_SIZE_BYTES,
        limits: StoreLimits | None = None,
        authorizer: Authorizer | None = None,
        wait_s: float = PATIENCE_S,
        max_size: int = MAX_ANNOUNCED_INTEGER,
        buffer_bytes: int = 64 * 1024 * 1024,
        beside: "World | None" = None,
        label: str | None = None,
        process: str | None = None,
        policy: TailPolicy = TailPolicy.STRICT,
        expiry: Expiry = NEVER,
        stores: Stores | None = None,
    ) -> None:
        """beside: another process of the same cluster; label: of its node; process: its name."""
        self.clock = FakeClock()
        self.stores = (
            (stores or Stores(folder, self.clock, part_size_bytes=part_size_bytes, limits=limits))
            if beside is None
            else beside.stores
        )
        self._expiry = expiry
        self.node = Node(f"id-of-{label or 'a'}", label or "a")
        self._label = label
        self._process = process or label
        self._policy = policy
        self._authorizer = authorizer or AllowAll()
        self._wait_s = wait_s
        self.max_size = max_size
        self._buffer_bytes = buffer_bytes
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close, and unless something else failed check that nothing is left over."""
        try:
            if exc is None:
                await self.check_at_rest()
        finally:
            await self.close()

    async def open(self) -> None:
        self.threads = self._stack.enter_context(FileThreads(2))
        blocks = BlockPool(self._buffer_bytes)
        real_state, real_objects = await self.stores.open(self._stack, blocks, self._process)
        self.real_state, self.real_objects = real_state, real_objects
        self.state, self.objects = Failing(real_state), Failing(real_objects)
        self.engine = Engine(
            threads=self.threads,
            state=self.state,
            objects=self.objects,
            leases=Leases(
                self.state,
                self.clock,
                wait_s=self._wait_s,
                numbers=self.objects.limits.reserved_numbers,
            ),
            authorizer=self._authorizer,
            clock=self.clock,
            blocks=blocks,
            max_size=self.max_size,
            expiry=self._expiry,
            tails=self._open_tails(),
            node_label=self._label,
        )
        if isinstance(real_objects, LocalObjects):
            self.part_files = Failing(LocalDirect(real_objects.disk, SIGNING_KEY))
            self.engine.direct = self.engine.part_files = self.part_files

    def _open_tails(self) -> Tails | None:
        if self.objects.limits.min_part_size == 1:
            return None
        self.tails = Failing(FakeTails(self.stores.tails[self.node.label], node=self.node))
        return Tails(
            state=self.state,
            disk=self.tails,
            parked=FakeTails(self.stores.disk),
            node=self.node,
            policy=self._policy,
        )

    async def close(self) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        """End without a goodbye and come up again, as after a crash."""
        await self.close()
        await self.open()
        await self.recover()

    # --- verbs

    async def create(
        self,
        *script: Script,
        length: int | None = None,
        metadata: str | None = None,
        chunked: bool = False,
        body: FakeBody | None = None,
        terms: Terms | None = None,
    ) -> Appended:
        body = body or FakeBody(*script, chunked=chunked)
        return await soon(
            create(
                self.engine,
                Create(metadata, Protocol.TUS, terms or Terms(length=length)),
                ANONYMOUS,
                body,
            )
        )

    async def create_rufh(self, *script: Script, terms: Terms, chunked: bool = False) -> Appended:
        body = FakeBody(*script, chunked=chunked)
        return await soon(create(self.engine, Create(None, Protocol.RUFH, terms), ANONYMOUS, body))

    async def append(
        self,
        upload: Upload,
        *script: Script,
        offset: int | None = None,
        length: int | None = None,
        chunked: bool = False,
        body: FakeBody | None = None,
        terms: Terms | None = None,
        protocol: Protocol = Protocol.TUS,
    ) -> Appended:
        """Append at the offset of `upload`, or at `offset`."""
        body = body or FakeBody(*script, chunked=chunked)
        offset = upload.offset if offset is None else offset
        command = Append(upload.id, offset, protocol, terms or Terms(length=length))
        return await soon(append(self.engine, command, ANONYMOUS, body))

    async def status(self, upload: Upload) -> Upload:
        return await soon(status(self.engine, upload.id, ANONYMOUS, Protocol.TUS))

    async def terminate(self, upload: Upload) -> None:
        await soon(terminate(self.engine, upload.id, ANONYMOUS))

    async def recover(self) -> None:
        await soon(recover(self.engine, receiving=True))

    # --- what is there

    async def new(self, length: int | None = None) -> Upload:
        """Create an upload without bytes."""
        return (await self.create(length=length)).upload

    async def is_held(self, upload: Upload) -> bool:
        return (await self.real_state.observe_upload(upload.id)).held

    async def row(self, upload: Upload) -> Upload:
        found = await self.real_state.find_upload(upload.id)
        assert found is not None
        return found

    async def content(self, upload: Upload) -> bytes:
        """Give the bytes of a finished object."""
        row = await self.row(upload)
        assert row.length is not None
        stream = self.real_objects.read(row, 0, row.length)
        return b"".join([block async for block in stream])

    async def sha256(self, upload: Upload) -> str:
        return hashlib.sha256(await self.content(upload)).hexdigest()

    async def steps(self, upload: Upload) -> list[UploadState]:
        """Give the states an upload went through."""
        return [change.state for change in await self.real_state.history(upload.id)][::-1]

    async def events(self, upload: Upload) -> list[UploadState]:
        pending = await self.real_state.pending_events(100_000)
        return [event.kind for event in pending if event.upload_id == upload.id]

    def has_bytes(self, upload: Upload) -> bool:
        """Tell whether the store has anything of an upload."""
        if isinstance(self.real_objects, FakeObjects):
            return upload.id in self.stores.disk
        return bool(list(self.real_objects.paths.root.rglob(f"{upload.id}*")))

    async def check_at_rest(self) -> None:
        """Assert that nothing is left over from what ran: task, lease, memory, open part."""
        await settle()
        await self.engine.drain(PATIENCE_S)  # what goes on behind a reply ends by itself
        assert not self.engine._tasks
        assert self.engine.blocks.lent_bytes == 0
        assert self.engine.leases.held == 0
        if isinstance(self.real_objects, FakeObjects):
            assert self.real_objects.open_writers == 0
        for upload in await self.real_state.list_uploads(None, 100_000):
            assert not await self.is_held(upload)


@pytest.fixture
async def open_world() -> AsyncIterator[Worlds]:
    """Open worlds with options of a test's own; at rest when the test ends."""
    async with AsyncExitStack() as stack:

        async def open_(folder: Path | None = None, **options: Any) -> World:
            return await stack.enter_async_context(World(folder, **options))

        yield open_


@pytest.fixture
async def fakes() -> AsyncIterator[World]:
    """An engine over fakes, four parts in parallel; at rest when the test ends."""
    async with World() as world:
        yield world


@pytest.fixture(params=["fakes", "disk"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """An engine over fakes, and over SQLite and local disk; at rest when the test ends."""
    async with World(tmp_path if request.param == "disk" else None) as world:
        yield world


class SmallDisk:
    """A file system of a few hundred kilobytes that a test fills and empties."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("ab", buffering=0) as file:
            size = 65536
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def make_space(self) -> None:
        self._filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A mounted tmpfs; the test is skipped, with the reason, where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.decode().strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
