"""The route that streams what becomes of an upload, as server-sent events."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from tus_server.broker import Changed
from tus_server.http.api.documents import EVENT, describe
from tus_server.http.api.parameters import AnUploadId, BrokerOfRequest
from tus_server.http.api.replies import NO_STORE
from tus_server.http.api.routes import StrictRoute
from tus_server.http.api.streams import EventStream, Streams
from tus_server.wire import event_stream

router = APIRouter(route_class=StrictRoute, tags=["uploads"])


@router.get(
    "/api/uploads/{upload_id}/events",
    operation_id="followUpload",
    summary="Follow an upload",
    status_code=200,
    response_class=EventStream,
    responses=describe(404)
    | {
        200: {
            "description": "`event: status` with the upload on each change of its state, the id its"
            " position in the history; `event: progress` with `committed_bytes`, `length` and"
            " `progress`, at most once a second.",
            "content": {
                event_stream.CONTENT_TYPE.decode(): {
                    "schema": EVENT,
                }
            },
        },
        204: {"description": "The change named was the last one: do not connect again."},
    },
)
async def follow_upload(
    request: Request,
    broker: BrokerOfRequest,
    upload_id: AnUploadId,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="The last change that the client knows: the stream begins behind it.",
            examples=["2"],
        ),
    ] = None,
) -> Response:
    """An EventSource of a browser, or anything else that reads lines. It ends when the upload is
    accepted, rejected, canceled, deleted, expired or in error, or verified where no acceptance is
    required.
    """
    streams: Streams = request.app.state.streams
    after = event_stream.find_last_id(last_event_id)
    watch = await broker.watch(upload_id, after=after)
    news = await watch.look()
    # HTML, 9.2.2: 204 is the way to tell an EventSource to stop reconnecting.
    if after is not None and watch.is_over and not any(isinstance(one, Changed) for one in news):
        return Response(status_code=204, headers=NO_STORE)
    return EventStream(watch, news, streams)
