"""The egress filter: which addresses a registry may redirect to."""

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from mesh.registry.egress import EgressRefused, GuardedResolver, GuardedSockets, is_allowed, parse_networks

FORBIDDEN = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "",
    "localhost",
    "127.1",
    "2130706433",
    "0177.0.0.1",
    "1.2.3.4.5",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2606:4700::1111",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_outside_the_public_internet_are_refused(address: str):
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str):
    assert is_allowed(address, ())


def test_only_the_allowed_networks_are_allowed():
    allowed = parse_networks(["10.1.0.0/16", "fd00::/8"])
    assert is_allowed("10.1.255.1", allowed)
    assert is_allowed("::ffff:10.1.0.1", allowed)
    assert is_allowed("fd00::1", allowed)
    assert not is_allowed("10.2.0.1", allowed)
    assert not is_allowed("fe80::1", allowed)


class Names(AbstractResolver):
    """With changing DNS answers (rebinding) the client connects to the checked address."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self._answers.pop(0)
        ]

    async def close(self) -> None:
        pass


async def test_one_private_address_makes_a_name_refused():
    names = GuardedResolver((), Names(["8.8.8.8"], ["8.8.8.8", "10.0.0.1"]))
    assert [found["host"] for found in await names.resolve("rebinding.example", 443)] == ["8.8.8.8"]
    with pytest.raises(EgressRefused, match=r"rebinding\.example is 10\.0\.0\.1"):
        await names.resolve("rebinding.example", 443)


def test_sockets_are_created_for_allowed_addresses_only():
    def info(address: str) -> tuple[int, int, int, str, tuple[object, ...]]:
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 443))

    GuardedSockets(())(info("8.8.8.8")).close()
    GuardedSockets(parse_networks(["10.0.0.0/8"]))(info("10.0.0.1")).close()
    with pytest.raises(EgressRefused):
        GuardedSockets(())(info("10.0.0.1"))
