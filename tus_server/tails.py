"""Tails on the disk of this node: committed bytes too few for a part, one file for each upload.

Durable when: after fsync of the file, and of the folder where the name is new. A file that exists
is only ever continued behind the bytes the row counts; everything else is written to a file of
its own and renamed over, so that the tail of the row is whole whatever happens.
"""

import base64
import binascii
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from tus_server.core.errors import StorageFull, StoreUnavailable
from tus_server.core.ids import UploadId, find_upload_id
from tus_server.core.parts import MIB
from tus_server.core.upload import Tail, Upload
from tus_server.disk import files
from tus_server.disk.files import disk_errors
from tus_server.disk.tail_files import NEW, TailReader, TailWriter
from tus_server.disk.threads import FileThreads, ended
from tus_server.ports import Blocks, FoundTail, Node

log = structlog.get_logger(__name__)

FOLDER = "tails"
T = TypeVar("T")


def tail_path(root: Path, upload_id: UploadId, generation: int) -> Path:
    """Give where the tail of an upload is below the data directory `root`."""
    name = base64.urlsafe_b64encode(upload_id.encode()).decode().rstrip("=")
    return root / FOLDER / (f"{name}.{generation}.tail" if generation else f"{name}.tail")


def parse_tail_name(name: str) -> tuple[UploadId, int] | None:
    """Give the upload and the generation of a file that tail_path() names; None: it names none."""
    encoded, *middle = name.removesuffix(".tail").split(".")
    try:
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("ascii")
        generation = int(middle[0]) if middle else 0
    except (binascii.Error, ValueError):
        return None
    upload_id = find_upload_id(text)
    if upload_id is None or generation < 0:
        return None
    # One upload and generation, one name: "01", "+1" and padding are somebody else's.
    if tail_path(Path(), upload_id, generation).name != name:
        return None
    return upload_id, generation


class DiskTails:
    """See ports.TailStore."""

    def __init__(
        self, data_dir: Path, threads: FileThreads, *, node: Node, blocks: Blocks, durable: bool
    ) -> None:
        self._data_dir = data_dir
        self._threads = threads
        self._node = node
        self._blocks = blocks
        self._durable = durable
        self._folders = files.Folders(str(data_dir), durable=durable)
        # Files of which an fsync has failed. Linux takes what it was for as written from then on,
        # so that a later fsync proves nothing: they are written again as a whole.
        self._distrusted: set[str] = set()

    async def read(self, upload: Upload) -> AsyncGenerator[memoryview, None]:
        tail = upload.tail
        assert tail is not None
        reader = TailReader(self._path(upload.id, tail.generation), upload, tail)
        block = self._blocks.take(min(tail.length, MIB))
        view = memoryview(block)
        try:
            while reader.position < tail.length:
                count = await self._run(lambda: reader.fill(view))
                yield view[:count]
        finally:
            try:
                if reader.is_open:
                    await self._run(reader.close)
            finally:
                self._blocks.give(block)

    async def save(
        self, upload: Upload, *, generation: int, kept: int, content: AsyncIterator[memoryview]
    ) -> None:
        path = self._path(upload.id, generation)
        own = upload.tail
        if own is not None and (own.node, own.generation) == (self._node.id, generation):
            # Until the commit it is the only one.
            assert kept == own.length, "the row's own tail is continued, or left alone"
        else:
            assert kept == 0, "only the row's own tail is continued"
        writer = TailWriter(
            self._folders,
            path,
            upload,
            kept,
            renames=kept == 0 or path in self._distrusted,
            durable=self._durable,
        )
        try:
            async for block in content:
                await self._run(partial(writer.write, block))
            await self._run(writer.finish)
        except BaseException:
            if writer.sync_failed and not writer.renames:
                self._distrusted.add(path)
            await self._run(writer.give_up)
            raise
        self._distrusted.discard(path)

    async def remove(self, upload: Upload, tail: Tail) -> bool:
        now = upload.tail
        if now is not None and (now.node, now.generation) == (self._node.id, tail.generation):
            # The file is the row's by now, in a data directory that got another node id.
            return True
        return await self._remove(upload.id, tail.generation)

    async def remove_found(self, upload_id: UploadId, generation: int) -> None:
        """Remove a file that find_all() has found. Idempotent. Never raises."""
        await self._remove(upload_id, generation)

    async def _remove(self, upload_id: UploadId, generation: int) -> bool:
        path = self._path(upload_id, generation)
        self._distrusted.discard(path)

        def unlink() -> None:
            files.remove(path)
            files.remove(path + NEW)

        try:
            await self._run(unlink)
        except (StorageFull, StoreUnavailable) as exc:
            log.warning("tail.not_removed", upload=upload_id, detail=exc.detail)
            return False
        return True

    async def find_all(self) -> list[FoundTail]:
        """Find the files of tails. Files of other names are nobody's business."""
        return await self._run(self._find_all)

    async def check(self) -> None:
        """Raise StoreUnavailable or StorageFull unless a tail could be saved now."""
        await self._run(self._probe)

    async def _run(self, step: Callable[[], T]) -> T:
        """Run a blocking step; returns, or raises, only when its thread has ended."""

        def translated() -> T:
            with disk_errors():
                return step()

        return await ended(self._threads.run(translated))

    def _path(self, upload_id: UploadId, generation: int) -> str:
        return str(tail_path(self._data_dir, upload_id, generation))

    def _find_all(self) -> list[FoundTail]:
        now_s = time.time()
        found: dict[tuple[UploadId, int], float] = {}
        try:
            entries = os.scandir(self._data_dir / FOLDER)
        except FileNotFoundError:
            return []
        with entries:
            for entry in entries:
                name = parse_tail_name(entry.name.removesuffix(NEW))
                if name is None:
                    continue
                try:
                    age_s = now_s - entry.stat(follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue  # another process has removed it
                found[name] = min(age_s, found.get(name, age_s))
        return [FoundTail(*name, age_s) for name, age_s in found.items()]

    def _probe(self) -> None:
        path = f"{self._data_dir}/{FOLDER}/.probe"
        descriptor = self._folders.create_file(path)
        try:
            files.write_at(descriptor, memoryview(bytes(4096)), 0)
            if self._durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
            files.remove(path)
