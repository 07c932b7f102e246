"""One part on its way to S3: put together first, then sent with one request."""

from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING

from tus_server.core.upload import Upload
from tus_server.objects.s3.assembly import Assembly
from tus_server.ports import PartReceipt

if TYPE_CHECKING:
    from tus_server.objects.s3.writer import S3Writer


class S3Part:
    """See ports.PartWriter. A retry of the same bytes uses the same number again."""

    def __init__(
        self, writer: "S3Writer", assembly: Assembly, upload: Upload, number: int, start: int
    ) -> None:
        self._writer = writer
        self._assembly = assembly
        self._upload = upload
        self._number = number
        self._start = start

    @property
    def size(self) -> int:
        return self._assembly.size

    @property
    def crc64(self) -> int:
        return self._assembly.crc64

    def write(self, block: memoryview) -> Awaitable[None]:
        return self._assembly.write(block)

    def keep(self, block: bytearray, size: int) -> bool:
        return self._assembly.keep(block, size)

    async def put_away(self) -> None:
        await self._assembly.put_away()

    async def finish(self, rest: memoryview, *, completes: bool) -> PartReceipt:
        receipt = await self._writer.store(
            self._upload,
            self._assembly,
            rest,
            number=self._number,
            is_object=completes and self._start == 0,
        )
        await self._assembly.close()
        return receipt

    def read_back(self, start: int, rest: memoryview) -> AsyncGenerator[memoryview, None]:
        return self._assembly.read(start, rest)

    async def discard(self) -> None:
        await self._assembly.close()
