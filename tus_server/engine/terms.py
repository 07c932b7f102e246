"""What a request says about the body it sends, whatever its protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tus_server.core.errors import AppendTooLarge


class Overrun(StrEnum):
    """What becomes of an upload whose body goes on behind the length."""

    REFUSE = "refuse"  # tus: what would have completed it is dropped, the upload stays (T120)
    KEEP = "keep"  # RUFH up to version 6: bytes up to the length stay, it is not complete (R60)
    INVALIDATE = "invalidate"  # RUFH from version 8 on: the upload is given up (R60)


@dataclass(frozen=True, slots=True)
class Checks:
    """What the body has to be; nothing of it counts before that is known (T87, R80).

    expected: digests of the body by algorithm (core.digests). find_late: gives algorithm and
    digest once the body has ended, for what comes behind it (T89); it raises MalformedRequest
    where there is none.
    """

    expected: Mapping[str, bytes] = field(default_factory=dict)
    find_late: Callable[[], tuple[str, bytes]] | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How the body of a creation or an append is to be taken.

    length: of the whole upload, as this request settles it; None if it says nothing of it.
    completes: whether the end of the body is the end of the upload; None: reaching the length
    completes it (tus). replays: an empty body that completes an upload which is complete already
    succeeds again (R58). max_body: bytes of the body at the most (R13). digests: of the whole
    content; None: asked for. on_progress: is called, on the loop, with the offset after each commit
    but the last.
    """

    length: int | None = None
    completes: bool | None = None
    overrun: Overrun = Overrun.REFUSE
    replays: bool = True
    max_body: int | None = None
    checks: Checks | None = None
    digests: Mapping[str, bytes | None] = field(default_factory=dict)
    on_progress: Callable[[int], None] | None = None

    def check_body_size(self, size: int | None) -> None:
        """Raise AppendTooLarge if so many bytes are too many; None: their number is not known."""
        if size is not None and self.max_body is not None and size > self.max_body:
            raise AppendTooLarge(f"The largest body taken has {self.max_body} bytes.")


PLAIN = Terms()
