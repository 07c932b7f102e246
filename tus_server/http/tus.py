"""tus 1.0.0 over HTTP: one handler a method, and the checks in the order of the tus page."""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from tus_server.core.errors import (
    FinalUpload,
    MethodNotAllowed,
    StateUnavailable,
    TusServerError,
)
from tus_server.core.states import FINISHED
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.append import Append, append
from tus_server.engine.concatenate import Concatenate, concatenate
from tus_server.engine.create import Create, create
from tus_server.engine.download import check_readable
from tus_server.engine.lookup import check_alive
from tus_server.engine.status import status
from tus_server.engine.terminate import terminate
from tus_server.engine.terms import PLAIN, Checks, Terms
from tus_server.http.errors import render_error
from tus_server.http.exchange import Exchange, Header
from tus_server.http.uploads import COLLECTION_METHODS, NO_STORE, Request, Uploads
from tus_server.ports import Operation
from tus_server.wire import tus
from tus_server.wire.concat import resolve

Verb = Callable[[Request], Awaitable[None]]


class TusHandler:
    """Answers requests to the creation URL and to upload URLs."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._engine = uploads.engine
        self._verbs: dict[str, Verb] = {
            "HEAD": self._head,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }
        if uploads.options.downloads:
            self._verbs = {"GET": self._get, **self._verbs}
        self._allowed = ", ".join([*self._verbs, "OPTIONS"])
        self._public_path = urlsplit(uploads.options.public_url or "").path
        self.common: Sequence[Header] = (tus.TUS_RESUMABLE,)

    def check_version(self, exchange: Exchange) -> None:
        """Raise UnsupportedVersion unless Tus-Resumable is 1.0.0; a download needs none (T8)."""
        method = exchange.method
        if method == "GET" or (method == "HEAD" and b"tus-resumable" not in exchange.fields):
            return
        tus.check_version(exchange.fields)

    def render_error(
        self, error: TusServerError, *, method: str
    ) -> tuple[int, list[Header], bytes]:
        return render_error(error, method=method)

    async def answer(self, request: Request) -> None:
        """Answer. Raises: every TusServerError; the reply has not begun then."""
        method = request.exchange.method
        if not request.rest:
            if method != "POST":
                raise MethodNotAllowed(COLLECTION_METHODS)
            await self._post(request)
            return
        verb = self._verbs.get(method)
        if verb is None:
            raise MethodNotAllowed(self._allowed)
        await verb(request)

    # --- the creation URL

    async def _post(self, request: Request) -> None:
        exchange = request.exchange
        fields = tus.parse_creation(
            exchange.fields,
            has_body=exchange.has_body,
            max_metadata_bytes=self._uploads.options.max_header_bytes,
            has_trailers=exchange.has_trailers,
        )
        if fields.members is not None:
            await self._post_final(request, fields, fields.members)
            return
        terms = _terms(exchange, fields)
        is_partial = fields.concat is not None
        command = Create(fields.metadata, Protocol.TUS, terms, is_partial=is_partial)
        created = await create(self._engine, command, request.principal, exchange.body())
        if self._uploads.unanswerable(exchange, created):
            return
        # The 201 always tells the offset: tus-js wants it after a creation without body too (T43).
        offset = (b"upload-offset", b"%d" % created.upload.offset)
        await self._created(request, created.upload, [offset])

    async def _post_final(
        self, request: Request, fields: tus.CreationFields, members: Sequence[str]
    ) -> None:
        assert fields.concat is not None
        if request.exchange.has_body:
            raise FinalUpload  # as for a PATCH on it (T116)
        partials = [resolve(url, request.base, public_path=self._public_path) for url in members]
        checks = _terms(request.exchange, fields).checks
        command = Concatenate(fields.concat, partials, fields.metadata, checks)
        await self._created(request, await concatenate(self._engine, command, request.principal))

    async def _created(
        self, request: Request, upload: Upload, extra: Sequence[Header] = ()
    ) -> None:
        location = self._uploads.location(request, upload.id, absolute=False)
        headers = [(b"location", location), *extra, *tus.render_expires(upload), NO_STORE]
        await request.exchange.reply(201, headers)

    # --- upload URLs

    async def _head(self, request: Request) -> None:
        exchange = request.exchange
        if b"tus-resumable" not in exchange.fields:
            await self._head_of_download(request)
            return
        upload = await status(self._engine, request.upload_id, request.principal, Protocol.TUS)
        headers = [*tus.render_status(upload), *tus.render_expires(upload), NO_STORE]
        await exchange.reply(200, headers)

    async def _head_of_download(self, request: Request) -> None:
        """Answer a HEAD without Tus-Resumable: only a finished upload has one (T8)."""
        upload = request.found
        assert upload is not None
        check_alive(self._engine, upload)
        if upload.state not in FINISHED or not self._uploads.options.downloads:
            tus.check_version(request.exchange.fields)
        await self._engine.authorizer.check(request.principal, Operation.DOWNLOAD, upload)
        await self._uploads.send(upload, request.exchange)

    async def _get(self, request: Request) -> None:
        upload = request.found
        assert upload is not None
        await check_readable(self._engine, upload)
        await self._uploads.send(upload, request.exchange)

    async def _patch(self, request: Request) -> None:
        exchange = request.exchange
        try:
            fields = tus.parse_append(exchange.fields, has_trailers=exchange.has_trailers)
            terms = _terms(exchange, fields)
            command = Append(request.upload_id, fields.offset, Protocol.TUS, terms)
            appended = await append(self._engine, command, request.principal, exchange.body())
            if self._uploads.unanswerable(exchange, appended):
                return
        except TusServerError as exc:
            if isinstance(exc, StateUnavailable):
                raise  # who would tell?
            # tus 1.0.0, Upload-Expires: in every reply to a PATCH of what will expire (T71).
            if (upload := await self._uploads.find_quietly(request)) is not None:
                exchange.common = [*exchange.common, *tus.render_expires(upload)]
            raise
        offset = (b"upload-offset", b"%d" % appended.upload.offset)
        await exchange.reply(204, [offset, *tus.render_expires(appended.upload), NO_STORE])

    async def _delete(self, request: Request) -> None:
        await terminate(self._engine, request.upload_id, request.principal)
        await request.exchange.reply(204, [NO_STORE])


def _terms(exchange: Exchange, fields: tus.CreationFields | tus.AppendFields) -> Terms:
    """Give how the body is to be taken: reaching the length completes the upload."""
    checks: Checks | None = None
    if fields.checksum is not None:
        algorithm, digest = fields.checksum
        checks = Checks({algorithm: digest})
    elif fields.checksum_follows:
        checks = Checks(find_late=lambda: tus.parse_late_checksum(exchange.trailers()))
    elif fields.length is None:
        return PLAIN
    return Terms(length=fields.length, checks=checks)
