"""`regmesh nearby`: a region's places by distance, as configuration of containerd and of name servers."""

from typing import Annotated

import typer

from mesh.errors import InvalidInput
from mesh.gateway.client_config import dns_zone, hosts_toml
from mesh.gateway.nearest import NearestPlaces, ProbeResult, RankedInstance
from mesh.node.cli import daemon_options, declared_state
from mesh.node.cli.control_client import ControlClient
from mesh.node.cli.options import DEFAULT_SERVER, Server, option
from mesh.rules.state import MeshState
from schemas.names import Region

RegionName = Annotated[str, option("The region of the clients.", "--region")]
Domain = Annotated[
    str | None,
    option("The domain that clients pull from.", show_default="the only one that is declared"),
]

nearby = typer.Typer(help="Print a region's nearest places, for containerd and DNS.", no_args_is_help=True)


@nearby.command("hosts-toml")
def hosts_toml_command(
    region: RegionName,
    domain: Domain = None,
    gateway: Annotated[str | None, option("The URL of a gateway that containerd asks first.")] = None,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Print containerd's hosts.toml.

    Store it as /etc/containerd/certs.d/DOMAIN/hosts.toml on each machine of the region. Example: regmesh nearby
    hosts-toml --region shanghai > hosts.toml
    """
    daemon_options.check_http_url("--gateway", gateway)
    name = daemon_options.parse_region(region)
    found, instances = _nearest_places(server, name, domain)
    print(hosts_toml(found, name, instances, gateway), end="")


@nearby.command("dns")
def dns_command(region: RegionName, domain: Domain = None, server: Server = DEFAULT_SERVER) -> None:
    """Print records for a DNS zone.

    They are the addresses of the places, or a CNAME of the nearest one. Include them in the zone with $INCLUDE.
    """
    name = daemon_options.parse_region(region)
    found, instances = _nearest_places(server, name, domain)
    print(dns_zone(found, name, instances), end="")


def _nearest_places(server: str, region: Region, domain: str | None) -> tuple[str, list[RankedInstance]]:
    """Returns the domain and its places by distance."""
    state = declared_state.from_api(ControlClient(server), ("regions", "instances", "replicas"))
    if state.region(region) is None:
        raise InvalidInput(f"no region is named {region!r}; see `regmesh get regions`")
    name = domain or _only_domain(state)
    found = NearestPlaces(state, region).ranked(name, lambda _: ProbeResult())
    if not found:
        raise InvalidInput(
            f"no instance in the jurisdiction of {region!r} has the domain {name!r}; see `regmesh get instances`"
        )
    return name, found


def _only_domain(state: MeshState) -> str:
    names = sorted({it.domain for it in state.instances() if it.domain is not None})
    if len(names) != 1:
        raise InvalidInput(
            f"choose a domain with --domain: {', '.join(names) or 'no instance declares one yet'}"
        )
    return names[0]
