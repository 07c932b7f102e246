"""Who may change, in this process, what the rows say of the parts of an upload: one at a time.

Between the look of a completion and its commit no part may be replaced: its rows would agree with
the client's report, and the bytes would be others. Where another process could do so, the store
itself refuses parts of other ETags.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tus_server.core.ids import UploadId


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Books:
    """A lock for each upload that somebody works on."""

    def __init__(self) -> None:
        self._entries: dict[UploadId, _Entry] = {}

    @asynccontextmanager
    async def of(self, upload_id: UploadId) -> AsyncIterator[None]:
        """Wait until it is the caller's turn."""
        entry = self._entries.setdefault(upload_id, _Entry())
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                del self._entries[upload_id]
