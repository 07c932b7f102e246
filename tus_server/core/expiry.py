"""When an upload is given up: sliding from its last committed byte, capped by its age."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tus_server.core.upload import Upload

# How much later than asked for an upload may expire. Each move of the time writes to an index, so
# it moves in steps, and never falls short of what was promised.
GRANULE_S = 60.0
GRANULES = 100  # at least so many of them in a lifetime


@dataclass(frozen=True, slots=True)
class Expiry:
    """after_s: from the last committed byte on; None: never. at_most_s: from the creation on."""

    after_s: float | None
    at_most_s: float | None = None

    def first(self, now: datetime) -> datetime | None:
        """Give when an upload created now expires, if no byte comes."""
        if self.after_s is None:
            return None
        return self.capped(now + timedelta(seconds=self.after_s), now)

    def slid(self, upload: Upload, now: datetime) -> Upload:
        """Let bytes committed now extend the life of `upload`; never shortens it (T73)."""
        if upload.instructions.fixed_expiry:
            return upload
        if self.after_s is None:
            return upload if upload.expires_at is None else replace(upload, expires_at=None)
        known = upload.expires_at
        least = now + timedelta(seconds=self.after_s)
        if known is not None and known >= self.capped(least, upload.created_at):
            return upload
        later = least + timedelta(seconds=min(GRANULE_S, self.after_s / GRANULES))
        return replace(upload, expires_at=self.capped(later, upload.created_at))

    def capped(self, moment: datetime, created_at: datetime) -> datetime:
        """Give `moment`, or the end of the age if that comes first."""
        if self.at_most_s is None:
            return moment
        return min(moment, created_at + timedelta(seconds=self.at_most_s))


NEVER = Expiry(None)
