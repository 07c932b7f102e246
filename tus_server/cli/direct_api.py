"""The JSON API of a server, as far as a client that sends direct uploads needs it."""

import json
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urljoin

import requests
from pydantic import AfterValidator, Base64Bytes, BaseModel, ValidationError

from tus_server.cli.asking import ask, shown_url
from tus_server.cli.replies import (
    Reply,
    TransferFailed,
    UploadGone,
    find_problem,
    plain_refusal,
)
from tus_server.core.states import UploadState
from tus_server.wire.upload_view import Failure, Multipart, Object, SignedPart, Status

# Ten thousand parts with their ETags are less than two.
_MAX_REPLY_SIZE: Final = 16 * 1024 * 1024

_Model = TypeVar("_Model", bound=BaseModel)


def plain_etag(text: str) -> str:
    """Give an ETag without its quotes, which not everybody shows."""
    return text.strip('"')


class DirectUpload(BaseModel):
    """What this client wants to know of an upload; a server may tell more."""

    id: str
    length: int
    status: Status
    error: Failure | None = None
    object: Object | None = None
    multipart: Multipart

    @property
    def state(self) -> UploadState:
        return self.status.current.state


class StoredPart(BaseModel):
    """A part as the server lists it; one without an ETag has not arrived.

    checksum: CRC-64/NVME, where the store tells it.
    """

    part_number: int
    etag: Annotated[str, AfterValidator(plain_etag)] | None = None
    checksum: Base64Bytes | None = None

    @property
    def crc64(self) -> int | None:
        return None if self.checksum is None else int.from_bytes(self.checksum, "big")


class _Listed(BaseModel):
    parts: list[StoredPart]


class _Signed(BaseModel):
    parts: list[SignedPart]


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part that the store has confirmed, with the CRC-64/NVME of what was sent.

    etag: as plain_etag() gives it.
    """

    number: int
    etag: str
    crc64: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """The request that sends one part. ends_s: when it is refused, by time.monotonic()."""

    method: str
    url: str
    headers: Mapping[str, str]
    ends_s: float


class DirectApi:
    """Raises of every method: TransferFailed, ServerUnreachable among them.

    The header fields, the token with them, go to the API alone and never to the store.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str]) -> None:
        self.endpoint = endpoint
        self._session = open_session()
        self._session.headers.update(headers)

    def close(self) -> None:
        self._session.close()

    def begin(self, request: Mapping[str, Any], *, key: str) -> DirectUpload:
        """Begin an upload, or give the one that the same request has begun under this key."""
        headers = {"Idempotency-Key": key}
        return self._ask(DirectUpload, "POST", "", request, headers=headers)

    def find(self, id: str) -> DirectUpload:
        """Give an upload. Raises: UploadGone."""
        return self._ask(DirectUpload, "GET", f"/{id}")

    def find_parts(self, id: str) -> dict[int, StoredPart]:
        """Give the parts that have arrived, by number. Raises: UploadGone."""
        parts = self._ask(_Listed, "GET", f"/{id}/parts").parts
        return {part.part_number: part for part in parts if part.etag is not None}

    def sign(self, id: str, numbers: Sequence[int]) -> dict[int, Ticket]:
        """Sign the requests that send these parts. Raises: UploadGone."""
        url = f"{self.endpoint}/{id}/parts/sign"
        asked_s = time.monotonic()
        reply = self._request("POST", url, {"part_numbers": numbers})
        signed = _parse(_Signed, "POST", url, reply)
        signed_at = _find_date(reply)
        return {
            part.part_number: Ticket(
                part.method,
                urljoin(url, part.url),
                part.headers,
                asked_s + part.expires_at.timestamp() - signed_at,
            )
            for part in signed.parts
        }

    def complete(self, id: str, parts: Iterable[SentPart], *, wait_s: int) -> DirectUpload:
        """Say that all parts are there; the answer comes when verified, at most wait_s later.

        Raises: UploadGone.
        """
        report = [
            {
                "part_number": part.number,
                "etag": part.etag,
                "checksum": b64encode(part.crc64.to_bytes(8, "big")).decode(),
            }
            for part in parts
        ]
        headers = {"Prefer": f"wait={wait_s}"}
        return self._ask(
            DirectUpload, "POST", f"/{id}/complete", {"parts": report}, headers=headers
        )

    def cancel(self, id: str) -> None:
        """Cancel an unfinished upload. Raises: UploadGone."""
        self._request("DELETE", f"{self.endpoint}/{id}")

    def _ask(
        self,
        model: type[_Model],
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> _Model:
        url = f"{self.endpoint}{path}"
        return _parse(model, method, url, self._request(method, url, body, headers or {}))

    def _request(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        fields = {"Accept": "application/json", **(headers or {})}
        content = None
        if body is not None:
            fields["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        reply = ask(self._session, method, url, fields, content, max_reply_size=_MAX_REPLY_SIZE)
        if not 200 <= reply.status < 300:
            raise _refusal(method, url, reply)
        return reply


def open_session() -> requests.Session:
    """Open a session that shows no credentials but those it is given."""
    session = requests.Session()
    # Without this, requests looks for a password in ~/.netrc and puts it into Authorization.
    session.auth = lambda request: request
    return session


def _parse(model: type[_Model], method: str, url: str, reply: Reply) -> _Model:
    try:
        return model.model_validate_json(reply.content)
    except ValidationError as exc:
        raise TransferFailed(
            f"{shown_url(url)} answered {method} with what is no answer of this API"
        ) from exc


def _refusal(method: str, url: str, reply: Reply) -> TransferFailed:
    problem = find_problem(reply)
    code = problem.get("code")
    shown = shown_url(url)
    if (code is None and reply.status in (404, 405, 410)) or 300 <= reply.status < 400:
        failure = plain_refusal(method, shown, reply, may_pass=False)
        return TransferFailed(f"{failure}, so it seems to have no API for direct uploads")
    if code in ("upload_not_found", "upload_gone"):
        return UploadGone(f"the server does not have {shown} any more")
    if code == "file_id_taken":
        return TransferFailed(
            f"an upload of this file_id is there already: {problem.get('upload')}, which is "
            f"{problem.get('state') or 'active'}; remove that one first"
        )
    if reply.status == HTTPStatus.UNAUTHORIZED:
        failure = plain_refusal(method, shown, reply)
        return TransferFailed(
            f"{failure}; the token belongs into TUS_API_TOKEN, or --header 'Authorization: "
            "Bearer ...'"
        )
    return plain_refusal(method, shown, reply)


def _find_date(reply: Reply) -> float:
    # By the server's clock: by that of this machine, if it is wrong, nothing would last.
    try:
        return parsedate_to_datetime(reply.headers.get("date", "")).timestamp()
    except ValueError:
        return time.time()
