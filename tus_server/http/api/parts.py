"""Routes of direct uploads: sign parts, look at them, complete."""

from base64 import b64decode, b64encode
from typing import Annotated

from fastapi import APIRouter, Body, Header, Request, Response

from tus_server.broker import FoundParts, Reported, SignedPart, UploadView
from tus_server.core.states import UploadState
from tus_server.core.upload import Part
from tus_server.http.api.documents import describe
from tus_server.http.api.models import (
    Completion,
    PartList,
    PartNumbers,
    PartView,
    ReportedPart,
    SignedParts,
)
from tus_server.http.api.parameters import AnUploadId, AnyKey, BrokerOfRequest
from tus_server.http.api.replies import Shown
from tus_server.http.api.routes import StrictRoute
from tus_server.wire.prefer import find_wait_s

router = APIRouter(route_class=StrictRoute, tags=["direct uploads"])

# Proxies give up on an answer after a minute.
MOST_WAIT_S = 30
_APPLIED = {
    "Preference-Applied": {
        "description": "How long was waited at most, where Prefer asked for it.",
        "schema": {"type": "string"},
    }
}


@router.post(
    "/api/uploads/{upload_id}/sign",
    operation_id="signUpload",
    summary="Sign the PUT of a single upload",
    response_model=SignedParts,
    response_description="The request.",
    responses=describe(404, 409, 410, 423, 507),
)
async def sign_upload(
    broker: BrokerOfRequest, upload_id: AnUploadId, key: AnyKey = None
) -> Response:
    """Once more: the earlier requests stay good until they expire."""
    return _show_signed([await broker.sign_url(upload_id)])


@router.post(
    "/api/uploads/{upload_id}/parts/sign",
    operation_id="signParts",
    summary="Sign the PUTs of parts",
    response_model=SignedParts,
    response_description="The requests.",
    responses=describe(404, 409, 410, 413, 415, 423, 507),
)
async def sign_parts(
    broker: BrokerOfRequest,
    upload_id: AnUploadId,
    wanted: Annotated[PartNumbers | None, Body()] = None,
    key: AnyKey = None,
) -> Response:
    """Parts may be sent in any order and in parallel. One that is sent again replaces the first."""
    numbers = None if wanted is None else wanted.part_numbers
    return _show_signed(await broker.sign_parts(upload_id, numbers))


@router.get(
    "/api/uploads/{upload_id}/parts",
    operation_id="listParts",
    summary="List what has arrived",
    response_model=PartList,
    response_description="The parts.",
    responses=describe(404),
)
async def list_parts(broker: BrokerOfRequest, upload_id: AnUploadId) -> Response:
    """All parts of a direct upload, planned and arrived, after a look into the store."""
    found = await broker.find_parts(upload_id)
    return Shown(_view_parts(found))


@router.post(
    "/api/uploads/{upload_id}/complete",
    operation_id="completeUpload",
    summary="Say that all parts are there",
    status_code=202,
    response_model=UploadView,
    responses=describe(404, 409, 410, 413, 415, 423, 507)
    | {
        202: {"description": "The store makes the object behind this.", "headers": _APPLIED},
        200: {
            "model": UploadView,
            "description": "With `Prefer: wait=N`: it is verified, or has ended.",
            "headers": _APPLIED,
        },
    },
)
async def complete_upload(
    request: Request,
    broker: BrokerOfRequest,
    upload_id: AnUploadId,
    told: Annotated[Completion | None, Body()] = None,
    prefer: Annotated[
        str | None,
        Header(
            description="`wait=N`: answer once it is verified, or after N seconds, at most 30.",
            examples=["wait=10"],
        ),
    ] = None,
    key: AnyKey = None,
) -> Response:
    """Every part is compared with what is reported. What differs is a conflict, which changes
    nothing: send that part again, and complete again. Without parts it is whatever has arrived.
    """
    wait_s = find_wait_s(",".join(request.headers.getlist("prefer")), most_s=MOST_WAIT_S)
    reported = None if told is None or told.parts is None else [_read(one) for one in told.parts]
    view = await broker.complete_multipart_upload(upload_id, reported, wait_s=wait_s or 0.0)
    if wait_s is None:
        return Shown(view, 202)
    is_decided = view.status.current.state is not UploadState.COMPLETED
    return Shown(view, 200 if is_decided else 202, {"preference-applied": f"wait={wait_s}"})


def _show_signed(signed: list[SignedPart]) -> Response:
    return Shown(SignedParts.model_construct(parts=signed))


def _view_parts(found: FoundParts) -> PartList:
    view = found.upload
    assert view.length is not None
    return PartList.model_construct(
        id=view.id,
        length=view.length,
        committed_bytes=view.committed_bytes,
        progress=view.progress,
        parts=[_view_part(part) for part in found.parts],
    )


def _view_part(part: Part) -> PartView:
    arrived = part.etag is not None
    crc64 = part.crc64 if arrived else None
    return PartView.model_construct(
        part_number=part.number,
        start=part.start,
        size=part.size,
        arrived=arrived,
        etag=part.etag,
        checksum=None if crc64 is None else b64encode(crc64.to_bytes(8, "big")).decode(),
    )


def _read(part: ReportedPart) -> Reported:
    checksum = part.checksum
    crc64 = None if checksum is None else int.from_bytes(b64decode(checksum), "big")
    return Reported(part.part_number, part.etag, crc64)
