"""RUFH over HTTP: a handler for each version; what differs is in the row of the version."""

from collections.abc import Awaitable, Callable

from tus_server.core.errors import (
    DigestMismatch,
    MethodNotAllowed,
    OffsetMismatch,
    TusServerError,
    UnsupportedVersion,
)
from tus_server.core.states import FINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.append import Append, append
from tus_server.engine.create import Create, create
from tus_server.engine.status import status
from tus_server.engine.terminate import terminate
from tus_server.engine.terms import Checks, Overrun, Terms
from tus_server.http.errors import RUFH_STATUSES, render_rufh_error
from tus_server.http.exchange import Exchange, Header
from tus_server.http.progress import Progress
from tus_server.http.uploads import COLLECTION_METHODS, NO_STORE, Request, Uploads
from tus_server.ports import Operation
from tus_server.wire import rufh
from tus_server.wire.limits import render_limits
from tus_server.wire.rufh_versions import NEWEST, SERVED, Version, find_version

Verb = Callable[[Request], Awaitable[None]]

UPLOAD_METHODS = "GET, HEAD, PATCH, DELETE, OPTIONS"

# What a refusal tells of the upload: to a creation, and to an append.
_TELLS_LIMITS = frozenset({400, 409, 413})
_TELLS_OFFSET = frozenset({400, 409, 413, 415})


