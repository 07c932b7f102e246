"""A part that is put away while its sender pauses and the disk is slow."""

import asyncio
import threading
from pathlib import Path
from random import Random

import pytest

from tus_server.core.checksums import crc64
from tus_server.core.parts import MIB
from tus_server.disk import files
from tus_server.disk.threads import FileThreads
from tus_server.engine.buffers import BlockPool
from tus_server.objects.s3 import assembly as module
from tus_server.objects.s3.assembly import Assembly, Room


async def test_a_part_put_away_while_a_block_is_written_out_has_every_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = BlockPool(64 * MIB)
    content = Random(1).randbytes(3 * MIB)
    began, first_done = threading.Event(), threading.Event()
    calls: list[int] = []

    def slowly(descriptor: int, view: memoryview, start: int) -> None:
        calls.append(start)
        nth = len(calls)
        if nth == 1:
            began.wait(10)  # the disk stands still for longer than the sender pauses
        elif start == 0:
            began.set()
            first_done.wait(10)
        written(descriptor, view, start)

    written = files.write_at
    monkeypatch.setattr(module, "write_at", slowly)
    with FileThreads(2) as threads:
        part = Assembly(Room(pool, threads, tmp_path, kept_bytes=MIB))
        blocks = [pool.take(MIB) for _ in range(3)]
        for place, block in enumerate(blocks):
            block[:] = content[place * MIB : (place + 1) * MIB]

        assert part.keep(blocks[0], MIB)
        assert not part.keep(blocks[1], MIB)
        pending = asyncio.ensure_future(part.write(memoryview(blocks[1])))
        # What Reception does after a second without a byte, before it awaits `pending`.
        away = asyncio.create_task(part.put_away())
        while not began.is_set() and not away.done():
            await asyncio.sleep(0.01)
        began.set()
        await pending
        first_done.set()
        await away
        await part.write(memoryview(blocks[2]))

        found = b"".join([bytes(view) async for view in part.read(0, memoryview(b""))])
        size, crc = part.size, part.crc64
        await part.close()
    assert (size, crc == crc64(content), found == content) == (3 * MIB, True, True)
