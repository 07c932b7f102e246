"""The route that lets a dead letter be tried again; `tus-server jobs retry` uses it too."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from tus_server.core.errors import NotFound
from tus_server.engine.engine import Engine
from tus_server.http.api.documents import describe
from tus_server.http.api.parameters import AnyKey
from tus_server.http.api.replies import Shown
from tus_server.http.api.routes import StrictRoute
from tus_server.wire.event_view import EventView, view_event

router = APIRouter(route_class=StrictRoute, tags=["jobs"])

MAX_ID = 2**63 - 1
_RESPONSES = describe(404)
_RESPONSES[404] = _RESPONSES[404] | {"description": "There is no such event."}


@router.post(
    "/api/jobs/{event_id}/retry",
    operation_id="retryJob",
    summary="Deliver an event again that was given up",
    response_model=EventView,
    response_description="The event.",
    responses=_RESPONSES,
)
async def retry_job(
    request: Request,
    event_id: Annotated[
        int,
        Path(ge=1, le=MAX_ID, description="As `tus-server jobs ls` shows it.", examples=[17]),
    ],
    key: AnyKey = None,
) -> Response:
    """From now on, as if it were new. Gives the event; one that is no dead letter is left alone."""
    engine: Engine = request.app.state.engine
    await engine.state.retry_event(event_id)
    event = await engine.state.find_event(event_id)
    if event is None:
        raise NotFound("There is no such event.")
    return Shown(view_event(event))
