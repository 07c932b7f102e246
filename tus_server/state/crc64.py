"""A CRC-64 <-> what a row has of it: neither database has an unsigned integer of 64 bits."""

_SIGN = 1 << 63
_WRAP = 1 << 64


def signed(crc64: int) -> int:
    """Give a CRC as a signed integer."""
    return crc64 - _WRAP if crc64 >= _SIGN else crc64


def unsigned(stored: int) -> int:
    """Give back what signed() was given."""
    return stored + _WRAP if stored < 0 else stored
