"""One file on its way to a tus server, as often interrupted as need be."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, Final, Protocol
from urllib.parse import urljoin

import requests
import urllib3
from tusclient.client import TusClient
from tusclient.request import TusRequest
from tusclient.uploader.uploader import Uploader

from tus_server.cli.stored_urls import FileFingerprint, StoredUrls

# Seconds. The first also bounds the sending of one block: 64 KiB, so 1 KiB/s is fast enough.
_CONNECT_TIMEOUT_S: Final = 60.0
_ANSWER_TIMEOUT_S: Final = 300.0
_MAX_DELAY_S: Final = 30.0
_BLOCK_SIZE: Final = 64 * 1024
_MAX_REPLY_SIZE: Final = 64 * 1024
_MAX_SHOWN_CHARS: Final = 200

_MAY_PASS: Final = frozenset({408, 409, 423, 425, 429})
_NEVER_PASSES: Final = frozenset({501, 505})


class TransferFailed(Exception):
    """The file has not arrived; the message is one sentence. `may_pass`: trying again may help."""

    def __init__(self, sentence: str, *, may_pass: bool = False, retry_after_s: float = 0) -> None:
        super().__init__(sentence)
        self.may_pass = may_pass
        self.retry_after_s = retry_after_s


class ServerUnreachable(TransferFailed):
    """No answer came."""


class UploadGone(TransferFailed):
    """The server does not have the upload (any more)."""


class Watcher(Protocol):
    """Who is told how it goes; offsets are in bytes."""

    def started(self, offset: int, *, resumed: bool) -> None: ...

    def moved(self, offset: int) -> None: ...

    def waiting(self, failure: TransferFailed, delay_s: float, attempt: int) -> None: ...


def send_file(
    path: Path,
    client: TusClient,
    *,
    metadata: dict[str, str],
    urls: StoredUrls | None,
    chunk_size: int,
    retries: int,
    watcher: Watcher,
) -> str:
    """Upload a file, or what is missing of it, and give its URL.

    After a failure that may pass it goes on where the server stands, up to `retries` times in a
    row without a byte arriving. Raises: TransferFailed, OSError (the file cannot be read).
    """
    fingerprint = FileFingerprint(client.url, metadata)
    with path.open("rb") as file:
        key = fingerprint.get_fingerprint(file)
    transfer: Transfer | None = None
    attempt, furthest = 0, 0
    while True:
        try:
            if transfer is None:
                transfer = Transfer(path, client, metadata, urls, fingerprint, chunk_size, watcher)
                watcher.started(transfer.offset, resumed=transfer.url is not None)
            elif transfer.url is not None:
                transfer.offset = transfer.get_offset()
                watcher.moved(transfer.offset)
            if transfer.offset > furthest:
                attempt, furthest = 0, transfer.offset
            transfer.upload()
            _check_unchanged(path, fingerprint, key, transfer.url)
            break
        except UploadGone:
            if urls is not None:
                urls.remove_item(key)
            if transfer is not None:
                raise
            # What was stored is old, so begin anew.
        except TransferFailed as failure:
            met = transfer is not None and transfer.url is not None
            if not failure.may_pass or (isinstance(failure, ServerUnreachable) and not met):
                raise
            if attempt >= retries:
                raise
            _check_unchanged(path, fingerprint, key, transfer.url if transfer else None)
            delay_s = min(max(2.0**attempt / 2, failure.retry_after_s), _MAX_DELAY_S)
            attempt += 1
            watcher.waiting(failure, delay_s, attempt)
            time.sleep(delay_s)
    if urls is not None:
        urls.remove_item(key)
    assert transfer.url is not None
    return transfer.url


def _check_unchanged(path: Path, fingerprint: FileFingerprint, key: str, url: str | None) -> None:
    # The key was made from the file as it was, so the next run begins a new upload by itself.
    with path.open("rb") as file:
        if fingerprint.get_fingerprint(file) != key:
            where = f"; what is at {url} is a mixture" if url else ""
            raise TransferFailed(f"it was changed while it was sent{where}")


class Transfer(Uploader):
    """tuspy's Uploader, with its requests made by `ask`.

    tuspy 1.1.0 waits without limit, opens a connection per request and reads a whole chunk into
    memory, so a chunk could not be the rest of a large file and progress would come in jumps. It
    keeps the order of requests, the metadata, the storing of URLs. To go when tuspy has deadlines
    and streams: https://github.com/tus/tus-py-client
    """

    # tuspy says None for what it fills in later.
    url: str | None  # type: ignore[assignment]
    request: Any

    def __init__(
        self,
        path: Path,
        client: TusClient,
        metadata: dict[str, str],
        urls: StoredUrls | None,
        fingerprint: FileFingerprint,
        chunk_size: int,
        watcher: Watcher,
    ) -> None:
        self._session = requests.Session()
        self._endpoint = client.url
        self.watcher = watcher
        # With a stored URL this asks for the offset.
        super().__init__(
            str(path),
            client=client,
            chunk_size=chunk_size,
            metadata=metadata,
            store_url=urls is not None,
            url_storage=urls,
            fingerprinter=fingerprint,
        )

    def get_offset(self) -> int:
        assert self.url is not None
        reply = self.ask("HEAD", self.url, self.get_headers())  # type: ignore[no-untyped-call]
        return read_offset("HEAD", self.url, reply)

    def create_url(self) -> str:
        headers = self.get_url_creation_headers()  # type: ignore[no-untyped-call]
        reply = self.ask("POST", self._endpoint, headers)
        location = reply.headers.get("location")
        if reply.status != HTTPStatus.CREATED or not location:
            raise refusal("POST", self._endpoint, reply)
        return urljoin(self._endpoint, location)

    def _do_request(self) -> None:
        before = self.offset
        self.request = StreamedPatch(self)
        self.request.perform()
        if int(self.request.response_headers["upload-offset"]) <= before:
            raise TransferFailed(f"{self.url} takes no bytes")

    def ask(
        self, method: str, url: str, headers: dict[str, str], body: "FileSection | None" = None
    ) -> "Reply":
        """Make one request and read its reply. Raises: ServerUnreachable."""
        try:
            reply = self._session.request(
                method,
                url,
                headers=headers,
                data=body,
                timeout=(_CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S),
                allow_redirects=False,
                stream=True,
            )
            with reply:
                # Not all of it: any server may be at that URL.
                content = reply.raw.read(_MAX_REPLY_SIZE, decode_content=True)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as exc:
            raise ServerUnreachable(
                f"{url} does not answer ({_innermost(exc)})", may_pass=True
            ) from exc
        return Reply(reply.status_code, reply.reason or "", reply.headers, content)


class StreamedPatch(TusRequest):
    """tuspy's PATCH of one chunk, read from the file while it is sent."""

    def __init__(self, transfer: Transfer) -> None:
        super().__init__(transfer)  # type: ignore[no-untyped-call]
        self._transfer = transfer

    def perform(self) -> None:
        with self.file:
            body = FileSection(
                self.file, self._transfer.offset, self._content_length, self._transfer.watcher.moved
            )
            reply = self._transfer.ask("PATCH", self._url, self._request_headers, body)
        self.response_headers = {"upload-offset": str(read_offset("PATCH", self._url, reply))}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said; `headers` takes names in any case, `content` is the start of it."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes


