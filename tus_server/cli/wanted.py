"""Which uploads `tus-server uploads ls` is asked for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tus_server.core.states import UploadState
from tus_server.core.upload import Protocol, Upload

if TYPE_CHECKING:
    from tus_server.ports import StateReader

_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """None: whatever it is."""

    states: frozenset[UploadState] | None = None
    kinds: frozenset[Protocol] | None = None
    file_id: str | None = None

    def has(self, upload: Upload) -> bool:
        return (self.states is None or upload.state in self.states) and (
            self.kinds is None or upload.protocol in self.kinds
        )


async def find_wanted(reader: "StateReader", wanted: Wanted, limit: int) -> list[Upload]:
    """Give up to `limit` uploads, newest first; of kinds that are rare it looks at many more."""
    found: list[Upload] = []
    page_size = limit if wanted.kinds is None else max(limit, _PAGE)
    before = None
    while True:
        if wanted.file_id is None:
            page = await reader.list_uploads(wanted.states, page_size, before)
        else:
            page = await reader.find_by_file_id(wanted.file_id, page_size, before)
        found += [upload for upload in page if wanted.has(upload)]
        if len(page) < page_size or len(found) >= limit:
            return found[:limit]
        before = page[-1].id
