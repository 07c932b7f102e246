"""Who may use what belongs to the application: its token has to be shown, or this machine asks.

Pure ASGI, around the JSON API and the endpoint of Uppy's S3 plugin. Whoever gets through acts as
the application (ports.APPLICATION). Pages get CORS fields only where TUS_CORS_ORIGINS names their
origin: `*` there is for uploads, whose URLs are secrets; here it would let in every page.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp

from tus_server.core.errors import Forbidden, HeadersTooLarge, TusServerError, Unauthenticated
from tus_server.http.body import Message, Receive
from tus_server.http.errors import render_error
from tus_server.http.exchange import Exchange, Header, Scope, Send
from tus_server.http.uploads import NO_STORE
from tus_server.wire.cors import Origins, render_cors
from tus_server.wire.local import find_outsider

ALLOW_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID")
EXPOSE_HEADERS = ("Location", "Preference-Applied", "Retry-After", "ETag")
_NOBODY = Origins(())
_ADVICE = "Set TUS_API_TOKEN, and send it as `Authorization: Bearer`."


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """What of the settings decides.

    token: None: there is none. is_fronted: a public URL or proxies are configured, so requests that
    look local are not. allow_headers, expose_headers: beside those every guarded place has.
    """

    token: str | None
    is_fronted: bool
    origins: Origins
    credentials: bool
    max_header_bytes: int
    allow_headers: Sequence[str] = ()
    expose_headers: Sequence[str] = ()


class Guard:
    """An application that only the application's own requests reach; preflights are answered."""

    def __init__(self, app: ASGIApp, options: GuardOptions) -> None:
        self._app = app
        self._options = options
        self._token = None if options.token is None else options.token.encode()
        self._origins = _NOBODY if options.origins.is_any else options.origins
        self._allow_headers = ", ".join([*ALLOW_HEADERS, *options.allow_headers])
        self._expose_headers = ", ".join([*EXPOSE_HEADERS, *options.expose_headers])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, idle_timeout_s=1.0, fast=False)
        cors = self._cors(exchange)
        exchange.common = cors
        try:
            if _is_preflight(exchange):
                await exchange.reply(204, [])
                return
            if exchange.fields.size_bytes > self._options.max_header_bytes:
                raise HeadersTooLarge(f"At most {self._options.max_header_bytes} bytes are taken.")
            exchange.check_framing()
            self._check(exchange)
        except TusServerError as exc:
            status, headers, body = render_error(exc, method="GET")
            await exchange.reply(status, [*headers, NO_STORE], body)
            return

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *cors]}
            await send(message)

        await self._app(scope, receive, send_with_cors)

    def _check(self, exchange: Exchange) -> None:
        """Return if the request is the application's. Raises: Unauthenticated, Forbidden."""
        if self._token is not None:
            given = exchange.fields.find_joined(b"authorization") or ""
            scheme, _, token = given.partition(" ")
            matches = hmac.compare_digest(token.strip(" ").encode("latin-1"), self._token)
            if scheme.lower() != "bearer" or not matches:
                raise Unauthenticated("Send TUS_API_TOKEN as `Authorization: Bearer`.")
            return
        if self._options.is_fronted:
            raise Forbidden(
                "This server is used from elsewhere (TUS_PUBLIC_URL, TUS_BEHIND_PROXY), and has no"
                f" token. {_ADVICE}"
            )
        scope = exchange.scope
        outsider = find_outsider(
            exchange.fields,
            peer=scope.get("client"),
            local=scope.get("server"),
            scheme=scope["scheme"],
            http_version=scope["http_version"],
            allows=self._origins.allows,
        )
        if outsider is not None:
            raise Forbidden(f"Without a token only this machine may use it. {outsider} {_ADVICE}")

    def _cors(self, exchange: Exchange) -> list[Header]:
        return render_cors(
            exchange.fields.find_joined(b"origin"),
            self._origins,
            credentials=self._options.credentials,
            preflight=_is_preflight(exchange),
            allow_headers=self._allow_headers,
            expose_headers=self._expose_headers,
        )


def _is_preflight(exchange: Exchange) -> bool:
    # Fetch, 3.2.2: with these two it asks for no more than whether a page may.
    fields = exchange.fields
    asks = b"origin" in fields and b"access-control-request-method" in fields
    return exchange.method == "OPTIONS" and asks
