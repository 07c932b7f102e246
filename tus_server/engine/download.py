"""Reading finished objects: no lease, no lock, any number at once."""

from tus_server.core.errors import UploadNotFound
from tus_server.core.states import FINISHED, UploadState
from tus_server.core.upload import Upload
from tus_server.engine.concatenate import final_status
from tus_server.engine.engine import Engine
from tus_server.engine.lookup import check_alive


async def check_readable(engine: Engine, upload: Upload) -> None:
    """Return if the content of `upload` can be read.

    Raises: UploadNotFound (also while it is unfinished: T127, and once the application has rejected
    it), UploadGone.
    """
    check_alive(engine, upload)
    if upload.state is UploadState.REJECTED:
        raise UploadNotFound("The application has rejected the upload.")
    if upload.state in FINISHED:
        return
    if upload.is_final:
        await final_status(engine, upload)
    raise UploadNotFound("The upload is not finished.")
