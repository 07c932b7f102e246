"""What the sink answers: S3's replies from sizes and ETags, for there are no bytes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import md5
from http import HTTPStatus
from itertools import count
from xml.sax.saxutils import escape

from bench.sink.requests import Request

_CRC64 = "x-amz-checksum-crc64nvme"
_ISO_DATE = "2025-01-01T00:00:00.000Z"
_PART = re.compile(rb"<PartNumber>\s*(\d+)\s*</PartNumber>")


@dataclass(slots=True)
class _Stored:
    """What is left of an object or part once its bytes are gone.

    crc64: the CRC-64/NVME that the client stated; believed, for who could check it now?
    """

    size: int
    etag: str
    crc64: str | None


@dataclass(slots=True)
class _Multipart:
    key: str
    parts: dict[int, _Stored] = field(default_factory=dict)


class _Refused(Exception):
    """An S3 error: its status and code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class Objects:
    """One bucket, whatever its name. requests counts what was asked for, by S3's names."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self._objects: dict[str, _Stored] = {}
        self._multiparts: dict[str, _Multipart] = {}
        self._numbers = count(1)

    def answer(self, request: Request) -> bytes:
        """The whole reply to a request whose body has been read."""
        _, _, key = request.path.lstrip("/").partition("/")
        action = _action(request, key)
        self.requests[action] += 1
        try:
            return self._act(action, key, request)
        except _Refused as exc:
            text = "" if request.method == "HEAD" else f"<Error><Code>{exc.code}</Code></Error>"
            return render(exc.status, text)

    def _act(self, action: str, key: str, request: Request) -> bytes:
        match action:
            case "PutObject":
                self._refuse_existing(key, request)
                stored = self._objects[key] = self._store(request)
                return render(200, stored=stored)
            case "UploadPart":
                parts = self._multipart(key, request).parts
                part = parts[int(request.query["partNumber"])] = self._store(request)
                return render(200, stored=part)
            case "CreateMultipartUpload":
                upload_id = f"upload-{next(self._numbers)}"
                self._multiparts[upload_id] = _Multipart(key)
                return _xml("InitiateMultipartUploadResult", Key=key, UploadId=upload_id)
            case "CompleteMultipartUpload":
                return self._complete(key, request)
            case "AbortMultipartUpload":
                self._multipart(key, request)
                del self._multiparts[request.query["uploadId"]]
                return render(204)
            case "ListParts":
                return self._list_parts(key, request)
            case "ListMultipartUploads":
                return self._list_multiparts(request)
            case "HeadObject" | "GetObject":
                return self._read(action, key)
            case "DeleteObject":
                self._objects.pop(key, None)
                return render(204)
            case "ListObjects":
                return _xml("ListBucketResult", KeyCount=0, IsTruncated="false")
            case _:
                return render(200)

    def _complete(self, key: str, request: Request) -> bytes:
        multipart = self._multipart(key, request)
        self._refuse_existing(key, request)
        numbers = [int(number) for number in _PART.findall(bytes(request.body))]
        if not numbers or any(number not in multipart.parts for number in numbers):
            raise _Refused(400, "InvalidPart")
        parts = [multipart.parts[number] for number in numbers]
        # S3: the ETag of such an object is the MD5 of its parts' MD5s, and their number.
        digests = b"".join(bytes.fromhex(part.etag) for part in parts)
        etag = f"{md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
        size = sum(part.size for part in parts)
        stored = self._objects[key] = _Stored(size, etag, request.headers.get(_CRC64))
        del self._multiparts[request.query["uploadId"]]
        crc64 = {} if stored.crc64 is None else {"ChecksumCRC64NVME": stored.crc64}
        return _xml("CompleteMultipartUploadResult", Key=key, ETag=f'"{etag}"', **crc64)

    def _list_parts(self, key: str, request: Request) -> bytes:
        parts = self._multipart(key, request).parts
        found = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{part.etag}&quot;</ETag>"
            f"<Size>{part.size}</Size><LastModified>{_ISO_DATE}</LastModified></Part>"
            for number, part in sorted(parts.items())
        )
        return _xml("ListPartsResult", found, Key=key, IsTruncated="false")

    def _list_multiparts(self, request: Request) -> bytes:
        prefix = request.query.get("prefix", "")
        found = "".join(
            f"<Upload><Key>{escape(multipart.key)}</Key><UploadId>{upload_id}</UploadId>"
            f"<Initiated>{_ISO_DATE}</Initiated></Upload>"
            for upload_id, multipart in self._multiparts.items()
            if multipart.key.startswith(prefix)
        )
        return _xml("ListMultipartUploadsResult", found, IsTruncated="false")

    def _read(self, action: str, key: str) -> bytes:
        stored = self._objects.get(key)
        if stored is None or action == "GetObject":
            raise _Refused(404, "NoSuchKey")
        return render(200, stored=stored, length=stored.size)

    def _store(self, request: Request) -> _Stored:
        # An MD5 in form only: computing it would cost more than all the rest.
        etag = f"{next(self._numbers):032x}"
        return _Stored(request.content_length, etag, request.headers.get(_CRC64))

    def _multipart(self, key: str, request: Request) -> _Multipart:
        found = self._multiparts.get(request.query["uploadId"])
        if found is None or found.key != key:
            raise _Refused(404, "NoSuchUpload")
        return found

    def _refuse_existing(self, key: str, request: Request) -> None:
        if request.headers.get("if-none-match") == "*" and key in self._objects:
            raise _Refused(412, "PreconditionFailed")


def _action(request: Request, key: str) -> str:
    query = request.query
    match request.method:
        case "PUT" if "partNumber" in query:
            return "UploadPart"
        case "PUT":
            return "PutObject" if key else "CreateBucket"
        case "POST" if "uploads" in query:
            return "CreateMultipartUpload"
        case "POST" if "uploadId" in query:
            return "CompleteMultipartUpload"
        case "DELETE":
            return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
        case "HEAD":
            return "HeadObject" if key else "HeadBucket"
        case "GET" if key:
            return "ListParts" if "uploadId" in query else "GetObject"
        case "GET":
            return "ListMultipartUploads" if "uploads" in query else "ListObjects"
        case other:
            return other


def render(
    status: int, body: str = "", *, stored: _Stored | None = None, length: int | None = None
) -> bytes:
    """A reply with its head; length: of the body where it is not sent."""
    content = body.encode()
    now = formatdate(usegmt=True)
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nDate: {now}\r\n"
    if stored is not None:
        head += f'ETag: "{stored.etag}"\r\nLast-Modified: {now}\r\n'
        if stored.crc64 is not None:
            head += f"{_CRC64}: {stored.crc64}\r\n"
    if content:
        head += "Content-Type: application/xml\r\n"
    if status != HTTPStatus.NO_CONTENT:
        head += f"Content-Length: {len(content) if length is None else length}\r\n"
    return head.encode() + b"\r\n" + content


def _xml(root: str, inner: str = "", **fields: object) -> bytes:
    text = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in fields.items())
    return render(200, f"<{root}>{text}{inner}</{root}>")
