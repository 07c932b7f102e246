"""Steps of tests with a state store, in short."""

from dataclasses import replace
from typing import Any

from tests.support.fakes import FakeClock, make_upload
from tus_server.core.ids import UploadId
from tus_server.core.states import UploadState
from tus_server.core.upload import Upload
from tus_server.ports import Lease, StateStore

NOBODY = UploadId("f" * 32)


async def create(state: StateStore, clock: FakeClock, /, **fields: Any) -> Upload:
    upload = make_upload(clock, **fields)
    await state.create_upload(upload, claim=False)
    return upload


async def claim(state: StateStore, upload: Upload, *, numbers: int = 0) -> Lease:
    """Take the lease of an upload that nobody holds."""
    lease = (await state.claim_upload(upload.id, numbers=numbers)).lease
    assert lease is not None
    return lease


async def row(state: StateStore, upload: Upload) -> Upload:
    """Give the row of an upload as it is now."""
    found = await state.find_upload(upload.id)
    assert found is not None
    return found


async def walk(state: StateStore, clock: FakeClock, upload: Upload, *steps: UploadState) -> Upload:
    """Take an upload through `steps`, one commit each."""
    lease = await claim(state, upload)
    for step in steps:
        after = upload.stepped(step, on=clock.now())
        if step is UploadState.COMPLETED:
            after = replace(after, length=after.committed_bytes)
        if step is UploadState.ERROR:
            after = replace(after, error_code="bytes_missing", error_message="gone")
        await state.commit(lease, upload, after, steps=(step,))
        upload = after
    await state.release(lease)
    return upload


async def everything(state: StateStore, upload_id: UploadId) -> tuple[object, ...]:
    """Give all that is durable about one upload."""
    return (
        await state.find_upload(upload_id),
        await state.history(upload_id),
        await state.find_parts(upload_id),
        [event for event in await state.pending_events(1000) if event.upload_id == upload_id],
    )


async def is_held(state: StateStore, upload_id: UploadId) -> bool:
    """Tell whether an upload is held, maybe by one who has died."""
    return (await state.observe_upload(upload_id)).held
