"""One file on its way to a tus server, as often interrupted as need be."""

import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, Final, Protocol
from urllib.parse import urljoin

import requests
from tusclient.client import TusClient
from tusclient.request import TusRequest
from tusclient.uploader.uploader import Uploader

from tus_server.cli.replies import (
    Reply,
    ServerUnreachable,
    TransferFailed,
    UploadGone,
    innermost_words,
    read_offset,
    refusal,
)
from tus_server.cli.stored_urls import FileFingerprint, StoredUrls

# Seconds. The first also bounds the sending of one block: 64 KiB, so 1 KiB/s is fast enough.
_CONNECT_TIMEOUT_S: Final = 60.0
_ANSWER_TIMEOUT_S: Final = 300.0
_MAX_DELAY_S: Final = 30.0
_BLOCK_SIZE: Final = 64 * 1024
_MAX_REPLY_SIZE: Final = 64 * 1024


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
    fresh: bool,
    chunk_size: int,
    retries: int,
    watcher: Watcher,
) -> str:
    """Upload a file, or what is missing of it, and give its URL; `fresh`: all of it in any case.

    After a failure that may pass it goes on where the server stands, up to `retries` times in a
    row without a byte arriving. Raises: TransferFailed, OSError (the file cannot be read).
    """
    fingerprint = FileFingerprint(client.url, metadata)
    with path.open("rb") as file:
        key = fingerprint.get_fingerprint(file)
    if fresh and urls is not None:
        urls.remove_item(key)
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
    ) -> Reply:
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
                content = next(reply.iter_content(_MAX_REPLY_SIZE), b"")
        except requests.RequestException as exc:
            raise ServerUnreachable(
                f"{url} does not answer ({innermost_words(exc)})", may_pass=True
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
