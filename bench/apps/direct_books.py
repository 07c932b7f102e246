"""The books of direct uploads: a Broker over Postgres, and a store that answers at once.

`python -m bench.apps.direct_books --port N --state URL`: each POST begins an upload, signs its one
part and completes it; what verifies it runs behind the answer. Plain ASGI: HTTP adds little.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import uvicorn
import uvloop

from tus_server.authorizers import AllowAll
from tus_server.broker import Broker, Reported
from tus_server.clock import SystemClock
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER, Part, Upload
from tus_server.disk.threads import FileThreads
from tus_server.engine.buffers import BlockPool
from tus_server.engine.engine import Engine
from tus_server.engine.leases import Leases
from tus_server.ports import (
    Confirm,
    FoundPart,
    Joined,
    Node,
    SignedRequest,
    StoreLimits,
    UploadWriter,
)
from tus_server.state.postgres import PostgresOptions, PostgresState, migrate

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MIB = 1 << 20
_ETAG = '"0123456789abcdef0123456789abcdef"'
_SIZE = 4096
_LIMITS = StoreLimits(
    min_part_size=5 * MIB,
    max_part_size=5 << 30,
    max_parts=10_000,
    preferred_part_size=8 * MIB,
    max_object_size=5 << 40,
    reserved_numbers=16,
)


class InstantStore:
    """See ports.ObjectStore and ports.DirectParts: it has whatever it is asked for, at once."""

    @property
    def limits(self) -> StoreLimits:
        return _LIMITS

    def make_key(self, upload: Upload) -> str | None:
        return f"uploads/{upload.id}"

    async def begin(self, upload: Upload) -> str | None:
        return f"multipart-{upload.id}"

    async def sign_parts(
        self, upload: Upload, parts: Sequence[Part], *, expires_at: datetime
    ) -> list[SignedRequest]:
        url = f"https://store.test/{upload.object_key}?uploadId={upload.multipart_id}"
        return [SignedRequest("PUT", url, {}, expires_at) for _ in parts]

    async def find_stored(self, upload: Upload) -> dict[int, FoundPart] | None:
        return {1: FoundPart(_SIZE, _ETAG, 7)}

    async def complete(
        self, upload: Upload, parts: Sequence[Part], *, confirm: Confirm | None = None
    ) -> int | None:
        return upload.crc64

    async def recover(self, upload: Upload, *, confirm: Confirm) -> None:
        return None

    async def free(self, upload: Upload) -> None:
        return None

    async def presign(self, upload: Upload, *, method: str) -> str | None:
        return None

    async def check(self) -> None:
        return None

    def open_writer(self, upload: Upload, *, confirm: Confirm | None = None) -> UploadWriter:
        raise NotImplementedError("no bytes pass through this server")

    def read(self, upload: Upload, start: int, end: int) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError("no bytes pass through this server")

    async def join(self, upload: Upload, sources: Sequence[Upload], *, confirm: Confirm) -> Joined:
        raise NotImplementedError("no bytes pass through this server")


async def _serve(port: int, url: str) -> None:
    options = PostgresOptions(url)
    await migrate(options)
    clock, store = SystemClock(), InstantStore()
    state = PostgresState(
        options,
        node=Node("bench", "bench"),
        process=secrets.token_hex(16),
        has_ended=lambda process: False,
    )
    with ExitStack() as stack:
        async with state:
            engine = Engine(
                state=state,
                objects=store,
                leases=Leases(state, clock, wait_s=5.0, numbers=_LIMITS.reserved_numbers),
                authorizer=AllowAll(),
                clock=clock,
                blocks=BlockPool(MIB),
                max_size=MAX_ANNOUNCED_INTEGER,
                threads=stack.enter_context(FileThreads(1)),
                direct=store,
            )
            broker = Broker(engine, base_url="https://bench.test/files/")

            async def app(scope: Message, receive: Receive, send: Send) -> None:
                if scope["method"] == "POST":
                    begun = await broker.initiate_session(size=_SIZE, filename="a.bin")
                    report = [Reported(1, _ETAG)]
                    await broker.complete_multipart_upload(begun.id, report)
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})

            config = uvicorn.Config(
                app, port=port, http="httptools", lifespan="off", log_level="warning"
            )
            await uvicorn.Server(config).serve()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", required=True)
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(chosen.port, chosen.state))


if __name__ == "__main__":
    main()
