"""A DNS zone fragment for a domain: the places of a region's clients, nearest first. Pure.

Every name is absolute, so the fragment may stand in any zone (`$INCLUDE`). DNS knows names and addresses alone, which
decides what can be said: a port is a comment, and a CNAME stands by itself, so it names the nearest place only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from mesh.gateway.nearest import Holders
from schemas.names import Region
from schemas.topology import Place

_TTL = 60  # seconds; a place that falls out is gone from caches within a minute


@dataclass(frozen=True, slots=True)
class _Host:
    place: Place
    name: str
    address: IPv4Address | IPv6Address | None
    port: int

    @property
    def record(self) -> str:
        if self.address is None:
            return f"CNAME {self.name}."
        return f"{'A' if self.address.version == 4 else 'AAAA'} {self.address}"


def render(domain: str, region: Region, holders: Sequence[Holders]) -> str:
    """The first listed instance's places; DNS cannot choose among instances by what is asked for."""
    hosts = [_host(candidate.place) for one in holders[:1] for candidate in one.candidates]
    lines = [f"; {domain} for clients in {region}, nearest first", f"$TTL {_TTL}"]
    for host in hosts:
        lines += [f"; {_about(host)}", f"{'' if _is_told(host, hosts) else '; '}{domain}. IN {host.record}"]
    lines += [
        f"; not told: instance {one.instance.name} is of this domain too, which needs a gateway"
        for one in holders[1:]
    ]
    return "\n".join([*lines, ""])


def _is_told(host: _Host, hosts: Sequence[_Host]) -> bool:
    """Addresses go together, each once; a name goes alone, and only when it is the nearest."""
    nearest = hosts[0]
    if nearest.address is None:
        return host is nearest
    return host.address is not None and host is next(it for it in hosts if it.address == host.address)


def _host(place: Place) -> _Host:
    url = urlsplit(place.url)
    name = url.hostname or ""
    try:
        address = ip_address(name)
    except ValueError:
        address = None
    return _Host(place, name, address, url.port or (443 if url.scheme == "https" else 80))


def _about(host: _Host) -> str:
    about = f"{host.place.name} in {host.place.region}"
    return about if host.port == 443 else f"{about}, at port {host.port}, which DNS does not tell"
