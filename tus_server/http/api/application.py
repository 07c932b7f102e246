"""The JSON API as an ASGI application."""

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from tus_server.core.errors import TusServerError
from tus_server.engine.engine import Engine
from tus_server.http.api import events, jobs, judging, parts, uploads
from tus_server.http.api.documents import describe, make_document
from tus_server.http.api.replies import NO_STORE, refuse_request
from tus_server.http.api.routes import StrictRoute
from tus_server.http.api.streams import Streams
from tus_server.http.bounded import Bounded
from tus_server.http.brokers import Brokers


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """What shapes the API. version: of the server; has_token: whoever uses it needs one."""

    version: str
    body_idle_timeout_s: float
    has_token: bool


def api_app(engine: Engine, brokers: Brokers, options: ApiOptions) -> ASGIApp:
    """Give the application; only within a http.guard.Guard."""
    app = FastAPI(
        title="tus_server",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Not by include_router: that keeps them in an object of its own, whose paths and methods
        # nobody can list (FastAPI 0.165).
        routes=[
            route
            for part in (uploads, parts, judging, events, jobs)
            for route in part.router.routes
        ],
        exception_handlers={
            TusServerError: refuse_request,
            RequestValidationError: refuse_request,
            HTTPException: refuse_request,
        },
    )
    app.state.brokers = brokers
    app.state.engine = engine
    app.state.streams = Streams(engine)
    app.router.redirect_slashes = False
    app.router.route_class = StrictRoute
    _add_document(app, options)
    return Bounded(app, idle_timeout_s=options.body_idle_timeout_s)


def _add_document(app: FastAPI, options: ApiOptions) -> None:
    document: dict[str, Any] = {}

    @app.get(
        "/api/openapi.json",
        operation_id="getOpenapi",
        summary="This document",
        tags=["document"],
        response_model=dict[str, Any],
        response_description="The document.",
        responses=describe(),
    )
    async def get_openapi(request: Request) -> Response:
        """OpenAPI 3.1."""
        if not document:
            made = make_document(app, version=options.version, has_token=options.has_token)
            document.update(made)
        servers = [{"url": request.scope.get("root_path", "") or "/"}]
        return JSONResponse(document | {"servers": servers}, headers=NO_STORE)
