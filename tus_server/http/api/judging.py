"""Routes of the application's verdict."""

from typing import Annotated

from fastapi import APIRouter, Body, Response

from tus_server.http.api.documents import describe
from tus_server.http.api.models import Judgement
from tus_server.http.api.parameters import AnUploadId, AnyKey, BrokerOfRequest
from tus_server.http.api.replies import Shown
from tus_server.http.api.routes import StrictRoute
from tus_server.wire.upload_view import UploadView

router = APIRouter(route_class=StrictRoute, tags=["verdicts"])

_REFUSALS = describe(404, 409, 413, 415, 423, 507)


@router.post(
    "/api/uploads/{upload_id}/accept",
    operation_id="acceptUpload",
    summary="Accept a verified upload",
    response_model=UploadView,
    response_description="The upload.",
    responses=_REFUSALS,
)
async def accept_upload(
    broker: BrokerOfRequest,
    upload_id: AnUploadId,
    told: Annotated[Judgement | None, Body()] = None,
    key: AnyKey = None,
) -> Response:
    """For good: an accepted upload can only be deleted."""
    return Shown(await broker.accept(upload_id, note=None if told is None else told.note))


@router.post(
    "/api/uploads/{upload_id}/reject",
    operation_id="rejectUpload",
    summary="Reject a verified upload",
    response_model=UploadView,
    response_description="The upload.",
    responses=_REFUSALS,
)
async def reject_upload(
    broker: BrokerOfRequest,
    upload_id: AnUploadId,
    told: Annotated[Judgement | None, Body()] = None,
    key: AnyKey = None,
) -> Response:
    """For good: a rejected upload is served to nobody, and its file_id is free again."""
    return Shown(await broker.reject(upload_id, note=None if told is None else told.note))
