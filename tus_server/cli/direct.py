"""One file on its way straight to the store, as often interrupted as need be."""

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol
from urllib.parse import urljoin

from tus_server.cli.direct_api import DirectApi, DirectUpload, SentPart, StoredPart
from tus_server.cli.direct_parts import PlannedPart, Sender, Tally
from tus_server.cli.direct_stored import StoredUpload
from tus_server.cli.direct_tickets import Tickets
from tus_server.cli.patience import Patience, Watcher
from tus_server.cli.replies import ServerUnreachable, TransferFailed, UploadGone
from tus_server.cli.stored_urls import FileFingerprint, StoredUrls
from tus_server.core.direct import part_range
from tus_server.core.states import UNFINISHED, UploadState

# Less than proxies wait for an answer.
_WAIT_S: Final = 20
_FIRST_POLL_S: Final = 0.5
_SLOWEST_POLL_S: Final = 5.0
# Requests to sign at once, for each thread: so few that they are used soon after.
_BATCH: Final = 4
_GONE: Final = frozenset({UploadState.CANCELED, UploadState.EXPIRED, UploadState.DELETED})


class DirectWatcher(Watcher, Protocol):
    """Who is told how a direct upload goes."""

    def verifying(self) -> None: ...


@dataclass(frozen=True, slots=True)
class About:
    """What is said of a file when its upload is begun. metadata: with filename and filetype."""

    metadata: Mapping[str, str]
    file_id: str | None

    def request(self, size: int) -> dict[str, Any]:
        metadata = dict(self.metadata)
        request: dict[str, Any] = {
            # Also of what fits one part: how large that is the server knows.
            "kind": "multipart",
            "size": size,
            "filename": metadata.pop("filename"),
            "content_type": metadata.pop("filetype"),
            "metadata": metadata,
        }
        if self.file_id is not None:
            request["file_id"] = self.file_id
        return request


