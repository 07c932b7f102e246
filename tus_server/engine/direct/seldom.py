"""What is done for an upload once in a few seconds, however many ask for it."""

from tus_server.core.ids import UploadId

EVERY_S = 5.0
_PRUNED_AT = 1000


class Seldom:
    """When it was last done, of every upload of which that is not long ago."""

    def __init__(self) -> None:
        self._done_at_s: dict[UploadId, float] = {}

    def is_due(self, upload_id: UploadId, now_s: float) -> bool:
        """Tell whether it is time, by Clock.monotonic_s(); who hears so does it."""
        if now_s - self._done_at_s.get(upload_id, -EVERY_S) < EVERY_S:
            return False
        if len(self._done_at_s) >= _PRUNED_AT:
            recent = self._done_at_s.items()
            self._done_at_s = {one: at_s for one, at_s in recent if now_s - at_s < EVERY_S}
        self._done_at_s[upload_id] = now_s
        return True
