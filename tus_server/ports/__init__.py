"""What the engine needs from outside, as Protocols with their contracts.

Contracts are written here, once; an adapter documents only what is special about its backend.
`tests/contract/` runs every rule of them against every implementation and the fakes.
"""

from tus_server.ports.application import (
    ANONYMOUS,
    APPLICATION,
    Authorizer,
    Credentials,
    Gate,
    JobTarget,
    OpenStream,
    Operation,
    Principal,
    Verdict,
    Verifier,
)
from tus_server.ports.direct import DirectParts, FoundPart, PartFile, PartFiles, SignedRequest
from tus_server.ports.files import FoundPartial, FoundTail, PartialFiles, TailFiles, TailStore
from tus_server.ports.objects import (
    Confirm,
    Joined,
    ObjectStore,
    PartReceipt,
    PartWriter,
    StoreLimits,
    UploadWriter,
)
from tus_server.ports.request import Blocks, Body, Clock, Threads
from tus_server.ports.rows import (
    Attempt,
    Beat,
    Claim,
    Event,
    Lease,
    Letters,
    Node,
    NodeSeen,
    StatusChange,
)
from tus_server.ports.state import SECOND_PASS_S, JobQueue, StateReader, StateStore

__all__ = [
    # rows
    "Lease",
    "Claim",
    "Beat",
    "Node",
    "NodeSeen",
    "StatusChange",
    "Event",
    "Letters",
    "Attempt",
    # state
    "SECOND_PASS_S",
    "StateReader",
    "StateStore",
    "JobQueue",
    # objects
    "StoreLimits",
    "PartReceipt",
    "PartWriter",
    "UploadWriter",
    "Confirm",
    "Joined",
    "ObjectStore",
    # direct
    "SignedRequest",
    "FoundPart",
    "DirectParts",
    "PartFile",
    "PartFiles",
    # application
    "Operation",
    "Credentials",
    "Principal",
    "ANONYMOUS",
    "APPLICATION",
    "Authorizer",
    "Verdict",
    "OpenStream",
    "Verifier",
    "Gate",
    "JobTarget",
    # files
    "TailStore",
    "FoundTail",
    "TailFiles",
    "FoundPartial",
    "PartialFiles",
    # request
    "Body",
    "Blocks",
    "Threads",
    "Clock",
]
