"""Who holds what: the leases of the one process that owns the file, in memory."""

from dataclasses import replace

from tus_server.core.ids import UploadId
from tus_server.core.upload import Upload
from tus_server.ports import Lease

EPOCHS_PER_RUN = 2**32  # more leases than a process can grant


class Leases:
    """Leases of this run of the server, and those that ended without being let go of (`lapsed`)."""

    def __init__(self, run: int, lapsed: set[UploadId]) -> None:
        self._last_epoch = run * EPOCHS_PER_RUN
        self._epochs: dict[UploadId, int] = {}
        self.lapsed = lapsed

    @property
    def held(self) -> frozenset[UploadId]:
        return frozenset(self._epochs)

    def is_held(self, upload_id: UploadId) -> bool:
        return upload_id in self._epochs

    def is_current(self, lease: Lease) -> bool:
        return self._epochs.get(lease.upload_id) == lease.epoch

    def grant(self, upload: Upload, numbers: int) -> tuple[Upload, Lease]:
        """Give a lease on an upload nobody holds, and the row as it has to be with it."""
        self._last_epoch += 1
        epoch = self._epochs[upload.id] = self._last_epoch
        first = upload.next_part_number
        if numbers:
            upload = replace(upload, next_part_number=first + numbers)
        if upload.id in self.lapsed:
            upload = replace(upload, generation=epoch, unclean=True)
        return upload, Lease(upload.id, epoch, range(first, first + numbers))

    def end(self, lease: Lease, *, lapsed: bool = False) -> None:
        """End a lease if it is the current one; lapsed: the row does not know of the end."""
        if self.is_current(lease):
            del self._epochs[lease.upload_id]
            if lapsed:
                self.lapsed.add(lease.upload_id)
