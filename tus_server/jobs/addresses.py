"""Addresses that no webhook goes to: those of this machine and of the networks around it.

What a client may name must not reach what only we can reach (SSRF). The check is made on the very
address that a socket is about to connect to, so that no name can point elsewhere between the look
and the connection (DNS rebinding).
"""

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

Address = IPv4Address | IPv6Address

# RFC 6052: the IPv4 address is at the end, and a gateway sends it there.
_NAT64 = IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = IPv6Network("::/96")


class AddressRefused(OSError):
    """An address that nothing may be sent to."""


def find_literal(host: str) -> Address | None:
    """Give the address that a host of a URL is, without its brackets; None: it is a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_private(address: Address) -> bool:
    """Tell whether an address is anything but one host of the public Internet."""
    if isinstance(address, IPv6Address):
        inner = _inner(address)
        if inner is not None and is_private(inner):
            return True
        if address.ipv4_mapped is not None or address in _NAT64:
            return False  # nothing but another form of the inner one
        if address.is_site_local:
            return True
    return not address.is_global or address.is_multicast or address.is_reserved


def open_public_socket(found: tuple[Any, Any, Any, Any, tuple[Any, ...]]) -> socket.socket:
    """Make the socket to connect to what was found, as aiohttp's socket_factory.

    Raises: AddressRefused.
    """
    family, kind, protocol, _, where = found
    address = find_literal(str(where[0]))
    if address is None or is_private(address):
        raise AddressRefused(f"{where[0]} is a private address (TUS_WEBHOOK_ALLOW_PRIVATE)")
    return socket.socket(family=family, type=kind, proto=protocol)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Give the IPv4 address that packets to an IPv6 address end at."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or address in _V4_COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