class RufhHandler:
    """Answers requests to the creation URL and to upload URLs in one version."""

    def __init__(self, uploads: Uploads, version: Version) -> None:
        self._uploads = uploads
        self._engine = uploads.engine
        self._version = version
        self._verbs: dict[str, Verb] = {
            "GET": self._get,
            "HEAD": self._head,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }
        self.common = version.fields

    def check_version(self, exchange: Exchange) -> None:
        """Raise UnsupportedVersion where the request names a version that nobody serves."""
        # A handler of a version was found by the number in the request.
        if self._version is NEWEST and find_version(exchange.fields) is None:
            served = ", ".join(str(number) for number in SERVED)
            raise UnsupportedVersion(f"This server speaks the interop versions {served}.")

    def render_error(
        self, error: TusServerError, *, method: str
    ) -> tuple[int, list[Header], bytes]:
        tells_completed = not self._version.replays
        return render_rufh_error(error, method=method, tells_completed=tells_completed)

    async def answer(self, request: Request) -> None:
        """Answer. Raises: every TusServerError; the reply has not begun then."""
        exchange = request.exchange
        if not request.rest:
            # Any method may create by the text; here it is POST (R21).
            if exchange.method != "POST":
                raise MethodNotAllowed(COLLECTION_METHODS)
            await self._post(request)
            return
        verb = self._verbs.get(exchange.method)
        if verb is None:
            raise MethodNotAllowed(UPLOAD_METHODS)
        if verb != self._patch:
            rufh.check_no_body_fields(exchange.fields)
        await verb(request)

    # --- the creation URL

    async def _post(self, request: Request) -> None:
        exchange = request.exchange
        try:
            await self._create(request)
        except TusServerError as exc:
            if isinstance(exc, DigestMismatch):
                self._add(exchange, [self._version.render_flag(done=True)])
            elif RUFH_STATUSES.get(type(exc)) in _TELLS_LIMITS:
                self._add(exchange, [self._version.render_flag(done=False), *self._limits(None)])
            raise

    async def _create(self, request: Request) -> None:
        exchange, version = request.exchange, self._version
        fields = rufh.parse_creation(
            exchange.fields,
            version,
            body_size=exchange.body_size,
            max_size=self._engine.max_size,
        )

        async def announce(upload: Upload) -> None:
            location = (b"location", self._location(request, upload))
            await exchange.inform(104, [*self.common, location, *self._limits(upload)])

        async with Progress(exchange, self.common) as progress:
            command = Create(
                fields.metadata,
                Protocol.RUFH,
                self._terms(exchange, fields, progress),
                announce=announce if self._informs(exchange) else None,
            )
            created = await create(self._engine, command, request.principal, exchange.body())
        if not self._uploads.unanswerable(exchange, created):
            await self._taken(request, created.upload, 201)

    # --- upload URLs

    async def _head(self, request: Request) -> None:
        upload = await self._status(request)
        await request.exchange.reply(204, [*self._tell(upload), NO_STORE])

    async def _get(self, request: Request) -> None:
        """Send a finished upload; of an unfinished one tell the offset, as HEAD does (R45)."""
        upload = request.found
        assert upload is not None
        if upload.state not in FINISHED:
            upload = await self._status(request)
            if upload.state in FINISHED:
                # It has been finished meanwhile: more rights may be needed now.
                await self._engine.authorizer.check(request.principal, Operation.DOWNLOAD, upload)
        if upload.state in FINISHED and self._uploads.options.downloads:
            await self._uploads.send(upload, request.exchange, self._tell(upload))
        else:
            await request.exchange.reply(204, [*self._tell(upload), NO_STORE])

    async def _patch(self, request: Request) -> None:
        try:
            await self._append(request)
        except TusServerError as exc:
            if isinstance(exc, DigestMismatch):
                self._add(request.exchange, [self._version.render_flag(done=True)])
            elif RUFH_STATUSES.get(type(exc)) in _TELLS_OFFSET:
                self._add(request.exchange, await self._standing(request, exc))
            raise

    async def _append(self, request: Request) -> None:
        exchange, version = request.exchange, self._version
        fields = rufh.parse_append(
            exchange.fields,
            version,
            body_size=exchange.body_size,
            max_size=self._engine.max_size,
        )
        async with Progress(exchange, self.common) as progress:
            terms = self._terms(exchange, fields, progress)
            command = Append(request.upload_id, fields.offset, Protocol.RUFH, terms)
            appended = await append(self._engine, command, request.principal, exchange.body())
        if not self._uploads.unanswerable(exchange, appended):
            await self._taken(request, appended.upload, version.appended)

    async def _delete(self, request: Request) -> None:
        await terminate(self._engine, request.upload_id, request.principal)
        await request.exchange.reply(204, [NO_STORE])

    # --- what replies say

    async def _taken(self, request: Request, upload: Upload, usual: int) -> None:
        """Answer a body that was read to its end; usual: status where it completes nothing.

        Where it does, the reply is that of a creation in one go (R25, R54).
        """
        exchange, done = request.exchange, upload.state in FINISHED
        headers = rufh.render_progress(upload, self._version)
        if done or not request.rest:
            headers.append((b"location", self._location(request, upload)))
        if done:
            headers += rufh.render_digests(upload)
        headers += [*self._limits(upload), NO_STORE]
        await exchange.reply(201 if done else usual, headers)

    async def _standing(self, request: Request, error: TusServerError) -> list[Header]:
        """Give what a refused append is told of the upload (R51)."""
        headers = [self._version.render_flag(done=False)]
        upload = await self._uploads.find_quietly(request)
        if isinstance(error, OffsetMismatch):
            headers.append((b"upload-offset", b"%d" % error.current))
        elif upload is not None and upload.state is not UploadState.COMPLETED:
            # One that is being finished has all bytes, but nobody is told so before (D7).
            headers.append((b"upload-offset", b"%d" % upload.offset))
        return headers + self._limits(upload)

    async def _status(self, request: Request) -> Upload:
        return await status(self._engine, request.upload_id, request.principal, Protocol.RUFH)

    def _tell(self, upload: Upload) -> list[Header]:
        return [*rufh.render_status(upload, self._version), *self._limits(upload)]

    def _limits(self, upload: Upload | None) -> list[Header]:
        """Give Upload-Limit, where the version has it; of no upload: without a lifetime."""
        key = self._version.lifetime_key
        if key is None:
            return []
        left_s: float | None = None
        if upload is not None and upload.expires_at is not None and upload.state not in FINISHED:
            left_s = (upload.expires_at - self._engine.state.now()).total_seconds()
        engine = self._engine
        return [
            render_limits(
                max_size=engine.max_size if upload is None else engine.max_size_of(upload),
                max_append_size=engine.max_append_size,
                lifetime_key=key,
                left_s=left_s,
            )
        ]

    def _location(self, request: Request, upload: Upload) -> bytes:
        # Absolute: there are clients that take it as it comes (R31).
        return self._uploads.location(request, upload.id, absolute=True)

    @staticmethod
    def _add(exchange: Exchange, headers: list[Header]) -> None:
        exchange.common = [*exchange.common, *headers]

    # --- what is said of a body

    def _informs(self, exchange: Exchange) -> bool:
        """Tell whether the request may be answered with 104 (R85)."""
        return self._version.number is not None and exchange.can_inform

    def _terms(self, exchange: Exchange, fields: rufh.BodyFields, progress: Progress) -> Terms:
        """Give how the body is to be taken."""
        version = self._version
        informs = version.informs_progress and exchange.has_body and self._informs(exchange)
        return Terms(
            length=fields.length,
            completes=fields.completes,
            overrun=Overrun.INVALIDATE if version.invalidates else Overrun.KEEP,
            replays=version.replays,
            max_body=self._engine.max_append_size,
            checks=Checks(fields.content) if fields.content else None,
            digests=fields.whole,
            on_progress=progress.tell if informs else None,
        )
