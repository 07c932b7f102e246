"""Comparing what has arrived of a direct upload with what its client reports. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tus_server.core.checksums import EMPTY_CRC64, combine_crc64
from tus_server.core.errors import MalformedRequest, PartsDiffer, UnknownPart
from tus_server.core.upload import Part, Upload
from tus_server.engine.direct.look import Look

CRC64 = "crc64nvme"


@dataclass(frozen=True, slots=True)
class Reported:
    """A part as the client reports it. etag: None: not told. crc64: its CRC-64/NVME, if told."""

    number: int
    etag: str | None = None
    crc64: int | None = None


@dataclass(frozen=True, slots=True)
class Promised:
    """What the parts tell of the whole. crc64: it is; None: nobody knows. digest: its CRC has to be
    found to be this one.
    """

    crc64: int | None
    digest: bytes | None = None

    def applied(self, upload: Upload) -> Upload:
        """Give the row with it."""
        upload = replace(upload, crc64=self.crc64)
        return upload if self.digest is None else upload.with_digests({CRC64: self.digest})


def compare(seen: Look, reported: Sequence[Reported] | None) -> Promised:
    """Give what the parts are together, if all have arrived and are those that are reported.

    reported None: whatever has arrived. Raises: PartsDiffer, UnknownPart, MalformedRequest.
    """
    told = {part.number: part for part in reported or ()}
    if reported is not None:
        _check_numbers(seen, reported)
    for part in seen.parts:
        _compare(part, told.get(part.number), seen)
    return _promised(seen, told)


def _check_numbers(seen: Look, reported: Sequence[Reported]) -> None:
    """Raise unless the client reports every part, once."""
    numbers = [part.number for part in reported]
    planned = {part.number for part in seen.parts}
    for number in numbers:
        if number not in planned:
            raise UnknownPart(f"The upload has parts 1 to {len(planned)}, not {number}.")
    if len(set(numbers)) != len(numbers):
        raise MalformedRequest("A part is reported twice.")
    left_out = planned.difference(numbers)
    if left_out:
        first = min(left_out)
        raise PartsDiffer(
            f"Part {first} is not among those reported; {len(left_out)} of {len(planned)} are not.",
            part=first,
        )


def _compare(part: Part, told: Reported | None, seen: Look) -> None:
    """Raise PartsDiffer unless a part has arrived, and is what the client reports."""
    number = part.number
    if part.etag is None:
        odd = seen.odd.get(number)
        if odd is None:
            raise PartsDiffer(f"Part {number} has not arrived: sign it and send it.", part=number)
        raise PartsDiffer(
            f"Part {number} has {odd.size} bytes, not {part.size}: send it again.", part=number
        )
    if told is None:
        return
    if told.etag is not None and told.etag.strip('"') != part.etag.strip('"'):
        raise PartsDiffer(
            f"Part {number} has the ETag {part.etag}, not the one reported: send it again, or"
            " report what its PUT was answered with.",
            part=number,
        )
    if told.crc64 is not None and part.crc64 not in (None, told.crc64):
        raise PartsDiffer(f"Part {number} has another checksum than reported.", part=number)


def _promised(seen: Look, told: dict[int, Reported]) -> Promised:
    known = _combined([(part.crc64, part.size) for part in seen.parts])
    if known is not None:
        return Promised(known)
    reported = [told.get(part.number, Reported(part.number)).crc64 for part in seen.parts]
    promised = _combined(
        [
            (part.crc64 if one is None else one, part.size)
            for part, one in zip(seen.parts, reported, strict=True)
        ]
    )
    if promised is None or all(one is None for one in reported):
        return Promised(None)
    return Promised(None, promised.to_bytes(8, "big"))


def _combined(crcs: list[tuple[int | None, int]]) -> int | None:
    """Give the CRC of parts, each with its size, laid end to end; None where one is not known."""
    whole = EMPTY_CRC64
    for crc, size in crcs:
        if crc is None:
            return None
        whole = combine_crc64(whole, crc, size)
    return whole
