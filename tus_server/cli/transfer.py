"""One file on its way to a tus server, as often interrupted as need be."""

from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests
from tusclient.client import TusClient
from tusclient.request import TusRequest
from tusclient.uploader.uploader import Uploader

from tus_server.cli.asking import ask
from tus_server.cli.file_section import FileSection
from tus_server.cli.patience import Patience, Watcher
from tus_server.cli.replies import (
    Reply,
    ServerUnreachable,
    TransferFailed,
    UploadGone,
    read_offset,
    refusal,
)
from tus_server.cli.stored_urls import FileFingerprint, StoredUrls


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
    patience = Patience(retries, watcher)
    while True:
        try:
            if transfer is None:
                transfer = Transfer(path, client, metadata, urls, fingerprint, chunk_size, watcher)
                watcher.started(transfer.offset, resumed=transfer.url is not None)
            elif transfer.url is not None:
                transfer.offset = transfer.get_offset()
                watcher.moved(transfer.offset)
            patience.reached(transfer.offset)
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
            if isinstance(failure, ServerUnreachable) and not met:
                raise
            patience.check(failure)
            _check_unchanged(path, fingerprint, key, transfer.url if transfer else None)
            patience.wait(failure)
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
        self, method: str, url: str, headers: dict[str, str], body: FileSection | None = None
    ) -> Reply:
        """Make one request and read its reply. Raises: ServerUnreachable."""
        return ask(self._session, method, url, headers, body)


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