class DirectTransfer:
    """Sends one file. upload: what the server has told of it last; None: nothing yet."""

    def __init__(
        self,
        path: Path,
        api: DirectApi,
        about: About,
        *,
        urls: StoredUrls | None,
        parallel: int,
        retries: int,
        watcher: DirectWatcher,
    ) -> None:
        """Raises: OSError (the file cannot be read)."""
        self.upload: DirectUpload | None = None
        self._path = path
        self._api = api
        self._about = about
        self._parallel = parallel
        self._watcher = watcher
        self._has_started = False
        self._sent: dict[int, SentPart] = {}
        self._answers = 0  # while it is being verified
        self._stopped = threading.Event()
        self._patience = Patience(retries, watcher, sleep=self._stopped.wait)
        told = json.dumps(about.request(0), sort_keys=True)
        self._fingerprint = FileFingerprint(api.endpoint, {"direct": told})
        with path.open("rb") as file:
            self._key = self._fingerprint.get_fingerprint(file)
        self._stored = StoredUpload(urls, self._key, api.endpoint)

    def send(self, *, fresh: bool) -> str:
        """Send the file, or what is missing of it, and give the URL of the verified object.

        fresh: all of it in any case; what an earlier run has begun is canceled. After a failure
        that may pass it goes on with what is missing, up to `retries` times in a row without a
        part arriving. Raises: TransferFailed, OSError (the file cannot be read).
        """
        with self._path.open("rb") as file:
            while True:
                try:
                    if fresh:
                        self._forget()
                        fresh = False
                    return self._try(file)
                except UploadGone:
                    self._stored.remove()
                    if self.upload is not None:
                        raise
                    # What was stored is old, so begin anew.
                except TransferFailed as failure:
                    if isinstance(failure, ServerUnreachable) and self.upload is None:
                        raise
                    self._patience.wait(failure)

    def _try(self, file: IO[bytes]) -> str:
        upload = self._find_or_begin(file)
        if upload.state in UNFINISHED:
            self._check_unchanged(upload)
            try:
                sent = self._send_missing(file, upload)
            except TransferFailed:
                self._check_unchanged(upload)
                raise
            self._check_unchanged(upload)
            upload = self.upload = self._api.complete(upload.id, sent, wait_s=_WAIT_S)
        else:
            self._tell_start(upload.length)
        return self._wait_verified(upload)

    def _forget(self) -> None:
        id = self._stored.find_id()
        if id is not None and self._api.find(id).state in UNFINISHED:
            self._api.cancel(id)
        self._stored.remove()

    def _find_or_begin(self, file: IO[bytes]) -> DirectUpload:
        id = self._stored.find_id()
        if id is not None:
            upload = self._api.find(id)
        else:
            upload = self._begin(os.fstat(file.fileno()).st_size)
        if upload.state in _GONE:
            raise UploadGone(f"upload {upload.id} is {upload.state} by now")
        self._stored.keep(upload.id)
        self.upload = upload
        return upload

    def _begin(self, size: int) -> DirectUpload:
        try:
            return self._api.begin(self._about.request(size), key=self._stored.make_request_key())
        except TransferFailed as failure:
            if not failure.may_pass:
                self._stored.remove()
            raise

    def _send_missing(self, file: IO[bytes], upload: DirectUpload) -> list[SentPart]:
        """Send the parts that have not arrived; give all of them."""
        stored = self._find_stored(upload)
        cut = upload.multipart
        parts = [
            PlannedPart(
                number,
                *part_range(number, length=upload.length, part_size=cut.part_size_bytes),
                stored.get(number),
            )
            for number in range(1, cut.part_count + 1)
        ]
        arrived = sum(part.size for part in parts if part.stored is not None)
        self._tell_start(arrived)
        self._patience.reached(arrived)
        missing = [part.number for part in parts if part.stored is None]
        batch = self._parallel * _BATCH
        sender = Sender(
            file,
            Tickets(self._api, upload.id, missing, batch=batch),
            Tally(self._watcher, self._patience, arrived),
            self._patience,
            self._stopped,
            self._sent,
        )
        return sender.send(parts, parallel=self._parallel)

    def _find_stored(self, upload: DirectUpload) -> dict[int, StoredPart]:
        """Give what has arrived, by number, but for parts that somebody else has replaced."""
        stored = self._api.find_parts(upload.id)
        for number, sent in list(self._sent.items()):
            found = stored.get(number)
            if found is None or found.etag != sent.etag:
                stored.pop(number, None)
                del self._sent[number]
        return stored

    def _tell_start(self, arrived: int) -> None:
        if self._has_started:
            self._watcher.moved(arrived)
        else:
            self._watcher.started(arrived, resumed=arrived > 0)
            self._has_started = True

    def _check_unchanged(self, upload: DirectUpload) -> None:
        with self._path.open("rb") as file:
            if self._fingerprint.get_fingerprint(file) == self._key:
                return
        # What has arrived is a mixture, of no use to anybody; and it would keep its file_id.
        with suppress(UploadGone):
            self._api.cancel(upload.id)
        self._stored.remove()
        raise TransferFailed("it was changed while it was sent, so the upload was canceled")

    def _wait_verified(self, upload: DirectUpload) -> str:
        """Give the URL of the object. Raises: TransferFailed, UploadGone."""
        delay_s = _FIRST_POLL_S
        # It takes as long as it takes: the store may be slow, and the application has a say.
        while upload.state is UploadState.COMPLETED:
            if not self._answers:
                self._watcher.verifying()
            self._stopped.wait(delay_s)
            delay_s = min(delay_s * 2, _SLOWEST_POLL_S)
            upload = self.upload = self._api.find(upload.id)
            # Here an answer is what bytes are before.
            self._answers += 1
            self._patience.reached(upload.length + self._answers)
        if upload.state in _GONE:
            raise UploadGone(f"upload {upload.id} was {upload.state}")
        self._stored.remove()
        if upload.state is UploadState.ERROR:
            reason = "" if upload.error is None else upload.error.message.removesuffix(".")
            raise TransferFailed(f"the server has refused it: {reason}")
        if upload.state is UploadState.REJECTED:
            raise TransferFailed("the application has rejected it")
        if upload.object is None:
            raise TransferFailed(f"upload {upload.id} is {upload.state}, and has no object")
        return urljoin(self._api.endpoint, upload.object.url)
