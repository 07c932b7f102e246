"""When bytes are called lost: not before the store has denied them again and again for a while."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tus_server.core.errors import BytesMissing, StoreUnavailable
from tus_server.core.ids import UploadId
from tus_server.core.upload import Upload

LOST_AFTER_S = 15 * 60.0
# Two denials far apart prove nothing of the time between them: S3 may have had two bad moments.
LONGEST_GAP_S = 2 * 60.0
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Denied:
    """Since when, and when last, without a long gap in between."""

    since_s: float
    last_s: float


@dataclass(slots=True)
class Losses:
    """For how long the store has denied committed bytes of uploads."""

    lost_after_s: float = LOST_AFTER_S
    monotonic_s: Callable[[], float] = time.monotonic
    _denied: dict[UploadId, _Denied] = field(default_factory=dict)  # the latest denial last

    def conclude(self, upload: Upload, detail: str) -> BytesMissing | StoreUnavailable:
        """Give what is to be raised now that bytes were denied."""
        now_s = self.monotonic_s()
        before = self._denied.pop(upload.id, None)
        if before is None or now_s - before.last_s > LONGEST_GAP_S:
            before = _Denied(now_s, now_s)
        self._denied[upload.id] = _Denied(before.since_s, now_s)
        while len(self._denied) > REMEMBERED:
            del self._denied[next(iter(self._denied))]
        if now_s - before.since_s >= self.lost_after_s:
            return BytesMissing(detail)
        return StoreUnavailable(f"{detail} It will be looked for again before it is called lost.")

    def knows(self, upload: Upload) -> bool:
        """Tell whether bytes of it were denied, and not found since."""
        return upload.id in self._denied

    def found(self, upload: Upload) -> None:
        """Forget what was denied: it is there."""
        self._denied.pop(upload.id, None)
