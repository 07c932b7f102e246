"""What the server answers beside uploads, by the first piece of the path."""

from collections.abc import Mapping

from starlette.types import ASGIApp

from tus_server.http.body import Receive
from tus_server.http.exchange import Scope, Send

API = "/api/"
COMPANION = "/companion/"


class Places:
    """Sends a request to the application of its place (`/api/`, with slashes), others elsewhere."""

    def __init__(self, places: Mapping[str, ASGIApp], others: ASGIApp) -> None:
        self._places = dict(places)
        self._others = others

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What paths at a place begin with."""
        return tuple(self._places)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = own_path(scope)
        end = path.find("/", 1)
        place = self._others if end < 0 else self._places.get(path[: end + 1], self._others)
        await place(scope, receive, send)


def own_path(scope: Scope) -> str:
    """Give the path of a request without that of the application this one is mounted in."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
