"""Giving up a lost tail: the offset goes back to the committed parts, and history says so.

The one way in which acknowledged bytes are given up (P1): by an operator, or by a policy that an
operator has chosen.
"""

from dataclasses import replace

import structlog

from tus_server.core.errors import NothingToRewind
from tus_server.core.ids import UploadId
from tus_server.core.states import UNFINISHED
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.engine.leases import stay
from tus_server.engine.lookup import check_alive
from tus_server.ports import Lease

log = structlog.get_logger(__name__)


async def rewind(engine: Engine, upload_id: UploadId) -> tuple[Upload, Upload]:
    """Give up the tail of an upload; give the row before and after.

    Raises: UploadNotFound, NothingToRewind, LeaseNotObtained, StateUnavailable.
    """
    lease, upload = await engine.leases.acquire(upload_id, stay)
    try:
        check_alive(engine, upload)
        if upload.state not in UNFINISHED or upload.tail is None:
            raise NothingToRewind(f"Upload {upload.id} has no tail: every byte is in the store.")
        return upload, await rewind_tail(engine, lease, upload)
    finally:
        await engine.leases.release(lease)


async def rewind_tail(engine: Engine, lease: Lease, upload: Upload) -> Upload:
    """Give up the tail of an unfinished upload that has one, under a lease."""
    tail = upload.tail
    assert tail is not None
    assert engine.tails is not None
    rewound = replace(upload, tail=None)
    note = (
        f"rewound from {upload.offset} to {rewound.offset}: {tail.length} bytes"
        f" given up, which were on {await engine.tails.owner(tail)}"
    )
    await engine.state.commit(lease, upload, rewound, note=note)
    log.warning("upload.rewound", upload=upload.id, offset=rewound.offset, given_up=tail.length)
    await engine.tails.remove(rewound, tail)
    return rewound
