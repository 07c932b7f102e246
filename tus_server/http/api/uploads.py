"""Routes of uploads as such: begin, list, look, delete."""

from base64 import b64decode
from typing import Annotated

from fastapi import APIRouter, Query, Response

from tus_server.broker import About, Job
from tus_server.broker import Query as Listing
from tus_server.broker.request import checked_file_id
from tus_server.http.api.cursor import find_cursor, render_cursor
from tus_server.http.api.documents import ANY_STATUS, describe
from tus_server.http.api.models import ListQuery, NewUpload, UploadList, WantedJob
from tus_server.http.api.parameters import AnUploadId, BrokerOfRequest, CreationKey
from tus_server.http.api.replies import Shown
from tus_server.http.api.routes import StrictRoute
from tus_server.wire.upload_view import UploadView

router = APIRouter(route_class=StrictRoute, tags=["uploads"])

_LOCATION = {"Location": {"description": "The upload in this API.", "schema": {"type": "string"}}}
_LINKED = ("getUpload", "signParts", "listParts", "completeUpload", "acceptUpload", "deleteUpload")
_LINKS = {
    operation: {"operationId": operation, "parameters": {"upload_id": "$response.body#/id"}}
    for operation in _LINKED
}


@router.post(
    "/api/uploads",
    operation_id="createUpload",
    summary="Begin an upload",
    status_code=201,
    response_model=UploadView,
    responses=describe(409, 413, 415, 422, 507, ANY_STATUS)
    | {
        201: {
            "description": "It has begun, now or by an earlier request.",
            "headers": _LOCATION,
            "links": _LINKS,
        }
    },
)
async def create_upload(
    broker: BrokerOfRequest, wanted: NewUpload, key: CreationKey = None
) -> Response:
    """The bytes of a direct upload go from the client to the store, by requests that are signed for
    it; `put` has that of a single upload. A tus client sends to `tus.url`.
    """
    view = await broker.initiate(wanted.kind, size=wanted.size, **_about(wanted, key))
    return Shown(view, 201, {"location": f"{broker.origin}/api/uploads/{view.id}"})


@router.get(
    "/api/uploads",
    operation_id="listUploads",
    summary="List uploads, newest first",
    response_model=UploadList,
    response_description="A page.",
    responses=describe(),
)
async def list_uploads(broker: BrokerOfRequest, wanted: Annotated[ListQuery, Query()]) -> Response:
    """Uploads of every kind, page by page. What begins meanwhile shifts no page."""
    query = Listing(
        file_id=checked_file_id(wanted.file_id),
        states=None if wanted.state is None else frozenset(wanted.state),
        before=find_cursor(wanted.cursor),
        limit=wanted.limit + 1,  # one more tells whether there is another page
    )
    found = await broker.list(query)
    page = list(found[: wanted.limit])
    more = len(found) > wanted.limit
    return Shown(UploadList(uploads=page, next_cursor=render_cursor(page[-1].id) if more else None))


@router.get(
    "/api/uploads/{upload_id}",
    operation_id="getUpload",
    summary="Look at an upload",
    response_model=UploadView,
    response_description="The upload.",
    responses=describe(404),
)
async def get_upload(broker: BrokerOfRequest, upload_id: AnUploadId) -> Response:
    """An upload of any kind, in whatever state, with its history."""
    return Shown(await broker.find(upload_id))


@router.delete(
    "/api/uploads/{upload_id}",
    operation_id="deleteUpload",
    summary="Cancel or delete an upload",
    response_model=UploadView,
    response_description="The upload, which has ended.",
    responses=describe(404, 409, 410, 423, 507, ANY_STATUS),
)
async def delete_upload(broker: BrokerOfRequest, upload_id: AnUploadId) -> Response:
    """An unfinished upload is canceled, a finished one deleted, with its bytes. Of one that has
    ended nothing is changed.
    """
    return Shown(await broker.cancel_resumable_session(upload_id))


def _about(wanted: NewUpload, key: str | None) -> About:
    checksum = wanted.checksum
    return {
        "filename": wanted.filename,
        "content_type": wanted.content_type,
        "metadata": wanted.metadata,
        "file_id": wanted.file_id,
        "checksum": None if checksum is None else (checksum.algorithm, b64decode(checksum.value)),
        "success_job": _job(wanted.success_job),
        "failure_job": _job(wanted.failure_job),
        "expires_in_s": wanted.expires_in_s,
        "require_acceptance": wanted.require_acceptance,
        "auto_complete": wanted.auto_complete,
        "part_size_bytes": wanted.part_size_bytes,
        "idempotency_key": key,
    }


def _job(wanted: WantedJob | None) -> Job | None:
    return None if wanted is None else Job(wanted.name, wanted.kwargs)
