"""Endpoints for operators: is the process alive, can it take uploads; and a word at the root."""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tus_server.core.errors import TusServerError
from tus_server.engine.engine import Engine
from tus_server.http.errors import render_error


def ops_routes(engine: Engine, creation_path: str) -> list[Route]:
    """Give the routes beside the uploads."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        """Try what an upload needs: a durable write to the state and to the store."""
        try:
            engine.check_open()
            await engine.state.check()
            await engine.objects.check()
        except TusServerError as exc:
            _, headers, body = render_error(exc, method="GET")
            return Response(body, 503, {k.decode(): v.decode() for k, v in headers})
        return JSONResponse({"status": "ready", "leases": engine.leases.held})

    async def root(request: Request) -> Response:
        return PlainTextResponse(
            f"tus_server takes resumable uploads (tus 1.0.0) at {creation_path}\n"
        )

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/", root),
    ]
