"""An engine over SQLite and local disk that receives direct uploads, and their verbs in short."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import PATIENCE_S, World, soon
from tests.support.fakes import FakeBody, Script, make_upload
from tus_server.core.checksums import crc64
from tus_server.core.direct import part_range
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.engine.direct.compare import Reported
from tus_server.engine.direct.complete import complete
from tus_server.engine.direct.receive import PartRequest, receive_part
from tus_server.engine.terminate import terminate
from tus_server.objects.local import LocalObjects
from tus_server.ports import ANONYMOUS, APPLICATION

PART_SIZE = 10
WHOLE = bytes(range(40, 72))  # three parts of 10 bytes, and one of 2


class DirectWorld(World):
    """See World; of a folder."""

    real_objects: LocalObjects

    async def begin(self, length: int = len(WHOLE), **fields: Any) -> Upload:
        """Create a direct upload."""
        about: dict[str, Any] = {"protocol": Protocol.MULTIPART, "part_size": PART_SIZE}
        upload = make_upload(self.clock, length=length, crc64=None, **(about | fields))
        await self.real_state.create_upload(upload, claim=False)
        return upload

    async def put(
        self,
        upload: Upload,
        number: int,
        *script: Script,
        chunked: bool = False,
        size: int | None = None,
        body: FakeBody | None = None,
    ) -> Part:
        """Send a part; without a script that of WHOLE. size: Content-Length."""
        start, planned = self.place(upload, number)
        if not script and body is None and planned:
            script = (WHOLE[start : start + planned],)
        if size is None and not chunked:
            size = planned
        body = body or FakeBody(*script, chunked=chunked, size=size)
        return await receive_part(self.engine, PartRequest(upload.id, number, planned), body)

    async def put_all(self, upload: Upload) -> list[Part]:
        count = -(-(upload.length or 1) // PART_SIZE)
        return [await soon(self.put(upload, number)) for number in range(1, count + 1)]

    async def terminate(self, upload: Upload) -> None:
        """End it, as the application does."""
        await soon(terminate(self.engine, upload.id, APPLICATION))

    async def complete(self, upload: Upload, reported: Sequence[Reported] | None = None) -> Upload:
        """Complete, and give the row after what follows behind the reply."""
        await soon(complete(self.engine, upload.id, ANONYMOUS, reported))
        await soon(self.engine.drain(PATIENCE_S))
        return await self.row(upload)

    async def stored(self, upload: Upload) -> set[int]:
        """Give the numbers of the parts that the rows of an unfinished upload say are stored."""
        parts = [part for part in await self.real_state.find_parts(upload.id) if part.etag]
        row = await self.row(upload)
        assert row.committed_bytes == sum(part.size for part in parts)
        for part in parts:
            assert part.crc64 == crc64(self.bytes_of(upload, part.number))
        return {part.number for part in parts}

    def place(self, upload: Upload, number: int) -> tuple[int, int]:
        assert upload.length is not None
        assert upload.part_size is not None
        return part_range(number, length=upload.length, part_size=upload.part_size)

    def file(self, upload: Upload) -> bytes | None:
        """Give what is in the file of an unfinished upload."""
        path = Path(self.real_objects.paths.partial(upload.id))
        return path.read_bytes() if path.exists() else None

    def bytes_of(self, upload: Upload, number: int) -> bytes:
        """Give what is in the file at the place of a part."""
        start, size = self.place(upload, number)
        return (self.file(upload) or b"")[start : start + size]


Opens = Callable[..., Awaitable[DirectWorld]]


@pytest.fixture
async def open_direct(tmp_path: Path) -> AsyncIterator[Opens]:
    """Open worlds with options of a test's own; at rest when the test ends."""
    async with AsyncExitStack() as stack:

        async def open_(folder: Path = tmp_path, **options: Any) -> DirectWorld:
            return await stack.enter_async_context(DirectWorld(folder, **options))

        yield open_


@pytest.fixture
async def world(open_direct: Opens) -> DirectWorld:
    """An engine over SQLite and local disk; at rest when the test ends."""
    return await open_direct()
