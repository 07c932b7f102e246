"""Reading finished objects: no lease, no lock, any number at once."""

from tus_server.core.errors import UploadNotFound
from tus_server.core.ids import UploadId
from tus_server.core.states import FINISHED
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine
from tus_server.engine.lookup import find_for
from tus_server.ports import Operation, Principal


async def find_download(engine: Engine, upload_id: UploadId, principal: Principal) -> Upload:
    """Give a finished upload. Raises: UploadNotFound (also while unfinished: T127), UploadGone."""
    upload = await find_for(engine, upload_id, principal, Operation.DOWNLOAD)
    if upload.state not in FINISHED:
        raise UploadNotFound("The upload is not finished.")
    return upload
