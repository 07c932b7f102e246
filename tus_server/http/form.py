"""An upload that arrives as a form at the creation URL, from whoever has what the form has to show.

For Uppy's S3 plugin, which sends a file in one request as nothing else: http/companion.py.
"""

from tus_server.core.errors import BodyStopped, ClientGone, MalformedRequest, UploadNotFound
from tus_server.core.ids import find_upload_id
from tus_server.engine.form import Form, receive_form
from tus_server.http.exchange import Exchange
from tus_server.http.uploads import NO_STORE, Request, Uploads
from tus_server.ports import APPLICATION, Body
from tus_server.wire.form import (
    MAX_HEAD_BYTES,
    FileScan,
    FormHead,
    find_boundary,
    parse_head,
)

# The names of S3's own forms, as far as they have one.
KEY, SIGNATURE = "key", "signature"


class FormHandler:
    """Answers forms."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def answer(self, exchange: Exchange, base: str) -> None:
        """Answer. base: path of the creation URL. Raises: every TusServerError; the reply has not
        begun then.
        """
        try:
            form, file = await _open(exchange)
            received = await receive_form(self._uploads.engine, form, file)
        except ClientGone:
            exchange.answered = True
            return
        except BodyStopped:
            exchange.gave_up_body = True
            raise
        if self._uploads.unanswerable(exchange, received):
            return
        request = Request(exchange, APPLICATION, base, "")
        location = self._uploads.location(request, received.upload.id, absolute=True)
        await exchange.reply(201, [(b"location", location), NO_STORE])


async def _open(exchange: Exchange) -> tuple[Form, "FileBody"]:
    """Read the fields of a form up to its file."""
    body_size = exchange.body_size
    if body_size is None:
        raise MalformedRequest("A form has to come with a Content-Length.")
    boundary = find_boundary(exchange.fields.find(b"content-type") or b"")
    body = exchange.body()
    head, rest = await _read_head(body, body_size, boundary)
    upload_id = find_upload_id(_field(head, KEY))
    if upload_id is None:
        raise UploadNotFound
    file = FileBody(body, head.file_size(body_size), rest, head)
    await file.check_empty()
    return Form(upload_id, _field(head, SIGNATURE)), file


async def _read_head(body: Body, body_size: int, boundary: bytes) -> tuple[FormHead, bytes]:
    """Give the head, and what was read behind it."""
    raw = bytearray(min(body_size, MAX_HEAD_BYTES))
    filled = 0
    while filled < len(raw):
        count = await body.read_into(memoryview(raw)[filled:])
        if not count:
            break
        filled += count
        head = parse_head(bytes(raw[:filled]), boundary)
        if head is not None:
            return head, bytes(raw[head.size : filled])
    raise MalformedRequest(f"The file of the form does not begin in its first {filled} bytes.")


def _field(head: FormHead, name: str) -> str:
    value = head.fields.get(name)
    if value is None:
        raise MalformedRequest(f"The form has no field {name!r} before its file.")
    return value


class FileBody:
    """See ports.Body: the file of a form. begun: its bytes that came with the head."""

    def __init__(self, body: Body, size: int, begun: bytes, head: FormHead) -> None:
        self.size: int | None = size
        self._body = body
        self._left = size
        self._begun = memoryview(begun)
        self._closing = head.closing
        self._scan = FileScan(head.delimiter)
        self._stopped: BodyStopped | None = None

    async def read_into(self, view: memoryview) -> int:
        if not self._left:
            return 0
        count = await self._read(view[: self._left])
        self._left -= count
        self._scan.feed(view[:count])
        if not self._left:
            # Before the last bytes are given out, which complete the upload.
            await self._read_closing()
        return count

    def interrupt(self) -> None:
        self._body.interrupt()

    async def check_empty(self) -> None:
        """See that a file of no bytes ends where it should: nobody reads it."""
        if not self.size:
            await self._read_closing()

    async def _read(self, view: memoryview) -> int:
        if self._stopped is not None:
            raise self._stopped
        count = min(len(view), len(self._begun))
        view[:count] = self._begun[:count]
        self._begun = self._begun[count:]
        if count == len(view):
            return count
        try:
            return count + await self._body.read_into(view[count:])
        except BodyStopped as exc:
            if not count:
                raise
            self._stopped = exc  # for the next time: what has arrived is given out before
            return count

    async def _read_closing(self) -> None:
        found = bytearray(len(self._closing))
        filled = 0
        while filled < len(found):
            count = await self._read(memoryview(found)[filled:])
            if not count:
                break
            filled += count
        if found != self._closing:
            raise MalformedRequest("The form does not end behind its file.")
