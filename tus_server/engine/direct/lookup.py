"""Finding a direct upload for a request of the application."""

from tus_server.core.direct import part_count, part_range
from tus_server.core.errors import (
    IllegalStep,
    NoDirectUpload,
    UnknownPart,
    UploadGone,
)
from tus_server.core.ids import UploadId
from tus_server.core.states import UNFINISHED
from tus_server.core.upload import Part, Upload
from tus_server.engine.engine import Engine
from tus_server.engine.lookup import find_row, is_expired
from tus_server.ports import Operation, Principal


async def find_any(
    engine: Engine, upload_id: UploadId, principal: Principal, operation: Operation
) -> Upload:
    """Give an upload whatever its state: applications ask also of what has ended.

    Raises: UploadNotFound, what the authorizer raises.
    """
    upload = await find_row(engine, upload_id)
    await engine.authorizer.check(principal, operation, upload)
    return upload


def check_takes_parts(engine: Engine, upload: Upload) -> None:
    """Raise unless parts of the upload may still be sent.

    Raises: NoDirectUpload, UploadGone (its time is over), IllegalStep.
    """
    if not upload.is_direct:
        raise NoDirectUpload(f"Its kind is {upload.protocol}: a client sends the bytes itself.")
    if is_expired(engine, upload):
        raise UploadGone
    if upload.state not in UNFINISHED:
        raise IllegalStep(f"The upload is {upload.state} and takes no parts.", state=upload.state)


def get_all_planned(upload: Upload) -> list[Part]:
    """Give all parts of a direct upload, as get_planned."""
    assert upload.length is not None
    assert upload.part_size is not None
    length, size = upload.length, upload.part_size
    return [
        Part(number, *part_range(number, length=length, part_size=size), None, None)
        for number in range(1, part_count(length, size) + 1)
    ]


def get_planned(upload: Upload, number: int) -> Part:
    """Give a part of a direct upload as it was planned, with no word of whether it has arrived.

    Without a look at the rows: there may be ten thousand. Raises: UnknownPart.
    """
    assert upload.length is not None
    assert upload.part_size is not None
    count = part_count(upload.length, upload.part_size)
    if not 1 <= number <= count:
        raise UnknownPart(f"The upload has parts 1 to {count}, not {number}.")
    start, size = part_range(number, length=upload.length, part_size=upload.part_size)
    return Part(number, start, size, None, None)
