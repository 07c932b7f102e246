"""A body poured into the file of a part: one block is received while the one before is written."""

import asyncio

from tus_server.core.errors import SignatureRefused
from tus_server.engine.buffers import SMALL, grown
from tus_server.engine.engine import Engine
from tus_server.engine.filling import QUICK_S
from tus_server.ports import Body, PartFile


async def pour(engine: Engine, body: Body, file: PartFile, size: int) -> None:
    """Write the `size` bytes of `body`; on return all writes have ended.

    A slow sender costs one small block, which is written out whenever it pauses. Raises:
    SignatureRefused (there are fewer bytes, or more), BodyStopped, what writing raises; the file
    is then closed.
    """
    pouring = _Pouring(engine, body, file, size)
    try:
        await pouring.run()
    except BaseException:
        # Before the memory is lent again that its threads may still read.
        await file.close()
        raise
    finally:
        pouring.give_back()


class _Pouring:
    def __init__(self, engine: Engine, body: Body, file: PartFile, size: int) -> None:
        self._blocks = engine.blocks
        self._clock = engine.clock
        self._body = body
        self._file = file
        self._size = size
        self._block = self._blocks.take(min(size, SMALL))
        self._written = bytearray()  # the block that `_writing` writes
        self._writing: asyncio.Future[None] | None = None

    async def run(self) -> None:
        size, received, fill = self._size, 0, 0  # fill: bytes of the block
        while received < size:
            want = min(len(self._block) - fill, size - received)
            began_s = self._clock.monotonic_s()
            count = await self._body.read_into(memoryview(self._block)[fill : fill + want])
            if not count:
                raise SignatureRefused(f"The URL is for {size} bytes, the body has {received}.")
            received += count
            fill += count
            await self._end_write()
            is_slow = count < want or self._clock.monotonic_s() - began_s > QUICK_S
            if received == size or is_slow:
                await self._file.write(memoryview(self._block)[:fill])
                if count < want:
                    self._shrink()
                fill = 0
            else:
                fill = self._go_on(fill, size - received)
        if self._body.size is None and await self._body.read_into(memoryview(bytearray(1))):
            raise SignatureRefused(f"The URL is for {size} bytes, the body goes on.")

    def give_back(self) -> None:
        """Give the memory back, once no thread uses it any more."""
        if self._writing is not None:
            self._writing.add_done_callback(_see)
            self._blocks.give(self._written)
        self._blocks.give(self._block)

    def _go_on(self, fill: int, left: int) -> int:
        """Go on with a larger block, or with another one while this is written; give its fill."""
        block, larger = self._block, self._blocks.take(min(grown(len(self._block)), fill + left))
        self._block = larger
        if len(larger) > len(block):
            larger[:fill] = memoryview(block)[:fill]
            self._blocks.give(block)
            return fill
        self._written = block
        self._writing = asyncio.ensure_future(self._file.write(memoryview(block)[:fill]))
        return 0

    async def _end_write(self) -> None:
        if self._writing is not None:
            await self._writing
            self._writing = None
            self._blocks.give(self._written)

    def _shrink(self) -> None:
        if len(self._block) > SMALL:
            self._blocks.give(self._block)
            self._block = self._blocks.take(SMALL)


def _see(writing: "asyncio.Future[None]") -> None:
    """Take note of how a write ended that nobody waits for any more."""
    if not writing.cancelled():
        writing.exception()
