"""Which protocol a request belongs to, once its effective method is known."""

from tus_server.core.errors import UploadNotFound
from tus_server.core.states import FINISHED
from tus_server.core.upload import Protocol, Upload
from tus_server.http.exchange import Exchange
from tus_server.http.rufh import RufhHandler
from tus_server.http.tus import TusHandler
from tus_server.http.uploads import Handler, Request, Uploads
from tus_server.ports import Operation
from tus_server.wire.form import MEDIA_TYPE
from tus_server.wire.headers import Fields, media_type
from tus_server.wire.rufh_versions import INTEROP, NEWEST, VERSIONS, Version, find_version

_OPERATIONS = {
    "HEAD": Operation.STATUS,
    "PATCH": Operation.APPEND,
    "DELETE": Operation.TERMINATE,
}


class Dispatch:
    """The handlers, and the choice between them."""

    def __init__(self, uploads: Uploads) -> None:
        self._engine = uploads.engine
        self._downloads = uploads.options.downloads
        self._tus = TusHandler(uploads)
        self._rufh = {version: RufhHandler(uploads, version) for version in VERSIONS}

    def by_fields(self, fields: Fields, rest: str) -> Handler:
        """Choose by what the request says; never raises.

        rest: what follows the creation URL, empty for that itself. Where needs_upload(), the
        choice serves for refusals.
        """
        if b"tus-resumable" in fields:
            return self._tus  # RUFH-only fields are ignored
        if INTEROP in fields:
            return self._rufh[_version(fields)]
        if not rest and b"upload-complete" in fields:
            return self._rufh[NEWEST]
        return self._tus

    def is_form(self, exchange: Exchange, rest: str) -> bool:
        """Tell whether a request speaks no protocol and brings a form; never raises."""
        if rest or exchange.method != "POST":
            return False
        fields = exchange.fields
        named = media_type((fields.find_joined(b"content-type") or "").encode("latin-1"))
        speaks = b"tus-resumable" in fields or self.by_fields(fields, rest) is not self._tus
        return named == MEDIA_TYPE and not speaks

    def needs_upload(self, exchange: Exchange, rest: str) -> bool:
        """Tell whether only the upload can tell the protocol: the one that created it."""
        if not rest:
            return False
        if exchange.method == "GET":
            return True  # a link in a page names no version
        fields = exchange.fields
        return (
            exchange.method in _OPERATIONS
            and b"tus-resumable" not in fields
            and INTEROP not in fields
        )

    async def by_upload(self, request: Request) -> tuple[Handler, Upload | None]:
        """Choose by the upload, and give it as last committed; None: the handler needs none.

        Raises: UploadNotFound, what the authorizer raises: not even the protocol of an upload is
        told to who may not know of it.
        """
        try:
            return await self._by_upload(request)
        except UploadNotFound:
            if request.exchange.method == "GET" and not self._downloads:
                # tus has no GET then, whatever the URL; and who may not know learns nothing.
                return self._tus, None
            raise

    async def _by_upload(self, request: Request) -> tuple[Handler, Upload]:
        exchange = request.exchange
        upload = await self._engine.state.find_upload(request.upload_id)
        if upload is None:
            raise UploadNotFound
        is_rufh = upload.protocol is Protocol.RUFH
        operation = _OPERATIONS.get(exchange.method, Operation.DOWNLOAD)
        if operation is Operation.DOWNLOAD and is_rufh and upload.state not in FINISHED:
            operation = Operation.STATUS  # an offset retrieval
        await self._engine.authorizer.check(request.principal, operation, upload)
        if not is_rufh:
            return self._tus, upload
        return self._rufh[_version(exchange.fields)], upload


def _version(fields: Fields) -> Version:
    return find_version(fields) or NEWEST  # the handler refuses what nobody serves
