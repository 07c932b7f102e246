"""What the API is told, and the answers that are more than an upload."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tus_server.broker.request import MAX_FILE_ID_CHARS, MAX_NOTE_CHARS, Kind
from tus_server.core.direct import MAX_PARTS
from tus_server.core.states import UploadState
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER
from tus_server.engine.direct.sign import MOST_AT_ONCE
from tus_server.engine.listing import MOST
from tus_server.wire.upload_view import Progress, SignedPart, UploadView

Algorithm = Literal["sha512", "sha256", "sha1", "md5", "crc64nvme", "crc32c", "crc32"]


def _as_integer(number: object) -> object:
    # JSON has one kind of number: 7.0 is 7 (JSON Schema, 6.1.1).
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number


# The bounds within: else they are not in the document.
Size = Annotated[int, Field(ge=0, le=MAX_ANNOUNCED_INTEGER), BeforeValidator(_as_integer)]
PartSize = Annotated[int, Field(ge=1, le=MAX_ANNOUNCED_INTEGER), BeforeValidator(_as_integer)]
PartNumber = Annotated[int, Field(ge=1, le=MAX_PARTS), BeforeValidator(_as_integer)]
_BASE64: dict[str, Any] = {"contentEncoding": "base64"}


class Told(BaseModel):
    """What comes in: nothing is converted, nothing unknown passed over."""

    model_config = ConfigDict(extra="forbid", strict=True)


class WantedChecksum(Told):
    """A checksum that the whole content has to have."""

    algorithm: Algorithm
    value: str = Field(
        max_length=88,
        pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        json_schema_extra=_BASE64,
    )


class WantedJob(Told):
    """A completion job, and where it goes: the URL of a webhook, `procrastinate:QUEUE/TASK`, or the
    dotted path of a Python callable, as the server's settings allow.
    """

    name: str = Field(min_length=1, max_length=2048)
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Passed on as they are.")


class NewUpload(Told):
    """An upload to begin."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "single", "size": 48213, "filename": "report.pdf"},
                {
                    "kind": "multipart",
                    "size": 1073741824,
                    "filename": "video.mp4",
                    "content_type": "video/mp4",
                    "file_id": "lecture-17",
                    "success_job": {
                        "name": "https://app.example.com/uploaded",
                        "kwargs": {"n": 17},
                    },
                },
                {"kind": "tus", "filename": "notes.txt", "require_acceptance": True},
            ]
        }
    )

    kind: Kind = Field(
        description="single: one signed PUT. multipart: signed PUTs of parts, in parallel. tus: a"
        " tus client sends it to this server."
    )
    size: Size | None = Field(None, description="In bytes. Only a tus client may tell it later.")
    filename: str | None = Field(None, max_length=1024)
    content_type: str | None = Field(None, max_length=255, description="As claimed.")
    metadata: dict[str, str] | None = Field(
        None, description="Texts by name, visible ASCII without commas; 8 KiB in all."
    )
    file_id: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_FILE_ID_CHARS,
        description="What the application knows the file by. At most one upload of it is active.",
    )
    checksum: WantedChecksum | None = Field(
        None, description="Of the whole content; of another the upload ends in state error."
    )
    success_job: WantedJob | None = Field(
        None, description="Enqueued once the upload is verified, or accepted; else the server's."
    )
    failure_job: WantedJob | None = Field(
        None, description="Enqueued if it comes to any other end; else the server's."
    )
    expires_in_s: float | None = Field(
        None, gt=0, le=315360000, description="Seconds until it is given up unless complete."
    )
    require_acceptance: bool = Field(
        default=False, description="The outcome is the application's verdict: accept or reject."
    )
    auto_complete: bool = Field(
        default=False, description="A direct upload is complete when its last part has arrived."
    )
    part_size_bytes: PartSize | None = Field(
        None,
        description="Of every part but the last, of a multipart upload; else the server plans.",
    )


class PartNumbers(Told):
    """Which parts to sign. Without numbers: the first 1,000 that have not arrived."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"part_numbers": [1, 2, 3]}]})

    part_numbers: list[PartNumber] | None = Field(None, max_length=MOST_AT_ONCE)


class ReportedPart(Told):
    """A part, with what its PUT was answered with."""

    part_number: PartNumber
    etag: str = Field(min_length=1, max_length=256)
    checksum: str | None = Field(
        None,
        description="CRC-64/NVME of the part, eight bytes, as the client has computed it.",
        pattern=r"^[A-Za-z0-9+/]{11}=$",
        json_schema_extra=_BASE64,
    )


class Completion(Told):
    """All parts of a direct upload. Without them: whatever has arrived."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"parts": [{"part_number": 1, "etag": '"b1946ac9"'}]}]}
    )

    parts: list[ReportedPart] | None = Field(None, max_length=MAX_PARTS)


class Judgement(Told):
    """What is kept in the history beside the verdict."""

    note: str | None = Field(None, max_length=MAX_NOTE_CHARS)


class ListQuery(BaseModel):
    """Which uploads to list."""

    model_config = ConfigDict(extra="forbid")

    file_id: str | None = Field(None, min_length=1, max_length=MAX_FILE_ID_CHARS)
    state: list[UploadState] | None = Field(None, description="Any of these; may be repeated.")
    cursor: str | None = Field(
        None, max_length=200, description="`next_cursor` of the page before; opaque."
    )
    limit: int = Field(50, ge=1, le=MOST)


# --- answers


class UploadList(BaseModel):
    """A page of uploads, newest first. next_cursor: null on the last one."""

    uploads: list[UploadView]
    next_cursor: str | None


class SignedParts(BaseModel):
    """The requests that send parts."""

    parts: list[SignedPart]


class PartView(BaseModel):
    """A part, planned or arrived. start: its first byte in the file. checksum: CRC-64/NVME."""

    part_number: int
    start: int
    size: int
    arrived: bool
    etag: str | None
    checksum: str | None


class PartList(BaseModel):
    """All parts of a direct upload."""

    id: str
    length: int
    committed_bytes: int
    progress: Progress
    parts: list[PartView]


class Wrong(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    message: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457). What else it says depends on the code."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "title": "Another upload of this file_id is active",
                    "status": 409,
                    "code": "file_id_taken",
                    "upload": "0123456789abcdef0123456789abcdef",
                    "state": "receiving",
                }
            ]
        },
    )

    title: str
    status: int = Field(ge=400, le=599)
    code: str = Field(description="Stable; README.md says what to do about each.")
    type: str | None = None
    detail: str | None = Field(None, description="For people.")
    errors: list[Wrong] | None = Field(None, description="Of a body or query that was not taken.")
