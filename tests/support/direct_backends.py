"""Every implementation of DirectParts, each behind the handles its contract suite needs."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Protocol as Handles
from typing import Self

import aiohttp
from yarl import URL

from tests.support.fake_direct import FakeDirect, PutRefused
from tests.support.fakes import FakeClock, FakeObjects, make_upload, toy_limits
from tests.support.s3 import S3Service
from tests.support.s3_store import open_store
from tus_server.core.parts import MIB
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.objects.s3 import Capabilities
from tus_server.objects.s3.direct import S3Direct
from tus_server.ports import DirectParts, FoundPart, ObjectStore, SignedRequest

MINUTE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class PutAnswer:
    """What a client is answered. etag: as it stands in the header field."""

    status: int
    etag: str | None = None


class DirectBackend(Handles):
    """An implementation, the store it belongs to, and a client that has nothing but URLs.

    part_size: of every part of a new upload but the last. refuses_late_parts: also those of an
    upload whose object is made already.
    """

    part_size: int
    refuses_late_parts: bool
    objects: ObjectStore
    direct: DirectParts

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    def now(self) -> datetime:
        """Give the time by which signed requests expire."""

    async def create(self, length: int, *, protocol: Protocol = Protocol.MULTIPART) -> Upload:
        """Give the row of a new direct upload to which nobody can send parts yet."""

    async def sign_expired(self, upload: Upload, parts: Sequence[Part]) -> list[SignedRequest]:
        """Sign requests, and let their time pass."""

    async def send(self, url: str, content: bytes, *, method: str = "PUT") -> PutAnswer:
        """Make a request as a client does."""

    async def find_stored(self, upload: Upload) -> dict[int, FoundPart]:
        """Give what has arrived, from the store or from the rows of the parts."""


def new_upload(objects: ObjectStore, length: int, protocol: Protocol, part_size: int) -> Upload:
    """Give the row of a new direct upload."""
    row = make_upload(FakeClock(), protocol=protocol, length=length, crc64=None)
    size = max(length, 1) if protocol is Protocol.SINGLE else part_size
    return replace(row, part_size=size, object_key=objects.make_key(row))


class FakeBackend:
    part_size = 4
    refuses_late_parts = True

    def __init__(self) -> None:
        self._clock = FakeClock()
        self.objects = FakeObjects(toy_limits(4))
        self.direct = FakeDirect(self.objects.disk, self._clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def now(self) -> datetime:
        return self._clock.now()

    async def create(self, length: int, *, protocol: Protocol = Protocol.MULTIPART) -> Upload:
        return new_upload(self.objects, length, protocol, self.part_size)

    async def sign_expired(self, upload: Upload, parts: Sequence[Part]) -> list[SignedRequest]:
        signed = await self.direct.sign_parts(upload, parts, expires_at=self.now() + MINUTE)
        self._clock.advance(60)
        return signed

    async def send(self, url: str, content: bytes, *, method: str = "PUT") -> PutAnswer:
        try:
            return PutAnswer(200, await self.direct.put(url, content, method=method))
        except PutRefused as exc:
            return PutAnswer(exc.status)

    async def find_stored(self, upload: Upload) -> dict[int, FoundPart]:
        return await self.direct.find_stored(upload) or {}


_known: dict[str, Capabilities] = {}


class S3DirectBackend:
    """A real S3 service. The keys of the service are in the environment already."""

    objects: ObjectStore
    direct: S3Direct

    def __init__(self, service: S3Service, folder: Path) -> None:
        # Swift takes parts of any size here. It takes them also behind a Complete.
        is_swift = service.name == "swift"
        self.part_size = 4 if is_swift else 5 * MIB
        self.refuses_late_parts = not is_swift
        self._service = service
        self._folder = folder
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        name = self._service.name
        self._bucket = self._service.make_bucket()
        self._stack.callback(self._service.drop_bucket, self._bucket)
        opening = open_store(
            self._service,
            self._bucket,
            self._folder,
            prefix="up loads/",
            capabilities=_known.get(name),
            min_part_size=min(self.part_size, 5 * MIB),
        )
        store = await self._stack.enter_async_context(opening)
        self.objects, self.direct, _known[name] = store, store.direct, store.capabilities
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def create(self, length: int, *, protocol: Protocol = Protocol.MULTIPART) -> Upload:
        return new_upload(self.objects, length, protocol, self.part_size)

    async def sign_expired(self, upload: Upload, parts: Sequence[Part]) -> list[SignedRequest]:
        earlier = self.now() - 2 * MINUTE
        direct = S3Direct(self.direct._bucket, self.direct._address, lambda: earlier)
        return await direct.sign_parts(upload, parts, expires_at=earlier + MINUTE)

    async def send(self, url: str, content: bytes, *, method: str = "PUT") -> PutAnswer:
        # As it was given: nothing in it is to be quoted once more.
        whole = URL(url, encoded=True)
        async with self._http.request(method, whole, data=BytesIO(content)) as answer:
            await answer.read()
            return PutAnswer(answer.status, answer.headers.get("ETag"))

    async def find_stored(self, upload: Upload) -> dict[int, FoundPart]:
        return await self.direct.find_stored(upload) or {}
