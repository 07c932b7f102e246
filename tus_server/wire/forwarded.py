"""The origin and client of a request as they were in front of our proxies.

Every proxy adds one entry at the right: whom it heard (`for`), and the scheme and host it was
asked with. So entries are read from the right, each only while the one who wrote it is trusted:
the peer wrote the last, the address in that one wrote the last but one, and so on. What is left
of them came from the client, and is never read.

- client: the right-most address that is not a trusted proxy.
- scheme, host: what the outermost trusted proxy wrote; if it wrote none, the next one inwards.

What a proxy passes on untouched cannot be told from its own words. A trusted proxy must therefore
set, or remove, each of Forwarded, X-Forwarded-For, -Proto, -Host and -Port; and treat the last
four alike: all appended to, or all overwritten.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from tus_server.core.errors import SettingsInvalid

# RFC 3986, 3.2.2, without the percent-encoding and sub-delims of reg-name: no name in use has
# them, and without them a host is harmless in any field and page.
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]{1,253}|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NODE = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9]+(?:\.[0-9]+){3}))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
)

# RFC 7239, 4: one pair, and what ends it. Blanks beside a semicolon are not in the text but sent.
_PAIR = re.compile(
    r"[ \t]*+(?:([!#$%&'*+.^_`|~0-9A-Za-z-]++)="
    r'(?:([!#$%&\'*+.^_`|~0-9A-Za-z-]++)|"((?:[^"\\]|\\.)*+)"))?[ \t]*+([;,]|\Z)'
)


class TrustedProxies:
    """Who is believed about a request: addresses, networks, `unix` (no address), `*` (any peer).

    `*` believes whoever connects, one hop deep: to see through a chain, name its addresses.
    """

    def __init__(self, proxies: Sequence[str]) -> None:
        """Raises: SettingsInvalid."""
        self._any = "*" in proxies
        self._unix = "unix" in proxies
        self._networks = [_parse_network(text) for text in proxies if text not in ("*", "unix")]

    def trusts(self, address: str | None) -> bool:
        """Tell whether a peer is a trusted proxy; None or "" is a peer without an address."""
        if self._any:
            return True
        return self.names(address) if address else self._unix

    def names(self, address: str) -> bool:
        """Tell whether `address` itself was listed, alone or in a network."""
        if not self._networks:
            return False
        ip = _find_ip(address)
        return ip is not None and any(ip in network for network in self._networks)


def public_origin(
    peer: str | None, headers: Mapping[str, str], *, scheme: str, trusted: TrustedProxies
) -> str | None:
    """Give `scheme://host` as the client wrote it, or None if there is no well-formed host.

    `peer` and `scheme` are the connection's own. `headers`: lower-case names; repeated lines
    joined with ", ". Forwarded goes before X-Forwarded-*; what is malformed is ignored.
    """
    host = _find_host(headers.get("host", ""))
    if trusted.trusts(peer):
        if "forwarded" in headers:
            # Never on to X-Forwarded-* from here, malformed or not: a proxy that speaks one
            # dialect lets through what the client says in the other.
            elements = _parse_forwarded(headers["forwarded"])
            hops, _ = _walk(peer, [element.get("for", "") for element in elements], trusted)
            protos = [element.get("proto", "") for element in elements]
            hosts = [element.get("host", "") for element in elements]
            ports = []
        else:
            hops, _ = _walk(peer, _members(headers, "x-forwarded-for"), trusted)
            protos = _members(headers, "x-forwarded-proto")
            hosts = _members(headers, "x-forwarded-host")
            ports = _members(headers, "x-forwarded-port")
        scheme = _outermost(protos, hops, _find_scheme) or scheme
        host = _outermost(hosts, hops, _find_host) or host
        port = _outermost(ports, hops, _find_unusual_port)
        if host and port and not re.search(r":[0-9]+\Z", host):
            host = f"{host}:{port}"
    return f"{scheme}://{host}" if host else None


def client_address(
    peer: str | None, headers: Mapping[str, str], *, trusted: TrustedProxies
) -> str | None:
    """Give the right-most address of the chain that is no trusted proxy, `peer` if that is it.

    An entry that holds no address ends the chain at the proxy that wrote it.
    """
    if not trusted.trusts(peer):
        return peer
    if "forwarded" in headers:
        nodes = [element.get("for", "") for element in _parse_forwarded(headers["forwarded"])]
    else:
        nodes = _members(headers, "x-forwarded-for")
    return _walk(peer, nodes, trusted)[1]


def _walk(
    peer: str | None, nodes: Sequence[str], trusted: TrustedProxies
) -> tuple[int, str | None]:
    """Count the entries that `peer` and the proxies before it wrote (1 if there are no entries).

    Also give the address that the outermost of them heard.
    """
    address = peer
    hops = 0
    for node in reversed(nodes):
        hops += 1
        heard = _find_node(node)
        if heard is None:
            break
        address = heard
        if not trusted.names(address):
            break
    return max(1, hops), address


def _outermost(values: Sequence[str], hops: int, find: Callable[[str], str | None]) -> str | None:
    # Fewer values than hops: somebody does not write this field, and we cannot know who. The last
    # value is the only one that is certainly not the client's.
    written = values[-hops:] if len(values) >= hops else values[-1:]
    return next((found for value in written if (found := find(value))), None)


def _members(headers: Mapping[str, str], name: str) -> list[str]:
    return [text for member in headers.get(name, "").split(",") if (text := member.strip(" \t"))]


def _parse_forwarded(value: str) -> list[dict[str, str]]:
    """Parse Forwarded (RFC 7239, 4) into one mapping per proxy; none at all if malformed."""
    elements: list[dict[str, str]] = [{}]
    position = 0
    while True:
        pair = _PAIR.match(value, position)
        if pair is None:
            return []
        name, token, quoted, end = pair.groups()
        if name is not None:
            # RFC 7239, 4: each parameter MUST NOT occur more than once per element.
            if (name := name.lower()) in elements[-1]:
                return []
            elements[-1][name] = token if token else re.sub(r"\\(.)", r"\1", quoted)
        if not end:
            return [element for element in elements if element]
        if end == ",":
            elements.append({})
        position = pair.end()


def _find_scheme(text: str) -> str | None:
    scheme = text.lower()
    return scheme if scheme in ("http", "https") else None


def _find_host(text: str) -> str | None:
    """Give `host` or `host:port` in lower case if it is one."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    ipv6, port = match.groups()
    if ipv6 and not isinstance(_find_ip(ipv6, unmap=False), IPv6Address):
        return None
    if port and int(port) > 65535:
        return None
    return text.lower()


def _find_unusual_port(text: str) -> str | None:
    # 80 and 443 say what the scheme says; where they contradict it, TLS ended one proxy earlier.
    if text in ("80", "443") or not _PORT.fullmatch(text) or int(text) > 65535:
        return None
    return text


def _find_node(node: str) -> str | None:
    """Find the address in a node (RFC 7239, 6), or in an entry of X-Forwarded-For."""
    match = _NODE.fullmatch(node)
    ip = _find_ip((match[1] or match[2]) if match else node)  # X-Forwarded-For: IPv6 without []
    return str(ip) if ip else None


def _find_ip(text: str, *, unmap: bool = True) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(text.partition("%")[0])  # a zone (fe80::1%eth0) is not part of a network
    except ValueError:
        return None
    # A socket that listens on both families sees ::ffff:10.0.0.1.
    return (unmap and isinstance(ip, IPv6Address) and ip.ipv4_mapped) or ip


def _parse_network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as exc:
        raise SettingsInvalid(
            f"{text!r} is no address or network of a trusted proxy, nor 'unix' or '*': {exc}."
        ) from exc
