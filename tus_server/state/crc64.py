"""A CRC-64 <-> what a row has of it: neither database has an unsigned integer of 64 bits."""

_SIGN = 1 << 63
_WRAP = 1 << 64


def signed(crc64: int | None) -> int | None:
    """Give a CRC, if it is known, as a signed integer."""
    return crc64 - _WRAP if crc64 is not None and crc64 >= _SIGN else crc64


def unsigned(stored: int) -> int:
    """Give back what signed() was given, if that was one."""
    return stored + _WRAP if stored < 0 else stored


def unsigned_if_known(stored: int | None) -> int | None:
    """Give back what signed() was given."""
    return None if stored is None else unsigned(stored)
