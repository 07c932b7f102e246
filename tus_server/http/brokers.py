"""The Broker of a request: with the URLs that its client can use."""

from dataclasses import dataclass
from urllib.parse import quote

from tus_server.broker import Broker
from tus_server.engine.engine import Engine
from tus_server.http.exchange import Scope
from tus_server.ports import APPLICATION, Credentials, Principal
from tus_server.wire.forwarded import TrustedProxies, client_address, public_origin
from tus_server.wire.headers import Fields


@dataclass(frozen=True, slots=True)
class UrlOptions:
    """What of the settings makes URLs."""

    base_path: str
    public_url: str | None
    proxies: TrustedProxies


class Brokers:
    """Makes the Broker of each request, which acts as the application: guarded places only."""

    def __init__(self, engine: Engine, options: UrlOptions) -> None:
        self._engine = engine
        self._options = options

    def __call__(self, scope: Scope) -> Broker:
        """Give the Broker for a request."""
        origin = self.origin_of(scope)
        return Broker(
            self._engine,
            base_url=f"{origin}{self._options.base_path}",
            origin=origin,
            principal=self._principal(scope),
        )

    def origin_of(self, scope: Scope) -> str:
        """Give what URLs begin with: scheme and host as the client wrote them, and the path that
        this application is mounted at. Only that path where the request names no host.
        """
        origin = self._options.public_url
        if origin is None:
            origin = public_origin(
                _peer(scope),
                Fields(scope["headers"]).as_text(),
                scheme=scope["scheme"],
                trusted=self._options.proxies,
            )
        return f"{origin or ''}{quote(scope.get('root_path', ''))}"

    def _principal(self, scope: Scope) -> Principal:
        if self._engine.gate is None:
            return APPLICATION
        fields = Fields(scope["headers"]).as_text()
        credentials = Credentials(
            method=scope["method"],
            path=scope["path"],
            headers=fields,
            client=client_address(_peer(scope), fields, trusted=self._options.proxies),
        )
        return Principal(is_application=True, request=credentials)


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None
