"""Replies of the API: JSON as the views have it, and refusals as problem documents."""

from collections.abc import Mapping

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from tus_server.core.errors import MalformedRequest, MethodNotAllowed, NotFound, TusServerError
from tus_server.http.errors import render_error
from tus_server.wire.upload_view import render

log = structlog.get_logger(__name__)

NO_STORE = {"cache-control": "no-store"}
_MAX_WRONG = 20  # of 10,000 parts every one may be wrong in the same way


class Shown(Response):
    """A view as JSON. What is not set in it is left out."""

    media_type = "application/json"

    def __init__(
        self, view: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(render(view), status, NO_STORE | dict(headers or {}))


def refuse(error: TusServerError) -> Response:
    """Give the reply that tells of an error."""
    status, headers, body = render_error(error, method="GET")
    if status >= 500:
        log.warning("request.refused", status=status, code=error.code, detail=error.detail)
    return Response(body, status, NO_STORE | {n.decode(): v.decode("latin-1") for n, v in headers})


async def refuse_request(request: Request, exc: Exception) -> Response:
    """Answer for whatever is raised on purpose."""
    if isinstance(exc, TusServerError):
        return refuse(exc)
    if isinstance(exc, RequestValidationError):
        return refuse(_malformed(exc))
    assert isinstance(exc, HTTPException)
    if exc.status_code == 405:
        return refuse(MethodNotAllowed(", ".join(_allowed(request))))
    return refuse(NotFound())


def _malformed(exc: RequestValidationError) -> MalformedRequest:
    """Tell what is wrong with which field; not what was given, which may be a secret."""
    wrong = [
        {"field": _render_place(error["loc"]), "message": error["msg"]}
        for error in exc.errors()[:_MAX_WRONG]
    ]
    first = wrong[0]
    more = f" ({len(exc.errors()) - 1} more)" if len(exc.errors()) > 1 else ""
    return MalformedRequest(f"{first['field']}: {first['message']}.{more}", errors=wrong)


def _render_place(place: tuple[int | str, ...]) -> str:
    """Give `parts[3].etag` for a field of the body; others begin with where they are."""
    pieces = list(place)
    if len(pieces) > 1 and pieces[0] == "body":
        pieces = pieces[1:]
    text = ""
    for piece in pieces:
        if isinstance(piece, int):
            text += f"[{piece}]"
        else:
            text += f".{piece[:100]}" if text else piece[:100]
    return text


def _allowed(request: Request) -> list[str]:
    """Give the methods of a path, of all routes that it has."""
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods)
