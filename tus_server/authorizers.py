"""Authorizers that come with the server."""

from tus_server.core.upload import Upload
from tus_server.ports import ANONYMOUS, Credentials, Operation, Principal


class AllowAll:
    """Lets everyone do everything: whoever knows the URL of an upload may use it."""

    @property
    def takes_all(self) -> bool:
        return True

    async def authenticate(self, credentials: Credentials) -> Principal:
        return ANONYMOUS

    async def check(
        self, principal: Principal, operation: Operation, upload: Upload | None
    ) -> None:
        return None
