"""How a route of the API reads its body, and what becomes of a defect."""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tus_server.core.errors import TusServerError, UnsupportedMediaType
from tus_server.http.api.replies import refuse
from tus_server.http.errors import Defect
from tus_server.wire.headers import media_type
from tus_server.wire.strict_json import parse_json

log = structlog.get_logger(__name__)

Answer = Callable[[Request], Coroutine[Any, Any, Response]]


class _ReadRequest(Request):
    """A request whose body has been read, by stricter rules than FastAPI has."""

    def __init__(self, request: Request, content: bytes, document: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._content = content
        self._document = document

    async def body(self) -> bytes:
        return self._content

    async def json(self) -> Any:
        return self._document


class StrictRoute(APIRoute):
    """A route that takes JSON as wire.strict_json has it, and says so of everything else."""

    def get_route_handler(self) -> Answer:
        answer = super().get_route_handler()
        has_body = self.body_field is not None

        async def strict(request: Request) -> Response:
            if has_body:
                request = await _read(request)
            try:
                return await answer(request)
            except (TusServerError, HTTPException, RequestValidationError):
                raise
            except Exception as exc:
                log.exception("request.defect", method=request.method, path=request.url.path)
                return refuse(Defect(type(exc).__name__))

        return strict


async def _read(request: Request) -> Request:
    """Raises: UnsupportedMediaType, MalformedRequest."""
    content = await request.body()
    if not content:
        return request
    # Forms and texts too: a page of any origin may send those without asking (Fetch, 2.2.2).
    if media_type(request.headers.get("content-type", "").encode("latin-1")) != _JSON:
        raise UnsupportedMediaType("Send application/json.")
    return _ReadRequest(request, content, parse_json(content))


_JSON = b"application/json"
