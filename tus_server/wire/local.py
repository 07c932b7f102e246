"""Whether a request can only have been made on this machine, by somebody who meant to.

For what has no token. A web page in a browser here can make requests too, and a name can be made to
lead here (DNS rebinding); a proxy here passes on those of others. Each of these shows in one of the
things looked at. Pure.
"""

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from tus_server.wire.headers import Fields

_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What proxies add. One that adds nothing, but asks with the Host of its client, shows by that.
_PROXY_FIELDS = (
    b"forwarded",
    b"via",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"true-client-ip",
    b"cf-connecting-ip",
)
_PROXY_PREFIX = b"x-forwarded"
# Fetch Metadata: what the browser itself says of where a request comes from.
_OWN_SITES = frozenset({"same-origin", "none"})

Address = tuple[str, int | None]


def find_outsider(
    fields: Fields,
    *,
    peer: Address | None,
    local: Address | None,
    scheme: str,
    http_version: str,
    allows: Callable[[str], bool],
) -> str | None:
    """Tell what about a request speaks for somebody else having made it; None: nothing does.

    peer, local: the two ends of the connection. allows: tells whether pages of an origin may.
    """
    if not (_is_loopback(peer) and _is_loopback(local)):
        return "It did not come over the loopback interface."
    assert local is not None
    for name in fields:
        if name in _PROXY_FIELDS or name.startswith(_PROXY_PREFIX):
            return f"It came through a proxy: it has {name.decode('latin-1')}."
    if http_version in ("0.9", "1.0"):
        # nginx asks so by default, with its own idea of Host and none of these fields.
        return f"HTTP/{http_version} is what proxies speak."
    host = (fields.find_joined(b"host") or "").lower()
    if not _is_here(host, local[1], scheme):
        return "Its Host is not this machine, with the port of the connection."
    origin = fields.find_joined(b"origin")
    if origin is not None:
        if origin == f"{scheme}://{_without_default(host, scheme)}" or allows(origin):
            return None
        return "It comes from a page of another origin."
    site = fields.find_joined(b"sec-fetch-site")
    if site is not None and site not in _OWN_SITES:
        return "It comes from a page of another site."
    return None


def _is_loopback(address: Address | None) -> bool:
    if address is None:
        return False
    try:
        ip = ip_address(address[0])
    except ValueError:  # the path of a unix socket, a name
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


def _is_here(host: str, port: int | None, scheme: str) -> bool:
    name, given = _split(host)
    if name not in _HOSTS or port is None:
        return False
    if given is None:
        return port == _DEFAULT_PORTS.get(scheme)
    return given == str(port)


def _without_default(host: str, scheme: str) -> str:
    """Give the host as an origin has it."""
    name, port = _split(host)
    return name if port == str(_DEFAULT_PORTS.get(scheme)) else host


def _split(host: str) -> tuple[str, str | None]:
    if host.endswith("]"):
        return host, None
    name, colon, port = host.rpartition(":")
    return (name, port) if colon else (host, None)
