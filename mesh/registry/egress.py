"""Where a registry may send us: never to an address that is not on the public Internet, unless the operator said so.

A redirect, a token realm or an upload Location is a registry's word, and a registry may be anybody's. The name
is resolved once, every address of it is judged, and the connection goes to an address that was judged, so a
name that changes its mind (DNS rebinding) gains nothing. What the operator configured is not judged here.
"""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp.abc import AbstractResolver, ResolveResult

from mesh.errors import InvalidInput

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# What aiohttp hands to a socket factory: family, type, protocol, canonical name, socket address.
AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))  # Teredo, 6to4: they carry an IPv4 address


class EgressRefused(OSError):
    """A registry named an address that we do not connect to. An `OSError`, so that aiohttp passes it on."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} is {address}, which is not on a public network")


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The operator's CIDRs; `InvalidInput` for what is none."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise InvalidInput(f"not a network to allow: {error}; use a CIDR such as 10.0.0.0/8") from error


def is_allowed(text: str, allowed: tuple[Network, ...]) -> bool:
    """Whether a registry may send us to this address: a public one, or one in a network that is `allowed`."""
    try:
        address = _plain(ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    if any(address in network for network in allowed if network.version == address.version):
        return True
    return _is_public(address)


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped or NAT64 one: it is where the packets go."""
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
    """Resolves a name and refuses it when any of its addresses is not allowed."""

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
    """Makes sockets only for allowed addresses: the last word, and the only one on URLs that hold an address."""

    def __init__(self, allowed: tuple[Network, ...]) -> None:
        self._allowed = allowed

    def __call__(self, info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), self._allowed):
            raise EgressRefused("the host", str(address[0]))
        return socket.socket(family=family, type=kind, proto=protocol)
