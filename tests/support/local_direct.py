"""Direct uploads on local disk for their contract suite: a whole application, and HTTP to it."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.direct_backends import PutAnswer, new_upload
from tus_server.app import create_app
from tus_server.core.states import TERMINAL, UploadState
from tus_server.core.upload import Part, Protocol, Upload
from tus_server.ports import DirectParts, FoundPart, ObjectStore, SignedRequest, StateStore
from tus_server.settings import load_settings

MINUTE = timedelta(seconds=60)


class LocalDirectBackend:
    """See tests.support.direct_backends.DirectBackend."""

    part_size = 4096
    refuses_late_parts = True
    objects: Any  # a proxy of ObjectStore
    direct: DirectParts

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        app = create_app(load_settings(data_dir=self._folder))
        await self._stack.enter_async_context(app.lifespan())
        engine = app.engine
        assert engine.direct is not None
        self._state, self.direct = engine.state, engine.direct
        self.objects = _Recorded(engine.state, engine.objects)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        self._http = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def create(self, length: int, *, protocol: Protocol = Protocol.MULTIPART) -> Upload:
        upload = new_upload(self.objects, length, protocol, self.part_size)
        await self._state.create_upload(upload, claim=False)
        return upload

    async def sign_expired(self, upload: Upload, parts: Sequence[Part]) -> list[SignedRequest]:
        return await self.direct.sign_parts(upload, parts, expires_at=self.now() - MINUTE)

    async def send(self, url: str, content: bytes, *, method: str = "PUT") -> PutAnswer:
        answer = await self._http.request(method, url, content=content)
        return PutAnswer(answer.status_code, answer.headers.get("etag"))

    async def find_stored(self, upload: Upload) -> dict[int, FoundPart]:
        row = await self._state.find_upload(upload.id)
        if row is None or row.state in TERMINAL:
            return {}
        return {
            part.number: FoundPart(part.size, part.etag, part.crc64)
            for part in await self._state.find_parts(upload.id)
            if part.etag is not None
        }


class _Recorded:
    """The store, with the commits that go before complete() and free(): here rows refuse parts."""

    def __init__(self, state: StateStore, objects: ObjectStore) -> None:
        self._state = state
        self._objects = objects

    async def complete(self, upload: Upload, parts: Sequence[Part], **named: Any) -> int | None:
        await self._commit(upload, UploadState.COMPLETED)
        return await self._objects.complete(upload, parts, **named)

    async def free(self, upload: Upload) -> None:
        await self._commit(upload, UploadState.CANCELED)
        await self._objects.free(upload)

    async def _commit(self, upload: Upload, step: UploadState) -> None:
        claim = await self._state.claim_upload(upload.id)
        assert claim.upload is not None
        assert claim.lease is not None
        after = claim.upload.stepped(step, on=self._state.now())
        await self._state.commit(claim.lease, claim.upload, after, steps=(step,), release=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)
