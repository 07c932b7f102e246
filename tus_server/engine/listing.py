"""Listing uploads for the application, page by page."""

from collections.abc import Sequence
from dataclasses import dataclass

from tus_server.core.errors import MalformedRequest
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.ports import Operation, Principal, StatusChange

MOST = 500

Found = tuple[Upload, list[StatusChange]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which uploads, newest first. before: the last one of the page before; None: from the newest.

    states None: all.
    """

    file_id: str | None = None
    states: frozenset[UploadState] | None = None
    before: UploadId | None = None
    limit: int = 50


async def list_uploads(engine: Engine, query: Query, principal: Principal) -> list[Found]:
    """Give uploads with their histories.

    Raises: MalformedRequest (there is no such row to go on behind), StateUnavailable, what the
    authorizer raises.
    """
    await engine.authorizer.check(principal, Operation.LIST, None)
    if query.before is not None and await engine.state.find_upload(query.before) is None:
        # Its row was removed meanwhile; without a word the list would end here.
        raise MalformedRequest("The upload that this page follows is no more: begin again.")
    if query.file_id is None:
        rows: Sequence[Upload]
        rows = await engine.state.list_uploads(query.states, query.limit, query.before)
    else:
        rows = await _of_file(engine, query, query.file_id)
    histories = await engine.state.histories([row.id for row in rows])
    return [(row, histories.get(row.id, [])) for row in rows]


async def _of_file(engine: Engine, query: Query, file_id: str) -> list[Upload]:
    """Give those of one file: few, so what is in other states is passed over here."""
    found: list[Upload] = []
    before = query.before
    while True:
        page = await engine.state.find_by_file_id(file_id, query.limit, before)
        found += [row for row in page if query.states is None or row.state in query.states]
        if len(page) < query.limit or len(found) >= query.limit:
            return found[: query.limit]
        before = page[-1].id
