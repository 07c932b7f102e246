"""Whether what a request has sent is what it said it would be."""

from collections.abc import Mapping

from tus_server.core.digests import ALGORITHMS, new_hasher
from tus_server.core.errors import ChecksumMismatch
from tus_server.core.upload import Upload
from tus_server.engine.finish import check_digests
from tus_server.engine.hashing import Hashing
from tus_server.engine.terms import Checks, Terms
from tus_server.ports import Threads


class Verdict:
    """Judges one body, and the whole upload where the body is all of it.

    Costs nothing where nothing is to be checked. fed: bytes of the body given to it.
    """

    def __init__(self, threads: Threads, upload: Upload, terms: Terms) -> None:
        self.fed = 0
        self._checks = terms.checks
        # Of a body that does not begin at byte 0 they are read from the finished object.
        self._whole = upload.with_digests(terms.digests).digests if upload.offset == 0 else {}
        wanted = set(self._whole)
        if self._checks is not None:
            late = self._checks.find_late is not None
            wanted |= set(ALGORITHMS) if late else set(self._checks.expected)
        self._hashing = Hashing(threads, wanted) if wanted else None

    def feed(self, block: memoryview) -> None:
        """Begin to take bytes of the body; see Hashing."""
        if self._hashing is not None:
            self._hashing.feed(block)
            self.fed = self._hashing.fed

    def has_taken(self, until: int) -> bool:
        """Tell whether the memory of the first `until` bytes may be used again."""
        return self._hashing is None or self._hashing.has_taken(until)

    async def taken(self, until: int) -> None:
        """Wait until the memory of the first `until` bytes may be used again."""
        if self._hashing is not None:
            await self._hashing.taken(until)

    async def settle(self) -> None:
        """Wait until that is so for all."""
        if self._hashing is not None:
            await self._hashing.settle()

    def check_body(self) -> None:
        """Raise ChecksumMismatch unless the body, read to its end, is what it should be.

        Raises what Checks.find_late does, too.
        """
        assert self._checks is not None
        if self._hashing is not None:
            _compare(self._checks, self._hashing.digests())

    def find_digests(self) -> dict[str, bytes] | None:
        """Give the digests of the whole upload, whose last byte was fed; None: not known here.

        Raises: DigestMismatch.
        """
        if self._hashing is None or not self._whole:
            return None
        return check_digests(self._whole, self._hashing.digests())


def check_empty(checks: Checks) -> None:
    """Raise ChecksumMismatch unless an empty body is what it should be."""
    _compare(checks, {algorithm: new_hasher(algorithm).digest() for algorithm in ALGORITHMS})


def _compare(checks: Checks, digests: Mapping[str, bytes]) -> None:
    expected = dict(checks.expected)
    if checks.find_late is not None:
        algorithm, digest = checks.find_late()
        expected[algorithm] = digest
    for algorithm, digest in expected.items():
        if digests[algorithm] != digest:
            raise ChecksumMismatch(f"The {algorithm} checksum of the body differs.")
