"""Downloads: GET of a finished upload, and the HEAD that goes with it (RFC 9110)."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from email.utils import format_datetime

from tus_server.core.errors import PreconditionFailed
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.engine import Engine
from tus_server.http.exchange import Exchange, Header
from tus_server.wire.conditional import Outcome, Validators, evaluate, range_applies
from tus_server.wire.content import describe_content
from tus_server.wire.ranges import parse_range, render_content_range


async def send_download(
    engine: Engine, upload: Upload, exchange: Exchange, extra: Sequence[Header] = ()
) -> None:
    """Answer with the content of a finished upload, or the part of it that was asked for.

    extra: header fields of every reply that is no refusal.

    Raises, before the reply has begun: PreconditionFailed, RangeNotSatisfiable, BytesMissing,
    StoreUnavailable.
    """
    assert upload.length is not None
    fields = exchange.fields.as_text()
    # From the content: the same bytes uploaded again are the same to a cache.
    validators = Validators(_render_etag(upload), upload.state_on)
    headers = [*_headers(upload, validators), *extra]
    outcome = evaluate(fields, validators)
    if outcome is Outcome.PRECONDITION_FAILED:
        raise PreconditionFailed
    if outcome is Outcome.NOT_MODIFIED:
        await exchange.reply(304, headers)
        return
    status, start, end = 200, 0, upload.length
    # RFC 9110, 14.2: Range is defined for GET alone.
    wanted = fields.get("range") if exchange.method == "GET" else None
    if wanted is not None and range_applies(fields.get("if-range"), validators):
        found = parse_range(wanted, upload.length)
        if found is not None:
            status, (start, end) = 206, found
            content_range = render_content_range(start, end, upload.length)
            headers.append((b"content-range", content_range.encode()))
    if exchange.method == "HEAD" and exchange.scope["method"] != "HEAD":
        await exchange.reply(status, headers)  # a POST turned into HEAD: no content to announce
        return
    headers.append((b"content-length", b"%d" % (end - start)))
    if exchange.method == "HEAD" or start == end:
        await exchange.start(status, headers)
        await exchange.send_content(b"", more=False)
        return
    await _stream(exchange, status, headers, engine.objects.read(upload, start, end))


def _render_etag(upload: Upload) -> str:
    # A direct upload whose CRC nobody knows is never another one at this URL, which has its id.
    content = "direct" if upload.crc64 is None else f"{upload.crc64:016x}"
    return f'"{content}-{upload.length:x}"'


async def redirect_download(
    engine: Engine, upload: Upload, exchange: Exchange, extra: Sequence[Header] = ()
) -> None:
    """Answer with the place in the object store where the content can be read for a while."""
    url = await engine.objects.presign(upload, method=exchange.method)
    assert url is not None, "this store has no URLs of its own"
    # 307: a HEAD stays a HEAD. The URL is a secret with an end: nobody may keep it.
    location = (b"location", url.encode("ascii"))
    await exchange.reply(307, [location, (b"cache-control", b"no-store"), *extra])


async def _stream(
    exchange: Exchange, status: int, headers: list[Header], content: AsyncGenerator[bytes, None]
) -> None:
    async with aclosing(content), exchange.watching() as client:
        # The first block before the status: what is gone or out of reach becomes an error reply.
        block = await anext(content)
        await exchange.start(status, headers)
        await exchange.send_content(block, more=True)
        async for block in content:
            if client.done():
                return  # uvicorn swallows what is sent to nobody: the rest need not be read
            await exchange.send_content(block, more=True)
        await exchange.send_content(b"", more=False)


def _headers(upload: Upload, validators: Validators) -> list[Header]:
    content = describe_content(upload.metadata, keeps_coding=upload.protocol is Protocol.RUFH)
    coding = [] if content.coding is None else [(b"content-encoding", content.coding.encode())]
    return [
        *coding,
        (b"content-type", content.content_type.encode("latin-1")),
        (b"content-disposition", content.disposition.encode("latin-1")),
        (b"x-content-type-options", b"nosniff"),
        # An uploaded page must not act in our name, whatever the browser makes of its type.
        (b"content-security-policy", b"sandbox; default-src 'none'"),
        (b"etag", validators.etag.encode()),
        (b"last-modified", format_datetime(upload.state_on, usegmt=True).encode()),
        (b"accept-ranges", b"bytes"),
    ]
