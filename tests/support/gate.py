"""An authorizer for tests: what it decides is written in the Authorization field."""

from dataclasses import dataclass

from tus_server.core.errors import Forbidden, Unauthenticated, UploadNotFound
from tus_server.core.upload import Upload
from tus_server.ports import Credentials, Operation, Principal


@dataclass(frozen=True)
class Gate:
    """`Bearer NAME` is who asks; each sees only own uploads.

    `Bearer guest` may not create; `Bearer keeper` may not DELETE; `Bearer defect` runs into an
    exception that nobody expects.
    """

    takes_all: bool = False

    async def authenticate(self, credentials: Credentials) -> Principal:
        name = credentials.headers.get("authorization", "").removeprefix("Bearer ")
        if not name:
            raise Unauthenticated
        if name == "defect":
            raise RuntimeError("a defect, ordered by a test")
        if name == "keeper" and credentials.method == "DELETE":
            raise Forbidden
        return Principal(name)

    async def check(
        self, principal: Principal, operation: Operation, upload: Upload | None
    ) -> None:
        if principal.name == "guest" and operation is Operation.CREATE:
            raise Forbidden
        if upload is not None and upload.owner != principal.name:
            raise UploadNotFound
