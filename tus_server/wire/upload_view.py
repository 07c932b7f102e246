"""An upload as applications see it: in the JSON API, in webhooks, and as results of the Broker.

One definition for all three; the OpenAPI document is made of it. What an upload does not have for
its kind is not set, and render() leaves it out.
"""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from tus_server.core.direct import part_count
from tus_server.core.states import FINISHED, UploadState
from tus_server.core.upload import Protocol, Upload
from tus_server.ports import SignedRequest, StatusChange
from tus_server.wire.metadata import find_text, parse_metadata

# The strongest first: one of them is told.
_ALGORITHMS = ("sha512", "sha256", "sha1", "md5", "crc64nvme", "crc32c", "crc32")
_COMPLETE = FINISHED | {UploadState.DELETED}
_ENDED = frozenset({UploadState.ERROR, UploadState.CANCELED, UploadState.EXPIRED})

Progress = Literal["in_progress", "complete", "expired"]


class State(BaseModel):
    """A state of the life cycle, and since when."""

    state: UploadState
    state_on: datetime
    note: str | None = Field(default=None, description="What was said of it, where something was.")


class Status(BaseModel):
    """The current state, and those before it, newest first."""

    current: State
    prior: list[State]


class Failure(BaseModel):
    """Why an upload is in state error."""

    code: str = Field(description="Stable.", examples=["digest_mismatch"])
    message: str = Field(description="For people.")


class Object(BaseModel):
    """Where the finished object is."""

    url: str = Field(description="Where this server gives it out.")
    key: str | None = Field(default=None, description="In the bucket, where there is one.")


class Checksum(BaseModel):
    """A checksum of the whole content."""

    algorithm: str = Field(examples=["sha256"])
    value: str = Field(description="Base64.", json_schema_extra={"contentEncoding": "base64"})


class SignedPut(BaseModel):
    """A request that sends bytes to the store, without other credentials, until it expires."""

    method: str = Field(examples=["PUT"])
    url: str
    headers: dict[str, str] = Field(description="To be sent exactly so.")
    expires_at: datetime


class SignedPart(SignedPut):
    """The request that sends one part."""

    part_number: int = Field(ge=1)


class Multipart(BaseModel):
    """How a multipart upload is cut."""

    part_size_bytes: int = Field(ge=1, description="Of every part but the last.")
    part_count: int = Field(ge=1)
    part_headers: dict[str, str] = Field(
        description="Sent with each part beside what the signing tells."
    )


class Tus(BaseModel):
    """Where a tus client sends the bytes."""

    url: str


class Moved(BaseModel):
    """How far an upload has got."""

    committed_bytes: int
    length: int | None
    progress: Progress


class UploadView(BaseModel):
    """An upload. Of put, multipart and tus it has what is for its kind."""

    id: str
    kind: Protocol = Field(description="single and multipart are direct uploads.")
    file_id: str | None = Field(description="What the application knows the file by.")
    filename: str | None
    content_type: str | None = Field(description="As claimed.")
    detected_type: str | None = Field(description="As its first bytes tell, once it is verified.")
    metadata: dict[str, str] = Field(description="Texts by name; filename and type are in it.")
    length: int | None = Field(ge=0, description="In bytes; null while nobody has told.")
    committed_bytes: int = Field(ge=0, description="Bytes that are durable.")
    progress: Progress = Field(
        description="complete: the object is there and right; expired: it never will be."
    )
    status: Status
    error: Failure | None = Field(description="Of one in state error only.")
    object: Object | None = Field(description="Of one that is verified, accepted or rejected.")
    checksum: Checksum | None = Field(description="The strongest one known.")
    require_acceptance: bool = Field(description="Whether the application's verdict decides.")
    created_at: datetime
    expires_at: datetime | None = Field(description="When it is given up unless it is complete.")
    completed_at: datetime | None = Field(
        description="When its outcome was decided, and the job for that enqueued."
    )
    put: SignedPut | None = Field(
        default=None, description="The request that sends a single upload, when it is begun."
    )
    multipart: Multipart | None = None
    tus: Tus | None = None


