"""What differs between the interop versions of RUFH: one table, read by everything else.

A version belongs to a request, not to an upload.
"""

from dataclasses import dataclass
from enum import StrEnum

from tus_server.wire.headers import Fields
from tus_server.wire.structured import find_integer

INTEROP = b"upload-draft-interop-version"


class MissingFlag(StrEnum):
    """What an append means that does not say whether it completes the upload."""

    COMPLETES = "completes"  # the text of -01
    BY_LENGTH = "by_length"  # the drafts contradict themselves: reaching the length decides (D1)
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The rules of one version.

    number: as in Upload-Draft-Interop-Version, None where the request named none that we know;
    then there is no 104 (R85). flag: the field that tells whether an upload is complete; inverse:
    it tells that it is not. checks_type: PATCH needs application/partial-upload. appended: status
    of an append that completes nothing. lifetime_key: member of Upload-Limit, None: no such field.
    informs_progress: 104 with Upload-Offset. invalidates: a body beyond the length ends the upload
    (R60). replays: an empty append to a completed upload gets its reply again (R58).
    """

    number: int | None
    flag: bytes = b"upload-complete"
    inverse: bool = False
    missing_flag: MissingFlag = MissingFlag.REFUSED
    checks_type: bool = True
    appended: int = 204
    lifetime_key: bytes | None = b"max-age"
    informs_progress: bool = True
    invalidates: bool = True
    replays: bool = True

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """The fields of every reply, 104 and final (R86)."""
        return [] if self.number is None else [(INTEROP, b"%d" % self.number)]

    def render_flag(self, *, done: bool) -> tuple[bytes, bytes]:
        """Give the field that says whether the upload is complete."""
        return self.flag, b"?1" if done is not self.inverse else b"?0"


# -01: URLSession of iOS 17 and macOS 14.
V3 = Version(
    number=3,
    flag=b"upload-incomplete",
    inverse=True,
    missing_flag=MissingFlag.COMPLETES,
    checks_type=False,
    appended=201,
    lifetime_key=None,
    informs_progress=False,
    invalidates=False,
)
# -03: URLSession of iOS 18.0 and macOS 15.0, tus-js-client.
V5 = Version(
    number=5,
    missing_flag=MissingFlag.BY_LENGTH,
    checks_type=False,
    appended=201,
    lifetime_key=None,
    invalidates=False,
)
# -04, -05: URLSession since iOS 18.1 and macOS 15.1, tus-js-client.
V6 = Version(
    number=6,
    missing_flag=MissingFlag.BY_LENGTH,
    appended=201,
    lifetime_key=b"expires",
    invalidates=False,
    replays=False,
)
V8 = Version(number=8)  # -09 to -11
V9 = Version(number=9)  # -12
V10 = Version(number=10)  # -13
NEWEST = Version(number=None)  # the newest text, for who names no version or a later one

SERVED = {version.number: version for version in (V3, V5, V6, V8, V9, V10)}
VERSIONS = (*SERVED.values(), NEWEST)
_LAST = max(number for number in SERVED if number is not None)


def find_version(fields: Fields) -> Version | None:
    """Give the version a request is to be answered in; None: it names one that nobody serves."""
    if INTEROP not in fields:
        return NEWEST
    number = find_integer(fields, INTEROP)
    if number is not None and number > _LAST:
        return NEWEST  # the upload works, only the early URL is missing
    return SERVED.get(number)
