"""Who may write: leases in the rows, epoch by epoch, and those of this process in memory."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from tus_server.core.ids import UploadId
from tus_server.core.states import UNFINISHED
from tus_server.core.upload import Upload
from tus_server.ports import SECOND_PASS_S, Beat, Claim, Lease, Node
from tus_server.state.postgres import rows
from tus_server.state.postgres.listener import Listener
from tus_server.state.postgres.options import PostgresOptions
from tus_server.state.postgres.reads import Reads
from tus_server.state.postgres.rows import COLUMNS, SQL

CLAIM_ROUNDS = 10


class Leases(Reads):
    """The methods about leases, over a pool."""

    _listener: Listener

    def __init__(
        self,
        options: PostgresOptions,
        *,
        node: Node,
        process: str,
        has_ended: Callable[[str], bool],
    ) -> None:
        self._options = options
        self._node = node
        self._process = process
        self._has_ended = has_ended
        self._holder = f"{node.id}/{process}"
        # The leases this process knows it has. The row may say it has one of which it does not
        # know: the answer to the claim was lost. Such a one is nobody's.
        self._epochs: dict[UploadId, int] = {}
        self._claiming: Counter[UploadId] = Counter()
        self._claiming_unfinished = 0
        self._ahead = timedelta()  # the clock of the database before ours
        self._wanted: Callable[[UploadId], None] | None = None
        self._freed: Callable[[UploadId], None] | None = None

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    @property
    def hears(self) -> bool:
        return self._listener.hears

    def watch(
        self, *, wanted: Callable[[UploadId], None], freed: Callable[[UploadId], None]
    ) -> None:
        self._wanted, self._freed = wanted, freed

    def _hear_wanted(self, payload: str) -> None:
        if self._wanted is not None:
            self._wanted(UploadId(payload))

    def _hear_freed(self, payload: str) -> None:
        upload_id, _, holder = payload.partition(" ")
        if self._freed is not None and holder != self._holder:
            self._freed(UploadId(upload_id))

    async def observe_upload(self, upload_id: UploadId) -> Claim:
        found = await self._pool.fetch(SQL["observe_upload"], upload_id, repeatable=True)
        if not found:
            return Claim(None)
        return Claim(rows.upload(found[0]), held=found[0][COLUMNS + 1] is not None)

    async def claim_upload(
        self, upload_id: UploadId, *, offset: int | None = None, numbers: int = 0
    ) -> Claim:
        self._claiming[upload_id] += 1
        try:
            return await self._claim(upload_id, offset, numbers)
        finally:
            self._claiming[upload_id] -= 1
            if not self._claiming[upload_id]:
                del self._claiming[upload_id]

    async def _claim(self, upload_id: UploadId, offset: int | None, numbers: int) -> Claim:
        ended: str | None = None
        upload: Upload | None = None
        for _ in range(CLAIM_ROUNDS):
            found = await self._pool.fetch(
                SQL["claim_upload"],
                upload_id,
                self._holder,
                self._options.lease_s,
                offset,
                numbers,
                ended,
                repeatable=True,
            )
            if not found:
                return Claim(None)
            row = found[0]
            upload = rows.upload(row)
            epoch, holder, is_granted, is_alive = row[COLUMNS:]
            if is_granted:
                return Claim(upload, self._remember(upload, epoch, numbers))
            is_fit = offset is None or (upload.offset == offset and upload.state in UNFINISHED)
            if is_alive and self._is_nobodys(upload_id, holder, epoch):
                if not is_fit:
                    return Claim(upload)
                ended = holder
            elif is_alive:
                return Claim(upload, held=True)
            elif not is_fit:
                return Claim(upload)
            # Otherwise the row was free in the snapshot: somebody was faster, so look again.
        return Claim(upload, held=True)

    def _is_nobodys(self, upload_id: UploadId, holder: str, epoch: int) -> bool:
        """Tell whether a lease that has not run out has no holder any more."""
        node_id, _, process = holder.partition("/")
        if holder == self._holder:
            # Unless it is just being given to another claim of this process.
            alone = self._claiming[upload_id] == 1 and not self._claiming_unfinished
            return alone and self._epochs.get(upload_id) != epoch
        return node_id == self._node.id and self._has_ended(process)

    def _remember(self, upload: Upload, epoch: int, numbers: int) -> Lease:
        self._epochs[upload.id] = epoch
        end = upload.next_part_number
        return Lease(upload.id, epoch, range(end - numbers, end))

    def _forget(self, lease: Lease) -> None:
        if self._epochs.get(lease.upload_id) == lease.epoch:
            del self._epochs[lease.upload_id]

    async def ask_release(self, upload_id: UploadId) -> None:
        await self._pool.fetch(SQL["ask_release"], upload_id, self._holder, repeatable=True)

    async def beat(self, leases: Sequence[Lease]) -> Beat:
        # In one order, so that two processes never wait for each other.
        epochs = {lease.upload_id: lease.epoch for lease in leases}
        ids = sorted(epochs)
        asked = datetime.now(UTC)
        found = await self._pool.fetch(
            SQL["beat"],
            ",".join(ids),
            ",".join(str(epochs[one]) for one in ids),
            self._holder,
            self._options.lease_s,
            self._node.id,
            repeatable=True,
        )
        wanted = frozenset(UploadId(row[0]) for row in found if row[1])
        lost = frozenset(ids) - {row[0] for row in found}
        (told,) = (row[2] for row in found if row[2] is not None)
        self._ahead = told - asked - (datetime.now(UTC) - asked) / 2
        return Beat(lost=lost, wanted=wanted)

    async def release(
        self, lease: Lease, *, next_part_number: int | None = None, clean: bool = True
    ) -> None:
        if self._epochs.get(lease.upload_id) != lease.epoch:
            return
        try:
            await self._pool.fetch(
                SQL["release"],
                lease.upload_id,
                lease.epoch,
                self._holder,
                next_part_number,
                clean,
                repeatable=True,
            )
        finally:
            self._forget(lease)  # a row that still has it runs out, or is taken over as nobody's

    async def claim_unfinished(
        self, limit: int, after: UploadId | None = None, *, receiving: bool, numbers: int = 0
    ) -> list[tuple[Upload, Lease]]:
        holders = await self._pool.fetch(
            SQL["holders_of_node"], f"{self._node.id}/", repeatable=True
        )
        processes = [row[0].partition("/")[2] for row in holders]
        ended = [
            f"{self._node.id}/{process}"
            for process in processes
            if process != self._process and self._has_ended(process)
        ]
        self._claiming_unfinished += 1
        try:
            found = await self._pool.fetch(
                SQL["claim_unfinished"],
                limit,
                after,
                receiving,
                numbers,
                self._holder,
                self._options.lease_s,
                ",".join(ended),
                SECOND_PASS_S,
                repeatable=False,
            )
            uploads = [(rows.upload(row), row[COLUMNS]) for row in found]
            return [(one, self._remember(one, epoch, numbers)) for one, epoch in uploads]
        finally:
            self._claiming_unfinished -= 1