def view_upload(
    upload: Upload, history: Sequence[StatusChange], *, base_url: str, now: datetime
) -> UploadView:
    """Give an upload as applications see it.

    history: newest first. base_url: of the creation URL, with its slash; now: for what has expired
    and was not reaped yet.
    """
    metadata = parse_metadata(upload.metadata)
    texts = {name: value.decode("utf-8", errors="replace") for name, value in metadata.items()}
    states = [_view_state(one) for one in history]
    url = f"{base_url}{upload.id}"
    view = UploadView(
        id=upload.id,
        kind=upload.protocol,
        file_id=upload.file_id,
        filename=find_text(metadata, "filename", "name"),
        content_type=find_text(metadata, "filetype", "type", "contentType"),
        detected_type=upload.content_type,
        metadata=texts,
        length=upload.length,
        committed_bytes=upload.offset,
        progress=find_progress(upload, now),
        status=Status(
            # A row that was read before its history may be older than that.
            current=states[0] if states else State(state=upload.state, state_on=upload.state_on),
            prior=states[1:],
        ),
        error=_find_failure(upload),
        object=Object(url=url, key=upload.object_key) if upload.state in FINISHED else None,
        checksum=_find_checksum(upload),
        require_acceptance=upload.instructions.require_acceptance,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        completed_at=upload.completed_at,
    )
    if upload.protocol is Protocol.TUS:
        view.tus = Tus(url=url)
    elif upload.protocol is Protocol.MULTIPART:
        assert upload.length is not None
        assert upload.part_size is not None
        count = part_count(upload.length, upload.part_size)
        view.multipart = Multipart(
            part_size_bytes=upload.part_size, part_count=count, part_headers={}
        )
    return view


def view_signed(number: int, request: SignedRequest, *, origin: str) -> SignedPart:
    """Give a signed request. origin: scheme and host of this server, for a path on it."""
    url = f"{origin}{request.url}" if request.url.startswith("/") else request.url
    return SignedPart(
        part_number=number,
        method=request.method,
        url=url,
        headers=dict(request.headers),
        expires_at=request.expires_at,
    )


def view_put(request: SignedRequest, *, origin: str) -> SignedPut:
    """Give the request that sends the whole of an upload. origin: as in view_signed."""
    url = f"{origin}{request.url}" if request.url.startswith("/") else request.url
    return SignedPut(
        method=request.method,
        url=url,
        headers=dict(request.headers),
        expires_at=request.expires_at,
    )


def find_progress(upload: Upload, now: datetime) -> Progress:
    """Tell in one word how far it is: complete is what the store has been found to have."""
    if upload.state in _COMPLETE:
        return "complete"
    is_late = upload.expires_at is not None and upload.expires_at <= now
    if upload.state in _ENDED or (is_late and upload.state is not UploadState.COMPLETED):
        return "expired"
    return "in_progress"


def render(view: BaseModel) -> bytes:
    """Give a view as JSON."""
    return view.model_dump_json(exclude_unset=True).encode()


def _view_state(change: StatusChange) -> State:
    if change.note is None:
        return State(state=change.state, state_on=change.at)
    return State(state=change.state, state_on=change.at, note=change.note)


def _find_failure(upload: Upload) -> Failure | None:
    if upload.error_code is None:
        return None
    return Failure(code=upload.error_code, message=upload.error_message or "")


def _find_checksum(upload: Upload) -> Checksum | None:
    known = {name: value for name, value in upload.digests.items() if value is not None}
    if upload.crc64 is not None and upload.state in FINISHED:
        known.setdefault("crc64nvme", upload.crc64.to_bytes(8, "big"))
    for algorithm in _ALGORITHMS:
        if algorithm in known:
            return Checksum(algorithm=algorithm, value=b64encode(known[algorithm]).decode())
    return None
