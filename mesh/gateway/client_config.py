"""Configuration for clients that pull from places directly: containerd's `hosts.toml`, and a DNS zone fragment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import orjson

from mesh.gateway.nearest import RankedInstance
from schemas.names import Region
from schemas.topology import Place

_TTL = 60  # seconds; a place that is removed leaves DNS caches within a minute


def hosts_toml(
    domain: str, region: Region, instances: Sequence[RankedInstance], gateway: str | None = None
) -> str:
    """Returns the file `<config_path>/<domain>/hosts.toml`.

    containerd asks the hosts in their order, and `server` last, until one has the image, and sends each of them its
    credentials for the domain. So only places of the account that owns the domain are hosts. None may be pushed to.

    Args:
        gateway: The URL of a gateway that is asked before all places.
    """
    lines = [f"# {domain} for clients in {region}, nearest first", f'server = "https://{domain}"', ""]
    if gateway is not None:
        lines += _toml_host(gateway, f"the gateway of {region}")
    for one in instances:
        if not one.takes_credentials:
            lines += [
                f"# omitted: instance {one.instance.name} is of another account, which needs a gateway",
                "",
            ]
            continue
        for candidate in one.candidates:
            lines += _toml_host(candidate.place.url, f"{candidate.place.name} in {candidate.place.region}")
    return "\n".join(lines)


def _toml_host(url: str, comment: str) -> Iterable[str]:
    # A JSON string is a TOML string too.
    return (
        f"# {comment}", f"[host.{orjson.dumps(url.rstrip('/')).decode()}]", '  capabilities = ["pull", "resolve"]', "",
    )  # fmt: skip


def dns_zone(domain: str, region: Region, instances: Sequence[RankedInstance]) -> str:
    """Returns a zone fragment with the places of the first listed instance, since DNS cannot choose by image.

    An instance of another account than the one that owns the domain is no choice: clients send their credentials there.
    All names are absolute, so any zone may `$INCLUDE` it. DNS knows no ports: they are comments. A CNAME allows no
    other records beside it, so it names the nearest place only.
    """
    served = next((one for one in instances if one.takes_credentials), None)
    hosts = [_host(candidate.place) for candidate in (served.candidates if served is not None else ())]
    lines = [f"; {domain} for clients in {region}, nearest first", f"$TTL {_TTL}"]
    for host in hosts:
        lines += [
            f"; {_comment(host)}", f"{'' if _is_included(host, hosts) else '; '}{domain}. IN {host.record}"
        ]  # fmt: skip
    lines += [
        f"; omitted: instance {one.instance.name} is of this domain too, which needs a gateway"
        for one in instances
        if one is not served
    ]
    return "\n".join([*lines, ""])


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


def _is_included(host: _Host, hosts: Sequence[_Host]) -> bool:
    """Checks whether the record is active: each address once, or the nearest place's name alone."""
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


def _comment(host: _Host) -> str:
    about = f"{host.place.name} in {host.place.region}"
    return about if host.port == 443 else f"{about}, at port {host.port}, which DNS cannot express"
