"""The Broker and what it takes and gives."""

from tus_server.broker.broker import Broker, FoundParts, SessionStatus
from tus_server.broker.request import About, Kind
from tus_server.broker.watch import Changed, Watch
from tus_server.core.jobs import Job
from tus_server.engine.direct.compare import Reported
from tus_server.engine.listing import Query
from tus_server.wire.upload_view import Moved, SignedPart, SignedPut, UploadView

__all__ = [
    "About",
    "Broker",
    "Changed",
    "FoundParts",
    "Job",
    "Kind",
    "Moved",
    "Query",
    "Reported",
    "SessionStatus",
    "SignedPart",
    "SignedPut",
    "UploadView",
    "Watch",
]
