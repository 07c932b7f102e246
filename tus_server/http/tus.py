"""tus 1.0.0 over HTTP: one handler a method, and the checks in the order of the tus page."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote

from tus_server.core.errors import (
    BodyInterrupted,
    ClientGone,
    HeadersTooLarge,
    MethodNotAllowed,
    ShuttingDown,
    UploadNotFound,
)
from tus_server.core.ids import UploadId, find_upload_id
from tus_server.core.states import FINISHED
from tus_server.core.upload import Protocol
from tus_server.engine.append import Append, Appended, append
from tus_server.engine.create import Create, create
from tus_server.engine.download import find_download
from tus_server.engine.engine import Engine
from tus_server.engine.lookup import find_for
from tus_server.engine.status import status
from tus_server.engine.terminate import terminate
from tus_server.http.downloads import redirect_download, send_download
from tus_server.http.exchange import Exchange
from tus_server.ports import ANONYMOUS, Credentials, Operation, Principal
from tus_server.wire import tus
from tus_server.wire.forwarded import TrustedProxies, client_address, public_origin

COLLECTION_METHODS = "POST, OPTIONS"
NO_STORE = (b"cache-control", b"no-store")

Handler = Callable[[Exchange, Principal, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TusOptions:
    """What of the settings shapes replies."""

    max_header_bytes: int
    downloads: bool
    redirects: bool  # downloads are sent to the object store
    public_url: str | None
    proxies: TrustedProxies


class TusHandler:
    """Answers requests to the creation URL and to upload URLs."""

    def __init__(self, engine: Engine, options: TusOptions) -> None:
        self._engine = engine
        self._options = options
        self._upload_methods = "HEAD, PATCH, DELETE, OPTIONS"
        if options.downloads:
            self._upload_methods = f"GET, {self._upload_methods}"
        self._on_upload: dict[str, Handler] = {
            "HEAD": self._head,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }
        if options.downloads:
            self._on_upload["GET"] = self._get

    async def handle(self, exchange: Exchange, base: str, rest: str) -> None:
        """Answer. base: path of the creation URL, with its slash; rest: what follows it.

        Raises: every TusServerError; the reply has not begun then.
        """
        method = exchange.method
        if exchange.fields.size_bytes > self._options.max_header_bytes:
            raise HeadersTooLarge(f"At most {self._options.max_header_bytes} bytes are taken.")
        if method == "OPTIONS":
            await exchange.reply(204, tus.render_options(max_size=self._engine.max_size))
            return
        is_download = method == "GET" or (
            method == "HEAD" and b"tus-resumable" not in exchange.fields
        )
        if not is_download:
            tus.check_version(exchange.fields)
        principal = await self._authenticate(exchange)
        rest = rest.removesuffix("/")
        if not rest:
            if method != "POST":
                raise MethodNotAllowed(COLLECTION_METHODS)
            await self._post(exchange, principal, base)
            return
        handler = self._on_upload.get(method)
        if handler is None:
            raise MethodNotAllowed(self._upload_methods)
        await handler(exchange, principal, rest)

    async def _authenticate(self, exchange: Exchange) -> Principal:
        scope, fields = exchange.scope, exchange.fields
        authorizer = self._engine.authorizer
        if authorizer.takes_all:
            return ANONYMOUS
        text = fields.as_text()
        return await authorizer.authenticate(
            Credentials(
                method=exchange.method,
                path=scope["path"],
                headers=text,
                client=client_address(exchange.peer, text, trusted=self._options.proxies),
            )
        )

    # --- the creation URL

    async def _post(self, exchange: Exchange, principal: Principal, base: str) -> None:
        fields = tus.parse_creation(
            exchange.fields,
            has_body=exchange.has_body,
            max_metadata_bytes=self._options.max_header_bytes,
        )
        command = Create(fields.length, fields.metadata, Protocol.TUS)
        created = await create(self._engine, command, principal, exchange.body())
        if self._unanswerable(exchange, created):
            return
        upload = created.upload
        # The 201 always tells the offset: tus-js wants it after a creation without body too (T43).
        await exchange.reply(
            201,
            [
                (b"location", self._location(exchange, base, upload.id)),
                (b"upload-offset", b"%d" % upload.offset),
                NO_STORE,
            ],
        )

    def _location(self, exchange: Exchange, base: str, upload_id: UploadId) -> bytes:
        """Give the URL of an upload: absolute where our own address is known for sure (T42)."""
        origin = self._options.public_url
        if origin is None:
            peer = exchange.peer
            if self._options.proxies.trusts(peer):
                origin = public_origin(
                    peer,
                    exchange.fields.as_text(),
                    scheme=exchange.scope["scheme"],
                    trusted=self._options.proxies,
                )
        return f"{origin or ''}{quote(base)}{upload_id}".encode()

    # --- upload URLs

    async def _head(self, exchange: Exchange, principal: Principal, rest: str) -> None:
        upload_id = _upload_id(rest)
        if b"tus-resumable" not in exchange.fields:
            await self._head_of_download(exchange, principal, upload_id)
            return
        upload = await status(self._engine, upload_id, principal, Protocol.TUS)
        await exchange.reply(200, [*tus.render_status(upload), NO_STORE])

    async def _head_of_download(
        self, exchange: Exchange, principal: Principal, upload_id: UploadId
    ) -> None:
        """Answer a HEAD without Tus-Resumable: only a finished upload has one (T8)."""
        upload = await find_for(self._engine, upload_id, principal, Operation.STATUS)
        if upload.state not in FINISHED or not self._options.downloads:
            tus.check_version(exchange.fields)
        await self._get(exchange, principal, upload_id)

    async def _get(self, exchange: Exchange, principal: Principal, rest: str) -> None:
        upload = await find_download(self._engine, _upload_id(rest), principal)
        if self._options.redirects:
            await redirect_download(self._engine, upload, exchange)
        else:
            await send_download(self._engine, upload, exchange)

    async def _patch(self, exchange: Exchange, principal: Principal, rest: str) -> None:
        fields = tus.parse_append(exchange.fields)
        command = Append(_upload_id(rest), fields.offset, fields.length, Protocol.TUS)
        appended = await append(self._engine, command, principal, exchange.body())
        if not self._unanswerable(exchange, appended):
            await exchange.reply(
                204, [(b"upload-offset", b"%d" % appended.upload.offset), NO_STORE]
            )

    async def _delete(self, exchange: Exchange, principal: Principal, rest: str) -> None:
        await terminate(self._engine, _upload_id(rest), principal)
        await exchange.reply(204, [NO_STORE])

    def _unanswerable(self, exchange: Exchange, appended: Appended) -> bool:
        """Deal with a body that was not read to its end; what arrived is committed.

        Where the connection can be closed without a reply, that tells every client to look at
        the offset and go on (T30, T125). Elsewhere a status has to do. Raises: BodyStopped.
        """
        stopped = appended.stopped
        if stopped is None or appended.upload.remaining == 0:
            return False
        if isinstance(stopped, ClientGone):
            exchange.answered = True
            return True
        if exchange.can_abort:
            exchange.abort()
            return True
        exchange.gave_up_body = True
        if isinstance(stopped, BodyInterrupted) and self._engine.closing:
            raise ShuttingDown
        raise stopped


def _upload_id(rest: str) -> UploadId:
    """Give the id in a path. Raises UploadNotFound for whatever has not the form of one."""
    upload_id = find_upload_id(rest)
    if upload_id is None:
        raise UploadNotFound
    return upload_id
