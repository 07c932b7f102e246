"""Looking at the content before an upload is verified: its type, and the application's checks."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import structlog

from tus_server.core.errors import CheckPostponed, ContentRefused, TusServerError
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.ports import OpenStream

log = structlog.get_logger(__name__)

HEAD_BYTES = 4096  # what tells a type is in there, but for a few formats


async def look_at(engine: Engine, upload: Upload) -> Upload:
    """Give the row with what its content tells, once every check has accepted that.

    upload: its object is there and right. Raises: ContentRefused, CheckPostponed, BytesMissing,
    StoreUnavailable.
    """
    if engine.must_sniff(upload):
        assert engine.sniff is not None
        head = await _read_head(engine, upload)
        upload = replace(
            upload, content_type=await engine.threads.run(lambda: _sniff(engine, head))
        )
    for verifier in engine.verifiers:
        try:
            verdict = await verifier(upload, _opener(engine, upload))
        except TusServerError:
            raise
        except Exception as exc:  # the application's: whatever it is, it gave no verdict
            log.exception("verify.check_failed", upload=upload.id)
            raise CheckPostponed(f"A check failed with {type(exc).__name__}.") from exc
        if not verdict.is_accepted:
            raise ContentRefused(verdict.message or "", code=verdict.code)
    return upload


def _sniff(engine: Engine, head: bytes) -> str | None:
    assert engine.sniff is not None
    return engine.sniff(head)


async def _read_head(engine: Engine, upload: Upload) -> bytes:
    assert upload.length is not None
    end = min(HEAD_BYTES, upload.length)
    if not end:
        return b""
    async with aclosing(engine.objects.read(upload, 0, end)) as content:
        return b"".join([block async for block in content])


def _opener(engine: Engine, upload: Upload) -> OpenStream:
    def open_stream(start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        assert upload.length is not None
        return engine.objects.read(upload, start, upload.length if end is None else end)

    return open_stream