class FileSection:
    """Bytes [start, start + length) of a file, in blocks. Its length makes it no chunked body."""

    def __init__(
        self, file: IO[bytes], start: int, length: int, moved: Callable[[int], None]
    ) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._moved = moved

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        while sent < self._length:
            try:
                block = self._file.read(min(_BLOCK_SIZE, self._length - sent))
            except OSError as exc:
                # requests would take it for an error of the connection.
                raise TransferFailed(f"it cannot be read: {exc.strerror}") from exc
            if not block:
                raise TransferFailed("it has become shorter while it was sent")
            yield block
            sent += len(block)
            self._moved(self._start + sent)


def read_offset(method: str, url: str, reply: Reply) -> int:
    """Read the offset out of the reply to HEAD or PATCH. Raises: UploadGone, TransferFailed."""
    if reply.status in (404, 410):
        raise UploadGone(f"the server does not have {url} any more")
    if reply.status not in (200, 204):
        raise refusal(method, url, reply)
    text = reply.headers.get("upload-offset", "")
    if not (text.isascii() and text.isdecimal()):
        raise TransferFailed(f"{url} answered {method} without an Upload-Offset")
    return int(text)


def refusal(method: str, url: str, reply: Reply) -> TransferFailed:
    """Make the error for a reply that is not the one hoped for."""
    status = reply.status
    said = f"{url} answered {method} with {status} {reply.reason}".rstrip()
    if "tus-resumable" not in reply.headers and (status < 500 or status in _NEVER_PASSES):
        where = reply.headers.get("location")
        hint = f"; it points to {where}" if where and 300 <= status < 400 else ""
        return TransferFailed(f"{said}, so it seems to be no tus server{hint}")
    detail = find_detail(reply.headers, reply.content)
    after = reply.headers.get("retry-after", "")
    return TransferFailed(
        f"{said}: {detail}" if detail else said,
        may_pass=status in _MAY_PASS or (status >= 500 and status not in _NEVER_PASSES),
        retry_after_s=float(after) if after.isascii() and after.isdecimal() else 0,
    )


def find_detail(headers: Mapping[str, str], content: bytes) -> str:
    """Find what a reply says about itself: of a problem document (RFC 9457), or its first line."""
    kind = headers.get("content-type", "")
    said = ""
    if "json" in kind:
        try:
            problem = json.loads(content)
        except ValueError:
            return ""
        if isinstance(problem, dict):
            said = str(problem.get("detail") or problem.get("title") or "")
    elif kind.startswith("text/plain"):
        said = content.decode("utf-8", "replace").strip().partition("\n")[0]
    return said.strip().removesuffix(".")[:_MAX_SHOWN_CHARS]


def _innermost(exc: BaseException) -> str:
    """Give the plainest words in a chain of wrapped errors."""
    words = ""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            words = seen.strerror
        elif isinstance(seen, TimeoutError):
            words = "timed out"
        reason = getattr(seen, "reason", None)
        nested = [arg for arg in (reason, *seen.args) if isinstance(arg, BaseException)]
        seen = nested[0] if nested else seen.__cause__ or seen.__context__
    return words or type(exc).__name__
