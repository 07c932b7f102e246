"""The application's part: who may do what, its checks of content, its jobs."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol as Port

from tus_server.core.upload import Upload
from tus_server.ports.rows import Event, StatusChange


class Operation(StrEnum):
    """What a request wants to do, as an authorizer sees it."""

    CREATE = "create"
    STATUS = "status"
    APPEND = "append"
    TERMINATE = "terminate"
    DOWNLOAD = "download"
    CONCATENATE = "concatenate"  # use a partial upload as part of a final one
    SIGN = "sign"
    COMPLETE = "complete"
    JUDGE = "judge"  # accept or reject
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows of who asks: effective method, path, header fields, peer address."""

    method: str
    path: str
    headers: Mapping[str, str]
    client: str | None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `name` becomes the owner of what it creates; None: anonymous.

    is_application: the application itself, by its token or in its own process. request: what it
    asks by, where somebody wants to know (see Gate).
    """

    name: str | None = None
    is_application: bool = False
    request: Credentials | None = None


ANONYMOUS = Principal()
APPLICATION = Principal(is_application=True)


class Authorizer(Port):
    """Who may do what. Called for every verb, before the body is asked for (P8, P9)."""

    @property
    def takes_all(self) -> bool:
        """Tell that authenticate() gives ANONYMOUS to everyone, so that it need not be asked."""

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Tell who asks. Raises: Unauthenticated, Forbidden."""

    async def check(
        self, principal: Principal, operation: Operation, upload: Upload | None
    ) -> None:
        """Return if `principal` may; upload is None for CREATE and LIST only.

        Raises: Forbidden, or UploadNotFound to hide another user's upload.
        """


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of the application says of the content of an upload.

    code, message: why it is refused, for the client; None, None: it is accepted.
    """

    code: str | None = None
    message: str | None = None

    @property
    def is_accepted(self) -> bool:
        return self.code is None


OpenStream = Callable[..., AsyncGenerator[bytes, None]]  # (start=0, end=None)


class Verifier(Port):
    """A check of the application, before an upload is verified: all its bytes are in the store."""

    async def __call__(self, upload: Upload, open_stream: OpenStream) -> Verdict:
        """Look at the content. May be called again for the same upload, on any node.

        Raises: CheckPostponed (to be called again later); anything else it raises counts as that.
        """


class Gate(Port):
    """The application's say before something happens: tusd's blocking hooks."""

    async def before_create(self, upload: Upload, principal: Principal) -> Upload:
        """Give the row to create: `upload`, with metadata that the application may have changed.

        Raises: RefusedByHook, CheckPostponed (the application does not answer).
        """

    async def before_terminate(self, upload: Upload, principal: Principal) -> None:
        """Return if the upload may be terminated. Raises: as before_create."""


class JobTarget(Port):
    """Where jobs and events are delivered. name: in Event.done; the same on every node."""

    @property
    def name(self) -> str: ...

    def wants(self, event: Event) -> bool:
        """Tell whether the event is for this target: by its kind, outcome and job alone."""

    async def deliver(
        self, event: Event, upload: Upload | None, history: list[StatusChange]
    ) -> None:
        """Deliver; at least once, so it may have been delivered before.

        upload: as it is now; None: its row has been removed. Raises: DeliveryFailed.
        """
