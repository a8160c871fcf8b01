"""`regmesh nearby`: where the clients of a region pull from, as files that containerd and name servers read."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mesh.clock import SystemClock
from mesh.errors import InvalidInput
from mesh.gateway.client_config import dns_zone, hosts_toml
from mesh.gateway.nearest import NearestPlaces, ProbeResult, RankedInstance
from mesh.node.cli import daemon_options
from mesh.node.cli.options import Server
from mesh.node.cli.remote import Remote
from mesh.rules.state import MeshState
from mesh.rules.validation.declarations import SECTIONS
from schemas import codec
from schemas.declared import Noun
from schemas.envelope import make_id
from schemas.names import Region
from schemas.state import KINDS, StateRecord

RegionName = Annotated[str, typer.Option("--region", help="The region of the clients.", show_default=False)]
Domain = Annotated[
    str | None,
    typer.Option(help="The domain that they pull under.", show_default="the only one that is declared"),
]

app = typer.Typer(
    help="Print a region's places, nearest first, for containerd and DNS.", no_args_is_help=True
)


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="nearby")


@app.command("hosts-toml")
def hosts_toml_command(
    region: RegionName,
    domain: Domain = None,
    gateway: Annotated[
        str | None, typer.Option(help="The URL of a gateway to ask first.", show_default=False)
    ] = None,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Print containerd's hosts.toml.

    It is to be kept as /etc/containerd/certs.d/DOMAIN/hosts.toml.
    """
    daemon_options.http_url("--gateway", gateway)
    name, instances = _nearby(server, daemon_options.region(region), domain)
    print(hosts_toml(name, daemon_options.region(region), instances, gateway), end="")


@app.command("dns")
def dns_command(region: RegionName, domain: Domain = None, server: Server = "http://127.0.0.1:8080") -> None:
    """Print records for a DNS zone.

    Addresses of the places, or the name of the nearest.
    """
    name, instances = _nearby(server, daemon_options.region(region), domain)
    print(dns_zone(name, daemon_options.region(region), instances), end="")


def _nearby(server: str, region: Region, domain: str | None) -> tuple[str, list[RankedInstance]]:
    state = asyncio.run(_declared(Remote(server)))
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
            f"say which domain with --domain: {', '.join(names) or 'no instance declares one yet'}"
        )
    return names[0]


async def _declared(remote: Remote) -> MeshState:
    """What of control's state matters here, read over its API."""
    state = MeshState()
    for section in ("regions", "instances", "replicas"):
        async for item in remote.pages(f"/api/v1/{section}", {"limit": "1000"}, most=None):
            _apply(state, SECTIONS[section], item)
    return state


def _apply(state: MeshState, noun: Noun, item: Mapping[str, Any]) -> None:
    """What was declared of it; the API shows more."""
    key = f"{noun}/{item['name']}"
    declared = {field: item[field] for field in KINDS[noun].model_fields if field in item}
    record = StateRecord(
        id=make_id(key), time=SystemClock().now(), noun=noun, value=declared, position=item.get("position")
    )
    state.apply(key, codec.encode(record), state.rev + 1)
