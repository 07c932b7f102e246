"""What both protocols share over HTTP: who asks, URLs, downloads, bodies that ended early."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol as Port
from urllib.parse import quote

from tus_server.core.errors import (
    BodyInterrupted,
    ClientGone,
    ShuttingDown,
    TusServerError,
    UploadNotFound,
)
from tus_server.core.ids import UploadId, find_upload_id
from tus_server.core.states import FINISHED
from tus_server.core.upload import Upload
from tus_server.engine.append import Appended
from tus_server.engine.engine import Engine
from tus_server.engine.lookup import find_for
from tus_server.http.downloads import redirect_download, send_download
from tus_server.http.exchange import Exchange, Header
from tus_server.ports import ANONYMOUS, Credentials, Operation, Principal
from tus_server.wire.forwarded import TrustedProxies, client_address, public_origin

COLLECTION_METHODS = "POST, OPTIONS"
NO_STORE = (b"cache-control", b"no-store")


@dataclass(frozen=True, slots=True)
class UploadsOptions:
    """What of the settings shapes replies."""

    max_header_bytes: int
    downloads: bool
    redirects: bool  # downloads are sent to the object store
    public_url: str | None
    proxies: TrustedProxies


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the creation URL or to an upload URL, from somebody who is known.

    base: path of the creation URL, with its slash; rest: what follows it, without one. found: the
    upload as last committed, where it had to be looked up to know the protocol.
    """

    exchange: Exchange
    principal: Principal
    base: str
    rest: str
    found: Upload | None = None

    @property
    def upload_id(self) -> UploadId:
        """The id in the path. Raises UploadNotFound for whatever has not the form of one."""
        upload_id = find_upload_id(self.rest)
        if upload_id is None:
            raise UploadNotFound
        return upload_id


class Handler(Port):
    """Answers the requests of one protocol. common: header fields of every reply."""

    @property
    def common(self) -> Sequence[Header]: ...

    def check_version(self, exchange: Exchange) -> None:
        """Raise UnsupportedVersion unless the request names a version that is served."""

    async def answer(self, request: Request) -> None:
        """Answer. Raises: every TusServerError; the reply has not begun then."""

    def render_error(
        self, error: TusServerError, *, method: str
    ) -> tuple[int, list[Header], bytes]:
        """Give status, header fields and body of a refusal."""


class Uploads:
    """The engine and the settings, for handlers of both protocols."""

    def __init__(self, engine: Engine, options: UploadsOptions) -> None:
        self.engine = engine
        self.options = options

    async def authenticate(self, exchange: Exchange) -> Principal:
        """Tell who asks. Raises: what the authorizer raises."""
        authorizer, gate = self.engine.authorizer, self.engine.gate
        if authorizer.takes_all and gate is None:
            return ANONYMOUS
        text = exchange.fields.as_text()
        credentials = Credentials(
            method=exchange.method,
            path=exchange.scope["path"],
            headers=text,
            client=client_address(exchange.peer, text, trusted=self.options.proxies),
        )
        principal = await authorizer.authenticate(credentials)
        return principal if gate is None else replace(principal, request=credentials)

    def location(self, request: Request, upload_id: UploadId, *, absolute: bool) -> bytes:
        """Give the URL of an upload.

        absolute: also where our own address is not known for sure, but as the client wrote it.
        """
        exchange, proxies = request.exchange, self.options.proxies
        origin = self.options.public_url
        if origin is None and (absolute or proxies.trusts(exchange.peer)):
            origin = public_origin(
                exchange.peer,
                exchange.fields.as_text(),
                scheme=exchange.scope["scheme"],
                trusted=proxies,
            )
        return f"{origin or ''}{quote(request.base)}{upload_id}".encode()

    async def send(self, upload: Upload, exchange: Exchange, extra: Sequence[Header] = ()) -> None:
        """Answer a GET of a finished upload, or the HEAD that goes with it."""
        if self.options.redirects:
            await redirect_download(self.engine, upload, exchange, extra)
        else:
            await send_download(self.engine, upload, exchange, extra)

    async def find_quietly(self, request: Request) -> Upload | None:
        """Give the upload for what a refusal says of it, if the principal may know."""
        with suppress(TusServerError):
            return await find_for(
                self.engine, request.upload_id, request.principal, Operation.STATUS
            )
        return None

    def unanswerable(self, exchange: Exchange, appended: Appended) -> bool:
        """Deal with a body that was not read to its end; what arrived is committed.

        Where the connection can be closed without a reply, that tells every client to look at
        the offset and go on (T30, T125, R72). Elsewhere a status has to do. Raises: BodyStopped.
        """
        stopped = appended.stopped
        if stopped is None or appended.upload.state in FINISHED:
            return False
        if isinstance(stopped, ClientGone):
            exchange.answered = True
            return True
        if exchange.can_abort:
            exchange.abort()
            return True
        exchange.gave_up_body = True
        if isinstance(stopped, BodyInterrupted) and self.engine.closing:
            raise ShuttingDown
        raise stopped
