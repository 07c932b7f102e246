"""Watching an upload: every change of its state, and how far it has got.

A change is told by its position in the history, from 1: who names the last one it has heard of
misses none, and hears none twice. Nothing is held between two looks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tus_server.core.errors import TryAgainError
from tus_server.core.ids import UploadId
from tus_server.core.states import TERMINAL, UNFINISHED, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.direct.complete import complete_behind
from tus_server.engine.direct.look import look
from tus_server.engine.engine import Engine
from tus_server.engine.lookup import find_row
from tus_server.ports import StatusChange
from tus_server.wire.upload_view import Moved, UploadView, find_progress

View = Callable[[Upload, Sequence[StatusChange]], UploadView]


@dataclass(frozen=True, slots=True)
class Changed:
    """The upload has entered a state. position: in its history; view: as it was told then."""

    position: int
    view: UploadView


class Watch:
    """One who watches an upload. Used by one task."""

    def __init__(
        self, engine: Engine, upload_id: UploadId, view: View, *, after: int | None
    ) -> None:
        """after: the position of the last change known; None: begin with the current one."""
        self._engine = engine
        self._id = upload_id
        self._view = view
        self._heard = after
        self._row: Upload | None = None
        self._told: Moved | None = None

    @property
    def is_over(self) -> bool:
        """Tell whether nothing is to come that anybody waits for, as last looked at.

        It has ended, was judged, or is verified and needs no verdict. It may be deleted later.
        """
        row = self._row
        if row is None:
            return False
        if row.state is UploadState.VERIFIED:
            return not row.instructions.require_acceptance
        return row.state in TERMINAL | {UploadState.ACCEPTED, UploadState.REJECTED}

    async def look(self) -> list[Changed | Moved]:
        """Give what is new since the last look. Raises: UploadNotFound, StateUnavailable."""
        row = await self._find()
        if row.is_direct and row.state in UNFINISHED:
            row = await self._look_at_store(row)
        if row == self._row:
            return []
        news: list[Changed | Moved] = list(await self._changes())
        assert self._row is not None
        moved = Moved(
            committed_bytes=self._row.offset,
            length=self._row.length,
            progress=find_progress(self._row, self._engine.state.now()),
        )
        if not news and moved != self._told:
            news.append(moved)
        self._told = moved
        return news

    async def _changes(self) -> list[Changed]:
        # The history first: the row is then at least as new as every change in it.
        history = await self._engine.state.history(self._id)
        self._row = row = await self._find()
        count = len(history)
        if self._heard is None or self._heard > count:
            self._heard = count - 1
        changes = []
        for position in range(self._heard + 1, count + 1):
            passed = history[count - position :]
            changes.append(Changed(position, self._view(_as_of(row, passed[0]), passed)))
        self._heard = count
        return changes

    async def _find(self) -> Upload:
        return await find_row(self._engine, self._id)

    async def _look_at_store(self, row: Upload) -> Upload:
        """Look for parts that nobody tells this server of, now and then. Never raises."""
        engine = self._engine
        if not engine.objects.limits.keeps_receipts or row.multipart_id is None:
            return row
        if not engine.seldom.is_due(row.id, engine.clock.monotonic_s()):
            return row
        try:
            async with engine.books.of(row.id):
                row = (await look(engine, row)).upload
        except TryAgainError:
            return row
        complete_behind(engine, row)
        return row


def _as_of(row: Upload, change: StatusChange) -> Upload:
    """Give the row in an earlier state: what it has come to since is told by later changes."""
    if change.state is row.state:
        return row
    past = replace(row, state=change.state, state_on=change.at)
    if past.completed_at is not None and past.completed_at > change.at:
        past = replace(past, completed_at=None)
    if change.state is not UploadState.ERROR:
        past = replace(past, error_code=None, error_message=None)
    return past
