"""Receiving an upload whole, from whoever has the form that was made for it.

A form begins at its first byte whenever it is sent. What had arrived of it before is read again and
compared by its CRC, the rest is appended: so a broken line costs a form what it costs any upload,
and a form that is repeated after its reply was lost gets that reply.
"""

import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta

from tus_server.core.checksums import EMPTY_CRC64, combine_crc64, crc64
from tus_server.core.errors import (
    ClientGone,
    LengthChanged,
    OffsetMismatch,
    RequestKeyReused,
    SignatureRefused,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import UNFINISHED
from tus_server.core.upload import Upload
from tus_server.engine.append import Append, Appended, append
from tus_server.engine.engine import Engine
from tus_server.engine.lookup import check_not_ended, find_row
from tus_server.engine.terms import Terms
from tus_server.ports import APPLICATION, Body

# An earlier request for the same upload is asked to let go, which leaves the upload further on.
TRIES = 3
BLOCK_BYTES = 256 * 1024
# Other uploads have keys too, which their clients chose, and which may be easy to guess.
KEY_PREFIX = "form-"


@dataclass(frozen=True, slots=True)
class Form:
    """What somebody shows who may send an upload. key: the request_key that it was begun with."""

    upload_id: UploadId
    key: str


def new_form_key() -> str:
    """Make the request_key of an upload that whoever has it may send as a form."""
    return f"{KEY_PREFIX}{secrets.token_urlsafe(32)}"


async def receive_form(engine: Engine, form: Form, body: Body) -> Appended:
    """Receive the whole content of an upload that the application has begun.

    body: with a size, which settles a deferred length. Before its first byte is asked for, raises:
    UploadNotFound, SignatureRefused (another key, or the time to send it is over), UploadGone,
    LengthChanged, LengthBelowOffset, as append. RequestKeyReused: it is not what arrived before.
    """
    assert body.size is not None
    for attempt in range(1, TRIES + 1):
        upload = await _find(engine, form)
        rest = _Rest(body, body.size, upload)
        if upload.state not in UNFINISHED:
            if upload.length != body.size:
                raise LengthChanged(f"The upload has {upload.length} bytes.")
            await rest.pass_over()
        terms = Terms(length=body.size)
        command = Append(upload.id, upload.offset, upload.protocol, terms)
        try:
            return await append(engine, command, APPLICATION, rest)
        except OffsetMismatch:
            if rest.is_begun or attempt == TRIES:
                raise
    raise AssertionError


async def _find(engine: Engine, form: Form) -> Upload:
    upload = await find_row(engine, form.upload_id)
    key = upload.request_key or ""
    is_right = hmac.compare_digest(key.encode(), form.key.encode())
    if upload.is_direct or not key.startswith(KEY_PREFIX) or not is_right:
        raise SignatureRefused("This is not the form that was made for the upload.")
    check_not_ended(upload)
    ends_at = upload.created_at + timedelta(seconds=engine.sign_expires_s)
    if upload.state in UNFINISHED and engine.clock.now() >= ends_at:
        raise SignatureRefused(f"The form has expired at {ends_at:%FT%TZ}: begin a new upload.")
    return upload


class _Rest:
    """See ports.Body: what of a whole content follows upon what has arrived of it."""

    def __init__(self, body: Body, size: int, upload: Upload) -> None:
        self.size: int | None = max(0, size - upload.offset)
        self.is_begun = False
        self._body = body
        self._passing = upload.offset
        self._crc64 = _crc64_of(upload)

    async def read_into(self, view: memoryview) -> int:
        await self.pass_over()
        self.is_begun = True
        return await self._body.read_into(view)

    def interrupt(self) -> None:
        self._body.interrupt()

    async def pass_over(self) -> None:
        """Read what has arrived before. Raises: RequestKeyReused (it is not that), BodyStopped."""
        if not self._passing:
            return
        self.is_begun = True
        crc, scratch = EMPTY_CRC64, memoryview(bytearray(min(self._passing, BLOCK_BYTES)))
        while self._passing:
            count = await self._body.read_into(scratch[: self._passing])
            if not count:
                raise ClientGone
            crc = crc64(scratch[:count], crc)
            self._passing -= count
        if crc != self._crc64:
            raise RequestKeyReused("Other content was sent with this form: begin a new upload.")


def _crc64_of(upload: Upload) -> int:
    """Give the CRC of what has arrived. It comes from this server alone, so that it is known."""
    assert upload.crc64 is not None
    if upload.tail is None:
        return upload.crc64
    return combine_crc64(upload.crc64, upload.tail.crc64, upload.tail.length)
