"""The egress filter: an untrusted URL never leads to a private network, unless the operator allows it.

Redirects, token realms and upload Locations come from registries, which are not trusted. A name is resolved once, every
address is checked, and the connection goes to a checked address, which defeats DNS rebinding. URLs that the operator
configured are not checked here.
"""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp.abc import AbstractResolver, ResolveResult

from mesh.errors import InvalidInput

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# What aiohttp passes to a socket factory: family, type, protocol, canonical name, socket address.
AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]

# Where an operator's own receivers stand. Link-local addresses are none of them: there clouds serve credentials.
OPERATOR_NETWORKS: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "::1",
        "fc00::/7",
    )
)

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))  # Teredo, 6to4: both embed an IPv4 address


class EgressRefused(OSError):
    """The address is not allowed. An `OSError`, so that aiohttp passes it on."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} is {address}, which is not on a public network")


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parses the operator's CIDRs.

    Raises:
        InvalidInput: One is not a network.
    """
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise InvalidInput(f"not a network to allow: {error}; use a CIDR such as 10.0.0.0/8") from error


def is_allowed(text: str, allowed: tuple[Network, ...]) -> bool:
    """Returns whether the address is public or in an `allowed` network."""
    try:
        address = _plain(ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    if any(address in network for network in allowed if network.version == address.version):
        return True
    return _is_public(address)


def _plain(address: Address) -> Address:
    """Returns the IPv4 address in an IPv4-mapped or NAT64 address, where the packets go."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return True
    return address in _GLOBAL_UNICAST and not any(address in tunnel for tunnel in _TUNNELS)


class GuardedResolver(AbstractResolver):
    """Resolves names, and raises `EgressRefused` when any address of a name is not allowed."""

    def __init__(self, allowed: tuple[Network, ...], names: AbstractResolver) -> None:
        self._allowed = allowed
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        for result in found:
            if not is_allowed(result["host"], self._allowed):
                raise EgressRefused(host, result["host"])
        return found

    async def close(self) -> None:
        await self._names.close()


class GuardedSockets:
    """Creates sockets for allowed addresses only. It is the only check of a URL that contains an address."""

    def __init__(self, allowed: tuple[Network, ...]) -> None:
        self._allowed = allowed

    def __call__(self, info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), self._allowed):
            raise EgressRefused("the host", str(address[0]))
        return socket.socket(family=family, type=kind, proto=protocol)
