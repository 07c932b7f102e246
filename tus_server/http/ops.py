"""Endpoints for operators: is the process alive, can it take uploads; and what is at the root."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tus_server.core.errors import MethodNotAllowed, NotFound, TusServerError
from tus_server.engine.engine import Engine
from tus_server.http.errors import render_error
from tus_server.http.page import Page


def ops_app(engine: Engine, creation_path: str, page: Page | None) -> Starlette:
    """Give the application beside the uploads; what it does not know is a problem document.

    page None: a word at the root, where else the page is.
    """

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        """Try what an upload needs: a durable write to the state and to the store."""
        try:
            engine.check_open()
            await engine.state.check()
            await engine.objects.check()
            if engine.tails is not None:
                await engine.tails.check()
        except TusServerError as exc:
            return _refusal(exc, status=503)
        return JSONResponse({"status": "ready", "leases": engine.leases.held})

    async def root(request: Request) -> Response:
        return PlainTextResponse(
            f"tus_server takes resumable uploads (tus 1.0.0) at {creation_path}\n"
        )

    async def refuse(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        allow = (exc.headers or {}).get("Allow", "")
        return _refusal(MethodNotAllowed(allow) if exc.status_code == 405 else NotFound())

    at_root = [Route("/", root)] if page is None else page.routes()
    app = Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), *at_root],
        exception_handlers={HTTPException: refuse},
    )
    app.router.redirect_slashes = False
    return app


def _refusal(error: TusServerError, status: int | None = None) -> Response:
    usual, headers, body = render_error(error, method="GET")
    fields = {name.decode(): value.decode() for name, value in headers}
    return Response(body, status or usual, fields)
