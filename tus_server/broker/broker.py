"""The Broker: direct uploads and sessions for Python applications, with no HTTP in between.

The JSON API is made of it too, so both do the same. Every method may be repeated; results are the
models of wire.upload_view; errors are those of core.errors. What it reports has been committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from tus_server.broker.request import About, Kind, checked_note, make_command
from tus_server.broker.watch import Watch
from tus_server.core.errors import (
    NoDirectUpload,
    StorageFull,
    TryAgainError,
    TusServerError,
    UploadNotFound,
)
from tus_server.core.ids import UploadId, find_upload_id
from tus_server.core.states import TERMINAL, UploadState
from tus_server.core.upload import DIRECT, Part, Protocol, Upload
from tus_server.engine.direct.compare import Reported
from tus_server.engine.direct.complete import complete, complete_behind
from tus_server.engine.direct.look import Look, look
from tus_server.engine.direct.lookup import check_takes_parts, find_any
from tus_server.engine.direct.sign import sign, sign_new
from tus_server.engine.engine import Engine
from tus_server.engine.judge import judge
from tus_server.engine.listing import Query, list_uploads
from tus_server.engine.session import initiate
from tus_server.engine.terminate import terminate
from tus_server.ports import APPLICATION, Operation, Principal, StatusChange
from tus_server.wire.upload_view import (
    Progress,
    SignedPart,
    SignedPut,
    UploadView,
    find_progress,
    view_put,
    view_signed,
    view_upload,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatus:
    """How far a session is. committed_bytes: of what is durable."""

    committed_bytes: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class FoundParts:
    """The parts of a direct upload, planned and arrived: those with an ETag."""

    upload: UploadView
    parts: Sequence[Part]


class Broker:
    """What an application does with uploads. Get one from `App.broker`, or `open_broker()`.

    base_url: of the creation URL, with its slash: for the URLs of tus sessions and objects. origin:
    scheme and host of this server, for signed URLs that lead to itself.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        base_url: str,
        origin: str = "",
        principal: Principal = APPLICATION,
    ) -> None:
        self._engine = engine
        self._base_url = base_url
        self._origin = origin
        self._principal = principal

    @property
    def origin(self) -> str:
        """Scheme and host of this server, as its URLs have them; empty: they are paths."""
        return self._origin

    # --- beginning

    async def initiate_session(self, *, size: int, **about: Unpack[About]) -> UploadView:
        """Begin an upload by one signed PUT, which the result has as `put`. Raises: as initiate."""
        return await self.initiate("single", size=size, **about)

    async def initiate_multipart_session(self, *, size: int, **about: Unpack[About]) -> UploadView:
        """Begin an upload by signed PUTs of parts, in any order and in parallel.

        Raises: as initiate.
        """
        return await self.initiate("multipart", size=size, **about)

    async def initiate_resumable_session(
        self, *, size: int | None = None, **about: Unpack[About]
    ) -> UploadView:
        """Begin an upload that a tus client sends to `tus.url`; size None: it tells it later.

        Raises: as initiate.
        """
        return await self.initiate("tus", size=size, **about)

    async def initiate(self, kind: Kind, *, size: int | None, **about: Unpack[About]) -> UploadView:
        """Begin an upload of `size` bytes, or give the one that the same request has begun.

        Raises: FileIdTaken (another upload of this file_id is active), RequestKeyReused,
        UploadTooLarge, JobRefused, MalformedRequest, RefusedByHook, StateUnavailable, StorageFull.
        """
        command = make_command(kind, size, about)
        upload = await initiate(self._engine, command, self._principal)
        view = await self._view(upload)
        # By the request this one repeats it may have ended.
        if upload.protocol is Protocol.SINGLE and view.progress == "in_progress":
            view.put = await self._try_to_sign(upload)
        return view

    # --- signing

    async def sign_url(self, upload_id: str) -> SignedPart:
        """Sign the PUT of a single upload once more.

        Raises: UploadNotFound, NoDirectUpload, UploadGone, IllegalStep, StoreUnavailable.
        """
        upload = await self._find(upload_id, Operation.SIGN)
        if upload.protocol is Protocol.MULTIPART:
            raise NoDirectUpload("A multipart upload has parts: sign those.")
        (signed,) = await self.sign_parts(upload_id, [1])
        return signed

    async def sign_multipart_part(self, upload_id: str, part_number: int) -> SignedPart:
        """Sign the PUT of one part. Raises: as sign_url; UnknownPart."""
        (signed,) = await self.sign_parts(upload_id, [part_number])
        return signed

    async def sign_parts(
        self, upload_id: str, part_numbers: Sequence[int] | None = None
    ) -> list[SignedPart]:
        """Sign the PUTs of many parts; None: of the first 1,000 that have not arrived.

        Raises: as sign_multipart_part.
        """
        signed = await sign(self._engine, _parse_id(upload_id), self._principal, part_numbers)
        return [view_signed(number, one, origin=self._origin) for number, one in signed]

    # --- looking

    async def find(self, upload_id: str) -> UploadView:
        """Give an upload, whatever its state. Raises: UploadNotFound."""
        return await self._view(await self._find(upload_id, Operation.STATUS))

    async def list(self, query: Query) -> Sequence[UploadView]:
        """Give a page of uploads, newest first."""
        found = await list_uploads(self._engine, query, self._principal)
        return [self._view_with(upload, history) for upload, history in found]

    async def find_parts(self, upload_id: str) -> FoundParts:
        """Look at what has arrived of a direct upload. Raises: UploadNotFound, NoDirectUpload."""
        upload = await self._find(upload_id, Operation.STATUS)
        if upload.protocol not in DIRECT:
            check_takes_parts(self._engine, upload)
        seen = await self._look(upload)
        complete_behind(self._engine, seen.upload)
        return FoundParts(await self._view(seen.upload), seen.parts)

    async def resumable_session_status(self, upload_id: str) -> SessionStatus:
        """Tell how far a session is, of any kind. Raises: UploadNotFound."""
        upload = await self._find(upload_id, Operation.STATUS)
        return SessionStatus(
            committed_bytes=upload.offset,
            progress=find_progress(upload, self._engine.state.now()),
        )

    async def watch(self, upload_id: str, *, after: int | None = None) -> Watch:
        """Watch an upload of any kind from the change behind `after` on; see Watch.

        Raises: UploadNotFound.
        """
        upload = await self._find(upload_id, Operation.STATUS)
        return Watch(self._engine, upload.id, self._view_with, after=after)

    # --- ending

    async def complete_multipart_upload(
        self, upload_id: str, parts: Sequence[Reported] | None = None, *, wait_s: float = 0.0
    ) -> UploadView:
        """Say that all parts are there; the store makes the object of them behind the answer.

        parts: every part with its ETag; None: whatever has arrived. wait_s: for the verification.
        Raises: PartsDiffer (nothing was changed), UploadNotFound, NoDirectUpload, UploadGone,
        IllegalStep, UnknownPart, MalformedRequest, StoreUnavailable.
        """
        completed = complete(
            self._engine, _parse_id(upload_id), self._principal, parts, wait_s=wait_s
        )
        return await self._view(await completed)

    async def verify_completion(self, upload_id: str, *, wait_s: float = 30.0) -> UploadView:
        """Complete an upload that was sent by one PUT, and wait for its verification.

        Raises: as complete_multipart_upload.
        """
        return await self.complete_multipart_upload(upload_id, wait_s=wait_s)

    async def accept(self, upload_id: str, *, note: str | None = None) -> UploadView:
        """Accept a verified upload, for good.

        Raises: UploadNotFound, IllegalStep, MalformedRequest (note), LeaseNotObtained.
        """
        return await self._judge(upload_id, accepts=True, note=note)

    async def reject(self, upload_id: str, *, note: str | None = None) -> UploadView:
        """Reject a verified upload, for good. Raises: as accept."""
        return await self._judge(upload_id, accepts=False, note=note)

    async def cancel_resumable_session(
        self, upload_id: str, *, keeps_finished: bool = False
    ) -> UploadView:
        """Cancel an unfinished upload of any kind, or delete a finished one.

        Of one that has ended nothing is changed, nor with keeps_finished of a finished one. Raises:
        UploadNotFound, LeaseNotObtained, RefusedByHook, IllegalStep (it is kept).
        """
        upload = await self._find(upload_id, Operation.TERMINATE)
        if upload.state not in TERMINAL:
            try:
                await terminate(
                    self._engine, upload.id, self._principal, keeps_finished=keeps_finished
                )
            except TusServerError:
                # It may have ended in between, or its time was over before.
                upload = await self._engine.state.find_upload(upload.id) or upload
                if upload.state not in TERMINAL:
                    raise
            upload = await self._engine.state.find_upload(upload.id) or upload
        return await self._view(upload)

    # ---

    async def _find(self, upload_id: str, operation: Operation) -> Upload:
        return await find_any(self._engine, _parse_id(upload_id), self._principal, operation)

    async def _look(self, upload: Upload) -> Look:
        async with self._engine.books.of(upload.id):
            return await look(self._engine, upload)

    async def _judge(self, upload_id: str, *, accepts: bool, note: str | None) -> UploadView:
        judged = judge(
            self._engine,
            _parse_id(upload_id),
            self._principal,
            accepts=accepts,
            note=checked_note(note),
        )
        return await self._view(await judged)

    async def _try_to_sign(self, upload: Upload) -> SignedPut | None:
        """Sign at once; where the store is away the upload is there, and is signed later."""
        try:
            ((_, signed),) = await sign_new(self._engine, upload, self._principal)
        except (TryAgainError, StorageFull):
            return None
        return view_put(signed, origin=self._origin)

    async def _view(self, upload: Upload) -> UploadView:
        if upload.state is UploadState.INITIATED:  # nothing else has happened to it
            history = [StatusChange(upload.state, upload.state_on)]
        else:
            history = await self._engine.state.history(upload.id)
        return self._view_with(upload, history)

    def _view_with(self, upload: Upload, history: Sequence[StatusChange]) -> UploadView:
        now = self._engine.state.now()
        return view_upload(upload, history, base_url=self._base_url, now=now)


def _parse_id(text: str) -> UploadId:
    upload_id = find_upload_id(text)
    if upload_id is None:
        raise UploadNotFound
    return upload_id
