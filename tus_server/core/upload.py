"""The upload: one row of the state store as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from tus_server.core.checksums import EMPTY_CRC64, combine_crc64
from tus_server.core.ids import UploadId
from tus_server.core.jobs import NONE, Instructions, Job, Outcome, outcome_of
from tus_server.core.states import UploadState, check_steps

# JavaScript's largest exact integer: no number we announce is larger (T131).
MAX_ANNOUNCED_INTEGER = 2**53 - 1


class Protocol(StrEnum):
    """How the bytes of an upload arrive; it keeps that for life.

    SINGLE and MULTIPART are direct uploads: clients send parts to the store by requests that were
    signed for them, one part or many.
    """

    TUS = "tus"
    RUFH = "rufh"
    SINGLE = "single"
    MULTIPART = "multipart"


DIRECT = frozenset({Protocol.SINGLE, Protocol.MULTIPART})


@dataclass(frozen=True, slots=True)
class Tail:
    """Committed bytes that are no part yet: [upload.committed_bytes, upload.offset).

    node: id of the node whose disk alone has them; None: they are parked in the object store.
    generation: which file, or which parked object, of this upload it is.
    """

    length: int
    crc64: int
    node: str | None
    generation: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part the store has confirmed: bytes [start, start + size) of the upload.

    Those of a direct upload are planned when it is created; one without an ETag has not arrived.
    crc64: None where nobody has told it.
    """

    number: int
    start: int
    size: int
    crc64: int | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """What is known of an upload; every field is durable but for nothing.

    length: bytes, None while deferred. committed_bytes: contiguous from 0, in the store; of a
    direct upload those of all parts that have arrived, in whatever order. crc64: CRC-64/NVME of the
    committed bytes; of a direct upload only once it is complete, and None where neither clients nor
    store tell. metadata: Upload-Metadata exactly as received. next_part_number: the first that no
    lease has set aside. object_key, multipart_id: where the store keeps it, None for a store that
    needs neither. part_size: of every part but the last, in a store of equal parts, and of a direct
    upload. generation: the one that tail files are written in: the epoch of the last lease that was
    taken from a holder who had not let go (0: none), so that such a holder, should it wake up,
    writes to files nobody reads; of a direct upload it grows with every change of what has arrived.
    unclean: a holder ended without letting go, and what it left in the store was not looked for
    yet. freed_at: when the bytes of a terminal upload were found removed from the store. concat:
    Upload-Concat exactly as received, None for an ordinary upload; which partial uploads a final
    one consists of is told by the state store. expires_at: when it is given up unless bytes come,
    None: never; of a finished one only where it is partial. digests: of the whole content, by
    algorithm (core.digests): what it has to have, from verified on what it has; None: asked for and
    not known yet. max_size: the most bytes it may have, as its creation was told; None: it was
    created before that was kept. file_id: what the application knows the file by; of one file_id at
    most one upload is active. request_key: the Idempotency-Key it was created with. auto_complete:
    a direct upload is complete when its last part is in, without the client's word. completed_at:
    when its outcome was decided, and the job for that enqueued. content_type: as its first bytes
    tell; None: not looked at, or they do not tell.
    """

    id: UploadId
    protocol: Protocol
    state: UploadState
    created_at: datetime
    state_on: datetime
    owner: str | None = None
    metadata: str | None = None
    length: int | None = None
    committed_bytes: int = 0
    crc64: int | None = EMPTY_CRC64
    next_part_number: int = 1
    object_key: str | None = None
    multipart_id: str | None = None
    part_size: int | None = None
    tail: Tail | None = None
    generation: int = 0
    unclean: bool = False
    error_code: str | None = None
    error_message: str | None = None
    freed_at: datetime | None = None
    concat: str | None = None
    expires_at: datetime | None = None
    digests: Mapping[str, bytes | None] = field(default_factory=dict)
    max_size: int | None = None
    file_id: str | None = None
    request_key: str | None = None
    auto_complete: bool = False
    instructions: Instructions = NONE
    completed_at: datetime | None = None
    content_type: str | None = None

    @property
    def is_direct(self) -> bool:
        """Tell whether clients send its parts to the store by themselves."""
        return self.protocol in DIRECT

    @property
    def is_partial(self) -> bool:
        """Tell whether it is made to be part of final uploads (tus 1.0.0, Concatenation)."""
        return self.concat == "partial"

    @property
    def is_final(self) -> bool:
        """Tell whether it consists of partial uploads and takes no bytes itself."""
        return self.concat is not None and not self.is_partial

    @property
    def offset(self) -> int:
        """Contiguous committed parts + tail (P2)."""
        return self.committed_bytes + (self.tail.length if self.tail else 0)

    @property
    def remaining(self) -> int | None:
        """Bytes still to come; None while the length is deferred."""
        return None if self.length is None else self.length - self.offset

    def with_length(self, length: int) -> "Upload":
        """Settle a deferred length."""
        return replace(self, length=length)

    def with_digests(self, digests: Mapping[str, bytes | None]) -> "Upload":
        """Add what a request says of the digests of the whole; None takes nothing back."""
        told = {name: digest for name, digest in digests.items() if digest is not None}
        merged = {**digests, **self.digests, **told}
        return self if merged == self.digests else replace(self, digests=merged)

    def with_bytes(self, size: int, crc64: int) -> "Upload":
        """Add a part of `size` bytes that the store has confirmed, right behind the others.

        It begins with the bytes of the tail, if there is one.
        """
        assert self.tail is None or size >= self.tail.length
        assert self.crc64 is not None
        return replace(
            self,
            committed_bytes=self.committed_bytes + size,
            crc64=combine_crc64(self.crc64, crc64, size) if self.committed_bytes else crc64,
            tail=None,
        )

    def decides(self, before: "Upload") -> tuple[Outcome | None, Job | None]:
        """Give the outcome that the way from `before` to this row decides, and the job for it."""
        if before.completed_at is not None or self.completed_at is None:
            return None, None
        wanted = self.instructions
        outcome = outcome_of(self.state, require_acceptance=wanted.require_acceptance)
        is_success = outcome is Outcome.SUCCESS
        return outcome, wanted.success_job if is_success else wanted.failure_job

    def stepped(self, *steps: UploadState, on: datetime) -> "Upload":
        """Go through `steps` of the life cycle. Raises IllegalTransition."""
        if not steps:
            return self
        check_steps(self.state, steps)
        state, completed_at, expires_at = steps[-1], self.completed_at, self.expires_at
        # Decided once, by the last of the steps; a partial upload has no outcome of its own.
        if completed_at is None and not self.is_partial:
            wanted = self.instructions.require_acceptance
            if outcome_of(state, require_acceptance=wanted) is not None:
                completed_at = on
        # tus 1.0.0, Expiration: only unfinished uploads expire (T77); partial ones wait for use.
        if state is UploadState.VERIFIED and not self.is_partial:
            expires_at = None
        return replace(
            self, state=state, state_on=on, completed_at=completed_at, expires_at=expires_at
        )
