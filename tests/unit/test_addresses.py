"""Addresses that webhooks go to, and those they do not."""

import socket
from ipaddress import ip_address

import pytest

from tus_server.jobs.addresses import AddressRefused, find_literal, is_private, open_public_socket

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.9.10",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
]
EMBEDDED = [
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    # Teredo: the client's address is at the end, inverted.
    "2001:0:808:808:0:0:80ff:fffe",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "172.15.0.1",
    "172.32.0.1",
    "192.167.1.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", PRIVATE + EMBEDDED)
def test_no_address_of_this_machine_or_the_networks_around_it_is_public(address: str) -> None:
    assert is_private(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert not is_private(ip_address(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1%eth0"])
def test_no_socket_is_made_to_a_private_address(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with pytest.raises(AddressRefused, match="TUS_WEBHOOK_ALLOW_PRIVATE"):
        open_public_socket((family, socket.SOCK_STREAM, 6, "", (address, 443)))


def test_a_socket_is_made_to_a_public_address() -> None:
    found = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("8.8.8.8", 443))

    with open_public_socket(found) as made:
        assert (made.family, made.type) == (socket.AF_INET, socket.SOCK_STREAM)


def test_what_is_no_address_is_refused_as_well() -> None:
    with pytest.raises(AddressRefused):
        open_public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("localhost", 443)))


@pytest.mark.parametrize(
    ("host", "is_literal"),
    [("127.0.0.1", True), ("::1", True), ("fe80::1%eth0", True), ("example.com", False)],
)
def test_a_host_is_an_address_or_a_name(host: str, is_literal: bool) -> None:
    assert (find_literal(host) is not None) is is_literal
