"""The application's verdict on a verified upload: accepted or rejected, for good."""

from tus_server.core.errors import IllegalStep
from tus_server.core.ids import UploadId
from tus_server.core.states import TERMINAL, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.engine.leases import Admit, stay
from tus_server.ports import Operation, Principal


async def judge(
    engine: Engine,
    upload_id: UploadId,
    principal: Principal,
    *,
    accepts: bool,
    note: str | None = None,
) -> Upload:
    """Accept or reject; give the row. Repeating a verdict changes nothing, also after a deletion.

    Raises: UploadNotFound, IllegalStep (it is not verified, or was judged otherwise),
    LeaseNotObtained, StateUnavailable, what the authorizer raises.
    """
    verdict = UploadState.ACCEPTED if accepts else UploadState.REJECTED

    async def admit(upload: Upload, held: bool) -> None:
        await engine.authorizer.check(principal, Operation.JUDGE, upload)
        _check(upload, verdict)

    try:
        return await engine.undisturbed(_judge(engine, upload_id, verdict, admit, note), stay)
    except IllegalStep:
        row = await engine.state.find_upload(upload_id)
        if row is not None and row.state in TERMINAL and await _was(engine, upload_id, verdict):
            return row
        raise


async def _was(engine: Engine, upload_id: UploadId, verdict: UploadState) -> bool:
    return any(change.state is verdict for change in await engine.state.history(upload_id))


async def _judge(
    engine: Engine, upload_id: UploadId, verdict: UploadState, admit: Admit, note: str | None
) -> Upload:
    lease, row = await engine.leases.acquire(upload_id, stay, admit=admit)
    try:
        if row.state is verdict:
            return row
        _check(row, verdict)
        after = row.stepped(verdict, on=engine.clock.now())
        await engine.state.commit(lease, row, after, steps=(verdict,), note=note, release=True)
        return after
    finally:
        await engine.leases.release(lease)


def _check(upload: Upload, verdict: UploadState) -> None:
    if upload.state not in (UploadState.VERIFIED, verdict):
        raise IllegalStep(
            f"The upload is {upload.state}; only a verified one can be {verdict}.",
            state=upload.state,
        )
