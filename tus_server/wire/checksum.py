"""Upload-Checksum: what a client says its body is (tus 1.0.0, Checksum)."""

from base64 import b64decode, b64encode

from tus_server.core.digests import ALGORITHMS, SIZES
from tus_server.core.errors import MalformedHeader
from tus_server.wire.headers import excerpt


def parse_checksum(value: bytes) -> tuple[str, bytes]:
    """Give algorithm and digest. Raises MalformedHeader.

    Exact: a checksum that is guessed at would let bytes pass, or refuse them, for no reason.
    """
    # tus 1.0.0, Upload-Checksum: the name and the Base64 encoded digest, separated by a space.
    name, space, encoded = value.partition(b" ")
    algorithm = name.decode("latin-1")
    if not space or b" " in encoded:
        raise MalformedHeader(
            f"Upload-Checksum is {excerpt(value)}; it must be an algorithm, a space and a digest."
        )
    # T81: names have no upper case. T83: what is not supported is 400.
    if algorithm not in SIZES:
        raise MalformedHeader(
            f"Upload-Checksum names {excerpt(name)}; this server takes {', '.join(ALGORITHMS)}."
        )
    try:
        digest = b64decode(encoded, validate=True)
    except ValueError:
        digest = None
    # Python takes padding beyond what is needed, and bits beyond the last byte.
    if digest is None or b64encode(digest) != encoded:
        raise MalformedHeader(f"Upload-Checksum has {excerpt(encoded)}, which is not Base64.")
    if len(digest) != SIZES[algorithm]:
        raise MalformedHeader(
            f"Upload-Checksum has {len(digest)} bytes; {algorithm} has {SIZES[algorithm]}."
        )
    return algorithm, digest
